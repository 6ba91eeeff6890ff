"""Splice: what comes out is one tar, with every member where it should be, for every tar that reads it."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import MadeMember, Part, Splice, below, without
from backupd.errors import IntegrityError, SourceError
from backupd.model import TarReport
from tests.support.keys import need
from tests.support.streams import Given, everything
from tests.support.tars import END, awkward_tree, extension, header, padded, pax, python_tar, sparse_file, tar_of, walk
from tools.fingerprint import fingerprint

OURS = (
    *("--format=posix", "--sort=name", "--pax-option=delete=atime,delete=ctime", "--xattrs", "--xattrs-include=*"),
    *("--sparse", "--numeric-owner"),
)


def joined(*parts: Part | MadeMember, size: int = 1 << 20) -> bytes:
    return everything(Splice(parts), size)


def extracted(stream: bytes, into: Path, *program: str) -> Path:
    into.mkdir()
    options = ["-xpf", "-"] if program else ["--xattrs", "--xattrs-include=*", "-xpf", "-"]
    done = subprocess.run([*(program or ("tar",)), *options], cwd=into, input=stream, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return into


def members(stream: bytes) -> dict[str, tuple[str, str, bytes]]:
    """Kind, link and content by path, as Python's tarfile has them."""
    with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8") as tar:
        return {
            info.name.removeprefix("./"): (
                info.type.decode(),
                info.linkname,
                tar.extractfile(info).read() if info.isreg() else b"",  # type: ignore[union-attr]
            )
            for info in tar.getmembers()
        }


def test_untouched_members_are_the_same_bytes(tmp_path: Path) -> None:
    awkward_tree(tmp_path)
    sparse_file(tmp_path / "sparse", 100)
    stream = tar_of(tmp_path, *OURS)
    out = joined(Part(Given(stream)))
    assert out == stream[: len(out) - len(END)] + END
    assert walk(out) == walk(stream)


@pytest.mark.parametrize("tar_format", ["posix", "gnu", "oldgnu", "ustar", "v7"])
def test_everything_below_a_directory(tmp_path: Path, tar_format: str) -> None:
    tree = tmp_path / "tree"
    awkward_tree(tree, short_names=tar_format in ("v7", "ustar"))
    os.setxattr(tree / "block", "user.note", b"kept")
    if tar_format == "v7":
        (tree / "fifo").unlink()  # v7 has none
    options: tuple[str, ...] = OURS[1:] if tar_format in ("posix", "gnu") else ()
    if options:
        sparse_file(tree / "sparse", 100)
    if tar_format != "posix":
        options = tuple(option for option in options if not option.startswith("--pax"))
    stream = tar_of(tree, f"--format={tar_format}", *options)
    deep = "/".join(("some", "where", "p" * 90))
    out = joined(MadeMember("some", None, 0o750, os.getuid(), os.getgid(), 10**18), Part(Given(stream), below(deep)))
    found = extracted(out, tmp_path / "out")
    assert fingerprint(found / deep) == fingerprint(extracted(stream, tmp_path / "plain"))
    assert (found / "some").stat().st_mode & 0o7777 == 0o750
    assert (found / "some").stat().st_mtime_ns == 10**18
    assert len(walk(out)[0]) == len(walk(stream)[0]) + 1


@pytest.mark.parametrize("tar_format", ["gnu", "ustar"])
def test_busybox_extracts_it(tmp_path: Path, tar_format: str) -> None:
    need("busybox")
    tree = tmp_path / "tree"
    awkward_tree(tree, short_names=tar_format == "ustar")
    stream = tar_of(tree, f"--format={tar_format}")
    made = MadeMember("note", b"hello", 0o600, os.getuid(), os.getgid(), 10**18)
    out = joined(Part(Given(stream), below("q" * 60)), made)
    found = extracted(out, tmp_path / "out", "busybox", "tar")
    assert (found / "note").read_bytes() == b"hello"
    plain = extracted(stream, tmp_path / "plain", "busybox", "tar")
    assert fingerprint(found / ("q" * 60)).keys() == fingerprint(plain).keys()
    assert (found / ("q" * 60) / "directory" / "file").stat().st_nlink == 2


