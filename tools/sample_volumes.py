"""Four sample volumes, as a product's stack would have them, and then some: every oddity that a tar has to carry."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

MIB = 1024 * 1024
VOLUMES = ("database", "documents", "media", "oddities")
_LONG_AGO = 1_234_567_890_123_456_789


def create(root: Path) -> None:
    """Fill `root/<volume>` for each of VOLUMES: about 110 MiB, the same at every call but for the clock."""
    rng = random.Random(2026)
    for name, make in (("database", _database), ("documents", _documents), ("media", _media), ("oddities", _oddities)):
        volume = root / name
        volume.mkdir(parents=True)
        make(volume, rng)
    volume.chmod(0o2750)
    os.utime(volume, ns=(_LONG_AGO, _LONG_AGO))


def change(root: Path) -> None:
    """A day's work: new rows, a few new documents, one deleted, one appended to."""
    with closing(sqlite3.connect(root / "database" / "app.sqlite")) as connection, connection:
        rows = (("A new trip", os.urandom(600)) for _ in range(50))
        connection.executemany("INSERT INTO trips (title, track) VALUES (?, ?)", rows)
    for number in range(5):
        (root / "documents" / f"new-{number}.txt").write_text("written after the first snapshot\n" * 40)
    (root / "documents" / "0" / "7.json").unlink()
    with (root / "media" / "video-0.bin").open("ab") as file:
        file.write(b"appended" * 8192)


def damage(root: Path) -> None:
    """What one is paged for at 3 a.m.: files gone, emptied, overwritten, and strangers among them."""
    (root / "database" / "app.sqlite").write_bytes(b"\0" * 4096)
    for path in sorted((root / "documents").iterdir())[3:]:
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    (root / "media" / "video-1.bin").unlink()
    (root / "media" / "ransom-note.txt").write_text("all your files are belong to us\n")
    for path in (root / "oddities").iterdir():
        if path.is_symlink() or path.is_file():
            path.unlink()


def _database(volume: Path, rng: random.Random) -> None:
    with closing(sqlite3.connect(volume / "app.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE trips (id INTEGER PRIMARY KEY, title TEXT, track BLOB)")
        connection.executemany(
            "INSERT INTO trips (title, track) VALUES (?, ?)",
            (
                (f"Trip {number} to {rng.choice(('Soria', 'Teruel', 'Lugo'))}", rng.randbytes(600))
                for number in range(20_000)
            ),
        )
    (volume / "app.sqlite").chmod(0o600)


def _documents(volume: Path, rng: random.Random) -> None:
    for directory in range(40):
        (volume / str(directory)).mkdir()
        for number in range(50):
            words = " ".join(
                rng.choices(("ride", "gravel", "summit", "river", "bread", "rain"), k=rng.randint(20, 400))
            )
            (volume / str(directory) / f"{number}.json").write_text(f'{{"id": {number}, "text": "{words}"}}\n')


def _media(volume: Path, rng: random.Random) -> None:
    for number in range(3):
        (volume / f"video-{number}.bin").write_bytes(rng.randbytes(24 * MIB))


def _oddities(volume: Path, rng: random.Random) -> None:
    names = ("plain", "with space", "new\nline", "--checkpoint=1", "-rf", "ünïcödé", "quote'\"\\", "n" * 255, ".hidden")
    for number, name in enumerate(names):
        file = volume / name
        file.write_bytes(rng.randbytes(100 * number))
        os.utime(file, ns=(_LONG_AGO, _LONG_AGO + number))
    (Path(os.fsdecode(os.fsencode(volume) + b"/not-utf8-\xff\xfe"))).write_text("bytes are names too\n")
    os.link(volume / "plain", volume / "hard link")
    (volume / "link").symlink_to("with space")
    (volume / "dangling").symlink_to("nowhere/at/all")
    deep = volume.joinpath(*(f"level-{number:02d}-{'x' * 40}" for number in range(12)))
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep down\n")
    (volume / "empty").mkdir(mode=0o700)
    with (volume / "sparse").open("wb") as sparse:
        sparse.write(b"begin")
        sparse.seek(512 * MIB)
        sparse.write(b"end")
    os.mkfifo(volume / "fifo", 0o640)
    (volume / "sticky").mkdir()
    (volume / "sticky").chmod(0o1777)
    program = volume / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o4755)
    try:
        os.setxattr(volume / "plain", "user.origin", b"demo")
    except OSError:  # this file system has none
        (volume / "no-xattrs-here").touch()
    if os.geteuid() == 0:
        os.chown(volume / "with space", 1000, 1000)
        os.chown(volume / "link", 12345, 3_000_000, follow_symlinks=False)
        os.chown(program, 999, 999)
        program.chmod(0o6755)
