"""Trees of files that are hard to copy, and what there is to know of a tree."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path

NANOSECONDS = 1_700_000_000_123_456_789
BEFORE_1970 = -86_400_000_000_000


@dataclass(frozen=True)
class Entry:
    """All of a file that a backup should bring back."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size: int
    content: str
    device: int
    linked_to: bytes
    attributes: tuple[tuple[str, bytes], ...]

    def without_what_busybox_loses(self) -> Entry:
        """Times below a second, those of links and directories and before 1970, owners of links, attributes."""
        exact = stat.S_ISREG(self.kind) and self.mtime_ns > 0
        return replace(
            self,
            owner=(0, 0) if stat.S_ISLNK(self.kind) else self.owner,
            mtime_ns=self.mtime_ns // 10**9 if exact else 0,
            attributes=(),
        )


def describe(root: Path) -> dict[bytes, Entry]:
    """Every entry below `root`, by its path in bytes; hard links name the first of them."""
    base = os.fsencode(root)
    found: dict[bytes, Entry] = {}
    first: dict[int, bytes] = {}
    for directory, directories, files in os.walk(base):
        directories.sort()
        for path in (directory, *(b"%s/%s" % (directory, name) for name in sorted((*files, *directories)))):
            name = os.path.relpath(path, base)
            if name not in found:
                found[name] = _entry(path, name, first)
    return found


def _entry(path: bytes, name: bytes, first: dict[int, bytes]) -> Entry:
    status = os.lstat(path)
    linked = b""
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        linked = first.setdefault(status.st_ino, name)
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path).hex()  # noqa: PTH115  (bytes)
    else:
        content = (
            hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
        )
    attributes = sorted((attribute, os.getxattr(path, attribute, follow_symlinks=False)) for attribute in _names(path))
    return Entry(
        kind=stat.S_IFMT(status.st_mode),
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if stat.S_ISREG(status.st_mode) else 0,
        content=content,
        device=status.st_rdev,
        linked_to=linked,
        attributes=tuple(attributes),
    )


def _names(path: bytes) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def awkward_tree(root: Path) -> None:
    """Fill `root` (as root) with everything that a tar may get wrong, but for large owners where BusyBox fails."""
    plain = root / "plain"
    plain.write_bytes(os.urandom(300_000))
    for number, mode in enumerate((0o000, 0o400, 0o644, 0o4755, 0o2755, 0o1777, 0o6711)):
        path = root / f"mode-{mode:o}"
        path.write_text(str(mode))
        os.chown(path, 1000 + number, 999)
        path.chmod(mode)
    (root / "empty").touch()
    os.link(plain, root / "hard")
    for name, target in (
        ("relative", "plain"),
        ("dangling", "../../../nowhere"),
        ("absolute", "/etc/passwd"),
        ("l" * 60, "x" * 900),
    ):
        (root / name).symlink_to(target)
    os.lchown(root / "relative", 999, 998)
    os.mkfifo(root / "fifo", 0o622)
    os.mknod(root / "null", 0o640 | stat.S_IFCHR, os.makedev(1, 3))
    for odd in (
        b"new\nline",
        b"invalid \xff\xfe",
        b"-rf",
        b"--checkpoint=1",
        b"--checkpoint-action=exec=false",
        b" lead",
        b"tab\t",
        b"quote'\"\\",
        b"*",
        b"n" * 255,
    ):
        Path(root, os.fsdecode(odd)).write_bytes(odd)
    deep = root
    for _ in range(12):
        deep = deep / ("d" * 100)
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("deep")
    sub = root / "directory"
    sub.mkdir()
    (sub / "inner").write_text("inner")
    os.chown(sub, 999, 999)
    _attributes(root)
    sub.chmod(0o2750)
    os.utime(root / "empty", ns=(NANOSECONDS, NANOSECONDS))
    os.utime(plain, ns=(BEFORE_1970, BEFORE_1970))
    os.utime(root / "relative", ns=(NANOSECONDS, NANOSECONDS), follow_symlinks=False)
    os.utime(sub, ns=(NANOSECONDS, NANOSECONDS))
    os.utime(root, ns=(NANOSECONDS, NANOSECONDS))


def _attributes(root: Path) -> None:
    path = root / "attributes"
    path.write_text("x")
    os.setxattr(path, "user.note", b"binary \0 \xff")
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep
    os.setxattr(path, "security.capability", capability)
    access = root / "access"
    access.write_text("x")
    entries = (
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 1234),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 4, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(access, "system.posix_acl_access", acl)
    (root / "default").mkdir()
    os.setxattr(root / "default", "system.posix_acl_default", acl)