def test_sparse_files_stay_sparse_under_another_name(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    sparse_file(tree / "holes", 300)
    for number, options in enumerate((OURS, ("--format=posix", "-S", "--sparse-version=0.1"), ("--format=gnu", "-S"))):
        stream = tar_of(tree, *options)
        found = extracted(joined(Part(Given(stream), below("d" * 99)), size=1 << 17), tmp_path / f"out{number}")
        copy = found / ("d" * 99) / "holes"
        assert copy.read_bytes() == (tree / "holes").read_bytes()
        assert copy.stat().st_blocks < (tree / "holes").stat().st_size // 1024
        assert list(found.iterdir()) == [found / ("d" * 99)]


def test_members_left_out_and_what_is_below_them(tmp_path: Path) -> None:
    awkward_tree(tmp_path)
    (tmp_path / "large").write_bytes(os.urandom(3 << 20))
    stream = tar_of(tmp_path, *OURS)
    out = joined(Part(Given(stream), without(["directory", "large", "hardlink", "d" * 90])))
    wanted = [
        member.path
        for member in walk(stream)[0]
        if member.path not in {"directory", "large", "hardlink"}
        and not member.path.startswith(("directory/", "d" * 90))
    ]
    assert [member.path for member in walk(out)[0]] == wanted
    assert len(wanted) > 20
    assert len(out) < len(stream) - (3 << 20)


def test_hard_links_follow_their_target() -> None:
    stream = header(b"./a", size=3) + padded(b"abc") + header(b"./b", b"1", link=b"./a") + END
    moved = {"a": "z/" + "a" * 120}
    out = joined(Part(Given(stream), lambda path: moved.get(path, path)))
    assert members(out) == {moved["a"]: ("0", "", b"abc"), "b": ("1", "./" + moved["a"], b"")}
    with_records = pax(linkpath=b"./a", mtime=b"5.5") + header(b"./b", b"1", link=b"./a")
    out = joined(Part(Given(stream[:1024] + with_records + END), lambda path: moved.get(path, path)))
    assert members(out)["b"][1] == "./" + moved["a"]
    out = joined(Part(Given(stream), below("p")))
    assert members(out) == {"p/a": ("0", "", b"abc"), "p/b": ("1", "./p/a", b"")}


def test_a_hard_link_to_what_is_left_out() -> None:
    stream = header(b"./a", size=3) + padded(b"abc") + header(b"./b", b"1", link=b"./a") + END
    with pytest.raises(SourceError, match="'b' is a hard link to 'a', which is not copied"):
        joined(Part(Given(stream), without(["a"])))
    made = MadeMember("a", b"new", 0o644, 0, 0, 0)
    assert members(joined(made, Part(Given(stream), without(["a"])))) == {
        "a": ("0", "", b"new"),
        "b": ("1", "./a", b""),
    }


def test_symbolic_links_keep_what_they_say() -> None:
    long = b"./" + b"t" * 200
    for stream in (
        header(b"./s", b"2", link=b"./a") + END,
        pax(linkpath=long) + header(b"./s", b"2", link=long) + END,
        extension(long + b"\0", b"K") + header(b"./s", b"2", link=long) + END,
    ):
        old = walk(stream)[0][0].link
        for prefix in ("p", "p" * 150):
            assert members(joined(Part(Given(stream), below(prefix)))) == {f"{prefix}/s": ("2", old, b"")}


def test_made_members() -> None:
    long = "l" * 150 + "/\udcff"
    out = joined(
        MadeMember(".", None, 0o1700, 999, 998, 1_500_000_000_123_456_789),
        MadeMember("f", b"x" * 513, 0o640, 3_000_000, 0, -1_500_000_000),
        MadeMember(long, b"", 0o600, 0, 0, 10**9),
    )
    root, file, deep = walk(out)[0]
    assert (root.path, root.kind, root.mode, root.uid, root.gid) == (".", "dir", 0o1700, 999, 998)
    assert root.mtime == 1_500_000_000_123_456_789
    assert (file.path, file.size, file.uid, file.mtime) == ("f", 513, 3_000_000, -1_500_000_000)
    assert (deep.path, deep.mtime) == (long, 10**9)
    assert members(out)["f"] == ("0", "", b"x" * 513)


def test_parts_are_entered_one_after_the_other() -> None:
    events: list[str] = []
    stream = header(b"./a") + END

    def parts() -> Iterator[Part]:
        for name in ("a", "b"):
            events.append(f"asked for {name}")
            report = TarReport(2, (f"{name} changed", f"{name} vanished"))
            yield Part(Given(stream, report, events=events))

    splice = Splice(parts())
    buffer = memoryview(bytearray(1 << 20))
    with splice:
        while splice.readinto(buffer):
            pass
        assert events == ["asked for a", "enter", "finish", "exit", "asked for b", "enter", "finish", "exit"]
        assert splice.finish() == TarReport(4, ("a changed", "a vanished", "b changed", "b vanished"))


def test_a_part_that_fails() -> None:
    stream = header(b"./a", size=2000) + padded(b"x" * 2000) + END
    events: list[str] = []
    never: list[str] = []
    parts = (Part(Given(stream[:1000], error="it was killed", events=events)), Part(Given(stream, events=never)))
    with pytest.raises(SourceError, match="it was killed"):
        joined(*parts)
    assert events == ["enter", "finish", "exit"]
    assert never == []
    splice = Splice((Part(Given(stream)),))
    with splice:
        splice.readinto(memoryview(bytearray(100)))
        with pytest.raises(SourceError, match="not read to its end"):
            splice.finish()


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"not a tar" * 100,
        header(b"./a", size=2000) + padded(b"x" * 1000),
        header(b"./a"),
        pax(path=b"./b") + END,
        pax(b"g", comment=b"for all") + header() + END,
        header(b"label", b"V") + END,
        header(b"./a", b"M") + END,
        header(fields={148: b"0000000\0"}) + END,
        extension(b"5 x", b"x") + header() + END,
        header(b"./a", b"L", 1 << 30) + END,
    ],
)
@pytest.mark.parametrize("sizes", [(1 << 20,), (1, 7, 511)])
def test_bad_streams(stream: bytes, sizes: tuple[int, ...]) -> None:
    with pytest.raises(IntegrityError):
        joined(Part(Given(stream, sizes=sizes), below("p")))


