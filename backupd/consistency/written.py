"""Whether anything in a volume was written since a moment, by the times of change that the kernel keeps."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Self

from msgspec import Struct

from backupd.errors import SourceError
from backupd.runtime import Runtime
from backupd.services import Source

# The kernel's clock for files lags behind by up to a tick.
_TICK_SECONDS = 0.05
_MOST_PATHS = 1000

# Only GNU's date knows fractions of seconds. What is mapped into memory and dirty changes no time when it is written to
# again; once it is on disk it does.
_MARK = """
date +%s.%N
find --version 2>/dev/null | head -n 1
sync -f . 2>/dev/null || sync
"""

_CHANGED = f"""
find . -path './.backupd-*' -prune -o -newerct "@$1" -print0 | head -z -n {_MOST_PATHS}
"""


class Watch(Struct, frozen=True):
    """Looks for what has changed since `begin`. `since` None: the tools at hand cannot tell.

    Costs a helper at either end, and a look at every file's inode.
    """

    runtime: Runtime
    source: Source
    since: float | None

    @classmethod
    def begin(cls, runtime: Runtime, source: Source) -> Self:
        """From now on."""
        try:
            said = runtime.engine.run_script(source.volume, _MARK).splitlines()
        except SourceError as exc:
            runtime.progress.note(f"{source.spec.name}: cannot watch for changes: {exc}")
            return cls(runtime, source, None)
        seconds, fraction = said[0].split(".") if said and "." in said[0] else ("", "")
        can = seconds.isdigit() and fraction.isdigit() and any("GNU findutils" in line for line in said[1:])
        return cls(runtime, source, float(f"{seconds}.{fraction}") - _TICK_SECONDS if can else None)

    def saw_a_change(self) -> bool:
        """Whether anything was written that is not excluded; True if that cannot be told."""
        if self.since is None:
            return True
        try:
            said = self.runtime.engine.run_script(self.source.volume, _CHANGED, [f"{self.since:.6f}"])
        except SourceError as exc:
            self.runtime.progress.note(f"{self.source.spec.name}: cannot look for changes: {exc}")
            return True
        paths = [path for path in said.split("\0") if path]
        return len(paths) >= _MOST_PATHS or any(not excluded(path, self.source.spec.exclude) for path in paths)


def excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path such as `./a/b` is left out by one of the patterns, as `Engine.tar_out` means them."""
    parts = path.split("/")[1:]
    return any(_matches(parts, pattern) for pattern in patterns)


def _matches(parts: Sequence[str], pattern: str) -> bool:
    wanted = pattern.removeprefix("./").strip("/").split("/")
    if "/" not in pattern:
        return any(fnmatchcase(part, wanted[0]) for part in parts)
    return len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted))
