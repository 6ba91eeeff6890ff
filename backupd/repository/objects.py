"""Objects that are hashed as they are written, and checked as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from blake3 import blake3

from backupd.errors import IntegrityError, ObjectNotFound, StoreError
from backupd.model import MIB
from backupd.ports import ObjectWriter, Store
from backupd.repository.manifest import ObjectRef

_PIECE = MIB


class HashedWriter:
    """An object being streamed, begun with its first byte: one that is never written to leaves nothing behind."""

    def __init__(self, store: Store, key: str, size_hint: int | None = None) -> None:
        self._store = store
        self._key = key
        self._size_hint = size_hint
        self._writer: ObjectWriter | None = None
        self._hash = blake3()
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(exc_type, exc, tb)

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        if self._writer is None:
            self._writer = self._store.create(self._key, self._size_hint).__enter__()
        self._writer.write(data)
        self._hash.update(data)
        self._size += len(data)

    def commit(self) -> ObjectRef | None:
        """Make the object durable and check that the store holds all of it; None if nothing was written."""
        if self._writer is None:
            return None
        self._writer.commit()
        held = self._store.stat(self._key)
        if held.size != self._size:
            raise StoreError(f"{self._store.name}: {self._key} has {held.size} bytes where {self._size} were written")
        return ObjectRef(key=self._key, size=self._size, blake3=self._hash.hexdigest())


def read_pieces(store: Store, ref: ObjectRef, piece_size: int = _PIECE) -> Iterator[bytes]:
    """An object in pieces, in order; IntegrityError at its end if it is not the one that was written."""
    digest = blake3()
    for offset in range(0, ref.size, piece_size):
        try:
            piece = store.read(ref.key, offset, min(piece_size, ref.size - offset))
        except ObjectNotFound as exc:
            raise IntegrityError(f"{store.name}: {ref.key} is missing") from exc
        digest.update(piece)
        yield piece
    if digest.hexdigest() != ref.blake3:
        raise IntegrityError(f"{store.name}: {ref.key} is not what was written")


def read_checked(store: Store, ref: ObjectRef) -> bytes:
    """A small object whole, checked before anything of it is used."""
    return b"".join(list(read_pieces(store, ref)))
