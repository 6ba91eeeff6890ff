"""What conditions are judged by, gathered from history and file systems."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path

from backupd.history import History
from backupd.notify.conditions import Facts, Space

_SPARE_RUNS = 10  # those that lack a volume


def gather(
    history: History,
    plans: Collection[str],
    places: Mapping[str, Path],
    compare_with: int,
    known: Mapping[str, datetime],
    newest: Callable[[str], datetime | None] = lambda _plan: None,
) -> Facts:
    """`newest`: of this machine's good snapshots of a plan, should the history be lost. Raises SourceError."""
    sizes: dict[tuple[str, str], list[int]] = {}
    good: dict[str, datetime | None] = {}
    for plan in plans:
        last = history.last("backup", plan, ["done"])
        times = [time for time in (last.finished if last else None, newest(plan)) if time is not None]
        good[plan] = max(times) if times else None
        runs = history.runs(
            kind="backup", plan=plan, outcomes=["done", "partial"], limit=1 + compare_with + _SPARE_RUNS
        )
        for run in runs:
            for volume, figures in run.volumes.items():
                sizes.setdefault((plan, volume), []).append(figures.plain_bytes)
    return Facts(sizes, good, known, {place: space_of(path) for place, path in places.items()})


def space_of(path: Path) -> Space | None:
    """Of the file system that holds `path`, or will; None if it can't be asked."""
    for place in (path, *path.parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        total = found.f_blocks * found.f_frsize  # some network file systems say 0
        return Space(found.f_bavail * found.f_frsize, total) if total else None
    return None
