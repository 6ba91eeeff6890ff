"""`backupd healthcheck`, without what other commands import: it is asked every half minute, for years."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from backupd.errors import BackupdError
from backupd.status import StatusFile, unwell

_DEFAULT_STATE = "/var/lib/backupd"
_DEFAULT_FILES = ("config/backupd.yaml", "/etc/backupd/backupd.yaml")


def quick(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int | None:
    """The exit code; None if the command line or the configuration needs a closer look, which the command takes."""
    if list(arguments) != ["healthcheck"]:
        return None
    state = state_directory(environment)
    if state is None:
        return None
    trouble = complaint(state)
    print(f"error: {trouble}" if trouble else "the daemon is well", file=sys.stderr if trouble else sys.stdout)
    return int(trouble is not None)


def complaint(state: Path) -> str | None:
    """Why the daemon of that state directory is not well; None if it is."""
    try:
        return unwell(StatusFile(state).read(), datetime.now(UTC))
    except BackupdError as exc:
        return str(exc)


def state_directory(environment: Mapping[str, str]) -> Path | None:
    """`state_dir` as `load_settings` finds it; None if this can't be said without reading all of the configuration."""
    named = environment.get("BACKUPD_CONFIG")
    base = next((Path(name) for name in ([named] if named else _DEFAULT_FILES) if Path(name).is_file()), None)
    found: object = environment.get("BACKUPD_STATE_DIR") or None
    if base is None and named:
        return None
    if base is not None and found is None:
        overlay = base.with_name(f"{base.stem}.{environment.get('APP_ENV', '')}{base.suffix}")
        trees = [_tree(path) for path in (base, overlay) if path.is_file()]
        if None in trees:
            return None
        for tree in trees:
            assert tree is not None  # see above
            found = tree.get("state_dir", found)
    found = _DEFAULT_STATE if found is None else found
    if not isinstance(found, str):
        return None
    return Path(found if found.startswith("/") else os.path.abspath((base.parent if base else Path()) / found))  # noqa: PTH100


def _tree(path: Path) -> dict[object, object] | None:
    import yaml  # noqa: PLC0415  (not needed where the environment says it)

    try:
        tree = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    return tree if isinstance(tree, dict) else None
