"""Which way a volume is read: what the configuration says, else its labels, else what is known by its containers.

`STRATEGIES` is the one place where a strategy is entered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from backupd.consistency.auto import AutoStrategy
from backupd.consistency.held import HeldStrategy
from backupd.consistency.labels import Labels
from backupd.consistency.live import LiveStrategy
from backupd.consistency.otherwise import Otherwise
from backupd.consistency.postgres import PostgresStrategy
from backupd.consistency.postgres import recognises as is_postgres
from backupd.consistency.redis import RedisStrategy
from backupd.consistency.redis import recognises as is_redis
from backupd.consistency.sqlite import SqliteStrategy
from backupd.consistency.sqlite import recognises as is_sqlite
from backupd.consistency.together import StandTogether
from backupd.errors import SourceError
from backupd.journal import Hold
from backupd.model import ConsistencyName, Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Choice, Service, Source, Strategy, Together

Make = Callable[[VolumeSpec, Volume, Sequence[Service], Runtime], Strategy]


class Entry(Struct, frozen=True):
    """A strategy. `recognises` says whether a container is one that it is made for, None: it is chosen by name only.

    `together` is how the volume's containers are held when a plan reads all of its volumes at one moment: `pause` where
    the files survive a loss of power at any moment, `stop` where they have to be written out first, None not at all.
    `otherwise`: where it was not asked for by name and cannot do its work, `auto` does, which is as right.
    """

    name: ConsistencyName
    make: Make
    recognises: Callable[[Service, Volume], bool] | None = None
    together: Hold | None = "pause"
    otherwise: bool = False


STRATEGIES: tuple[Entry, ...] = (
    Entry("postgres", PostgresStrategy, is_postgres),
    Entry("redis", RedisStrategy, is_redis, "stop"),
    Entry("sqlite", SqliteStrategy, is_sqlite, otherwise=True),
    Entry("auto", AutoStrategy),
    Entry("live", LiveStrategy, together=None),
    Entry("pause", lambda spec, volume, users, runtime: HeldStrategy("pause", spec, volume, users, runtime)),
    Entry(
        "stop", lambda spec, volume, users, runtime: HeldStrategy("stop", spec, volume, users, runtime), None, "stop"
    ),
)


def choose(spec: VolumeSpec, volume: Volume, runtime: Runtime) -> Choice:
    """The strategy of a volume, made ready, and why. SourceError if a label asks for what there is not."""
    users = runtime.engine.services.users(volume)
    labels = Labels(volume, users)
    spec = labels.complete(spec)
    entry, why, by_name = _entry(spec, volume, users, labels)
    strategy = entry.make(spec, volume, users, runtime)
    if entry.otherwise and not by_name:
        strategy = Otherwise(strategy, AutoStrategy(spec, volume, users, runtime), runtime)
    return Choice(spec, strategy, why)


def _entry(spec: VolumeSpec, volume: Volume, users: Sequence[Service], labels: Labels) -> tuple[Entry, str, bool]:
    told = "consistency" in spec.said
    if told and spec.consistency != "auto":
        return _named(spec.consistency), "the configuration says so", True
    if not told and (said := labels.consistency) and said.value != "auto":
        return _named(said.value), f"{said.where} says so", True
    for entry in STRATEGIES:
        for user in users:
            if entry.recognises is not None and entry.recognises(user, volume):
                return entry, f"container {user.name} ({user.image}) uses it", False
    if not users:
        return _named("auto"), "no container is known to use it", False
    return _named("auto"), f"nothing special is known of {', '.join(user.name for user in users)}", False


def _named(name: str) -> Entry:
    for entry in STRATEGIES:
        if entry.name == name:
            return entry
    names = ", ".join(entry.name for entry in STRATEGIES)
    raise SourceError(f"there is no consistency {name!r}", hint=f"there are: {names}")


class Consistency:
    """The Strategies of a runtime."""

    def choose(self, spec: VolumeSpec, volume: Volume, runtime: Runtime) -> Choice:
        """See Strategies."""
        return choose(spec, volume, runtime)

    def together(self, sources: Sequence[tuple[Choice, Source]], runtime: Runtime) -> Together:
        """See Strategies."""
        return StandTogether([(source, _named(choice.strategy.name).together) for choice, source in sources], runtime)
