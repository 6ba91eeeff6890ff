"""Reads several volumes at one moment, at which nothing writes to any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from backupd.clone import Clone
from backupd.consistency.standstill import Standstill, writers
from backupd.errors import SourceError
from backupd.journal import Hold
from backupd.runtime import Runtime
from backupd.services import Outcome, Service, Source, TarStream


class StandTogether:
    """All that writes to any of the volumes stands once, for as long as it takes to read (or clone) all of them.

    With each volume comes how its writers are held; None leaves them alone, for a volume that is to be read live. A
    container that writes to several volumes is stopped if one of them wants that.
    """

    def __init__(self, sources: Sequence[tuple[Source, Hold | None]], runtime: Runtime) -> None:
        self._sources = sources
        self._runtime = runtime
        self._standstill = Standstill(runtime)
        self._clones: dict[str, Clone] = {}
        self._cloned: set[str] = set()
        self._ready: dict[str, Callable[[], TarStream]] = {}
        self._using: dict[str, set[str]] = {}
        self._resources = ExitStack()

    def rehearse(self, source: Source) -> TarStream | None:
        """See Together. Always worth while: what is read again a moment later is in memory, and stored already."""
        wanted = next(how for other, how in self._sources if other is source)
        if wanted is None or not any(how and writers(self._runtime, other.volume) for other, how in self._sources):
            return None
        return self._runtime.engine.tar_out(source.volume, source.spec.exclude)

    def hold(self) -> Sequence[Source]:
        """See Together."""
        held = [(source, how) for source, how in self._sources if how is not None]
        if any(writers(self._runtime, source.volume) for source, _ in held):
            for source, _ in held:
                clone = self._resources.enter_context(Clone(self._runtime, source.volume))
                self._clones[source.spec.name] = clone
                if not clone.possible:
                    self._make_ready(source)
        services: dict[str, Service] = {}
        stop: set[str] = set()
        for source, how in held:
            for service in writers(self._runtime, source.volume):
                services[service.id] = service
                stop |= {service.id} if how == "stop" else set()
                self._using.setdefault(source.spec.name, set()).add(service.name)
        self._standstill.begin(list(services.values()), "pause", stop)
        self._cloned = {name for name, clone in self._clones.items() if clone.take()}
        return [source for source, _ in held if source.spec.name not in self._cloned]

    def _make_ready(self, source: Source) -> None:
        """What goes wrong here goes wrong again when the volume is read, and is that volume's failure then."""
        with suppress(SourceError):
            ready = self._runtime.engine.ready_to_read(source.volume, source.spec.exclude)
            self._ready[source.spec.name] = self._resources.enter_context(ready)

    def read(self, source: Source) -> TarStream:
        """See Together."""
        if ready := self._ready.pop(source.spec.name, None):
            return ready()
        if source.spec.name in self._cloned:
            return self._clones[source.spec.name].tar_out(source.spec.exclude)
        return self._runtime.engine.tar_out(source.volume, source.spec.exclude)

    def release(self) -> None:
        """See Together."""
        self._standstill.end()

    def outcome(self, source: Source) -> Outcome:
        """See Together."""
        how = next(how for other, how in self._sources if other is source)
        if how is None:
            return Outcome("together: live")
        outcome = self._standstill.outcome("together")
        using = self._using.get(source.spec.name, set())
        downtime = {name: seconds for name, seconds in outcome.downtime_seconds.items() if name in using}
        return Outcome("together", outcome.moment, downtime, outcome.trouble)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._standstill.end()
        self._resources.__exit__(exc_type, exc, tb)
