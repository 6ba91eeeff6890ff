"""Volumes and archives that mean harm: nothing is read from or written to anywhere but the volume."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backupd.engine import MountedEngine
from backupd.engine.confine import TAR, why_unconfined
from backupd.errors import BackupdError, SourceError
from backupd.model import Volume
from tests.support.daemon import wait_until
from tests.support.engines import EngineUnderTest
from tests.support.runtime import Place
from tools.fingerprint import fingerprint


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the volume, which nobody may touch."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text("secret")
    return directory


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    return place


def make_hostile(root: Path, outside: Path) -> None:
    (root / "absolute").symlink_to(outside)
    (root / "relative").symlink_to("../../outside")
    (root / "itself").symlink_to(".")
    (root / "up").symlink_to("..")
    for number, name in enumerate(
        ("...", "..\\x", " ..", "..\n", "-rf", "--checkpoint=1", "--checkpoint-action=exec=id")
    ):
        (root / name).write_text(str(number))
    os.mkfifo(root / "fifo")
    if os.geteuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "plain").mkdir()
    (root / "plain" / "file").write_text("file")


def test_a_hostile_volume_comes_back_as_it_was(place: Place, outside: Path) -> None:
    """Links are kept as links: what they lead to is neither stored nor written."""
    make_hostile(place.root(), outside)
    before, untouched = fingerprint(place.root()), fingerprint(outside)
    taken = place.backup().manifest
    place.restore(taken)
    assert fingerprint(place.root()) == before
    assert fingerprint(outside) == untouched


@pytest.mark.parametrize("paths", [(), ("plain",), ("plain/file",)])
def test_a_directory_that_has_become_a_link_to_the_outside(place: Place, outside: Path, paths: tuple[str, ...]) -> None:
    (place.root() / "plain").mkdir()
    (place.root() / "plain" / "secret").write_text("of the volume")
    (place.root() / "plain" / "file").write_text("file")
    taken = place.backup().manifest
    untouched = fingerprint(outside)
    for path in (place.root() / "plain").iterdir():
        path.unlink()
    (place.root() / "plain").rmdir()
    (place.root() / "plain").symlink_to(outside)
    with contextlib.suppress(BackupdError):  # to refuse is as good
        place.restore(taken, paths=paths)
    assert fingerprint(outside) == untouched


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_named_like_our_staging_directory(place: Place, outside: Path, kind: str) -> None:
    """It is the user's: a restore neither writes through it nor takes it for one of its own."""
    (place.root() / "file").write_text("file")
    taken = place.backup().manifest
    untouched = fingerprint(outside)
    guessed = f"{taken.short_id}-{place.runtime.new_id()[:6]}"  # which differ further behind, in these tests
    for name in (f".backupd-restore-{guessed}", f".backupd-old-{guessed}", ".backupd-restore-x", ".backupd"):
        path = place.root() / name
        if kind == "file":
            path.write_text("mine")
        elif kind == "directory":
            path.mkdir()
            (path / "state").write_text("swapped")
        else:
            path.symlink_to(outside)
    (place.root() / "file").write_text("changed")
    with contextlib.suppress(BackupdError):
        place.restore(taken)
    assert fingerprint(outside) == untouched
    assert (place.root() / "file").read_text() in {"file", "changed"}


def hostile_tar(target: str) -> bytes:
    """Members that lead to `target` in every way that tar knows."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o644
            data = b"" if kind != tarfile.REGTYPE else b"evil"
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        add("./", tarfile.DIRTYPE)
        add("good")
        add(f"{target}/absolute")
        add("../dotdot")
        add("good/../../dotdot")
        add("link", tarfile.SYMTYPE, target)
        add("link/through")
        add("relative", tarfile.SYMTYPE, "..")
        add("relative/through")
        add("secret", tarfile.LNKTYPE, f"{target}/secret")
        add("secret")
        add("hard", tarfile.LNKTYPE, "link/secret")
        add("hard")
    return stream.getvalue()


def test_a_hostile_archive(engine: EngineUnderTest, outside: Path) -> None:
    """What tar makes of it is tar's matter; whether it complains, too. It stays within the volume."""
    volume, root = engine.new()
    beside = {path.name for path in root.parent.iterdir()}
    untouched = fingerprint(outside)
    with contextlib.suppress(BackupdError), engine.engine.tar_in(volume) as target:
        target.write(hostile_tar(str(outside)))
        target.finish()
    assert fingerprint(outside) == untouched
    assert {path.name for path in root.parent.iterdir()} == beside
    assert not (root.parent / "dotdot").exists()


@pytest.fixture
def landlock() -> None:
    if why := why_unconfined(TAR):
        pytest.skip(f"the sidecar's own files are not guarded: {why}")


