"""Several tar streams and made members joined into one tar stream, members renamed or left out on the way.

What is not touched is passed on as the very bytes that came, so that it deduplicates and keeps all that tar knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Set
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from msgspec import Struct

from backupd.archive.member import Member, relative
from backupd.archive.tarwalk import TarWalker
from backupd.archive.tarwrite import END, MadeMember, member_name, renamed
from backupd.errors import IntegrityError, SourceError
from backupd.model import KIB, MIB, TarReport
from backupd.services import TarStream

__all__ = ["Edit", "MadeMember", "Part", "Splice", "below", "without"]

Edit = Callable[[str], str | None]
"""The path that a member gets for the one it has, both relative to the root, which is `.`; None leaves it out.

A function of the path alone, and of nothing that changes: hard links are led to where their target went by it.
"""

_BLOCK = 1 * MIB
_DIRECT = 64 * KIB
_LONGEST_HEADERS = 64 * MIB
_KEPT_WARNINGS = 20


class Part(Struct, frozen=True):
    """A stream, not entered yet, and what becomes of its members."""

    stream: TarStream
    edit: Edit = lambda path: path


def below(directory: str) -> Edit:
    """Put everything below a directory; the root itself becomes that directory."""
    return lambda path: directory if path == "." else f"{directory}/{path}"


def without(paths: Iterable[str]) -> Edit:
    """Leave these out, and what is below them."""
    left_out = frozenset(paths)

    def edit(path: str) -> str | None:
        above = path
        while above:
            if above in left_out:
                return None
            above = above.rpartition("/")[0]
        return path

    return edit


class Splice:
    """A TarStream made of parts, each entered when the one before it has ended well, and left at its end.

    `parts` is asked for the next one only then. The end marks of parts are taken out, and one is written. Whether a
    name comes twice is the caller's affair: extraction takes the last.

    IntegrityError if a part is not a whole tar stream, or has headers that are for more than one member. SourceError
    for a hard link to something left out, unless a made member before it has that path.

    Memory: 1 MiB, and one member's headers, at most 64 MiB.
    """

    def __init__(self, parts: Iterable[Part | MadeMember]) -> None:
        self._parts = iter(parts)
        self._made: set[str] = set()
        self._current: _Running | None = None
        self._resources = ExitStack()
        self._buffer = memoryview(bytearray(_BLOCK))
        self._ready: deque[memoryview] = deque()
        self._reports: list[TarReport] = []
        self._at_end = False

    def readinto(self, buffer: memoryview) -> int:
        """See TarStream. Errors of the parts come out here, too."""
        while not self._ready:
            if self._current is None:
                if self._at_end:
                    return 0
                self._next()
            elif self._current.passes >= _DIRECT <= len(buffer):
                if count := self._current.pass_on(buffer):
                    return count
                self._end_part(self._current)
            else:
                count = self._current.stream.readinto(self._buffer)
                if count:
                    self._ready.extend(self._current.edited(self._buffer[:count]))
                else:
                    self._end_part(self._current)
        filled = 0
        while self._ready and filled < len(buffer):
            piece = self._ready.popleft()
            count = min(len(piece), len(buffer) - filled)
            buffer[filled : filled + count] = piece[:count]
            filled += count
            if count < len(piece):
                self._ready.appendleft(piece[count:])
        return filled

    def finish(self) -> TarReport:
        """See TarStream: the warnings of all parts."""
        if not self._at_end or self._ready:
            raise SourceError("a joined tar stream was not read to its end")
        warnings = [warning for report in self._reports for warning in report.warnings]
        return TarReport(
            warning_count=sum(report.warning_count for report in self._reports),
            warnings=tuple(warnings[:_KEPT_WARNINGS]),
            moved_count=sum(report.moved_count for report in self._reports),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._resources.close()

    def _next(self) -> None:
        part = next(self._parts, None)
        if part is None:
            self._at_end = True
            self._ready.append(memoryview(END))
        elif isinstance(part, MadeMember):
            self._made.add(part.path)
            self._ready.append(memoryview(part.encoded()))
        else:
            self._current = _Running(self._resources.enter_context(part.stream), part.edit, self._made)

    def _end_part(self, part: _Running) -> None:
        """The stream is over. If it was cut short, that is so for a reason, which its own `finish` knows best."""
        self._reports.append(part.stream.finish())
        part.check_end()
        self._resources.close()
        self._current = None


class _Running:
    """A part that is being read."""

    def __init__(self, stream: TarStream, edit: Edit, made: Set[str]) -> None:
        self.stream = stream
        self._edit = edit
        self._made = made
        self._walker = TarWalker()
        self._held = b""
        self._keeps = True

    @property
    def passes(self) -> int:
        """So many bytes that come next are content of a member that is kept."""
        return self._walker.content_ahead if self._keeps and not self._held else 0

    def pass_on(self, buffer: memoryview) -> int:
        """Read content straight into the buffer of who wants it."""
        count = self.stream.readinto(buffer[: self.passes])
        self._walker.feed(buffer[:count])
        return count

    def edited(self, data: memoryview) -> list[memoryview]:
        """What remains of the next piece of the stream, and of headers held back before. Valid as long as `data`."""
        walker = self._walker
        base = walker.position - len(self._held)
        found = walker.feed(data)
        if not walker.is_plain:
            raise IntegrityError("a tar stream with headers for several members cannot be joined with others")
        whole = memoryview(self._held + data) if self._held else data
        decided = walker.undecided if walker.end is None else max(base, walker.end)
        pieces: list[memoryview] = []
        run = base  # where the bytes begin of which is known that they are kept, or not, like those before
        for member in found:
            path, link = self._places(member)
            if path == member.path and link is None and self._keeps:
                continue
            if self._keeps and member.offset > run:
                pieces.append(whole[run - base : member.offset - base])
            run = member.offset
            self._keeps = path is not None
            if path is not None and (path != member.path or link is not None):
                headers, length = _renamed(whole[run - base :], member, path, link)
                pieces.append(memoryview(headers))
                run += length
        if self._keeps and decided > run:
            pieces.append(whole[run - base : decided - base])
        self._held = b"" if walker.end is not None else whole[decided - base :].tobytes()
        if len(self._held) > _LONGEST_HEADERS:
            raise IntegrityError("the headers of a tar member are longer than any real ones")
        return pieces

    def check_end(self) -> None:
        """IntegrityError unless it was a whole tar."""
        self._walker.finish()

    def _places(self, member: Member) -> tuple[str | None, str | None]:
        """Where a member goes, and where a hard link points to then, if elsewhere than before."""
        path = self._edit(member.path)
        if member.kind != "hardlink" or path is None:
            return path, None
        target = relative(member.link.encode("utf-8", "surrogateescape"))
        link = self._edit(target)
        if link is None and target not in self._made:
            raise SourceError(f"{member.path!r} is a hard link to {target!r}, which is not copied with it")
        return path, None if link in {None, target} else link


def _renamed(headers: memoryview, member: Member, path: str, link: str | None) -> tuple[bytes, int]:
    name = member_name(path, is_directory=member.kind == "dir")
    if member.kind == "hardlink" and link is None:
        target: bytes | None = member.link.encode("utf-8", "surrogateescape")
    else:
        target = None if link is None else member_name(link, is_directory=False)
    return renamed(headers, name, target)
