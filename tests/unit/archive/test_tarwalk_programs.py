"""TarWalker on what real programs write, compared with what Python's tarfile reads."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import Member
from tests.support.keys import need
from tests.support.tars import awkward_tree, python_tar, sparse_file, tar_of, walk

OURS = ("--format=posix", "--pax-option=delete=atime,delete=ctime", "--xattrs", "--sparse", "--numeric-owner")
KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.LNKTYPE: "hardlink",
    tarfile.SYMTYPE: "symlink",
    tarfile.DIRTYPE: "dir",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
}


def agrees_with_tarfile(stream: bytes) -> list[Member]:
    members, features = walk(stream)
    assert (members, features) == walk(stream, general=True) == walk(stream, 1000)
    with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8") as tar:
        infos = tar.getmembers()
    assert len(members) == len(infos)
    for member, info in zip(members, infos, strict=True):
        assert member.path == (info.name.removeprefix("./") or ".")
        assert member.kind == KINDS[info.type]
        assert (member.offset, member.mode, member.uid, member.gid) == (
            info.offset,
            info.mode & 0o7777,
            info.uid,
            info.gid,
        )
        assert member.mtime / 10**9 == pytest.approx(info.mtime, abs=1e-6)
        assert member.size == (info.size if member.kind == "file" else 0)
        assert member.link == (info.linkname if member.kind in ("symlink", "hardlink") else "")
    for member in members:
        with tarfile.open(fileobj=io.BytesIO(stream[member.offset :]), encoding="utf-8") as tar:
            assert tar.getmembers()[0].name.removeprefix("./") in (member.path, "." + member.path)
    return members


@pytest.mark.parametrize("tar_format", ["posix", "gnu", "oldgnu", "ustar", "v7"])
def test_gnu_tar(tmp_path: Path, tar_format: str) -> None:
    awkward_tree(tmp_path, short_names=tar_format in ("v7", "ustar"))
    options = () if tar_format == "v7" else ("--sort=name",)
    if tar_format == "v7":
        (tmp_path / "fifo").unlink()
    members = agrees_with_tarfile(tar_of(tmp_path, f"--format={tar_format}", *options))
    assert {member.path for member in members} == {
        str(path.relative_to(tmp_path)) for path in (tmp_path, *tmp_path.rglob("*"))
    }


def test_gnu_tar_as_backups_call_it(tmp_path: Path) -> None:
    awkward_tree(tmp_path)
    sparse_file(tmp_path / "sparse", 40)
    members = {member.path: member for member in agrees_with_tarfile(tar_of(tmp_path, *OURS))}
    for path in (tmp_path, *tmp_path.rglob("*")):
        member = members.pop(str(path.relative_to(tmp_path)))
        status = path.lstat()
        if member.kind != "hardlink":
            assert member.mtime == status.st_mtime_ns
        assert member.size == (status.st_size if member.kind == "file" else 0)
    assert not members


@pytest.mark.parametrize("extents", [1, 4, 5, 30])
@pytest.mark.parametrize(
    "options", [("--format=gnu",), *(("--format=posix", f"--sparse-version={v}") for v in ("0.0", "0.1", "1.0"))]
)
def test_sparse_files(tmp_path: Path, options: tuple[str, ...], extents: int) -> None:
    sparse_file(tmp_path / "sparse", extents)
    (tmp_path / "zz-next").write_bytes(b"next")
    stream = tar_of(tmp_path, *options, "--sparse", "--sort=name")
    _, sparse, following = agrees_with_tarfile(stream)
    assert (sparse.path, sparse.size) == ("sparse", (tmp_path / "sparse").stat().st_size)
    assert (following.path, following.size) == ("zz-next", 4)
    assert "sparse" in walk(stream)[1]


def test_busybox_tar(tmp_path: Path) -> None:
    need("busybox")
    awkward_tree(tmp_path)
    agrees_with_tarfile(tar_of(tmp_path, program=("busybox", "tar")))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1, max_size=150),
            st.sampled_from(sorted(KINDS.keys() - {tarfile.GNUTYPE_SPARSE})),
            st.integers(0, 1100),
            st.integers(0, 2**31),
            st.one_of(st.integers(0, 2**33), st.integers(1, 2**43).map(lambda time: time / 1024)),
        ),
        max_size=8,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_python_tarfile(specs: list[tuple[str, bytes, int, int, float]], tar_format: int) -> None:
    members = []
    for name, kind, size, owner, mtime in specs:
        info = tarfile.TarInfo("./" + name.replace("/", "-"))
        info.type, info.uid, info.gid, info.mtime, info.mode = kind, owner, owner, mtime, owner & 0o7777
        info.linkname = name if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
        members.append((info, bytes(size) if info.isreg() else b""))
    agrees_with_tarfile(python_tar(members, tar_format=tar_format))
