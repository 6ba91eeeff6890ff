"""One chunk, one frame: what a concatenation of frames decompresses to is the concatenation of the chunks.

zstd frames (RFC 8878) carry content size and checksum; gzip members (RFC 1952) carry no name and no time. Both formats
say that concatenated frames are one stream, so a full archive is an ordinary `.tar.zst`, `.tar.gz` or `.tar`.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from backupd.archive.tarheader import BLOCK
from backupd.errors import IntegrityError
from backupd.model import KIB, MIB, Compression

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

# Rows of one pattern (logs, dumps, Redis' file of commands) repeat what stands just before: a table of 4,096 entries
# that knows nothing older makes smaller frames than the large ones, in half the time; other text it makes a fifth
# larger (docs/decisions/0080-rows-get-a-small-table.md).
_ROWS_TABLE_LOG = 12
_MIN_MATCH_ROWS = 7
_ROWS_SHARE = 0.98
_FIRST_LOOK_BYTES = 32 * KIB
_SECOND_LOOK_BYTES = 256 * KIB
_LOOK_AGAIN_AFTER = 8

# The headers between small files are almost the same: one table finds them in four fifths of the time, in frames 3 %
# larger. Larger files would lose more by it (docs/decisions/0086-small-files-get-one-table.md).
_FILES_TABLE_LOG = 18
_MIN_MATCH_FILES = 6
_HEADERS_SHARE = 0.24
_MAGIC = b"ustar"  # at 257 of every header's block, whatever the format
_MAGIC_WORD = memoryview(_MAGIC[:4]).cast("I")[0]


def _compressor(strategy: int, min_match: int, long_log: int = 18, short_log: int = 17) -> zstandard.ZstdCompressor:
    """By default the tables are larger than those of level 3, for what frames of 2 MiB lose against one long stream."""
    parameters = zstandard.ZstdCompressionParameters(
        window_log=22,
        chain_log=short_log,
        hash_log=long_log,
        search_log=1,
        min_match=min_match,
        strategy=strategy,
        write_checksum=True,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _middle(chunk: memoryview, size: int) -> memoryview:
    start = max(0, (len(chunk) - size) // 2)
    return chunk[start : start + size]


def _is_text(chunk: memoryview) -> bool:
    """Whether the middle of a chunk looks like text, in whatever language."""
    return not _middle(chunk, _SAMPLE_BYTES).tobytes().translate(None, _TEXT)


def _is_small_files(chunk: memoryview) -> bool:
    """Whether a quarter of the blocks in the middle of a chunk are tar headers.

    Chunks begin anywhere in a block: the first magic tells where to look for all others.
    """
    middle = _middle(chunk, MIB)
    first = middle[:_FIRST_LOOK_BYTES].tobytes().find(_MAGIC)
    if first < 0:
        return False
    blocks = (len(middle) - first) // BLOCK
    words = middle[first : first + blocks * BLOCK].cast("I")[:: BLOCK // 4]
    return words.tolist().count(_MAGIC_WORD) > _HEADERS_SHARE * blocks


class _Tuned:
    """The default level: four compressors, and which of them is best for a chunk. Not thread-safe."""

    def __init__(self) -> None:
        log = _FILES_TABLE_LOG
        self._small_files = _compressor(zstandard.STRATEGY_FAST, _MIN_MATCH_FILES, log, log)
        log = _ROWS_TABLE_LOG
        self._rows = _compressor(zstandard.STRATEGY_FAST, _MIN_MATCH_ROWS, log, log)
        self._text = _compressor(zstandard.STRATEGY_DFAST, _MIN_MATCH_TEXT)
        self._other = _compressor(zstandard.STRATEGY_DFAST, _MIN_MATCH_OTHER)
        self._rows_before = 0

    def compress(self, chunk: memoryview) -> bytes:
        """See Codec."""
        return self._best_for(chunk).compress(chunk)

    def _best_for(self, chunk: memoryview) -> zstandard.ZstdCompressor:
        if _is_small_files(chunk):
            return self._small_files
        if not _is_text(chunk):
            return self._other
        return self._rows if self._is_rows(chunk) else self._text

    def _is_rows(self, chunk: memoryview) -> bool:
        """Whether the small table does better on a sample, or did on chunks before and is no worse on this one."""
        if self._share(chunk, _FIRST_LOOK_BYTES) > 1:
            self._rows_before = 0
            return False
        if not 0 < self._rows_before < _LOOK_AGAIN_AFTER:
            self._rows_before = 0
            if self._share(chunk, _SECOND_LOOK_BYTES) > _ROWS_SHARE:
                return False
        self._rows_before += 1
        return True

    def _share(self, chunk: memoryview, sample_bytes: int) -> float:
        """How large the middle of a chunk becomes with the small table, in relation to the large ones."""
        sample = _middle(chunk, sample_bytes)
        return len(self._rows.compress(sample)) / len(self._text.compress(sample))


class _Own(threading.local):
    """A thread's compressor."""

    def __init__(self, level: int | None) -> None:
        self.compress: Callable[[memoryview], bytes]
        if level is None:
            self.compress = _Tuned().compress
        else:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                level, write_checksum=True, write_content_size=True
            )
            self.compress = zstandard.ZstdCompressor(compression_params=parameters).compress


class ZstdCodec:
    """Zstandard, by default about as fast as the `zstd` program at its level 3."""

    suffix = ".tar.zst"

    def __init__(self, level: int | None = None) -> None:
        self._own = _Own(level)
        self._local = threading.local()

    def compress(self, chunk: memoryview) -> bytes:
        """One frame with content size and checksum."""
        return self._own.compress(chunk)

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
