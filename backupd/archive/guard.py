"""Refuses tars whose extraction could write outside of the directory that they are extracted into."""

from __future__ import annotations

from pathlib import PurePosixPath

from backupd.archive.tarwalk import Member
from backupd.errors import SourceError


class TarGuard:
    """Looks at members in stream order, then at where the symbolic links lead.

    `allow_links` lets symbolic links point outside, but nothing be put behind them. Memory: all paths.
    """

    def __init__(self, *, allow_links: bool) -> None:
        self._allow_links = allow_links
        self._links: dict[str, str] = {}
        self._seen: set[str] = set()

    def check(self, member: Member) -> None:
        """SourceError if the member is absolute, leaves the tree, or lies behind a symbolic link of the same tar."""
        self._inside(member.path, member.path)
        if member.path.startswith(_RESERVED):
            raise SourceError(f"{member.path!r} is a name that backupd keeps for itself; nothing was stored")
        self._seen.add(_tidy(member.path))
        if member.kind == "hardlink":
            self._inside(member.link, member.path)
            if _tidy(member.link) not in self._seen:
                raise SourceError(
                    f"{member.path!r} is a hard link to {member.link!r}, which the tar lacks; nothing was stored"
                )
            if target := self._links.get(_tidy(member.link)):  # a second name of that symbolic link
                self._links[_tidy(member.path)] = target
        elif member.kind == "symlink":
            self._links[_tidy(member.path)] = member.link

    def finish(self) -> None:
        """SourceError if one of the symbolic links leads outside, by itself or by way of others."""
        for path, target in {} if self._allow_links else self._links.items():
            if self._leaves(path):
                raise SourceError(
                    f"{path!r} is a symbolic link to {target!r}, outside of the volume; nothing was stored",
                    hint="if you trust this tar, pass --allow-links",
                )

    def _inside(self, path: str, subject: str) -> None:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise SourceError(f"{subject!r} leads out of the volume ({path!r}); nothing was stored", hint=_HINT)
        if any(str(parent) in self._links for parent in pure.parents):
            raise SourceError(
                f"{subject!r} lies behind a symbolic link of the same tar; nothing was stored", hint=_HINT
            )

    def _leaves(self, path: str) -> bool:
        """Follow a link as the kernel would, with the links of this tar; one that goes in circles leads nowhere."""
        here: list[str] = []
        ahead = list(reversed(PurePosixPath(path).parts))
        followed = 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                if not here:
                    return True
                here.pop()
                continue
            here.append(part)
            target = self._links.get("/".join(here))
            if target is not None:
                followed += 1
                if target.startswith("/"):
                    return True
                if followed > _MOST_LINKS:
                    return False
                here.pop()
                ahead += reversed(PurePosixPath(target).parts)
        return False


def _tidy(path: str) -> str:
    """The path without `.` and doubled slashes."""
    return str(PurePosixPath(path))


_HINT = "`tar -C DIRECTORY -cf FILE .` makes a tar whose paths are relative"
_RESERVED = (".backupd-restore-", ".backupd-old-")
_MOST_LINKS = 40  # MAXSYMLINKS of Linux
