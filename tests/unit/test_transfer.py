"""Export and import: plain tars out of a repository and into one."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from backupd.backup import open_or_create
from backupd.errors import BackupdError, IntegrityError, SourceError
from backupd.model import Compression, Volume
from backupd.repository import Manifest
from backupd.stores.memory import MemoryStore
from backupd.transfer import export_tar, import_tar
from tests.support.runtime import Place, RecordingProgress, fill, stored
from tools.fingerprint import differences, fingerprint


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    fill(place.root())
    return place


def sh(command: str, **variables: str | Path) -> None:
    subprocess.run(
        ["bash", "-ec", f"set -o pipefail; {command}"],
        check=True,
        env=os.environ | {name: str(value) for name, value in variables.items()},
    )


def adopt(place: Place, path: Path, *, allow_links: bool = False) -> Manifest:
    volume = Volume(name="data", kind="directory", source=str(place.root()))
    repository = open_or_create(place.stores[0], place.runtime)
    return import_tar(path, volume, repository, place.runtime, allow_links=allow_links)


def test_export_is_the_stream_of_the_engine(place: Place) -> None:
    (place.root() / "sparse").unlink()  # its header holds tar's process id
    stream = bytearray()
    buffer = memoryview(bytearray(1 << 20))
    with place.runtime.engine.tar_out(place.runtime.engine.find(place.spec())) as job:
        while count := job.readinto(buffer):
            stream += buffer[:count]
        job.finish()
    archive = place.backup().manifest.archives[0]
    exported = bytearray()
    progress = RecordingProgress()
    assert export_tar(place.repository(), archive, exported.extend, progress) == len(stream)
    assert exported == stream
    assert (progress.advanced, progress.open) == (len(stream), 0)


@pytest.mark.parametrize(("codec", "suffix", "command"), [
    ("zstd", ".tar.zst", "zstd -qdc $F | tar xpf - --xattrs --xattrs-include='*' -C $D"),
    ("gzip", ".tar.gz", "tar xzpf $F --xattrs --xattrs-include='*' -C $D"),
    ("none", ".tar", "tar xpf $F --xattrs --xattrs-include='*' -C $D"),
])  # fmt: skip
def test_plain_programs_restore_a_full_archive(place: Place, codec: str, suffix: str, command: str) -> None:
    place.compression = Compression(codec)  # type: ignore[arg-type]
    key = place.backup().manifest.archives[0].needs[0].key
    assert key.endswith(suffix)
    file, directory = place.base / "x", place.base / "d"
    file.write_bytes(place.stores[0].read(key))
    directory.mkdir()
    sh(command, F=file, D=directory)
    assert differences(fingerprint(place.root()), fingerprint(directory)) == []


@pytest.mark.parametrize("command", [
    "tar czf $F -C $D .",
    "tar cf $F -C $D .",
    "tar cf - -C $D . | zstd -q -o $F",
    "tar cf $F.t -C $D .; (head -c 3000 $F.t | zstd -qc; tail -c +3001 $F.t | zstd -qc) > $F",
    "tar cf $F.t -C $D .; (head -c 3000 $F.t | gzip -c; tail -c +3001 $F.t | gzip -c) > $F",
    "tar czf $F --format=gnu -C $D .",
    "tar czf $F --format=ustar --exclude=sparse -C $D .",
])  # fmt: skip
def test_import(place: Place, command: str) -> None:
    (place.root() / "outside").unlink()
    os.removexattr(place.root(), "user.volume")
    file = place.base / "hand-made"
    sh(command, F=file, D=place.root())
    before = fingerprint(place.root())
    manifest = adopt(place, file)
    assert (manifest.reason, manifest.plan, manifest.archives[0].tool) == ("import", "import", None)
    (place.root() / "text").unlink()
    place.restore(manifest, safety_snapshot=False)
    after = fingerprint(place.root())
    for facts in (*before.values(), *after.values()):
        facts["mtime"] = int(str(facts["mtime"])) // 10**9  # what tar keeps unless it is told otherwise
        facts.pop("sparse", None)
    if "exclude=sparse" in command:
        del before[b"sparse"]
    assert differences(before, after) == []


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


SYM, HARD, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize("members", [
    [member("/etc/passwd")],
    [member("../x")],
    [member("a/../../x")],
    [member("a/..")],
    [member("h", HARD, "../../etc/shadow")],
    [member("h", HARD, "/etc/shadow")],
    [member("l", SYM, "/etc")],
    [member("l", SYM, "../x")],
    [member("a/l", SYM, "../../x")],
    [member("./l", SYM, "a"), member("l/x")],
    [member("l", SYM, "."), member("./l/x/y")],
    [member("a//l", SYM, "b"), member("a/l/x")],
    [member("l", SYM, "a"), member("h", HARD, "l"), member("h/x")],
    [member("l", SYM, "a"), member("h", HARD, "l/x")],
], ids=lambda members: " ".join(info.name for info, _ in members))  # fmt: skip
def test_hostile_tars_are_refused(place: Place, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    file = tar_of(place.base / "t", member("good", data=b"x"), *members)
    with pytest.raises(SourceError, match="nothing was stored"):
        adopt(place, file)
    assert stored(place.stores[0]).keys() == {"backupd.json"}


def test_links_outside_may_be_allowed_but_nothing_behind_them(place: Place) -> None:
    good = tar_of(place.base / "good", member("l", SYM, "/etc/hostname"), member("x", data=b"x"))
    assert adopt(place, good, allow_links=True).archives[0].members == 2
    for bad in (
        [member("l", SYM, "/etc"), member("l/x")],
        [member("l", SYM, "/etc"), member("h", HARD, "l"), member("h/cron.d/x")],
    ):
        with pytest.raises(SourceError, match="behind a symbolic link"):
            adopt(place, tar_of(place.base / "bad", *bad), allow_links=True)


def test_ordinary_links_are_fine(place: Place) -> None:
    links = [
        member("a", DIR),
        member("a/l", SYM, "../b/c"),
        member("d", SYM, "a/b/../c"),
        member("..x"),
        member("h", HARD, "..x"),
    ]
    assert adopt(place, tar_of(place.base / "t", *links)).archives[0].members == 5


@pytest.mark.parametrize(("damage", "match"), [
    ("cut gz", "damaged"),
    ("cut zst", "damaged"),
    ("cut tar", "cut short"),
    ("flip gz", "damaged"),
    ("flip zst", "damaged"),
    ("garbage behind gz", "damaged"),
    ("garbage behind zst", "damaged"),
    ("no tar", "cannot be imported"),
    ("text", "not a tar|cut short"),
    ("empty", "cut short"),
    ("no members", "holds no files"),
    ("xz", "cannot be imported"),
])  # fmt: skip
def test_damaged_files(place: Place, damage: str, match: str) -> None:
    sh("cd $D; tar cf t.tar -C volumes/data --exclude=outside .; gzip -k t.tar; zstd -qk t.tar", D=place.base)
    tar, gz, zst = ((place.base / f"t.tar{suffix}").read_bytes() for suffix in ("", ".gz", ".zst"))
    flipped = {"gz": gz, "zst": zst}.get(damage.rsplit(maxsplit=1)[-1], b"x" * 10)
    middle = len(flipped) // 2
    content = {
        "cut gz": gz[:-5],
        "cut zst": zst[:-5],
        "cut tar": tar[: len(tar) // 2 - 100],
        "flip gz": flipped[:middle] + bytes([flipped[middle] ^ 1]) + flipped[middle + 1 :],
        "flip zst": flipped[:middle] + bytes([flipped[middle] ^ 1]) + flipped[middle + 1 :],
        "garbage behind gz": gz + b"garbage",
        "garbage behind zst": zst + b"garbage",
        "no tar": os.urandom(10_000),
        "text": b"hello\n",
        "empty": b"",
        "no members": bytes(10240),
        "xz": b"\xfd7zXZ\x00" + os.urandom(10_000),
    }[damage]
    (place.base / "x").write_bytes(content)
    with pytest.raises(IntegrityError, match=match):
        adopt(place, place.base / "x")
    assert stored(place.stores[0]).keys() <= {"backupd.json"}


def test_zeros_behind_the_end_are_fine(place: Place) -> None:
    file = tar_of(place.base / "t", member("x", data=b"x"))
    file.write_bytes(gzip.compress(file.read_bytes() + bytes(50_000)))
    assert adopt(place, file).archives[0].members == 1


def test_missing_file(place: Place) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        adopt(place, place.base / "none")


def test_densest_zstd_needs_little_memory(place: Place) -> None:
    """A bomb: the check stops where the tar ends, or passes it on in bounded pieces."""
    file = place.base / "bomb"
    file.write_bytes(zstandard.ZstdCompressor(19).compress(bytes(64 << 20)))
    with pytest.raises(BackupdError):
        adopt(place, file)


def test_import_is_a_parent(place: Place) -> None:
    place.stores = [MemoryStore("fresh")]
    file = tar_of(place.base / "t", member("x", data=b"x"))
    adopted = adopt(place, file)
    assert place.backup().manifest.archives[0].parent == adopted.id
