"""SQLite databases are found by their content, however the stream is cut."""

from __future__ import annotations

import io
import sqlite3
import tarfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.archive import TarWalker
from backupd.drill.sniff import Sniffer


def database(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("create table t (x)")
    connection.commit()
    connection.close()
    return path.read_bytes()


def stream(tmp_path: Path) -> bytes:
    content = database(tmp_path / "made.db")
    long = "d/" * 100 + "n" * 200
    files = {
        "./a.db": content,
        "./text": b"SQLite format 3\0" + b"but too short",
        "./copy": b"x" * 512 + content[:512],
        f"./{long}": content,
        "./zeros.sqlite": bytes(4096),
        "./last": content,
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.25
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_databases_are_found(tmp_path: Path) -> None:
    data = stream(tmp_path)
    members = TarWalker().feed(memoryview(data))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 9000), min_size=1, max_size=12))
    def check(cuts: list[int]) -> None:
        sniffer = Sniffer(iter(members), len(data))
        pieces, position, turn = [], 0, 0
        while position < len(data):
            step = cuts[turn % len(cuts)]
            pieces.append(memoryview(data)[position : position + step])
            position, turn = position + step, turn + 1
        assert b"".join(sniffer.through(pieces)) == data
        assert {Path(name).name[:5]: size for name, size in sniffer.found.items()} == {
            "a.db": members[0].size,
            "nnnnn": members[0].size,
            "last": members[0].size,
        }

    check()
