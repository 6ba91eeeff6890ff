"""The nouns that travel between the layers, frozen. What is written to a store is in `repository.manifest`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import msgspec

VolumeKind = Literal["volume", "bind", "directory"]
TarFlavour = Literal["gnu", "busybox"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume as the configuration names it.

    Exactly one of `volume` (a named Docker volume: its name in the compose file, or its full name) and `path`
    (a directory) is set. `name` is what the user calls it and what its archives are filed under.
    """

    name: str
    volume: str | None = None
    path: str | None = None
    optional: bool = False
    exclude: tuple[str, ...] = ()


class Volume(msgspec.Struct, frozen=True, kw_only=True):
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


class Tool(msgspec.Struct, frozen=True):
    """The tar that an engine runs."""

    flavour: TarFlavour
    version: str

    def __str__(self) -> str:
        return f"{'GNU' if self.flavour == 'gnu' else 'BusyBox'} tar {self.version}"


@dataclass(frozen=True, slots=True)
class Consumer:
    """A running container that mounts a volume. `image` is what it was started from."""

    name: str
    image: str
    writable: bool


@dataclass(frozen=True, slots=True)
class TarReport:
    """What a tar job said when it ended well: how many warnings, and the first of them."""

    warning_count: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a store. `size` is in bytes as stored; `modified` is the store's clock, None where it has none."""

    key: str
    size: int
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store was found to do, by trying. `details` are for people: server, what was worked around."""

    conditional_create: bool
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compression:
    """How chunks are compressed. `level` None means the codec's own default."""

    codec: Literal["zstd", "gzip", "none"] = "zstd"
    level: int | None = None


@dataclass(frozen=True, slots=True)
class FullEvery:
    """When an archive starts anew instead of building on its parent: `age` None means never."""

    age: timedelta | None = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run backs up, and where to: the first store is written, the others are copied to."""

    name: str
    volumes: tuple[VolumeSpec, ...]
    stores: tuple[str, ...]
    compression: Compression = Compression()
    full_every: FullEvery = FullEvery()
