"""Frames and trailers, cut anywhere."""

from __future__ import annotations

import random
import socket
import threading

import pytest

from backupd.engine.docker.frames import Frames
from backupd.engine.docker.trailer import TRAILER_BYTES, Untrailed, exit_code_in


def frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_frames(size: int) -> None:
    dice = random.Random(size)
    payloads = [(dice.choice((1, 1, 2)), dice.randbytes(dice.choice((0, 1, 5, 900)))) for _ in range(200)]
    wire = b"".join(frame(*each) for each in payloads)
    ours, theirs = socket.socketpair()
    stderr = bytearray()

    def send() -> None:
        position = 0
        while position < len(wire):
            step = dice.choice((1, 3, 8, 50, 5000))
            theirs.sendall(wire[position : position + step])
            position += step
        theirs.close()

    with ours:
        sender = threading.Thread(target=send)
        sender.start()
        frames = Frames(ours, stderr.extend)
        buffer = memoryview(bytearray(size))
        stdout = bytearray()
        while count := frames.readinto(buffer):
            stdout += buffer[:count]
        sender.join()
    assert bytes(stdout) == b"".join(payload for stream, payload in payloads if stream == 1)
    assert bytes(stderr) == b"".join(payload for stream, payload in payloads if stream == 2)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 1000, 200_000])
@pytest.mark.parametrize("piece", [1, 100, 256, 70_000])
@pytest.mark.parametrize("buffer_size", [10, 1000, 1 << 17])
def test_untrailed(length: int, piece: int, buffer_size: int) -> None:
    if piece == 1 and length > 1000:
        return
    data = random.Random(length).randbytes(length)
    source = memoryview(data + b"T" * TRAILER_BYTES)

    def readinto(buffer: memoryview) -> int:
        nonlocal source
        count = min(len(buffer), len(source), piece)
        buffer[:count] = source[:count]
        source = source[count:]
        return count

    stream = Untrailed(readinto)
    buffer = memoryview(bytearray(buffer_size))
    found = bytearray()
    while count := stream.readinto(buffer):
        found += buffer[:count]
    assert bytes(found) == data
    assert stream.tail == b"T" * TRAILER_BYTES
    assert stream.ended


def test_stream_shorter_than_a_trailer() -> None:
    pieces = [b"abc", b""]

    def readinto(buffer: memoryview) -> int:
        piece = pieces.pop(0)
        buffer[: len(piece)] = piece
        return len(piece)

    stream = Untrailed(readinto)
    assert stream.readinto(memoryview(bytearray(100))) == 0
    assert (stream.tail, stream.ended) == (b"abc", True)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"%-256b" % b"BACKUPD-END n0nce 0", 0),
        (b"%-256b" % b"BACKUPD-END n0nce 137", 137),
        (b"BACKUPD-READY n0nce\nBACKUPD-END n0nce 2\n", 2),
        (b"%-256b" % b"BACKUPD-END other 0", None),
        (b"%-256b" % b"BACKUPD-END n0nce ", None),
        (b"%-256b" % b"xBACKUPD-END n0nce 0", None),
        (b"", None),
    ],
)
def test_exit_code_in(text: bytes, code: int | None) -> None:
    assert exit_code_in(text, "n0nce") == code
