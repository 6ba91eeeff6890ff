"""The volumes that are measured: made from a seed, kept in a cache, changed the way a day of work changes them."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from random import Random

from benchmarks.text import PAGE, Writer

KIB, MIB, GIB = 1024, 1024**2, 1024**3
ONE_FILE = "storage/reports/2026-03.txt"  # 10 KiB, in the middle of the archive

_SHARES = {"logs": 0.18, "documents": 0.15, "sqlite": 0.15, "pages": 0.20, "uploads": 0.25, "small": 0.06}
_SMALL_FILES_A_GIB = 20_000
_START = 1_772_000_000.0


def cached(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The volume `name`, made unless it is there already. Those that an older recipe made are removed.

    A process of its own makes it: what this one ever held in memory would be counted as every measured command's peak.
    """
    here = Path(__file__)
    recipe = hashlib.sha256(here.read_bytes() + here.with_name("text.py").read_bytes()).hexdigest()[:8]
    wanted = cache / f"{name}@{recipe}"
    if not wanted.exists():
        for old in cache.glob(f"{name}@*"):
            shutil.rmtree(old)
        partial = cache / f"{name}@partial"
        partial.mkdir(parents=True)
        maker = multiprocessing.get_context("fork").Process(target=make, args=(partial,))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise RuntimeError(f"{name} could not be made")
        partial.rename(wanted)
    return wanted


def mixed(root: Path, size: int) -> None:
    """What the volumes of a stack hold: logs, documents, two kinds of database, uploaded images, many small files."""
    rng = Random(1)
    writer = Writer(rng)
    share = {name: int(part * size) for name, part in _SHARES.items()}
    for number in range(6):
        _write(root / f"logs/service-{number}.log", writer.log(share["logs"] // 6, _START))
    for number in range(max(1, share["documents"] // (256 * KIB))):
        _write(root / f"storage/documents/{number % 16:02}/{number}.md", [writer.text(256 * KIB)])
    _write(root / ONE_FILE, [writer.text(10 * KIB)])
    for number in range(4):
        pages = share["pages"] // PAGE // 4
        _write(root / f"postgres/base/16384/{24576 + number}", writer.pages(pages, number << 24))
    _database(root / "pgadmin/app.sqlite", writer, share["sqlite"])
    _uploads(root / "storage/uploads/2025", rng, share["uploads"])
    _small(root / "cache", writer, _SMALL_FILES_A_GIB * size // GIB, share["small"])


def small_files(root: Path, count: int) -> None:
    """`count` files of 2 KiB on average."""
    _small(root, Writer(Random(2)), count, count * 2 * KIB)


def large(root: Path, size: int) -> None:
    """Files of 16 MiB, half random, half text; none like another, though they are made quickly."""
    rng = Random(3)
    text = Writer(rng).text(8 * MIB)
    letters = bytearray(range(97, 123))
    for number in range(size // (16 * MIB)):
        rng.shuffle(letters)
        other = text.translate(bytes.maketrans(bytes(range(97, 123)), bytes(letters)))
        _write(root / f"{number // 64}/{number}.bin", [rng.randbytes(8 * MIB), other])


def change_one_percent(root: Path, size: int, seed: int) -> None:
    """Logs grow, a few uploads and small files come, a range of rows and a range of pages are written anew."""
    rng = Random(1000 + seed)
    writer = Writer(rng)
    budget = size // 100
    for number in range(6):
        _write(root / f"logs/service-{number}.log", writer.log(budget * 30 // 100 // 6, _START + 1e6 * seed), "ab")
    _uploads(root / f"storage/uploads/2026-{seed}", rng, budget * 35 // 100)
    _small(root / f"cache/new-{seed}", writer, 40, budget * 5 // 100)
    with (root / "postgres/base/16384/24577").open("r+b") as file:
        pages = budget * 20 // 100 // PAGE
        file.seek(rng.randrange(max(1, os.fstat(file.fileno()).st_size // PAGE - pages)) * PAGE)
        file.writelines(writer.pages(pages, seed << 28))
    with closing(sqlite3.connect(root / "pgadmin/app.sqlite")) as connection, connection:
        (rows,) = connection.execute("SELECT count(*) FROM trips").fetchone()
        first = rng.randrange(rows * 9 // 10)
        last = first + rows * budget // 10 // int(_SHARES["sqlite"] * size)
        statement = "UPDATE trips SET owner = owner + 1, title = upper(title) WHERE id BETWEEN ? AND ?"
        connection.execute(statement, (first, last))


def scattered_change(root: Path, size: int, seed: int) -> None:
    """The same amount in the worst way: single pages of a database and single small files, everywhere."""
    rng = Random(2000 + seed)
    writer = Writer(rng)
    for path in rng.sample(sorted(root.glob("cache/*/*")), k=max(1, _SMALL_FILES_A_GIB * size // GIB // 100)):
        path.write_bytes(writer.text(path.stat().st_size))
    for path in sorted(root.glob("postgres/base/16384/*")):
        with path.open("r+b") as file:
            for page in writer.pages(size // 500 // PAGE, seed << 29):
                file.seek(rng.randrange(os.fstat(file.fileno()).st_size // PAGE) * PAGE)
                file.write(page)


def size_of(root: Path) -> int:
    """Bytes of all files below."""
    return sum(Path(place, name).lstat().st_size for place, _, names in os.walk(root) for name in names)


def _write(path: Path, blocks: Iterable[bytes], mode: str = "wb") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.writelines(blocks)


def _database(path: Path, writer: Writer, size: int) -> None:
    """An SQLite file whose rows hold text, numbers and a track that hardly compresses."""
    path.parent.mkdir(parents=True)
    rng = writer.rng
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = "id INTEGER PRIMARY KEY, owner INTEGER, title TEXT, notes TEXT, track BLOB"
        connection.execute(f"CREATE TABLE trips ({columns})")
        connection.executemany(
            "INSERT INTO trips (owner, title, notes, track) VALUES (?, ?, ?, ?)",
            (
                (rng.getrandbits(12), " ".join(writer.words(3)), " ".join(writer.words(80)), rng.randbytes(200))
                for _ in range(size // 680)
            ),
        )


def _uploads(root: Path, rng: Random, size: int) -> None:
    """Images: incompressible, 1 MiB or so each."""
    number = 0
    while size > 0:
        length = min(size, int(rng.lognormvariate(0, 0.6) * MIB))
        _write(root / f"{number % 12 + 1:02}/{number:05}.jpg", [rng.randbytes(length)])
        size -= length
        number += 1


def _small(root: Path, writer: Writer, count: int, size: int) -> None:
    """Small files: three of four text, the rest thumbnails; a hundred to a directory."""
    rng = writer.rng
    text = writer.text(4 * MIB)
    for number in range(count):
        length = int(rng.lognormvariate(0, 0.8) * size / count / 1.38)
        start = rng.randrange(len(text) - min(length, MIB))
        content = text[start : start + length] if number % 4 else rng.randbytes(length)
        _write(root / f"{number // 100:04}/{number:06}.{'json' if number % 4 else 'webp'}", [content])
