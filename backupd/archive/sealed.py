"""Frames that are encrypted: another codec's frame as one age file, so that each can be fetched and read by itself."""

from __future__ import annotations

from collections.abc import Callable

from backupd.archive.codec import Codec

Transform = Callable[[bytes | memoryview], bytes]


class SealedCodec:
    """`seal` encrypts for the recipients, `unseal` decrypts, or raises IntegrityError; one of them may be left out."""

    def __init__(self, inner: Codec, *, seal: Transform | None = None, unseal: Transform | None = None) -> None:
        self._inner = inner
        self._seal = seal
        self._unseal = unseal
        self.suffix = f"{inner.suffix}.age"

    def compress(self, chunk: memoryview) -> bytes:
        """See Codec."""
        assert self._seal is not None  # made for writing
        return self._seal(self._inner.compress(chunk))

    def decompress(self, frame: memoryview, plain_size: int) -> bytes | memoryview:
        """See Codec."""
        assert self._unseal is not None  # made for reading
        return self._inner.decompress(memoryview(self._unseal(frame)), plain_size)