def test_a_staging_directory_that_becomes_a_link_before_tar_is_in_it(
    place: Place, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever shares the volume, at the worst moment: when the directory was made and looked at, and tar starts."""
    (place.root() / "secret").write_text("of the volume")
    taken = place.backup().manifest
    untouched = fingerprint(outside)
    tar = tmp_path / "bin" / "tar"
    tar.parent.mkdir()
    tar.write_text(
        f"""#!/bin/sh
(
    cd {place.root()}
    for stage in .backupd-restore-*; do
        [ -d "$stage/tree" ] && [ ! -e swapped ] || continue
        mv "$stage/tree" aside; ln -s {outside} "$stage/tree"; touch swapped
    done
)
exec {shutil.which("tar")} "$@"
"""
    )
    tar.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tar.parent}:{os.environ['PATH']}")
    with contextlib.suppress(BackupdError):
        place.restore(taken, safety_snapshot=False)
    assert (place.root() / "swapped").exists()
    assert fingerprint(outside) == untouched


def two_files(names: Sequence[str]) -> tuple[bytes, bytes]:
    """A tar of a directory, and of what is in it; each long enough for tar to be done with it."""
    parts = []
    for members in (("sub",), names):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name in members:
                info = tarfile.TarInfo(name)
                info.type = tarfile.DIRTYPE if name == "sub" else tarfile.REGTYPE
                info.size, info.mode = 0 if name == "sub" else 4, 0o755
                tar.addfile(info, io.BytesIO(b"evil"))
            filler = tarfile.TarInfo("filler")
            filler.size = 1 << 20
            tar.addfile(filler, io.BytesIO(bytes(filler.size)))
            parts.append(stream.getvalue())
    return parts[0], parts[1]


def test_a_directory_that_becomes_a_link_below_the_hands_of_tar(landlock: None, outside: Path, tmp_path: Path) -> None:
    root = tmp_path / "volume"
    root.mkdir()
    untouched = fingerprint(outside)
    before, behind = two_files(["sub/secret", "sub/new"])
    engine = MountedEngine()
    with (
        contextlib.suppress(BackupdError),
        engine.tar_in(Volume(name="v", kind="directory", source=str(root))) as target,
    ):
        target.write(before)
        wait_until(lambda: (root / "sub").is_dir() and (root / "filler").exists(), "the first half")
        (root / "sub").rename(root / "aside")
        (root / "sub").symlink_to(outside)
        target.write(behind)
        target.finish()
    assert fingerprint(outside) == untouched
    assert (root / "sub").is_symlink()


@pytest.mark.parametrize(
    "act",
    [
        "echo evil >link/secret", "echo evil >link/new", "mkdir link/new", "rm link/secret", "mv link/secret .",
        "mv mine link/", "ln mine link/new", "ln -s x link/new", "cat link/secret", "cp link/secret .", "ls link/",
        "truncate -s 0 link/secret", "mkfifo link/new", "cat /etc/hostname",
    ],
)  # fmt: skip
def test_a_script_reaches_nothing_but_its_volume(landlock: None, outside: Path, tmp_path: Path, act: str) -> None:
    root = tmp_path / "volume"
    root.mkdir()
    (root / "mine").write_text("mine")
    (root / "link").symlink_to(outside)
    untouched = fingerprint(outside)
    with pytest.raises(SourceError):
        MountedEngine().run_script(Volume(name="v", kind="directory", source=str(root)), act)
    assert fingerprint(outside) == untouched
    assert "secret" not in "".join(path.read_text() for path in root.iterdir() if path.is_file())
    assert (outside / "secret").read_text() == "secret", "this process itself goes on as before"


def test_a_job_has_no_password_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUPD_STORES__OFFSITE__SECRET_KEY", "hush")
    volume = Volume(name="v", kind="directory", source=str(tmp_path))
    said = MountedEngine().run_script(volume, "tr '\\0' '\\n' </proc/self/environ")
    assert "PATH=" in said
    assert "hush" not in said


def test_programs_in_places_that_are_not_for_this_user(
    landlock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path to programs may name what there is not, and what may not be looked at."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").touch()
    looked_up, closed = os.open, str(tmp_path / "closed")

    def refuse(path: str, *arguments: int, **options: int) -> int:
        if path == closed:  # by mode it could not be closed to root
            raise PermissionError(13, "Permission denied", path)
        return looked_up(path, *arguments, **options)

    places = [tmp_path / "none", tmp_path / "file" / "below", closed, os.environ["PATH"]]
    monkeypatch.setenv("PATH", ":".join(map(str, places)))
    monkeypatch.setattr("backupd.engine.confine.os.open", refuse)
    volume = Volume(name="v", kind="directory", source=str(tmp_path / "volume"))
    assert MountedEngine().run_script(volume, "echo done >file; cat file") == "done\n"


@pytest.fixture
def asked_anew() -> Iterator[None]:
    why_unconfined.cache_clear()
    yield
    why_unconfined.cache_clear()


def test_programs_whose_files_are_in_unusual_places(
    landlock: None, asked_anew: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather unconfined than not at all, and it is told."""
    for name in ("volume", "bin", "cellar"):
        (tmp_path / name).mkdir()
    (tmp_path / "cellar" / "tar").write_text(f'#!/bin/sh\nexec {shutil.which("tar")} "$@"\n')
    (tmp_path / "cellar" / "tar").chmod(0o755)
    (tmp_path / "bin" / "tar").symlink_to(tmp_path / "cellar" / "tar")
    (tmp_path / "bin" / "sh").symlink_to(shutil.which("sh") or "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    volume = Volume(name="v", kind="directory", source=str(tmp_path / "volume"))
    why_unconfined.cache_clear()
    assert MountedEngine().run_script(volume, "tar --version >/dev/null && echo done") == "done\n"
    assert "could not read them" in (why_unconfined(TAR) or "")
