"""Makes `tests/golden/format-1`: run once, when format 1 was settled.

NEVER run it again for format 1. That later versions still restore what this one wrote is what the fixture is for: a
test that fails has found a version that lost somebody's backups. A new format gets a script and a directory of its own.
Needs root and GNU tar:  python -m tests.golden.make_format_1 tests/golden/format-1
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from backupd.archive import ChunkerParameters
from backupd.model import Compression
from backupd.repository import Repository
from backupd.stores.local import LocalStore
from tests.support.runtime import Place
from tools.fingerprint import Facts, fingerprint

# Small ones, so that a few kilobytes make several chunks: a repository is read with the parameters that it records.
CHUNKER = ChunkerParameters(minimum=4096, average=16384, maximum=65536)
SECONDS = 1_700_000_000


def fill_data(root: Path) -> None:
    (root / "sub" / ("d" * 120)).mkdir(parents=True)
    (root / "random").write_bytes(random.Random(1).randbytes(40_000))
    (root / "text").write_text("The quick brown fox jumps over the lazy dog.\n" * 3000)
    (root / "sub" / ("d" * 120) / "long").write_text("a path of more than a hundred bytes")
    Path(root, os.fsdecode(b"not \xff UTF-8")).write_text("odd")
    Path(root, "new\nline").write_text("odd")
    (root / "ünïcode").write_text("odd")
    os.link(root / "text", root / "hard link")
    (root / "link").symlink_to("sub/nowhere")
    Path(root, "odd link").symlink_to(os.fsdecode(b"\xfe"))
    os.mkfifo(root / "fifo", 0o622)
    (root / "empty").touch()
    with (root / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"after a hole")
        file.truncate(3 << 20)
    os.setxattr(root / "empty", "user.note", b"\0binary\xff")
    for path, mode, owner in (("random", 0o4711, 999), ("text", 0o600, 1000), ("sub", 0o2750, 3_000_000)):
        os.chown(root / path, owner, owner)
        (root / path).chmod(mode)


def dated(root: Path) -> None:
    for number, path in enumerate(sorted((root, *root.rglob("*")))):
        os.utime(path, ns=(0, (SECONDS + number) * 10**9 + number * 1_001), follow_symlinks=False)


def jsonable(print_: dict[bytes, Facts]) -> dict[str, Facts]:
    """Bytes as Latin-1, and without what depends on the file system."""

    def plain(value: object) -> object:
        match value:
            case bytes():
                return value.decode("latin-1")
            case dict():
                return {name: plain(item) for name, item in value.items()}
            case list() | tuple():
                return [plain(item) for item in value]
        return value

    return {
        path.decode("latin-1"): {name: plain(fact) for name, fact in facts.items() if name != "sparse"}
        for path, facts in print_.items()
    }


def main(target: Path) -> None:
    if target.exists():
        sys.exit(f"{target} exists, and is to stay as it is: see the docstring")
    with tempfile.TemporaryDirectory() as base:
        place = Place(Path(base), stores=[LocalStore("golden", target / "store")], names=("data",))
        Repository.open_or_create(
            place.stores[0], threads=2, now=place.clock.now(), new_id=place.runtime.new_id, chunker=CHUNKER
        )
        expected = {}

        def take(codec: str) -> None:
            dated(place.root(place.names[0]))
            place.compression = Compression(codec)  # type: ignore[arg-type]
            snapshot = place.backup().manifest
            expected[snapshot.id] = jsonable(fingerprint(place.root(place.names[0])))

        fill_data(place.root())
        take("zstd")
        (place.root() / "later").write_bytes(random.Random(2).randbytes(20_000))
        (place.root() / "empty").unlink()
        take("zstd")
        take("gzip")  # incremental: frames of two codecs
        for name, codec in (("conf", "gzip"), ("raw", "none")):
            place.names = (name,)
            place.root(name).mkdir()
            (place.root(name) / "file").write_bytes(random.Random(3).randbytes(12_000))
            (place.root(name) / "text").write_text("text\n" * 500)
            take(codec)
    shutil.rmtree(target / "store" / ".unfinished")
    (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
