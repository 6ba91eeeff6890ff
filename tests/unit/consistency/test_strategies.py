"""When services stand, for how long, and what is kept of several passes."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from pyfastcdc import FastCDC

from backupd.errors import SourceError, StoreUnavailable
from backupd.journal import HoldAct, Journal
from backupd.model import FullEvery, Volume
from backupd.ports import TarOutput
from backupd.repository import Archive, layout
from backupd.stores.memory import MemoryStore
from tests.support.faulty_store import FaultyStore
from tests.support.runtime import Place, RecordingProgress, stored
from tests.support.services import FakeServices, service
from tools.fingerprint import fingerprint


def taken(place: Place, number: int = 0) -> Archive:
    result = place.backup()
    assert result.complete
    return result.manifest.archives[number]


def while_reading(place: Place, monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> list[int]:
    """Call `act` with the number of the pass once its tar has begun; returns the numbers so far."""
    tar_out = place.runtime.engine.tar_out
    begun: list[int] = []

    def reading(volume: Volume, exclude: Sequence[str] = (), subdirectory: str = "") -> TarOutput:
        begun.append(len(begun) + 1)
        act(begun[-1])
        return tar_out(volume, exclude, subdirectory)

    monkeypatch.setattr(place.runtime.engine, "tar_out", reading)
    return begun


def restored_is(place: Place, expected: dict[bytes, Any]) -> None:
    manifest = place.repository().resolve("latest")
    place.restore(manifest, safety_snapshot=False, force=True)
    assert fingerprint(place.root()) == expected


@pytest.mark.parametrize(("how", "back"), [("pause", "unpause"), ("stop", "start")])
class TestHeld:
    def test_first_a_rehearsal_then_a_short_standstill(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        place.consistency = how
        (place.root() / "big").write_bytes(os.urandom(9 << 20))
        states = []

        def act(number: int) -> None:
            states.append(services.containers["id-app"].state)
            if number == 1:
                services.before = lambda act: act == f"{how} app" and (place.root() / "late").write_text("late")

        while_reading(place, monkeypatch, act)
        archive = taken(place)
        assert states == ["running", "paused" if how == "pause" else "exited"]
        assert services.acts == [f"{how} app", f"{back} app"]
        assert services.containers["id-app"].state == "running"
        assert archive.consistency == how
        assert archive.moment is not None
        assert archive.downtime.keys() == {"app"}
        assert not archive.full, "the second pass is kept, since something came in between"
        assert archive.parent is None
        first, second = (layout.data("data", archive.base.snapshot, ".tar.zst", number) for number in (1, 2))
        assert {ref.key for ref in archive.needs} == {first, second}
        assert archive.index.key == layout.index("data", archive.base.snapshot, 2)
        assert archive.new_size == archive.plain_size
        assert archive.stored_size == sum(ref.size for ref in archive.needs), "what both passes have added"
        assert Journal(place.runtime.state).open_acts() == []
        restored_is(place, place.prints()["data"])

    def test_a_second_pass_that_brings_nothing_leaves_a_full_archive(
        self, place: Place, services: FakeServices, how: str, back: str
    ) -> None:
        place.consistency = how
        (place.root() / "sparse").unlink()  # its header holds tar's process id
        archive = taken(place)
        assert services.acts == [f"{how} app", f"{back} app"]
        assert archive.full
        assert archive.warnings == []
        assert {key for key in stored(place.stores[0]) if key.startswith("archives/")} == {
            ref.key for ref in archive.objects
        }

    def test_what_comes_again_is_not_cut_again(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        """In the second pass as in the next snapshot, an end is looked for once: at the end."""
        searches = 0

        class Counted(FastCDC):
            def cut_buf(self, *arguments: Any, **options: Any) -> Any:
                nonlocal searches
                searches += 1
                return super().cut_buf(*arguments, **options)

        monkeypatch.setattr("backupd.archive.chunker.FastCDC", Counted)
        place.consistency = how
        (place.root() / "sparse").unlink()  # its header holds tar's process id
        (place.root() / "big").write_bytes(os.urandom(20 << 20))
        before: list[int] = []
        while_reading(place, monkeypatch, lambda _: before.append(searches))
        taken(place)
        taken(place)
        first, second, third = (after - earlier for earlier, after in itertools.pairwise([*before, searches]))
        assert first >= 20 // 4
        assert (second, third) == (1, 1)

    def test_all_is_ready_before_anybody_stands(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        place.consistency = how
        ready_to_read, happened = place.runtime.engine.ready_to_read, []

        def ready(volume: Volume, exclude: Sequence[str] = ()) -> Any:
            happened.append("ready")
            return ready_to_read(volume, exclude)

        services.before = happened.append
        monkeypatch.setattr(place.runtime.engine, "ready_to_read", ready)
        taken(place)
        assert happened == ["ready", f"{how} app", f"{back} app"]

    def test_later_there_is_one_pass(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        place.consistency = how
        first = place.backup().manifest
        services.acts.clear()
        passes = while_reading(place, monkeypatch, lambda _: None)
        again = taken(place)
        assert passes == [1]
        assert services.acts == [f"{how} app", f"{back} app"]
        assert (again.full, again.parent) == (False, first.id)

    def test_where_the_last_had_much_to_add_there_is_a_rehearsal_again(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        monkeypatch.setattr("backupd.backup.passes.MUCH_BYTES", 10_000)
        (place.root() / "sparse").unlink()  # its header holds tar's process id
        place.consistency = how
        place.backup()
        passes = while_reading(place, monkeypatch, lambda _: None)
        (place.root() / "sub" / "more").write_bytes(os.urandom(20_000))
        taken(place)
        assert passes == [1], "the last one was a full one, which says nothing"
        taken(place)
        assert passes == [1, 2, 3]
        taken(place)
        assert passes == [1, 2, 3, 4]

    def test_chains_go_on_from_a_second_pass(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        place.consistency = how
        place.full_every = FullEvery(timedelta(days=7))
        while_reading(place, monkeypatch, lambda _: (place.root() / "n").write_bytes(os.urandom(100)))
        archives = []
        for days in (0, 3, 3, 3):
            place.clock.time += timedelta(days=days)
            archives.append(taken(place))
        assert [archive.base.snapshot for archive in archives] == [
            *[archives[0].base.snapshot] * 3,
            archives[3].base.snapshot,
        ]
        assert archives[3].base != archives[0].base
        restored_is(place, place.prints()["data"])

    def test_what_does_not_run_is_left_alone(self, place: Place, services: FakeServices, how: str, back: str) -> None:
        place.consistency = how
        services.add(replace(services.containers["id-app"], state="exited"), service("elsewhere", "/other"))
        archive = taken(place)
        assert services.acts == []
        assert archive.moment is not None, "nobody could write"
        assert archive.downtime == {}

    def test_who_only_reads_is_left_alone(self, place: Place, services: FakeServices, how: str, back: str) -> None:
        place.consistency = how
        app = services.containers["id-app"]
        services.add(replace(app, mounts=(replace(app.mounts[0], writable=False),)))
        taken(place)
        assert services.acts == []

    def test_order(self, place: Place, services: FakeServices, how: str, back: str) -> None:
        place.consistency = how
        root = str(place.root())
        services.containers.clear()
        services.add(
            service("db", root),
            service("web", root, depends_on=("app",)),
            service("app", root, depends_on=("db",)),
        )
        taken(place)
        assert services.acts == [f"{how} {name}" for name in ("web", "app", "db")] + [
            f"{back} {name}" for name in ("db", "app", "web")
        ]

    def test_let_go_when_another_cannot_be_held(
        self, place: Place, services: FakeServices, how: str, back: str
    ) -> None:
        place.consistency = how
        services.add(service("db", str(place.root())))
        services.refusing = {f"{how} db"}
        with pytest.raises(SourceError, match=f"cannot {how} db"):
            place.backup()
        assert {found.state for found in services.containers.values()} == {"running"}
        assert Journal(place.runtime.state).open_acts() == []
        assert place.repository().snapshots() == ([], [])

    def test_let_go_when_tar_fails(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        place.consistency = how
        place.backup()

        def act(_: int) -> None:
            raise SourceError("no helper")

        with monkeypatch.context() as patch:
            while_reading(place, patch, act)
            with pytest.raises(SourceError, match="no helper"):
                place.backup()
        assert services.containers["id-app"].state == "running"

    def test_let_go_when_interrupted(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        place.consistency = how
        place.backup()

        def act(_: int) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            while_reading(place, patch, act)
            with pytest.raises(KeyboardInterrupt):
                place.backup()
        assert services.containers["id-app"].state == "running"
        assert Journal(place.runtime.state).open_acts() == []

    def test_a_signal_while_letting_go(self, place: Place, services: FakeServices, how: str, back: str) -> None:
        place.consistency = how
        services.add(service("db", str(place.root())))
        signals = [f"{back} db"]

        def before(act: str) -> None:
            if act in signals:
                signals.remove(act)
                raise KeyboardInterrupt

        services.before = before
        with pytest.raises(KeyboardInterrupt):
            place.backup()
        assert {found.state for found in services.containers.values()} == {"running"}
        assert Journal(place.runtime.state).open_acts() == []

    def test_a_signal_while_the_act_is_journaled(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        place.consistency = how
        begin = Journal.begin

        def interrupted(journal: Journal, act: Any, now: Any) -> int:
            begin(journal, act, now)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "begin", interrupted)
            with pytest.raises(KeyboardInterrupt):
                place.backup()
        assert services.containers["id-app"].state == "running"
        assert [seen for seen in Journal(place.runtime.state).open_acts() if isinstance(seen.act, HoldAct)] == []

    def test_let_go_before_anything_is_stored(self, place: Place, services: FakeServices, how: str, back: str) -> None:
        place.consistency = how
        place.stores = [store := FaultyStore(MemoryStore("local"))]
        place.backup()
        (place.root() / "new").write_bytes(os.urandom(1000))
        states = []
        create = store.create

        def created(key: str, size_hint: int | None = None) -> Any:
            writer = create(key, size_hint)
            commit = writer.commit

            def committing() -> Any:
                states.append(services.containers["id-app"].state)
                return commit()

            writer.commit = committing  # type: ignore[method-assign]
            return writer

        store.create = created  # type: ignore[method-assign]
        taken(place)
        assert len(states) == 3
        assert set(states) == {"running"}

    def test_a_service_that_does_not_go_on_is_told_and_the_archive_kept(
        self, place: Place, services: FakeServices, how: str, back: str
    ) -> None:
        place.consistency = how
        services.refusing = {f"{back} app"}
        result = place.backup()
        assert not result.complete
        (archive,) = result.manifest.archives
        assert any(f"cannot {back} app" in text for text in archive.trouble)
        assert any(f"cannot {back} app" in note for note in place.notes)
        assert [type(seen.act) for seen in Journal(place.runtime.state).open_acts()] == [HoldAct]
        assert place.repository().resolve("latest").id == result.manifest.id

    def test_a_service_that_is_removed_meanwhile(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch, how: str, back: str
    ) -> None:
        place.consistency = how
        place.backup()
        while_reading(place, monkeypatch, lambda _: services.containers.clear())
        taken(place)
        assert Journal(place.runtime.state).open_acts() == []

    def test_store_that_fails_in_any_place(self, place: Place, services: FakeServices, how: str, back: str) -> None:
        """Whatever is left, the services go on and nothing is listed that is not whole."""
        place.consistency = how
        place.stores = [store := FaultyStore(MemoryStore("local"))]
        place.backup()
        place.full_every = FullEvery(timedelta(0))
        begin = store.count
        place.backup()
        count = store.count - begin
        for number in range(1, count + 1):
            store.fail_at(store.count + number, StoreUnavailable("away"))
            with contextlib.suppress(StoreUnavailable):
                place.backup()
            assert services.containers["id-app"].state == "running"
            assert Journal(place.runtime.state).open_acts() == []
            for manifest in place.repository().snapshots()[0]:
                place.repository().check(manifest.archives[0].objects)


def test_stop_of_a_container_that_would_be_removed(place: Place, services: FakeServices) -> None:
    place.consistency = "stop"
    services.add(replace(services.containers["id-app"], removed_when_stopped=True))
    with pytest.raises(SourceError, match="would be removed"):
        place.backup()
    assert services.acts == []
    place.consistency = "pause"
    taken(place)


def test_stopped_services_that_are_unhealthy_afterwards(place: Place, services: FakeServices) -> None:
    place.consistency = "stop"
    services.healths["app"] = "unhealthy"
    result = place.backup()
    assert result.manifest.archives[0].trouble == ["after the backup container app is unhealthy"]
    assert not result.complete


class TestAuto:
    def test_nothing_written_nothing_held(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passes = while_reading(place, monkeypatch, lambda _: None)
        time.sleep(0.1)  # the kernel's clock for files has ticked
        archive = taken(place)
        assert passes == [1]
        assert services.acts == []
        assert archive.consistency == "auto: nothing was written"
        assert archive.moment is not None
        assert archive.full

    def test_a_change_is_found_and_read_at_a_standstill(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        states = []

        def act(number: int) -> None:
            states.append(services.containers["id-app"].state)
            if number == 1:
                (place.root() / "text").write_text("changed")

        while_reading(place, monkeypatch, act)
        archive = taken(place)
        assert states == ["running", "paused"]
        assert services.acts == ["pause app", "unpause app"]
        assert archive.consistency == "auto: paused"
        assert archive.moment is not None
        assert archive.downtime.keys() == {"app"}

    def test_what_is_excluded_may_change(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.exclude = ("*.log", "sub/deep")
        for name in ("a.log", "sub/deep/y"):
            (place.root() / name).write_text("1")

        def act(_: int) -> None:
            for name in ("a.log", "sub/deep/y"):
                with (place.root() / name).open("a") as file:
                    file.write("2")

        while_reading(place, monkeypatch, act)
        time.sleep(0.1)
        assert taken(place).consistency == "auto: nothing was written"
        assert services.acts == []

    def test_what_is_mapped_into_memory_counts(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Pages that were dirty before the pass began change no time by themselves when they are written to again."""
        import mmap  # noqa: PLC0415

        path = place.root() / "mapped"
        path.write_bytes(bytes(8192))
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
            memory[0] = 1
            before = path.stat().st_ctime_ns

            def act(number: int) -> None:
                if number == 1:
                    memory[1] = 2

            while_reading(place, monkeypatch, act)
            archive = taken(place)
        assert archive.consistency == "auto: paused"
        assert path.stat().st_ctime_ns > before

    def test_without_tools_that_tell_writers_are_paused(
        self, place: Place, services: FakeServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(place.runtime.engine, "run_script", lambda *_: "1700000000.%N\n")
        passes = while_reading(place, monkeypatch, lambda _: None)
        assert taken(place).consistency == "auto: paused"
        assert passes == [1, 2]
        assert taken(place).consistency == "auto: paused"
        assert passes == [1, 2, 3], "there is no use in a live pass"

    def test_files_that_moved_without_anybody_known_to_write(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (place.root() / "many").mkdir()
        for number in range(2000):
            (place.root() / "many" / f"{number:04}").touch()
        tar_out = place.runtime.engine.tar_out

        def reading(*arguments: Any) -> TarOutput:
            stream = tar_out(*arguments)
            finish = stream.finish
            monkeypatch.setattr(
                stream, "finish", lambda: replace(finish(), moved_count=1, warning_count=1, warnings=("x: changed",))
            )
            return stream

        monkeypatch.setattr(place.runtime.engine, "tar_out", reading)
        archive = taken(place)
        assert archive.consistency == "auto: live, while files changed"
        assert archive.moment is None
        assert archive.warnings == ["x: changed"]


def test_live_says_so(place: Place, services: FakeServices) -> None:
    place.consistency = "live"
    archive = taken(place)
    assert (archive.consistency, archive.moment) == ("live", None)
    assert any("while app can write to it" in note for note in place.notes)
    assert isinstance(place.runtime.progress, RecordingProgress)
    assert place.runtime.progress.open == 0
