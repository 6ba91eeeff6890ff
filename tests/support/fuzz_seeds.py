"""Bytes for fuzzing to begin with: documents as they should be, and what is hard on parsers."""

from __future__ import annotations

import io
import tempfile
from datetime import timedelta
from pathlib import Path

import zstandard

from backupd.journal import HoldAct, Journal
from backupd.signingkey import OwnKey
from tests.support.runtime import BEGIN
from tests.support.tars import GNU, extension, header, padded, pax

DEEP = [b"[" * 200_000, b'{"a":' * 200_000, b'{"format":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]
SETTINGS = b"""
project: shop
stores: {local: {type: local, path: /b}, away: {type: s3, bucket: backups, prefix: p, part_size: 16MiB}}
volumes: {pg: {volume: pg, consistency: postgres}, files: {path: /f, exclude: ["*.tmp"], optional: true}}
plans: {nightly: {schedule: "0 2 * * *", volumes: [pg, files], stores: [local], keep: {daily: 7, within: 2d}}}
"""
LEASE = (
    b'{"format":1,"kind":"shared","operation":"o","host":"h","program":"p","process":1,'
    b'"begun":"2026-11-01T02:00:00Z","until":"2026-11-01T02:15:00Z","seconds":900}'
)
DRILL = (
    b'{"format":1,"id":"20261101T020100Z-00000001","snapshot":"0123456789abcdef","plan":"p","time":"2026-11-01T02:01:00Z",'
    b'"finished":"2026-11-01T02:01:00Z","host":"h","program":"p","engine":"docker","outcome":"proven",'
    b'"recovery_seconds":2,"age_seconds":3,"missing":[],"volumes":[{"volume":"v","outcome":"proven",'
    b'"moment":"2026-11-01T02:00:00Z","restore_seconds":1.5,"recovery_seconds":2,"counts":{"t: a":1},'
    b'"findings":[{"probe":"p","subject":"s","verdict":"proven","text":"t"}]}]}'
)
TRUST = (
    b'{"signers":["'
    + b"a" * 64
    + b'"],"snapshots":{"0123":{"digest":"'
    + b"b" * 64
    + b'","signer":"","time":"2026-11-01T02:00:00Z"}},'
    b'"accepted":["0123"]}'
)
CLAIM = b'{"bucket":"b","key":"archives/a","upload":"u"}'


def tars() -> list[bytes]:
    sparse = pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__realsize=b"9")
    return [
        header(b"./a", size=700) + padded(b"x" * 700) + bytes(1024),
        extension(b"x" * 300, b"L") + header(b"./a") + bytes(1024),
        sparse + header(b"./a", size=1024, magic=GNU) + bytes(2048),
        pax(path="ü".encode() * 90, mtime=b"1.5", size=b"3") + header(b"./b", size=3) + padded(b"abc") + bytes(1024),
        header(b"./l", b"2", link=b"../../x") + header(b"./h", b"1", link=b"l") + bytes(1024),
    ]


def journals() -> list[bytes]:
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory))
        journal.begin(HoldAct(service="s", name="n", how="stop"), BEGIN + timedelta(days=1))
        return [(Path(directory) / "journal.sqlite").read_bytes()]


def signing_keys() -> list[bytes]:
    with tempfile.TemporaryDirectory() as directory:
        OwnKey(Path(directory))()
        return [path.read_bytes() for path in Path(directory).iterdir() if path.stat().st_size]


def bomb(size: int) -> bytes:
    """An index that claims to hold `size` bytes, in a few of them."""
    stream = io.BytesIO()
    with zstandard.ZstdCompressor(19).stream_writer(stream, closefd=False) as writer:
        for _ in range(size >> 20):
            writer.write(bytes(1 << 20))
    return stream.getvalue()
