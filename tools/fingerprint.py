"""Everything about a tree that a restore has to bring back, as one dictionary, to be compared with `==`."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

Facts = dict[str, object]


def fingerprint(root: Path) -> dict[bytes, Facts]:
    """Every entry below and including `root`, by its path in bytes.

    Kind, mode, owner, modification time in nanoseconds, size, content, link target, device, extended attributes (ACLs
    and capabilities are among them), and which paths are one file by hard links.
    """
    entries: dict[bytes, Facts] = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    base = os.fsencode(root)
    for directory, directories, files in os.walk(base):
        for name in [b"", *directories, *files] if directory == base else [*directories, *files]:
            path = os.path.join(directory, name) if name else base  # noqa: PTH118  (names are bytes)
            relative = os.path.relpath(path, base)
            entries[relative] = _facts(path)
            status = os.lstat(path)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                inodes.setdefault((status.st_dev, status.st_ino), []).append(relative)
    for paths in inodes.values():
        for path in paths:
            entries[path]["same file as"] = sorted(paths)
    return entries


def differences(before: dict[bytes, Facts], after: dict[bytes, Facts]) -> list[str]:
    """What is not the same, a line each."""
    lines = [f"missing: {path!r}" for path in before.keys() - after.keys()]
    lines += [f"unexpected: {path!r}" for path in after.keys() - before.keys()]
    for path in before.keys() & after.keys():
        lines += [
            f"{path!r}: {fact} is {after[path].get(fact)!r} instead of {before[path].get(fact)!r}"
            for fact in before[path].keys() | after[path].keys()
            if before[path].get(fact) != after[path].get(fact)
        ]
    return sorted(lines)


def _facts(path: bytes) -> Facts:
    status = os.lstat(path)
    facts: Facts = {
        "kind": stat.S_IFMT(status.st_mode),
        "mode": stat.S_IMODE(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "mtime": status.st_mtime_ns,
    }
    if stat.S_ISREG(status.st_mode):
        facts["size"] = status.st_size
        facts["content"] = _digest(path)
        facts["sparse"] = status.st_blocks * 512 < status.st_size // 2
    elif stat.S_ISLNK(status.st_mode):
        facts["link"] = os.readlink(path)  # noqa: PTH115
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        facts["device"] = status.st_rdev
    facts["xattrs"] = _xattrs(path)
    return facts


def _digest(path: bytes) -> str:
    with Path(os.fsdecode(path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _xattrs(path: bytes) -> dict[str, bytes]:
    try:
        return {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
    except OSError:
        return {}
