"""Secret keys, and what they open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, cast

from backupd.errors import BackupdError, IntegrityError, KeyMissing

if TYPE_CHECKING:
    import pyrage

    Identity = pyrage.x25519.Identity | pyrage.ssh.Identity

_AGE = b"age-encryption.org/v1\n"
_ARMORED = b"-----BEGIN AGE ENCRYPTED FILE-----"
_PRIVATE = b"PRIVATE KEY-----"
_SECRET = "AGE-SECRET-KEY-1"  # noqa: S105  (what secret keys begin with)
_NO_MATCH = "No matching keys found"
_TOO_SLOW = "Excessive work parameter"
_OPENING_ATTEMPTS = 10
_QUEUED = 16


class PassphraseNeeded(KeyMissing):
    """The identity file is protected by a passphrase, and there is none."""

    hint = "run it on a terminal, or put the passphrase into a file that BACKUPD_IDENTITY_PASSPHRASE_FILE names"


def parse_identities(content: bytes, name: str, ask: Callable[[], str]) -> Identities:
    """The identities of a file's content: what `age-keygen` writes, the same behind a passphrase, or an SSH key.

    `ask` is called for the passphrase if one is needed. KeyMissing says why a file is none of these; `name` is what it
    is called.
    """
    content = content.strip()
    if content.startswith((_AGE, _ARMORED)):
        content = _opened(content, name, ask())
    if _PRIVATE in content[:80]:
        return Identities([_ssh(content, name)], name)
    return Identities(_x25519(content, name), name)


def _opened(content: bytes, name: str, passphrase: str) -> bytes:
    """What a passphrase protects.

    The library measures how fast the machine is before each attempt, and refuses what it thinks would take more than
    half a minute: a busy machine looks slow to it, now and then.
    """
    import pyrage  # noqa: PLC0415

    for left in reversed(range(_OPENING_ATTEMPTS)):
        try:
            return pyrage.passphrase.decrypt(content, passphrase)
        except pyrage.DecryptError as exc:
            said = " ".join(str(exc).split())
            if _TOO_SLOW not in said:
                hint = "is that its passphrase, and is it an identity file?"
                raise KeyMissing(f"{name} cannot be opened: {said}", hint=hint) from None
            if not left:
                hint = "try again when the machine is less busy, or decrypt a copy with `age -d` and use that"
                raise KeyMissing(f"{name} cannot be opened: {said}", hint=hint) from None
    raise AssertionError  # the last attempt returns or raises


def _x25519(content: bytes, name: str) -> list[Identity]:
    import pyrage  # noqa: PLC0415

    lines = [line.strip() for line in content.decode(errors="replace").splitlines()]
    found: list[Identity] = []
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith("#"):
            if not line.startswith(_SECRET):
                raise KeyMissing(
                    f"{name}, line {number}: not an identity", hint=f"a line of an identity file begins with {_SECRET}"
                )
            try:
                found.append(pyrage.x25519.Identity.from_str(line))
            except pyrage.IdentityError as exc:
                raise KeyMissing(f"{name}, line {number}: not an identity: {exc}") from None
    if not found:
        raise KeyMissing(f"{name} holds no identity", hint="`backupd keygen -o FILE` makes one")
    return found


def _ssh(content: bytes, name: str) -> Identity:
    import pyrage  # noqa: PLC0415

    try:
        return pyrage.ssh.Identity.from_buffer(content + b"\n")
    except pyrage.IdentityError as exc:
        if "decrypted" in str(exc) or "Encrypted" in str(exc):
            raise KeyMissing(
                f"{name} is an SSH key with a passphrase, which cannot be used",
                hint="copy it, take the passphrase off the copy with `ssh-keygen -p -f COPY`, and use that",
            ) from None
        raise KeyMissing(
            f"{name} is not an SSH key that can be used: {exc}", hint="ssh-ed25519 and ssh-rsa keys can be"
        ) from None


class Identities:
    """Secret keys, all of which are tried. Thread-safe. `name` says where they come from."""

    def __init__(self, identities: Sequence[Identity], name: str) -> None:
        self._identities = list(identities)
        self.name = name

    def decrypt(self, data: bytes, what: str) -> bytes:
        """The content of an age file; KeyMissing if it is for others, IntegrityError if it is damaged."""
        import pyrage  # noqa: PLC0415

        try:
            return pyrage.decrypt(data, self._identities)
        except pyrage.DecryptError as exc:
            raise self._error(exc, what) from None

    def decrypt_frame(self, frame: bytes | memoryview) -> bytes:
        """The content of a chunk's age file, all of whose fellows these identities open: any failure is damage."""
        import pyrage  # noqa: PLC0415

        try:
            return pyrage.decrypt(bytes(frame), self._identities)
        except pyrage.DecryptError as exc:
            raise IntegrityError(f"an encrypted chunk is damaged: {exc}") from None

    def stream(self, pieces: Iterable[bytes], what: str) -> Iterator[bytes]:
        """The content of an age file of any size, in pieces, each authenticated; the same errors as for `decrypt`.

        Memory: 16 pieces of 64 KiB. A thread of its own feeds pyrage, which pushes; it ends with the iterator.
        """
        opened = _Opening(pieces, self._identities)
        try:
            yield from opened
        finally:
            opened.stop()
        failure = opened.failure
        if isinstance(failure, BackupdError):
            raise failure
        if failure is not None:
            raise self._error(failure, what) from None

    def _error(self, exc: BaseException, what: str) -> BackupdError:
        if _NO_MATCH in str(exc):
            return KeyMissing(
                f"{what} is encrypted for other keys than those of {self.name}",
                hint="`backupd show ID` says whom a snapshot is readable by; --identity FILE names the secret key",
            )
        return IntegrityError(f"{what} is damaged: {exc}")


class _Opening:
    """An age file being decrypted by a thread: an iterator over its content. `failure` is set when it has ended."""

    def __init__(self, pieces: Iterable[bytes], identities: list[Identity]) -> None:
        self._pieces = iter(pieces)
        self._identities = identities
        self._queue: Queue[bytes | None] = Queue(_QUEUED)
        self._rest = b""
        self._stopped = False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="decrypt", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            yield piece

    def stop(self) -> None:
        """Nobody wants the rest."""
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except Empty:
                continue

    def _run(self) -> None:
        import pyrage  # noqa: PLC0415

        try:
            pyrage.decrypt_io(cast(Any, self), cast(Any, self), self._identities)
        except Exception as exc:
            self.failure = self.failure or exc
        self._put(None)

    def _put(self, piece: bytes | None) -> None:
        while not self._stopped:
            try:
                self._queue.put(piece, timeout=0.1)
            except Full:
                continue
            return

    # What pyrage calls, in the thread.

    def read(self, size: int = -1) -> bytes:
        """The next encrypted bytes, b"" at the end."""
        if self._stopped:
            return b""
        while not self._rest:
            try:
                piece = next(self._pieces, None)
            except BaseException as exc:
                self.failure = exc
                raise
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return data

    def write(self, data: bytes) -> int:
        """Plain bytes."""
        self._put(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""
