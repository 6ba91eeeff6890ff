"""A strategy that gives way to another, and streams that something is added to."""

from __future__ import annotations

import tarfile
from io import BytesIO
from typing import Any

import pytest

from backupd.consistency.live import LiveStrategy
from backupd.consistency.otherwise import Otherwise
from backupd.consistency.streams import MadeStream, Remarked, Watched
from backupd.errors import EngineUnavailable, SourceError
from backupd.model import TarReport
from backupd.services import Source
from tests.support.readings import notes_of, read_with
from tests.support.runtime import Place


class Failing:
    """Fails at a place of its choice."""

    name = "failing"

    def __init__(self, at: str, error: Exception) -> None:
        self.at = at
        self.error = error
        self.left = 0

    def read(self, source: Source) -> Any:
        if self.at == "read":
            raise self.error
        return self

    def next(self, last: TarReport | None) -> Any:
        raise self.error

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *caught: object) -> None:
        self.left += 1


@pytest.mark.parametrize("at", ["read", "next"])
def test_gives_way(place: Place, at: str) -> None:
    runtime = place.runtime
    volume = runtime.engine.find(place.spec())
    first = Failing(at, SourceError("no python3"))
    strategy = Otherwise(first, LiveStrategy(place.spec(), volume, (), runtime), runtime)
    read = read_with(strategy, place.spec(), volume)
    assert read.outcome.consistency == "live"
    assert read.passes == 1
    assert notes_of(runtime) == ["data: not copied by failing: no python3", "data: copied by live instead"]
    assert first.left == (at == "next")


def test_an_engine_that_is_gone_is_gone_for_both(place: Place) -> None:
    volume = place.runtime.engine.find(place.spec())
    first = Failing("next", EngineUnavailable("gone"))
    strategy = Otherwise(first, LiveStrategy(place.spec(), volume, (), place.runtime), place.runtime)
    with pytest.raises(EngineUnavailable):
        read_with(strategy, place.spec(), volume)
    assert first.left == 1


def test_made_and_watched_streams() -> None:
    members = [(tarfile.TarInfo("./a"), b"x" * 700), (tarfile.TarInfo("./ü" + "b" * 200), b"")]
    stream = Remarked(Watched(MadeStream(members), ["a"]), ["so"])
    watched = stream._stream
    assert isinstance(watched, Watched)
    data = bytearray()
    buffer = memoryview(bytearray(100))
    with stream:
        while count := stream.readinto(buffer):
            data += buffer[:count]
        assert stream.finish() == TarReport(1, ("so",))
    with tarfile.open(fileobj=BytesIO(bytes(data))) as tar:
        assert [member.size for member in tar] == [700, 0]
    assert watched.seen["a"].size == 700
    assert list(watched.seen) == ["a"]
