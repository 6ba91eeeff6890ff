"""Reads a volume with SQLite databases: the databases through SQLite's own means, the rest as files. No downtime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import Self

from msgspec import Struct

from backupd.archive import Part, Splice
from backupd.consistency.remote import program
from backupd.consistency.sqlite_files import SIDE_FILES
from backupd.consistency.streams import Remarked, pattern
from backupd.errors import SourceError
from backupd.model import TarReport, Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Outcome, Service, Source, TarStream

LOCKED_SECONDS = 60

# Applications that are known to keep what matters in SQLite, by the last part of their image's name.
_APPLICATIONS = frozenset(
    {"pgadmin4", "uptime-kuma", "vaultwarden", "grafana", "n8n", "home-assistant", "homeassistant", "actual-server"}
    | {"sonarr", "radarr", "lidarr", "prowlarr", "readarr", "bazarr", "jellyfin", "linkding", "memos", "ntfy"}
    | {
        "audiobookshelf",
        "freshrss",
        "mealie",
        "navidrome",
        "pocketbase",
        "headscale",
        "adguardhome",
        "changedetection.io",
    }
)

# More patterns than this might not fit into a command line; tar then reads what is not kept.
_MOST_PATTERNS = 2000
_HINT = "`consistency: pause` holds the containers still for as long as the volume is read, and needs nothing else"
_MODULES = ("sqlite_files", "sqlite_copy", "sqlite_program")
_COPIES = "copies/"


def recognises(service: Service, volume: Volume) -> bool:
    """Whether it is an application that keeps its data in SQLite, by its image."""
    del volume
    name = service.image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return name in _APPLICATIONS


class SqliteStrategy:
    """Every database is of a moment not before `Outcome.moment`; other files are read as they are.

    The copies are staged in a scratch volume on the engine's host, which takes as much room as the databases.
    """

    name = "sqlite"

    def __init__(self, spec: VolumeSpec, volume: Volume, users: Sequence[Service], runtime: Runtime) -> None:
        del spec, volume, users
        self._runtime = runtime

    def read(self, source: Source) -> _SqliteReading:
        """See Strategy."""
        return _SqliteReading(self._runtime, source)


class _Copied(Struct, frozen=True):
    """What became of the databases: paths that were copied, and what there is to say of some, damaged ones apart."""

    paths: tuple[str, ...]
    remarks: tuple[str, ...]
    damages: tuple[str, ...]


class _SqliteReading:
    def __init__(self, runtime: Runtime, source: Source) -> None:
        self._runtime = runtime
        self._source = source
        self._resources = ExitStack()
        self._moment: datetime | None = None
        self._damages: tuple[str, ...] = ()

    def next(self, last: TarReport | None) -> TarStream | None:
        """See Reading. The copies are made here, so that the stream can flow at the speed of the reader."""
        if last is not None:
            return None
        runtime, source = self._runtime, self._source
        runtime.engine.remove_leftovers()  # copies of a killed process may be what there is no room for
        scratch = self._resources.enter_context(runtime.engine.scratch())
        self._moment = runtime.clock.now()
        copied = self._copy(scratch)
        self._damages = copied.damages
        for remark in (*copied.remarks, *copied.damages):
            runtime.progress.note(f"{source.spec.name}: {remark}")
        left_out = [path + suffix for path in copied.paths for suffix in ("", *SIDE_FILES)]
        gone, kept = frozenset(left_out), frozenset(copied.paths)

        def original(path: str) -> str | None:
            return None if path in gone else path

        def copy(path: str) -> str | None:
            place = path.removeprefix(_COPIES)
            return place if place != path and place in kept else None

        patterns = [pattern(path) for path in left_out] if len(left_out) <= _MOST_PATTERNS else []
        parts = [Part(runtime.engine.tar_out(source.volume, (*source.spec.exclude, *patterns)), original)]
        if kept:
            parts.append(Part(runtime.engine.tar_out(scratch), copy))
        return Remarked(Splice(parts), copied.remarks)

    def _copy(self, scratch: Volume) -> _Copied:
        options = {
            "exclude": list(self._source.spec.exclude),
            "patience": LOCKED_SECONDS,
            "bound": self._runtime.engine.name == "mounted",
        }
        arguments = [*program(_MODULES), json.dumps(options)]
        try:
            text = self._runtime.engine.run_python(arguments, self._source.volume, scratch)
        except SourceError as exc:
            if type(exc) is not SourceError or exc.hint:
                raise
            raise SourceError(str(exc), hint=_HINT) from exc
        found = [json.loads(line) for line in text.splitlines()]
        paths = tuple(one["path"] for one in found if one["state"] == "copied")
        said = [(f"{one['path']}: {one['remark']}", one["damaged"]) for one in found if one.get("remark")]
        remarks = tuple(remark for remark, damaged in said if not damaged)
        return _Copied(paths, remarks, tuple(remark for remark, damaged in said if damaged))

    def outcome(self) -> Outcome:
        """See Reading."""
        return Outcome("sqlite", self._moment, trouble=self._damages)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._resources.__exit__(exc_type, exc, tb)
