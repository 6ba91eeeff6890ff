"""Restore through the operation: what is there afterwards, and that nothing has changed when it fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from backupd.errors import (
    IntegrityError,
    LockedError,
    SnapshotNotFound,
    SourceError,
    StoreUnavailable,
    UsageError,
    VolumeMissing,
)
from backupd.journal import Journal
from backupd.lock import volume_lock
from backupd.model import PROJECT_LABEL, VOLUME_LABEL, Volume, VolumeSpec
from backupd.recover import recover
from backupd.repository import Manifest, normalized
from backupd.restore.change import Change
from backupd.restore.operation import restore, stage
from backupd.restore.swap import Swap
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.stores.memory import MemoryStore
from backupd.transfer import import_tar
from tests.support.faulty_store import Crash, FaultyStore
from tests.support.runtime import Place, fill, put
from tools.fingerprint import differences, fingerprint


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    fill(place.root())
    return place


@pytest.fixture
def snapshot(place: Place) -> Manifest:
    return place.backup().manifest


def change(root: Path) -> None:
    (root / "text").write_text("changed")
    (root / "sub" / "deep" / "x").unlink()
    (root / "extra").write_text("extra")
    (root / "empty directory").rmdir()
    root.chmod(0o700)
    os.setxattr(root, "user.volume", b"changed")


def traces(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith(".backupd")]


def test_whole_volume(place: Place) -> None:
    before = fingerprint(place.root())
    snapshot = place.backup().manifest
    change(place.root())
    changed = fingerprint(place.root())
    result = place.restore(snapshot)
    assert differences(before, fingerprint(place.root())) == []
    assert Journal(place.runtime.state).open_acts() == []
    assert result.safety is not None
    assert result.safety.reason == "safety"
    place.restore(result.safety)
    assert differences(changed, fingerprint(place.root())) == []
    assert place.repository().resolve("latest").id == snapshot.id


def test_without_safety_snapshot(place: Place, snapshot: Manifest) -> None:
    assert place.restore(snapshot, safety_snapshot=False).safety is None


def test_empty_volume_needs_no_safety_snapshot(place: Place) -> None:
    before = fingerprint(place.root())
    snapshot = place.backup().manifest
    shutil.rmtree(place.root())
    place.root().mkdir()
    assert place.restore(snapshot).safety is None
    assert differences(before, fingerprint(place.root())) == []


def test_missing_volume_is_created(place: Place) -> None:
    before = fingerprint(place.root())
    snapshot = place.backup().manifest
    shutil.rmtree(place.root())
    place.restore(snapshot)
    assert differences(before, fingerprint(place.root())) == []


def test_missing_volume_is_created_where_the_configuration_says(place: Place) -> None:
    before = fingerprint(place.root())
    snapshot = place.backup().manifest
    old = place.root()
    moved = replace(place, base=place.base / "another machine")
    moved.restore(snapshot)
    assert differences(before, fingerprint(moved.root())) == []
    assert differences(before, fingerprint(old)) == []


@pytest.mark.parametrize(
    ("source", "project", "wanted"),
    [
        ("shop_data", "shop", "shop_data"),
        ("shop_data", "moved", "moved_data"),
        ("shop_data", None, "shop_data"),
        ("given_by_hand_data", "moved", "given_by_hand_data"),
    ],
)
def test_a_missing_volume_is_of_the_project_that_it_comes_to(
    place: Place, snapshot: Manifest, monkeypatch: pytest.MonkeyPatch, source: str, project: str | None, wanted: str
) -> None:
    def missing(spec: VolumeSpec) -> Volume:
        raise VolumeMissing(str(spec))

    monkeypatch.setattr(place.runtime.engine, "find", missing)
    monkeypatch.setattr(place.runtime.engine, "inspect", lambda volume: None)
    recorded = Volume(name="data", kind="volume", source=source, labels={PROJECT_LABEL: "shop", VOLUME_LABEL: "data"})
    (archive,) = snapshot.archives
    manifest = structs.replace(snapshot, archives=[structs.replace(archive, source=recorded)])
    specs = {"data": VolumeSpec("data", volume="data")}
    (step,) = plan_restore(RestoreRequest(project=project), manifest, place.repository(), place.runtime, specs)
    assert step.volume.source == wanted
    assert step.volume.labels[PROJECT_LABEL] == ("moved" if wanted == "moved_data" else "shop")


class TestCreatedVolume:
    """A volume that a failed restore created is gone again; one that somebody else filled meanwhile is not."""

    @pytest.fixture
    def damaged(self, place: Place, snapshot: Manifest) -> Manifest:
        key = snapshot.archives[0].needs[0].key
        data = place.stores[0].read(key)
        put(place.stores[0], key, data[: len(data) // 2] + b"DAMAGED!" + data[len(data) // 2 + 8 :])
        shutil.rmtree(place.root())
        return snapshot

    def test_is_removed(self, place: Place, damaged: Manifest) -> None:
        with pytest.raises(IntegrityError):
            place.restore(damaged)
        assert not place.root().exists()
        assert Journal(place.runtime.state).open_acts() == []

    def test_stays_if_it_is_used(self, place: Place, damaged: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
        prepare = Swap.prepare

        def preparing(swap: Swap) -> None:
            (place.root() / "new").touch()
            prepare(swap)

        monkeypatch.setattr(Swap, "prepare", preparing)
        with pytest.raises(IntegrityError):
            place.restore(damaged)
        assert [path.name for path in place.root().iterdir()] == ["new"]
        assert "stays" in place.notes[-1]

    def test_is_removed_after_a_kill(self, place: Place, damaged: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Change, "take_back", lambda change, reason: None)
            with pytest.raises(IntegrityError):
                place.restore(damaged)
        assert place.root().exists()
        assert len(recover(place.runtime)) == 1
        assert not place.root().exists()


def test_keep_old(place: Place, snapshot: Manifest) -> None:
    change(place.root())
    place.restore(snapshot, keep_old=True)
    (kept,) = traces(place.root())
    assert (place.root() / kept / "extra").read_text() == "extra"
    assert not (place.root() / "extra").exists()
    names = {member.path.split("/")[0] for member in place.repository().files(place.backup().manifest.archives[0])}
    assert kept not in names


@pytest.mark.parametrize("exists", [True, False])
def test_into_another_directory(place: Place, exists: bool) -> None:
    before = fingerprint(place.root())
    snapshot = place.backup().manifest
    target = place.base / "elsewhere" / "new"
    if exists:
        target.mkdir(parents=True)
        (target / "there").touch()
        os.setxattr(target, "user.volume", b"there")  # swap.sh cannot take one away that the root had before
    there = fingerprint(target) if exists else None
    result = place.restore(snapshot, into=VolumeSpec("--to-dir", path=str(target)))
    assert differences(before, fingerprint(target)) == []
    assert differences(before, fingerprint(place.root())) == []
    assert (result.safety is not None) == exists
    if result.safety is not None:  # the safety snapshot goes back to where it was taken
        place.restore(result.safety)
        assert there is not None
        assert differences(there, fingerprint(target)) == []
        assert differences(before, fingerprint(place.root())) == []


class TestPaths:
    def test_file(self, place: Place, snapshot: Manifest) -> None:
        before = fingerprint(place.root())
        change(place.root())
        place.restore(snapshot, paths=("text",), safety_snapshot=False)
        after = fingerprint(place.root())
        assert after[b"text"] == before[b"text"]
        assert b"extra" in after
        assert b"empty directory" not in after
        assert traces(place.root()) == []

    def test_directory(self, place: Place, snapshot: Manifest) -> None:
        before = fingerprint(place.root())
        change(place.root())
        (place.root() / "sub" / "stale").touch()
        place.restore(snapshot, paths=("sub",))
        after = fingerprint(place.root())
        assert {path: facts for path, facts in after.items() if path.startswith(b"sub")} == {
            path: facts for path, facts in before.items() if path.startswith(b"sub")
        }

    def test_hard_link_whose_target_was_not_selected(self, place: Place, snapshot: Manifest) -> None:
        links = {member.kind: member for member in place.repository().files(snapshot.archives[0])}
        path, target = links["hardlink"].path, links["hardlink"].link.removeprefix("./")
        expected = (place.root() / path).read_bytes()
        (place.root() / path).unlink()
        (place.root() / target).write_text("the target stays as it is")
        place.restore(snapshot, paths=(path,))
        assert (place.root() / path).read_bytes() == expected
        assert (place.root() / target).read_text() == "the target stays as it is"

    def test_hard_link_to_an_odd_name(self, place: Place) -> None:
        odd = Path(place.root(), "new\nline")
        odd.write_text("odd")
        os.link(odd, place.root() / "z")
        snapshot = place.backup().manifest
        (place.root() / "z").unlink()
        place.restore(snapshot, paths=("z",), safety_snapshot=False)
        assert (place.root() / "z").read_text() == "odd"

    def test_parents_that_are_missing(self, place: Place, snapshot: Manifest) -> None:
        before = fingerprint(place.root())
        shutil.rmtree(place.root() / "sub")
        place.restore(snapshot, paths=("sub/deep/x",))
        after = fingerprint(place.root())
        assert sorted(path for path in after if path.startswith(b"sub")) == [b"sub", b"sub/deep", b"sub/deep/x"]
        for path in (b"sub", b"sub/deep"):
            assert after[path] == before[path]

    @pytest.mark.parametrize("paths", [("sub", "sub/deep/x"), ("sub/deep/x", "sub", "text"), ("sub", "sub")])
    def test_paths_below_each_other(self, place: Place, snapshot: Manifest, paths: tuple[str, ...]) -> None:
        before = fingerprint(place.root())
        (place.root() / "sub" / "deep" / "x").write_text("changed")
        place.restore(snapshot, paths=paths)
        after = fingerprint(place.root())
        assert {p for p in after if p != b"." and after[p] != before[p]} == set()
        assert after.keys() == before.keys()

    def test_root(self, place: Place, snapshot: Manifest) -> None:
        before = fingerprint(place.root())
        change(place.root())
        place.restore(snapshot, paths=(".",))
        assert differences(before, fingerprint(place.root())) == []

    def test_not_in_the_archive(self, place: Place, snapshot: Manifest) -> None:
        with pytest.raises(SourceError, match="holds no nothing"):
            place.restore(snapshot, paths=("nothing",))

    @pytest.mark.parametrize("obstacle", ["link", "file"])
    def test_parent_is_something_else(self, place: Place, snapshot: Manifest, obstacle: str) -> None:
        shutil.rmtree(place.root() / "sub")
        if obstacle == "link":
            (place.base / "out").mkdir()
            (place.root() / "sub").symlink_to(place.base / "out")
        else:
            (place.root() / "sub").write_text("a file")
        before = fingerprint(place.root())
        with pytest.raises(SourceError, match="symbolic link" if obstacle == "link" else "no directory"):
            place.restore(snapshot, paths=("sub/deep/x",), safety_snapshot=False)
        assert differences(before, fingerprint(place.root())) == []

    def test_odd_name(self, place: Place, snapshot: Manifest) -> None:
        name = os.fsdecode(b"odd \xff\n-name")
        with pytest.raises(UsageError):
            normalized(name)
        dash = place.root() / "-rf *"
        dash.write_text("dash")
        later = place.backup().manifest
        dash.unlink()
        place.restore(later, paths=("-rf *",))
        assert dash.read_text() == "dash"

    def test_undone_the_parents_have_their_times(self, place: Place, snapshot: Manifest) -> None:
        (place.root() / "sub" / "deep" / "x").write_text("changed")
        os.utime(place.root() / "sub" / "deep", ns=(1, 1))
        before = fingerprint(place.root())
        request = RestoreRequest(paths=("sub/deep/x", "text"))
        (step,) = plan_restore(request, snapshot, place.repository(), place.runtime, {"data": place.spec()})
        stage(step, place.repository(), place.runtime)
        step.swap.swap()
        assert (place.root() / "sub" / "deep" / "x").read_text() == "x 1"
        step.swap.undo()
        assert differences(before, fingerprint(place.root())) == []


def test_tar_without_an_entry_for_the_root_leaves_the_root_as_it_was(place: Place, tmp_path: Path) -> None:
    os.system(f"cd {place.root()} && tar cf {tmp_path}/x.tar text sub")
    place.backup()
    volume = place.runtime.engine.find(place.spec())
    manifest = import_tar(tmp_path / "x.tar", volume, place.repository(), place.runtime, allow_links=False)
    os.chown(place.root(), 999, 998)
    place.root().chmod(0o2750)
    place.restore(manifest)
    status = place.root().stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (999, 998, 0o2750)
    assert {path.name for path in place.root().iterdir()} == {"sub", "text"}


class TestRefused:
    def check(self, place: Place, action: Callable[[], object], error: type[Exception], match: str) -> None:
        before = place.prints()
        with pytest.raises(error, match=match):
            action()
        assert place.prints() == before
        assert Journal(place.runtime.state).open_acts() == []

    def test_no_such_volume(self, place: Place, snapshot: Manifest) -> None:
        self.check(place, lambda: place.restore(snapshot, volumes=("other",)), SnapshotNotFound, "holds no volume")

    def test_not_enough_room(self, place: Place, snapshot: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
        survey = Swap.survey
        monkeypatch.setattr(Swap, "survey", lambda swap: structs.replace(survey(swap), free_bytes=1000))
        self.check(place, lambda: place.restore(snapshot), SourceError, "0 MiB are free.* need 1 MiB")

    def test_interrupted_leftovers(self, place: Place, snapshot: Manifest) -> None:
        volume = place.runtime.engine.find(place.spec())
        Swap(place.runtime.engine, volume, "dead-1").prepare()
        self.check(place, lambda: place.restore(snapshot), SourceError, "interrupted restore of dead-1")
        assert [item.outcome for item in recover(place.runtime, [place.spec()])]
        place.restore(snapshot)

    def test_locked(self, place: Place, snapshot: Manifest) -> None:
        with volume_lock(place.runtime.locks, place.runtime.engine.find(place.spec())):
            self.check(place, lambda: place.restore(snapshot), LockedError, "being worked on")

    def test_missing_object(self, place: Place, snapshot: Manifest) -> None:
        place.stores[0].delete(snapshot.archives[0].needs[0].key)
        self.check(place, lambda: place.restore(snapshot), IntegrityError, "is missing")

    def test_same_volume_twice(self, place: Place, snapshot: Manifest) -> None:
        assert len(place.restore(snapshot, volumes=("data", "data")).steps) == 1

    def test_safety_snapshot_fails(self, place: Place, snapshot: Manifest) -> None:
        faulty = FaultyStore(place.stores[0])
        place.stores = [faulty]

        def fail() -> None:
            repository = place.repository()
            request = RestoreRequest()
            steps = plan_restore(request, snapshot, repository, place.runtime, {"data": place.spec()})
            faulty.break_down(StoreUnavailable("gone"))
            restore(steps, request, repository, place.runtime)

        self.check(place, fail, StoreUnavailable, "safety snapshot failed, nothing was changed: gone")


class TestFailures:
    """Whatever fails after the plan was made: the volumes are byte for byte what they were."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        place = Place(tmp_path, names=("one", "two"))
        for number, name in enumerate(place.names):
            fill(place.root(name), number)
        return place

    def test_damage_is_found_while_staging(self, place: Place, snapshot: Manifest) -> None:
        key = snapshot.archives[1].needs[0].key
        data = place.stores[0].read(key)
        put(place.stores[0], key, data[: len(data) // 2] + b"DAMAGED!" + data[len(data) // 2 + 8 :])
        for name in place.names:
            change(place.root(name))
        before = place.prints()
        with pytest.raises(IntegrityError, match=r"two"):
            place.restore(snapshot, safety_snapshot=False)
        assert {name: differences(before[name], print_) for name, print_ in place.prints().items()} == {
            "one": [],
            "two": [],
        }
        assert recover(place.runtime, [place.spec(name) for name in place.names]) == []

    @pytest.mark.parametrize("error", [SourceError("no"), KeyboardInterrupt()])
    def test_second_swap_fails(
        self, place: Place, snapshot: Manifest, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        for name in place.names:
            change(place.root(name))
        before = place.prints()
        swap = Swap.swap

        def failing(self: Swap) -> None:
            swap(self)
            if self.volume.name == "two":
                raise error

        monkeypatch.setattr(Swap, "swap", failing)
        with pytest.raises(type(error)):
            place.restore(snapshot, safety_snapshot=False)
        assert place.prints() == before
        assert Journal(place.runtime.state).open_acts() == []

    def test_it_can_not_even_be_undone(self, place: Place, snapshot: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in place.names:
            change(place.root(name))
        before = place.prints()

        def fail(self: Swap) -> None:
            raise SourceError("engine away")

        with monkeypatch.context() as patch:
            patch.setattr(Swap, "undo", fail)
            patch.setattr(Swap, "swap", fail)
            with pytest.raises(SourceError, match=r"restore failed \(engine away\) and could not be undone"):
                place.restore(snapshot, safety_snapshot=False)
        assert [item.outcome for item in recover(place.runtime)] == [
            "interrupted restore of snapshot 00000002: undone, the old data are in place"
        ] * 2
        assert place.prints() == before

    @pytest.mark.parametrize("at", ["first swap", "second swap", "finish", "end"])
    def test_killed_after_all_was_staged_everything_becomes_new(
        self, place: Place, snapshot: Manifest, monkeypatch: pytest.MonkeyPatch, at: str
    ) -> None:
        expected = place.prints()
        for name in place.names:
            change(place.root(name))
        self.crash(monkeypatch, place, snapshot, at)
        outcomes = [item.outcome for item in recover(place.runtime)]
        assert all("finished, the restored data" in outcome for outcome in outcomes)
        assert len(outcomes) == 2
        assert place.prints() == expected
        assert recover(place.runtime) == []

    @pytest.mark.parametrize("at", ["second stage", "begin"])
    def test_killed_before_everything_stays_old(
        self, place: Place, snapshot: Manifest, monkeypatch: pytest.MonkeyPatch, at: str
    ) -> None:
        for name in place.names:
            change(place.root(name))
        expected = place.prints()
        self.crash(monkeypatch, place, snapshot, at)
        assert all("undone, the old data" in item.outcome for item in recover(place.runtime))
        assert place.prints() == expected
        assert recover(place.runtime, [place.spec(name) for name in place.names]) == []

    def crash(self, monkeypatch: pytest.MonkeyPatch, place: Place, snapshot: Manifest, at: str) -> None:
        """As a kill does: nothing of what comes after `at` is carried out, undoing included."""
        which, verb = at.split() if " " in at else ("first", at)

        def crashing(original: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                swap = arguments[0]
                if which == "second" and isinstance(swap, Swap) and swap.volume.name != "two":
                    return original(*arguments, **options)
                raise Crash

            return call

        with monkeypatch.context() as patch:
            decide = Journal.decide
            patch.setattr(
                Journal, "decide", lambda self, acts, *, forward: decide(self, acts, forward=True) if forward else None
            )
            patch.setattr(Swap, "undo", lambda self: None)
            original_end = Journal.end
            patch.setattr(Journal, "end", lambda self, numbers: None)
            if verb == "begin":
                patch.setattr(Swap, "prepare", crashing(Swap.prepare))
            elif verb == "stage":
                patch.setattr(Swap, "ready", crashing(Swap.ready))
            elif verb == "end":
                patch.setattr(Journal, "end", crashing(original_end))
            else:
                patch.setattr(Swap, verb, crashing(getattr(Swap, verb)))
            with pytest.raises(Crash):
                place.restore(snapshot, safety_snapshot=False)


def test_incomplete_safety_snapshot_stops_the_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, stores=[MemoryStore("local")], names=("one", "two"))
    for name in place.names:
        fill(place.root(name))
    snapshot = place.backup().manifest
    tar_out = place.runtime.engine.tar_out

    def failing(volume: object, exclude: object = ()) -> object:
        if "two" in str(volume):
            raise SourceError("cannot be read")
        return tar_out(volume, exclude)  # type: ignore[arg-type]

    monkeypatch.setattr(place.runtime.engine, "tar_out", failing)
    with pytest.raises(SourceError, match=r"safety snapshot failed, nothing was changed: two: cannot be read"):
        place.restore(snapshot)
