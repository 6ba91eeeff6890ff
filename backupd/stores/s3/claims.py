"""Which multipart uploads this machine's processes have begun: those of a dead one can be aborted at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from backupd.malformed import MALFORMED
from backupd.mark import Mark, Marks
from backupd.stores.s3.client import new_mark
from backupd.stores.s3.options import S3Options


class _Said(Struct, frozen=True, kw_only=True):
    """What a claim's file says. `upload` None: it was about to be begun, or has been, and the answer was not seen."""

    bucket: str
    key: str
    upload: str | None = None


# Made on import: msgspec 0.22 crashes when several threads are the first to decode a type.
_SAID = msgspec.json.Decoder(_Said)


class Claim(Struct, frozen=True):
    """One upload of this process, from before it begins to after its end."""

    said: _Said
    mark: Mark | None

    def begun(self, upload_id: str) -> None:
        """The server has given it an id."""
        if self.mark is not None:
            self.mark.write(msgspec.json.encode(msgspec.structs.replace(self.said, upload=upload_id)))

    def begun_twice(self) -> None:
        """Besides, the server may have begun another one of this key, and its answer was lost."""
        if self.mark is not None:
            self.mark.write(msgspec.json.encode(self.said))

    def close(self, *, keep: bool) -> None:
        """It is over. `keep`: something of it could not be aborted, and is to be by the next who looks."""
        if self.mark is not None:
            self.mark.close(keep=keep)


class Abandoned(Struct, frozen=True):
    """What dead processes of this machine were at: names of their claims, and what these say."""

    names: Sequence[str]
    said: Sequence[_Said]

    def has(self, key: str, upload_id: str) -> bool:
        """Whether an upload is one of theirs: by its id, or by its key if nobody came to know the id.

        Keys hold the random id of a snapshot. Only copies of one snapshot that several machines make at once share
        one; theirs would fail by this, and be made by the next run.
        """
        return any(said.upload == upload_id or (said.upload is None and said.key == key) for said in self.said)


class Living(Struct, frozen=True):
    """What living processes of this machine are at; None where that is just being written down."""

    said: Sequence[_Said | None]

    def has(self, upload_id: str) -> bool:
        """Whether an upload is one of theirs."""
        return any(said is not None and said.upload == upload_id for said in self.said)

    def may_have(self, key: str) -> bool:
        """Whether an upload of that key could be one of theirs whose id they have yet to learn."""
        return any(said is None or (said.upload is None and said.key == key) for said in self.said)


class Claims:
    """Files in `directory`, in the state of this machine; without one nothing is claimed.

    What a stopped machine tore is dropped: that upload goes when it is old, like those of other machines.
    """

    def __init__(self, directory: Path | None, options: S3Options) -> None:
        self._marks = Marks(directory) if directory is not None else None
        self._bucket = f"{options.endpoint} {options.bucket} {options.key_prefix}"

    def claim(self, key: str) -> Claim:
        """Say that an upload of `key` is about to begin. SourceError if that can't be written down."""
        said = _Said(bucket=self._bucket, key=key)
        if self._marks is None:
            return Claim(said, None)
        mark = self._marks.make(new_mark())
        try:
            mark.write(msgspec.json.encode(said))
        except BaseException:
            mark.close(keep=False)
            raise
        return Claim(said, mark)

    def abandoned(self) -> Abandoned:
        """The claims of the dead on this bucket."""
        found = [(name, said) for name, said, is_dead in self._all() if is_dead]
        return Abandoned([name for name, _ in found], [said for _, said in found if said is not None])

    def living(self) -> Living:
        """What the living are at on this bucket: of uploads that were listed before this is asked, all of theirs."""
        return Living([said for _, said, is_dead in self._all() if not is_dead])

    def _all(self) -> Iterator[tuple[str, _Said | None, bool]]:
        """Every claim on this bucket, or on nobody knows which; and whether who made it is dead."""
        for name in self._marks.names() if self._marks else ():
            said = self._read(name)
            if self._marks is not None and (said is None or said.bucket == self._bucket):
                yield name, said, self._marks.is_dead(name)

    def forget(self, abandoned: Abandoned) -> None:
        """Nothing is left of them."""
        for name in abandoned.names:
            if self._marks is not None:
                self._marks.forget(name)

    def _read(self, name: str) -> _Said | None:
        assert self._marks is not None
        try:
            return _SAID.decode(self._marks.read(name))
        except MALFORMED:
            return None
