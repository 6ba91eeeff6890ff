"""Where chunks are cut is part of format 1: another cut would store every volume anew.

The stream is SHA-256 in counter mode: the digests of 0, 1, 2, … as eight bytes, big-endian, one after the other. If
this fails after an update of pyfastcdc, do not change the numbers: pin the old version, or keep its algorithm.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Literal

import pytest

from backupd.archive import Chunker, ChunkerParameters
from backupd.archive.blocks import Blocks
from backupd.model import KIB, MIB

GOLDEN = json.loads(Path(__file__).with_name("chunks.json").read_text())


@pytest.fixture(scope="module")
def stream() -> bytes:
    stream = b"".join(hashlib.sha256(number.to_bytes(8, "big")).digest() for number in range(16 * MIB // 32))
    assert hashlib.sha256(stream).hexdigest() == GOLDEN["stream_sha256"]
    return stream


def cut(stream: bytes, parameters: ChunkerParameters) -> list[bytes]:
    blocks = Blocks(parameters.maximum, 2 * parameters.maximum, count=2)
    pieces = blocks.read(io.BytesIO(stream).readinto)
    return [bytes(chunk.data) for chunk in Chunker(parameters).cut(pieces, blocks.give_back)]


def test_the_default_parameters() -> None:
    assert ChunkerParameters() == ChunkerParameters(
        algorithm="fastcdc-2020", minimum=512 * KIB, average=2 * MIB, maximum=4 * MIB, normalization=1
    )


def test_default_chunks(stream: bytes) -> None:
    chunks = cut(stream, ChunkerParameters())
    assert [[len(chunk), hashlib.sha256(chunk).hexdigest()] for chunk in chunks] == GOLDEN["default"]


@pytest.mark.parametrize("normalization", [1, 2, 3])
def test_small_chunks(stream: bytes, normalization: Literal[1, 2, 3]) -> None:
    """Many cuts: the digest of all lengths, as decimals with a line break each."""
    parameters = ChunkerParameters(minimum=16 * KIB, average=64 * KIB, maximum=256 * KIB, normalization=normalization)
    chunks = cut(stream, parameters)
    lengths = "".join(f"{len(chunk)}\n" for chunk in chunks).encode()
    assert [len(chunks), hashlib.sha256(lengths).hexdigest()] == GOLDEN["small"][str(normalization)]
