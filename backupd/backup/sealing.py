"""Where an index or a file list goes: into its object as it is, or encrypted on the way."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from backupd.crypto import Recipients
from backupd.repository import HashedWriter


class ObjectSink:
    """A sink over an object being written. Nothing is complete before `close`; the object's own commit comes after it.

    With `keep`, what is encrypted is also kept as it was: `kept`, some 16 MB for the index of 1 TB.
    """

    def __init__(self, target: HashedWriter, recipients: Recipients | None, *, keep: bool = False) -> None:
        self._target = target
        self._stream = recipients.stream(target.write) if recipients else None
        self.kept = bytearray() if recipients and keep else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.__exit__(exc_type, exc, tb)

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        if self.kept is not None:
            self.kept += data
        if self._stream is None:
            self._target.write(data)
        else:
            self._stream.append(data)

    def close(self) -> None:
        """Hand over what is left."""
        if self._stream is not None:
            self._stream.close()
