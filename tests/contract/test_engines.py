"""What every engine does, whatever it is made of."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from backupd.errors import SourceError, VolumeMissing
from backupd.model import MIB, TarReport, Volume, VolumeSpec
from backupd.ports import Engine
from tests.support.engines import EngineUnderTest, opened_up
from tests.support.trees import Entry, awkward_tree, describe


def read(
    engine: Engine, volume: Volume, exclude: Sequence[str] = (), subdirectory: str = ""
) -> tuple[bytes, TarReport]:
    stream = bytearray()
    buffer = memoryview(bytearray(MIB))
    with engine.tar_out(volume, exclude, subdirectory) as output:
        while count := output.readinto(buffer):
            stream += buffer[:count]
        return bytes(stream), output.finish()


def write(engine: Engine, volume: Volume, stream: bytes, subdirectory: str = "") -> TarReport:
    with engine.tar_in(volume, subdirectory) as target:
        for start in range(0, len(stream), 100_000):
            target.write(stream[start : start + 100_000])
        return target.finish()


def names(stream: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        return tar.getnames()


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


class TestRoundTrip:
    def test_awkward_tree(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        awkward_tree(root)
        before = describe(root)
        stream, report = read(engine.engine, volume)
        assert report == TarReport()
        copy, copy_root = engine.new()
        assert write(engine.engine, copy, stream) == TarReport()
        after = describe(copy_root)
        assert after.keys() == before.keys()
        if engine.flavour == "busybox":
            after, before = known_losses(after), known_losses(before)
            assert (copy_root / "access").stat().st_mode & 0o070  # the ACL's mask has become the group's right
        assert after == before

    def test_sparse_file_stays_sparse(self, engine: EngineUnderTest) -> None:
        if engine.flavour == "busybox":
            return  # a known loss: holes are written out
        volume, root = engine.new()
        with (root / "sparse").open("wb") as file:
            file.truncate(3 << 30)
            file.seek(1 << 30)
            file.write(b"island")
        stream, _ = read(engine.engine, volume)
        assert len(stream) < MIB
        copy, copy_root = engine.new()
        write(engine.engine, copy, stream)
        status = (copy_root / "sparse").stat()
        assert status.st_size == 3 << 30
        assert status.st_blocks * 512 < MIB

    def test_empty_volume(self, engine: EngineUnderTest) -> None:
        volume, _ = engine.new()
        stream, report = read(engine.engine, volume)
        assert names(stream) == ["."]
        assert report == TarReport()
        copy, copy_root = engine.new()
        write(engine.engine, copy, stream)
        assert list(copy_root.iterdir()) == []

    def test_first_member_is_the_root_with_its_own_attributes(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "a").touch()
        os.chown(root, 999, 998)
        root.chmod(0o2750)
        os.utime(root, (1_500_000_000, 1_500_000_000))
        stream, _ = read(engine.engine, volume)
        with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
            first = tar.next()
            assert first is not None
            assert (first.name, first.uid, first.gid, first.mode) == (".", 999, 998, 0o2750)
        copy, copy_root = engine.new()
        write(engine.engine, copy, stream)
        status = copy_root.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (999, 998, 0o2750)
        if engine.flavour == "gnu":
            assert status.st_mtime == 1_500_000_000

    def test_same_content_same_stream(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        for name in ("b", "a", "c/d", "c/a" * 60):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        first, _ = read(engine.engine, volume)
        (root / "a").read_text()
        assert read(engine.engine, volume)[0] == first

    def test_small_buffers(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "a").write_bytes(os.urandom(30_000))
        expected, _ = read(engine.engine, volume)
        stream = bytearray()
        buffer = memoryview(bytearray(700))
        with engine.engine.tar_out(volume) as output:
            while count := output.readinto(buffer):
                stream += buffer[:count]
            output.finish()
        assert bytes(stream) == expected

    def test_padding_behind_the_archive_is_taken(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        write(engine.engine, volume, tar_of(member("a", b"1")) + bytes(5 * MIB))
        assert (root / "a").read_bytes() == b"1"


def known_losses(entries: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """What a BusyBox tar is known to lose."""
    return {name: entry.without_what_busybox_loses() for name, entry in entries.items() if name != b"access"}


class TestSubdirectory:
    def test_is_created_private(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        write(engine.engine, volume, tar_of(member("f", b"x")), ".backupd-restore-1")
        assert (root / ".backupd-restore-1/f").read_bytes() == b"x"
        assert stat.S_IMODE((root / ".backupd-restore-1").stat().st_mode) == 0o700

    def test_may_exist(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "a").mkdir()
        write(engine.engine, volume, tar_of(member("f", b"x")), "a/b")
        assert (root / "a/b/f").read_bytes() == b"x"

    @pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/tmp/x"])
    def test_stays_inside(self, engine: EngineUnderTest, name: str) -> None:
        volume, _ = engine.new()
        with pytest.raises(SourceError, match="not a path within"):
            engine.engine.tar_in(volume, name)

    def test_is_read_as_if_it_were_the_volume(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "a" / "b").mkdir(parents=True)
        (root / "a" / "b" / "file").write_text("x")
        (root / "beside").write_text("y")
        stream, _ = read(engine.engine, volume, subdirectory="a")
        assert sorted(name.rstrip("/") for name in names(stream)) == [".", "./b", "./b/file"]
        with pytest.raises(SourceError):
            read(engine.engine, volume, subdirectory="../x")

    def test_is_left_out_of_backups(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        for name in (".backupd-restore-1", ".backupd-old-1", "kept/.backupd-old-1", ".other"):
            (root / name).mkdir(parents=True)
            (root / name / "f").touch()
        expected = {".", "./kept", "./kept/.backupd-old-1", "./kept/.backupd-old-1/f", "./.other", "./.other/f"}
        assert set(names(read(engine.engine, volume)[0])) == expected


EXCLUDE_TREE = (
    *("a.log", "b/a.log", "b/c/a.log/inner", "cache/x", "b/cache/y", ".hidden", ".h/x", "b/.hidden", "z", "b/z", ".z"),
    *("b/c/x.tmp", "new\nline.tmp", "[x]", "*", "b/q?"),
)


EXCLUDE_CASES: tuple[tuple[list[str], set[str]], ...] = (
    (["a.log"], {"a.log", "b/a.log", "b/c/a.log", "b/c/a.log/inner"}),
    (["*.tmp"], {"b/c/x.tmp", "new\nline.tmp"}),
    (["cache"], {"cache", "cache/x", "b/cache", "b/cache/y"}),
    (["/cache"], {"cache", "cache/x"}),
    (["cache/"], {"cache", "cache/x"}),
    (["./b/cache"], {"b/cache", "b/cache/y"}),
    (["b/*"], {name for name in EXCLUDE_TREE if name.startswith("b/")} | {"b/cache", "b/c", "b/c/a.log"}),
    (["b/*.tmp"], set()),
    (["*/a.log"], {"b/a.log"}),
    ([".*"], {".hidden", ".h", ".h/x", "b/.hidden", ".z"}),
    (["\\*"], {"*"}),
    (["a.log", "b/z"], {"a.log", "b/a.log", "b/c/a.log", "b/c/a.log/inner", "b/z"}),
)


def test_exclude(engine: EngineUnderTest) -> None:
    volume, root = engine.new()
    for name in EXCLUDE_TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    with pytest.raises(SourceError, match="names no file"):
        engine.engine.tar_out(volume, ["."])
    if engine.flavour == "busybox":  # Debian's is built without --exclude; the translation has its unit tests
        with pytest.raises(SourceError, match="cannot leave"):
            engine.engine.tar_out(volume, ["a.log"])
        return
    everything = set(names(read(engine.engine, volume)[0]))
    for patterns, gone in EXCLUDE_CASES:
        left = set(names(read(engine.engine, volume, patterns)[0]))
        assert everything - left == {f"./{name}" for name in gone | children(gone, everything)}, patterns
    single = {name for name in everything if not one_character(name)}
    assert set(names(read(engine.engine, volume, ["?"])[0])) == single
    assert set(names(read(engine.engine, volume, ["[!.]"])[0])) == single
    assert set(names(read(engine.engine, volume, ["*"])[0])) == {"."}


class TestReady:
    def test_nothing_is_read_before_the_word(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "early").write_text("before")
        buffer = memoryview(bytearray(MIB))
        with engine.engine.ready_to_read(volume) as begin:
            time.sleep(0.5)  # more than a helper takes that does not wait
            (root / "early").write_text("after")
            (root / "late").touch()
            stream = bytearray()
            with begin() as output:
                while count := output.readinto(buffer):
                    stream += buffer[:count]
                assert output.finish() == TarReport()
        with tarfile.open(fileobj=io.BytesIO(bytes(stream))) as tar:
            assert set(tar.getnames()) == {".", "./early", "./late"}
            assert tar.extractfile("./early").read() == b"after"  # type: ignore[union-attr]

    def test_a_word_that_never_comes(self, engine: EngineUnderTest) -> None:
        volume, _ = engine.new()
        with engine.engine.ready_to_read(volume):
            pass
        assert not engine.engine.remove_leftovers()
        assert names(read(engine.engine, volume)[0]) == ["."]


def one_character(name: str) -> bool:
    return any(len(part) == 1 for part in name.split("/")[1:])


def children(gone: set[str], everything: set[str]) -> set[str]:
    return {name[2:] for name in everything for parent in gone if name.startswith(f"./{parent}/")}


class TestMissing:
    def test_find(self, engine: EngineUnderTest) -> None:
        spec = (
            VolumeSpec("v", path="/nowhere/at/all") if engine.name == "mounted" else VolumeSpec("v", volume="nowhere")
        )
        with pytest.raises(VolumeMissing):
            engine.engine.find(spec)

    def test_what_is_used_is_not_removed(
        self, engine: EngineUnderTest, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        volume, root = engine.new()
        if engine.name == "mounted":
            (root / "file").touch()
        else:
            run_container = request.getfixturevalue("run_container")
            image = request.getfixturevalue("helper_image")
            run_container(image, ["true"], volumes=[f"{volume.source}:/x"]).wait()
        with pytest.raises(SourceError, match=r"cannot remove|remove volume"):
            engine.engine.remove(volume)
        assert engine.engine.inspect(volume) is not None

    def test_inspect_and_create(self, engine: EngineUnderTest, tmp_path: Path) -> None:
        if engine.name == "mounted":
            volume = Volume(name="v", kind="directory", source=str(tmp_path / "new/directory"))
        else:
            volume = Volume(
                name="v", kind="volume", source=f"backupd-test-{time.time_ns()}", driver="local", labels={"a": "b"}
            )
        assert engine.engine.inspect(volume) is None
        with pytest.raises(VolumeMissing):
            engine.engine.tar_out(volume)
        with pytest.raises(VolumeMissing):
            engine.engine.tar_in(volume)
        with pytest.raises(VolumeMissing):
            engine.engine.run_script(volume, "true")
        assert engine.engine.inspect(volume) is None
        try:
            engine.engine.create(volume)
            engine.engine.create(volume)
            assert engine.engine.inspect(volume) == volume
            engine.engine.remove(volume)
            assert engine.engine.inspect(volume) is None
            engine.engine.remove(volume)
            engine.engine.create(volume)
        finally:
            place = engine.place(volume)
            if engine.name != "mounted":
                remove_volume(engine, volume)
        assert engine.name != "mounted" or place.is_dir()


def remove_volume(engine: EngineUnderTest, volume: Volume) -> None:
    engine.engine._surroundings.api.remove_volume(volume.source)  # type: ignore[attr-defined]


class TestTrouble:
    def test_socket_is_a_warning(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "f").touch()
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(root):  # the path would be too long for bind
            server.bind("s")
        stream, report = read(engine.engine, volume)
        assert names(stream) == [".", "./f"]
        if engine.flavour == "gnu":
            assert report == TarReport(1, ("s: socket ignored",))

    def test_file_that_changes_and_one_that_vanishes(self, engine: EngineUnderTest) -> None:
        """The reader holds tar up in the first file, which is larger than all buffers on the way."""
        volume, root = engine.new()
        (root / "a-big").write_bytes(os.urandom(24 * MIB))
        (root / "b").mkdir()
        (root / "b/c").write_text("here")
        buffer = memoryview(bytearray(MIB))
        stream = bytearray()
        with engine.engine.tar_out(volume) as output:
            while len(stream) < 2 * MIB:
                stream += buffer[: output.readinto(buffer)]
            with (root / "a-big").open("ab") as file:
                file.write(b"more")
            while count := output.readinto(buffer):
                stream += buffer[:count]
            if engine.flavour == "busybox":
                output.finish()  # a known loss: it does not notice
                return
            report = output.finish()
        assert report == TarReport(1, ("a-big: file changed as we read it",), 1)
        assert "./b/c" in names(bytes(stream))

    def test_file_that_shrinks(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "big").write_bytes(os.urandom(24 * MIB))
        buffer = memoryview(bytearray(MIB))
        with engine.engine.tar_out(volume) as output:
            seen = 0
            while seen < 2 * MIB:
                seen += output.readinto(buffer)
            os.truncate(root / "big", 9 * MIB)
            while output.readinto(buffer):
                pass
            if engine.flavour == "busybox":
                with pytest.raises(SourceError, match="short read"):
                    output.finish()
                return
            report = output.finish()
        assert "shrank by" in report.warnings[0]

    def test_unread_stream_is_no_success(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "big").write_bytes(os.urandom(4 * MIB))
        with engine.engine.tar_out(volume) as output:
            output.readinto(memoryview(bytearray(MIB)))
            with pytest.raises(SourceError, match="not read to its end"):
                output.finish()

    def test_abandoned_reader(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "big").write_bytes(os.urandom(8 * MIB))
        with pytest.raises(KeyboardInterrupt), engine.engine.tar_out(volume) as output:  # noqa: PT012
            output.readinto(memoryview(bytearray(MIB)))
            raise KeyboardInterrupt
        assert engine.leftovers() == []

    def test_abandoned_writer(self, engine: EngineUnderTest) -> None:
        volume, _ = engine.new()
        with pytest.raises(KeyboardInterrupt), engine.engine.tar_in(volume) as target:  # noqa: PT012
            target.write(tar_of(member("a", bytes(50_000)))[:20_000])
            raise KeyboardInterrupt
        assert engine.leftovers() == []

    def test_truncated_archive(self, engine: EngineUnderTest) -> None:
        volume, _ = engine.new()
        with pytest.raises(SourceError, match="writing"):
            write(engine.engine, volume, tar_of(member("a", bytes(500_000)))[:300_000])

    def test_not_an_archive(self, engine: EngineUnderTest) -> None:
        volume, _ = engine.new()
        with pytest.raises(SourceError, match="writing"):
            write(engine.engine, volume, os.urandom(3 * MIB))


class TestHostile:
    """Nothing outside the volume is written, whether the archive is refused or its sting removed."""

    def attempt(self, engine: EngineUnderTest, stream: bytes, victim: Path) -> None:
        volume, root = engine.new()
        (root / "inside").mkdir()
        with contextlib.suppress(SourceError):  # refused: as good
            write(engine.engine, volume, stream, "inside/deep")
        assert not victim.exists()
        assert sorted(path.name for path in root.iterdir()) == ["inside"]

    def test_absolute_path(self, engine: EngineUnderTest, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        self.attempt(engine, tar_of(member(str(victim), b"x")), victim)

    def test_parent(self, engine: EngineUnderTest, tmp_path: Path) -> None:
        self.attempt(engine, tar_of(member("../../victim", b"x")), tmp_path / "victim")

    def test_through_a_link(self, engine: EngineUnderTest, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        link = member("link", type=tarfile.SYMTYPE, linkname=str(outside))
        self.attempt(engine, tar_of(link, member("link/victim", b"x")), outside / "victim")

    def test_through_a_hard_link(self, engine: EngineUnderTest, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.write_text("untouched")
        link = member("link", type=tarfile.LNKTYPE, linkname=str(outside))
        self.attempt(engine, tar_of(link, member("link", b"overwritten")), tmp_path / "none")
        assert outside.read_text() == "untouched"
        assert outside.stat().st_nlink == 1


class TestScript:
    def test_output_and_arguments(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "f").touch()
        odd = ["a b", "$(touch bad)", "-n", "new\nline", "", "*"]
        script = 'ls; pwd -P >where; printf "<%s>" "$@"'
        expected = "f\n" + "".join(f"<{argument}>" for argument in odd)
        assert engine.engine.run_script(volume, script, odd) == expected.replace("f\n", "f\nwhere\n", 0)
        assert sorted(path.name for path in root.iterdir()) == ["f", "where"]

    def test_rights(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "d").mkdir(mode=0o700)
        os.chown(root / "d", 999, 999)
        engine.engine.run_script(volume, "mv d e && chown 5:6 e && touch e/f && chmod 4755 e/f && rm -r e/f && sync")
        assert (root / "e").stat().st_uid == 5

    def test_failure_has_the_last_line(self, engine: EngineUnderTest) -> None:
        volume, _ = engine.new()
        with pytest.raises(SourceError, match="second reason"):
            engine.engine.run_script(volume, "echo out; echo first reason >&2; echo second reason >&2; exit 3")

    def test_failure_without_a_word(self, engine: EngineUnderTest) -> None:
        volume, _ = engine.new()
        with pytest.raises(SourceError, match="exit code 7"):
            engine.engine.run_script(volume, "exit 7")


class TestProgram:
    """Python programs, and the room that they have for copies."""

    LOOK = (
        "import os, sys\n"
        "root, scratch = sys.argv[1:]\n"
        "text = open(os.path.join(root, 'private')).read()\n"
        "open(os.path.join(scratch, 'copy'), 'w').write(text)\n"
        "os.chown(os.path.join(scratch, 'copy'), 5, 6)\n"
        "if os.fork() == 0:\n"
        "    os.setgid(998), os.setuid(999)\n"
        "    open(os.path.join(root, 'own', 'new'), 'w').close()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(text, os.listdir(scratch))\n"
    )

    FAIL = "import sys; print('no\\nthe reason', file=sys.stderr); sys.exit(3)"

    def test_rights(self, engine: EngineUnderTest) -> None:
        volume, root = engine.new()
        (root / "private").write_text("é")
        (root / "private").chmod(0o600)
        os.chown(root / "private", 999, 998)
        (root / "own").mkdir(0o700)
        if engine.name == "mounted":
            opened_up(root)
        os.chown(root / "own", 999, 998)
        with engine.engine.scratch() as scratch:
            if engine.flavour == "busybox":
                with pytest.raises(SourceError, match="no python3"):
                    engine.engine.run_python(["-c", self.LOOK], volume, scratch)
                return
            assert engine.engine.run_python(["-I", "-c", self.LOOK], volume, scratch) == "é ['copy']\n"
            stream, _ = read(engine.engine, scratch)
            assert names(stream) == [".", "./copy"]
            copy = engine.place(scratch) / "copy"
            assert (copy.read_text(), copy.stat().st_uid, copy.stat().st_gid) == ("é", 5, 6)
        assert engine.engine.inspect(scratch) is None
        assert ((root / "own/new").stat().st_uid, (root / "own/new").stat().st_gid) == (999, 998)

    def test_failure_has_the_last_line(self, engine: EngineUnderTest) -> None:
        if engine.flavour == "busybox":
            return  # see above
        volume, _ = engine.new()
        with engine.engine.scratch() as scratch, pytest.raises(SourceError, match="the reason"):
            engine.engine.run_python(
                ["-c", "import sys; print('no\\nthe reason', file=sys.stderr); sys.exit(3)"], volume, scratch
            )

    def test_scratch_is_removed_after_trouble(self, engine: EngineUnderTest) -> None:
        with pytest.raises(KeyboardInterrupt), engine.engine.scratch() as scratch:  # noqa: PT012
            assert engine.engine.inspect(scratch) is not None
            raise KeyboardInterrupt
        assert engine.engine.inspect(scratch) is None


def test_tool(engine: EngineUnderTest) -> None:
    assert engine.engine.tool().flavour == engine.flavour
    assert engine.engine.tool().version[0].isdigit()


def test_no_leftovers_to_remove(engine: EngineUnderTest) -> None:
    assert list(engine.engine.remove_leftovers()) == []
