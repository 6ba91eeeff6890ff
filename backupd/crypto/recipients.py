"""Whom something is encrypted for: public keys, and age files made for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Queue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from backupd.errors import BackupdError, StoreError

if TYPE_CHECKING:
    import pyrage

Sink = Callable[[bytes | memoryview], object]

_KINDS = "age1…, ssh-ed25519 … or ssh-rsa …"
_QUEUED = 16
_SSH = ("ssh-ed25519", "ssh-rsa")


def canonical_recipient(text: str) -> str:
    """A recipient as it is recorded: without the comment of an SSH key. ValueError says what is wrong with it.

    Nothing of what was given is repeated: a secret key that was pasted by mistake must not show up in a message.
    """
    words = text.split()
    if not words:
        raise ValueError(f"expected a public key ({_KINDS}), not an empty text")
    if text.strip().upper().startswith("AGE-SECRET-KEY-") or "PRIVATE KEY" in text:
        raise ValueError("this is a secret key: expected the public key that belongs to it")
    key = " ".join(words[:2]) if words[0] in _SSH else words[0]
    if not key.startswith("age1") and words[0] not in _SSH:
        raise ValueError(f"expected a public key ({_KINDS})")
    _parsed(key)
    return key


def _parsed(key: str) -> pyrage.x25519.Recipient | pyrage.ssh.Recipient:
    import pyrage  # noqa: PLC0415  (only where something is encrypted)

    try:
        return pyrage.ssh.Recipient.from_str(key) if key.startswith("ssh-") else pyrage.x25519.Recipient.from_str(key)
    except pyrage.RecipientError as exc:
        raise ValueError(f"not a valid public key ({_KINDS}): {exc}") from None


class Recipients:
    """Public keys, any of whose owners can read. Thread-safe.

    `keys` are in canonical form, sorted, each once; ValueError for one that is no public key.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = tuple(sorted({canonical_recipient(key) for key in keys}))
        self._parsed = [_parsed(key) for key in self.keys]

    def encrypt(self, data: bytes | bytearray | memoryview) -> bytes:
        """One age file. pyrage holds the interpreter's lock meanwhile: some 2.5 ms a MiB."""
        import pyrage  # noqa: PLC0415

        return pyrage.encrypt(data if isinstance(data, bytes) else bytes(data), self._parsed)

    def stream(self, sink: Sink) -> EncryptingStream:
        """One age file of any size, in bounded memory: what is written to the stream goes encrypted to `sink`."""
        return EncryptingStream(self._parsed, sink)


class EncryptingStream:
    """An age file being written by a thread of its own, since pyrage pulls what it encrypts.

    Nothing is complete before `close`. Leaving the `with` block without it ends the thread and loses the rest.
    Memory: 16 writes that wait.
    """

    def __init__(self, recipients: list[pyrage.x25519.Recipient | pyrage.ssh.Recipient], sink: Sink) -> None:
        self._recipients = recipients
        self._sink = sink
        self._queue: Queue[bytes | None] = Queue(_QUEUED)
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._aborted = self._ended = False
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._aborted = True
            self._join()

    def append(self, data: bytes | memoryview) -> None:
        """More of the plain content; an earlier failure of the sink is raised here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="encrypt", daemon=True)
            self._thread.start()
        self._raise_failure()
        self._queue.put(bytes(data))

    def close(self) -> None:
        """End the age file: all of it has gone to the sink when this returns."""
        self.append(b"")
        self._join()
        self._raise_failure()

    def _join(self) -> None:
        assert self._thread is not None
        self._queue.put(None)
        self._thread.join()
        self._thread = None

    def _raise_failure(self) -> None:
        if isinstance(self._failure, BackupdError):
            raise self._failure
        if self._failure is not None:
            raise StoreError(f"encrypting failed: {self._failure}") from self._failure

    def _run(self) -> None:
        import pyrage  # noqa: PLC0415

        try:
            pyrage.encrypt_io(cast(Any, self), cast(Any, self), self._recipients)
        except Exception as exc:
            self._failure = self._failure or exc
            while self._next() is not None:  # whoever writes must not wait for ever
                pass

    def _next(self) -> bytes | None:
        if self._ended:
            return None
        piece = self._queue.get()
        self._ended = piece is None
        return piece

    # What pyrage calls, in the thread.

    def read(self, size: int = -1) -> bytes:
        """The next plain bytes, b"" at the end."""
        while not self._rest:
            piece = self._next()
            if piece is None:
                return b""
            if not self._aborted:
                self._rest = piece
        data, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return data

    def write(self, data: bytes) -> int:
        """Encrypted bytes."""
        if not self._aborted:
            try:
                self._sink(data)
            except BaseException as exc:
                self._failure = exc
                raise
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""
