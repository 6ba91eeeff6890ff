"""One chunk, one frame: what a concatenation of frames decompresses to is the concatenation of the chunks.

zstd frames (RFC 8878) carry content size and checksum; gzip members (RFC 1952) carry no name and no time. Both formats
say that concatenated frames are one stream, so a full archive is an ordinary `.tar.zst`, `.tar.gz` or `.tar`.
"""

from __future__ import annotations

import threading
import zlib
from typing import Protocol

import zstandard

from backupd.errors import IntegrityError
from backupd.model import Compression

_GZIP = 16 + zlib.MAX_WBITS


class Codec(Protocol):
    """Compresses and decompresses single chunks. Thread-safe."""

    suffix: str

    def compress(self, chunk: memoryview) -> bytes | memoryview:
        """The chunk as one frame."""
        ...

    def decompress(self, frame: memoryview, plain_size: int) -> bytes | memoryview:
        """The chunk of exactly `plain_size` bytes; IntegrityError if the frame is not that. Never allocates more."""
        ...


# Text repeats itself in longer pieces than what databases hold. With 1.5 MiB of tables two threads share a processor's
# second-level cache (docs/decisions/0002-chunks-of-two-mebibytes.md says what each of these numbers costs and gains).
_MIN_MATCH_TEXT = 6
_MIN_MATCH_OTHER = 5
_SAMPLE_BYTES = 4096
_TEXT = bytes((*range(9, 14), 27, *range(32, 127), *range(128, 256)))


def _tuned(min_match: int) -> zstandard.ZstdCompressionParameters:
    """The strategy of level 3 with a larger table, for what frames of 2 MiB lose against one long stream."""
    return zstandard.ZstdCompressionParameters(
        window_log=22,
        chain_log=17,
        hash_log=18,
        search_log=1,
        min_match=min_match,
        strategy=zstandard.STRATEGY_DFAST,
        write_checksum=True,
        write_content_size=True,
    )


def _is_text(chunk: memoryview) -> bool:
    """Whether the middle of a chunk looks like text, in whatever language."""
    middle = len(chunk) // 2
    return not chunk[middle : middle + _SAMPLE_BYTES].tobytes().translate(None, _TEXT)


class _Compressors(threading.local):
    """A thread's own: for text, and for the rest."""

    def __init__(self, level: int | None) -> None:
        if level is None:
            self.text, self.other = (
                zstandard.ZstdCompressor(compression_params=_tuned(min_match))
                for min_match in (_MIN_MATCH_TEXT, _MIN_MATCH_OTHER)
            )
        else:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                level, write_checksum=True, write_content_size=True
            )
            self.text = self.other = zstandard.ZstdCompressor(compression_params=parameters)


class ZstdCodec:
    """Zstandard, by default about as fast as the `zstd` program at its level 3."""

    suffix = ".tar.zst"

    def __init__(self, level: int | None = None) -> None:
        self._compressors = _Compressors(level)
        self._local = threading.local()

    def compress(self, chunk: memoryview) -> bytes:
        """One frame with content size and checksum."""
        compressors = self._compressors
        return (compressors.text if _is_text(chunk) else compressors.other).compress(chunk)

    def decompress(self, frame: memoryview, plain_size: int) -> bytes:
        """See Codec."""
        decompressor: zstandard.ZstdDecompressor | None = getattr(self._local, "decompressor", None)
        if decompressor is None:
            decompressor = self._local.decompressor = zstandard.ZstdDecompressor()
        try:
            if zstandard.frame_content_size(frame) != plain_size:
                raise IntegrityError("a zstd frame does not hold a chunk of the expected size")
            return decompressor.decompress(frame, max_output_size=plain_size, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise IntegrityError(f"a zstd frame is damaged: {exc}") from exc


class GzipCodec:
    """gzip, by default at level 6, for places where only `tar xzf` is at hand. Several times slower than zstd."""

    suffix = ".tar.gz"

    def __init__(self, level: int | None = None) -> None:
        self._level = 6 if level is None else level

    def compress(self, chunk: memoryview) -> bytes:
        """One gzip member."""
        compressor = zlib.compressobj(self._level, zlib.DEFLATED, _GZIP)
        return compressor.compress(chunk) + compressor.flush()

    def decompress(self, frame: memoryview, plain_size: int) -> bytes:
        """See Codec."""
        decompressor = zlib.decompressobj(_GZIP)
        try:
            plain = decompressor.decompress(frame, plain_size + 1)
        except zlib.error as exc:
            raise IntegrityError(f"a gzip member is damaged: {exc}") from exc
        if len(plain) != plain_size or not decompressor.eof or decompressor.unused_data:
            raise IntegrityError("a gzip member does not hold a chunk of the expected size")
        return plain


class PlainCodec:
    """No compression: the frame is the chunk."""

    suffix = ".tar"

    def compress(self, chunk: memoryview) -> memoryview:
        """The chunk itself."""
        return chunk

    def decompress(self, frame: memoryview, plain_size: int) -> memoryview:
        """See Codec."""
        if len(frame) != plain_size:
            raise IntegrityError("an uncompressed chunk does not have the expected size")
        return frame


def codec_for(compression: Compression) -> Codec:
    """The codec that a plan writes with."""
    match compression.codec:
        case "zstd":
            return ZstdCodec(compression.level)
        case "gzip":
            return GzipCodec(compression.level)
        case "none":
            return PlainCodec()


def codec_of(key: str) -> Codec:
    """The codec that can read the frames of an archive, told by the suffix of its key."""
    for codec in (ZstdCodec(), GzipCodec(), PlainCodec()):
        if key.endswith(codec.suffix):
            return codec
    raise IntegrityError(f"{key}: not the name of an archive")
