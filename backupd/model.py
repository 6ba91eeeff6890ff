"""The nouns that travel between the layers, frozen. What is written to a store is in `repository.manifest`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Struct, field

from backupd.records import Discreet

VolumeKind = Literal["volume", "bind", "directory"]
TarFlavour = Literal["gnu", "busybox"]
ConsistencyName = Literal["auto", "live", "pause", "stop", "postgres", "redis", "sqlite"]

PROJECT_LABEL = "com.docker.compose.project"
VOLUME_LABEL = "com.docker.compose.volume"
"""What Compose calls the project, and within it the volume, of a volume that it has made."""

AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
"""In what is read from outside: a time without its offset from UTC is refused, as it cannot be compared with others."""

_YEARS = range(1970, 9000)


def require_possible(*times: datetime | None) -> None:
    """ValueError for a time that arithmetic with time zones and durations could fail on."""
    for time in times:
        if time is not None and time.year not in _YEARS:
            raise ValueError(f"expected a time between 1970 and 8999, not one of the year {time.year}")


KIB = 1024
MIB = 1024 * KIB


class Hook(Struct, frozen=True):
    """A command to run in a container: `service` is its name in the compose file, or the container's own name."""

    service: str
    command: tuple[str, ...]
    user: str | None = None
    timeout_seconds: float = 300


class VolumeSpec(Discreet, frozen=True):
    """A volume as the configuration names it.

    Exactly one of `volume` (a named Docker volume: its name in the compose file, or its full name) and `path`
    (a directory) is set. `name` is what the user calls it and what its archives are filed under. `user` and `password`
    are for the server that a database's strategy asks; None leaves them to what its container says of them. `said`
    names the settings that the configuration gave a value: of these no label can say otherwise.
    """

    _hidden: ClassVar = ("password",)

    name: str
    volume: str | None = None
    path: str | None = None
    optional: bool = False
    exclude: tuple[str, ...] = ()
    consistency: ConsistencyName = "auto"
    user: str | None = None
    password: str | None = None
    pre: tuple[Hook, ...] = ()
    post: tuple[Hook, ...] = ()
    said: frozenset[str] = frozenset()


class Volume(Struct, frozen=True, kw_only=True):
    """A volume that was found, with all that is needed to create it again.

    `source` is the Docker volume's full name for kind `volume`, an absolute path on the Docker host for `bind`, an
    absolute path of this machine for `directory`. Driver, options and labels are empty unless it is a Docker volume.
    """

    name: str
    kind: VolumeKind
    source: str
    driver: str = ""
    options: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}

    def __str__(self) -> str:
        return self.source if self.kind == "volume" else f"{self.kind} {self.source}"


class Tool(Struct, frozen=True):
    """The tar that an engine runs."""

    flavour: TarFlavour
    version: str

    def __str__(self) -> str:
        return f"{'GNU' if self.flavour == 'gnu' else 'BusyBox'} tar {self.version}"


class Consumer(Struct, frozen=True):
    """A running container that mounts a volume. `image` is what it was started from."""

    name: str
    image: str
    writable: bool


class TarReport(Struct, frozen=True):
    """What a tar job said when it ended well: how many warnings, and the first of them.

    `moved_count` of them are about files that changed, shrank or vanished while they were read.
    """

    warning_count: int = 0
    warnings: tuple[str, ...] = ()
    moved_count: int = 0


class ObjectInfo(Struct, frozen=True):
    """An object in a store. `size` is in bytes as stored; `modified` is the store's clock, None where it has none."""

    key: str
    size: int
    modified: datetime | None = None


class StoreFacts(Struct, frozen=True):
    """What a store was found to do, by trying. `details` are for people: server, what was worked around."""

    conditional_create: bool
    details: Mapping[str, str] = field(default_factory=dict)


class LockPolicy(Struct, frozen=True):
    """How long objects are locked: `duration` at least from the last run that still needed them.

    They are locked for a quarter more, so that a lock is renewed once in that quarter and not by every run.
    """

    mode: Literal["governance", "compliance"]
    duration: timedelta

    def until(self, now: datetime) -> datetime:
        """Where a lock that is set now ends, in whole seconds."""
        return (now + self.duration * 5 / 4).replace(microsecond=0)

    def is_due(self, until: datetime | None, now: datetime) -> bool:
        """Whether a lock that ends then has to be renewed."""
        return until is None or until < now + self.duration


class Compression(Struct, frozen=True):
    """How chunks are compressed. `level` None means the codec's own default."""

    codec: Literal["zstd", "gzip", "none"] = "zstd"
    level: int | None = None


class FullEvery(Struct, frozen=True):
    """When an archive starts anew instead of building on its parent: `age` None means never."""

    age: timedelta | None = timedelta(days=7)


class KeepPolicy(Struct, frozen=True):
    """How many snapshots are kept (see `backupd.retention`). None: the rule is not used.

    `proven` and `at_least` add to the other rules, and are nothing by themselves.
    """

    last: int | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None
    within: timedelta | None = None
    proven: int | None = None
    prefer_proven: bool = False
    at_least: int = 1

    @property
    def asks_for_proven(self) -> bool:
        """Whether it matters which snapshots a drill has proven."""
        return self.prefer_proven or self.proven is not None


class Plan(Struct, frozen=True):
    """What one run backs up, and where to: the first store is written, the others are copied to.

    `part`: these are not all of its volumes, somebody named some. `together`: all are read at one moment. `pre` and
    `post` are run before and after all volumes are read. `keep` has a policy for each store in which snapshots are ever
    pruned; its days are those of `timezone`, a name of the time zone database.
    """

    name: str
    volumes: tuple[VolumeSpec, ...]
    stores: tuple[str, ...]
    compression: Compression = Compression()
    full_every: FullEvery = FullEvery()
    together: bool = False
    pre: tuple[Hook, ...] = ()
    post: tuple[Hook, ...] = ()
    keep: Mapping[str, KeepPolicy] = field(default_factory=dict)
    timezone: str = "UTC"
    part: bool = False
