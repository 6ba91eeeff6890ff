"""The ways to read a volume beside the services that use it, as Protocols. They are under `backupd/consistency/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from msgspec import Struct, field

from backupd.model import TarReport, Volume, VolumeSpec
from backupd.services.containers import TarStream


class Source(Struct, frozen=True):
    """A volume about to be read.

    `first`: storing will take long, since no earlier archive is there to build on, or the last one had much to add.
    """

    spec: VolumeSpec
    volume: Volume
    first: bool


class Outcome(Struct, frozen=True):
    """How a volume was read: in words for the manifest, the moment that its data are of, seconds that services stood.

    `moment` None: of no one moment, since it was read while it could be written. `trouble` is what went wrong although
    the archive is good: services that do not go on, pages that were damaged before they were read; a line each.
    """

    consistency: str
    moment: datetime | None = None
    downtime_seconds: Mapping[str, float] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()


class Reading(Protocol):
    """A volume being read, in one pass or several. Leaving the block lets every service go that it held.

    A service is held from when the block of a pass is entered, not from `next` on, since what came of the pass before
    is stored in between; it is let go as soon as the stream has ended, not when what came of it has been stored. One
    that does not go on then is no error but `Outcome.trouble`: the archive is good.
    """

    def next(self, last: TarReport | None) -> TarStream | None:
        """The next pass, to be read within a `with` block; None when the archive of the last one is to be kept.

        `last` is the report of the pass before, None the first time. Every pass but the first builds on the one before.
        """
        ...

    def outcome(self) -> Outcome:
        """What came of it, after the last pass, when all has been stored; may wait for services to be healthy again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Strategy(Protocol):
    """A way to read a volume. One small module each under `backupd/consistency/`."""

    name: str

    def read(self, source: Source) -> Reading:
        """Get ready to read; nothing is touched before the block is entered. SourceError says what is missing."""
        ...


class Choice(Struct, frozen=True):
    """How a volume is to be read and why. `spec` is the configuration's, completed by what labels say."""

    spec: VolumeSpec
    strategy: Strategy
    why: str


class Together(Protocol):
    """Several volumes being read at one moment. Leaving the block lets every service go.

    Order of calls: `rehearse` for each volume, `hold`, `read` for those that it returns, `release`, `read` for the
    others, `outcome` for each.
    """

    def rehearse(self, source: Source) -> TarStream | None:
        """A first pass over the volume while services run, so that there is less to store later; None if not needed."""
        ...

    def hold(self) -> Sequence[Source]:
        """Hold all that writes to any of the volumes; returns those that have to be read before `release`."""
        ...

    def read(self, source: Source) -> TarStream:
        """The volume as it is at the moment."""
        ...

    def release(self) -> None:
        """Let all go, all volumes having been read. What does not go on is told by `outcome`."""
        ...

    def outcome(self, source: Source) -> Outcome:
        """As Reading.outcome."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...
