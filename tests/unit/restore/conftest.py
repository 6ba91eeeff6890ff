"""Nothing here depends on what a power failure leaves, and flushing the whole machine takes most of the time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_sync(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path_factory.mktemp("path")
    Path(directory, "sync").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
