from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from backupd.settings import Settings, SettingsError, load_settings

MINIMAL = """\
stores:
  local: {type: local, path: /backups}
volumes:
  data: {volume: data}
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Loads texts as `backupd.yaml` and its overlay for `prod`, in the current directory."""
    monkeypatch.chdir(tmp_path)

    def load(base: str = MINIMAL, overlay: str | None = None, environment: Mapping[str, str] | None = None) -> Settings:
        Path("backupd.yaml").write_text(base)
        variables = dict(environment or {})
        if overlay is not None:
            Path("backupd.prod.yaml").write_text(overlay)
            variables["APP_ENV"] = "prod"
        return load_settings(Path("backupd.yaml"), variables)

    return load


@pytest.fixture
def problems(load: Callable[..., Settings]) -> Callable[..., list[str]]:
    """The lines of the error that loading ends with."""

    def problems(*arguments: object, **options: object) -> list[str]:
        with pytest.raises(SettingsError) as error:
            load(*arguments, **options)
        assert error.value.exit_code == 2
        return str(error.value).splitlines()

    return problems
