"""Refuses tars whose extraction could write outside of the directory that they are extracted into."""

from __future__ import annotations

from pathlib import PurePosixPath

from backupd.archive.tarwalk import Member
from backupd.errors import SourceError


class TarGuard:
    """Looks at members in stream order. `allow_links` lets symbolic links point outside, but nothing come behind them.

    Memory: the paths of the symbolic links.
    """

    def __init__(self, *, allow_links: bool) -> None:
        self._allow_links = allow_links
        self._links: set[str] = set()

    def check(self, member: Member) -> None:
        """SourceError if the member is absolute, leaves the tree, or lies behind a symbolic link of the same tar."""
        self._inside(member.path, member.path)
        if member.kind == "hardlink":
            self._inside(member.link, member.path)
            if str(PurePosixPath(member.link)) in self._links:
                self._links.add(str(PurePosixPath(member.path)))  # a second name of that symbolic link
        elif member.kind == "symlink":
            if not self._allow_links and _leaves(str(PurePosixPath(member.path).parent), member.link):
                raise SourceError(
                    f"{member.path!r} is a symbolic link to {member.link!r}, outside of the volume; nothing was stored",
                    hint="if you trust this tar, pass --allow-links",
                )
            self._links.add(str(PurePosixPath(member.path)))

    def _inside(self, path: str, subject: str) -> None:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise SourceError(f"{subject!r} leads out of the volume ({path!r}); nothing was stored", hint=_HINT)
        for parent in pure.parents:
            if str(parent) in self._links:
                raise SourceError(
                    f"{subject!r} lies behind a symbolic link of the same tar; nothing was stored", hint=_HINT
                )


_HINT = "`tar -C DIRECTORY -cf FILE .` makes a tar whose paths are relative"


def _leaves(directory: str, target: str) -> bool:
    """Whether a link in `directory` to `target` points above the root, going by names alone."""
    if target.startswith("/"):
        return True
    depth = 0 if directory == "." else len(PurePosixPath(directory).parts)
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False
