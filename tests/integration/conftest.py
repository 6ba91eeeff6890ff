from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cli import Cli


@pytest.fixture
def make_cli(tmp_path: Path) -> Callable[..., Cli]:
    """Call it with settings for a command line that uses them; a local store and a state directory are added."""

    def make(**settings: Any) -> Cli:
        config = {
            "state_dir": str(tmp_path / "state"),
            "stores": {"local": {"type": "local", "path": str(tmp_path / "backups")}},
            **settings,
        }
        path = tmp_path / "backupd.yaml"
        path.write_text(yaml.safe_dump(config))
        return Cli(path)

    return make