def test_header_blocks_that_end_nowhere() -> None:
    endless = extension(b"x" * (15 << 20), b"L")
    with pytest.raises(IntegrityError, match="longer than any real"):
        joined(Part(Given(endless * 6 + header() + END)))


names = st.lists(st.sampled_from(("a", "b", "ü", "c" * 99, "d" * 120)), min_size=1, max_size=4).map("/".join)
trees = st.lists(st.tuples(names, st.integers(0, 3000), st.booleans()), max_size=12, unique_by=lambda item: item[0])
sizes = st.lists(st.integers(1, 5000), min_size=1, max_size=5)
edits: dict[str, Callable[[str], str | None]] = {
    "keep": lambda path: path,
    "below": below("x" * 60),
    "shorter": lambda path: path.rpartition("/")[2] + str(len(path)),
    "some": lambda path: None if path.startswith("b") else path,
}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(trees, st.sampled_from(sorted(edits)), st.sampled_from((0, 1, 2)), sizes), max_size=3),
    st.integers(1, 200_000),
)
def test_any_parts_in_any_pieces(
    parts: list[tuple[list[tuple[str, int, bool]], str, int, list[int]]], size: int
) -> None:
    wanted: list[tuple[str, bytes]] = []
    given_parts = []
    for number, (tree, edit, tar_format, reads) in enumerate(parts):
        content = []
        for name, length, link in tree:
            info = tarfile.TarInfo("./" + name)
            data = random.Random(length).randbytes(length)
            if link:
                info.type, info.linkname, data = tarfile.SYMTYPE, name * 2, b""
            content.append((info, data))
            if (path := edits[edit](name)) is not None:
                wanted.append((path, data))
        if tar_format == tarfile.USTAR_FORMAT:
            tar_format = tarfile.GNU_FORMAT if number % 2 else tarfile.PAX_FORMAT
        given_parts.append(Part(Given(python_tar(content, tar_format=tar_format), sizes=reads), edits[edit]))
    out = joined(*given_parts, size=size)
    assert out.endswith(END)
    with tarfile.open(fileobj=io.BytesIO(out), encoding="utf-8") as tar:
        found = [
            (info.name.removeprefix("./"), tar.extractfile(info).read() if info.isreg() else b"")  # type: ignore[union-attr]
            for info in tar.getmembers()
        ]
    assert found == wanted
    assert [member.path for member in walk(out)[0]] == [path for path, _ in wanted]
