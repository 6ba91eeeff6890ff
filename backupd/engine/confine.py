"""Processes that can write one directory and nothing else, by Landlock: what a link leads to from there is refused.

A service that uses a volume can put a symbolic link in the place of any directory in it, at any moment, also below the
hands of a tar that extracts there. In a helper container that leads nowhere, since nothing but the volume is mounted;
in the sidecar's own file system it could lead to its state, its archives or another volume.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# include/uapi/linux/landlock.h; the numbers are the same on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVS = 38

_WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_READING = _READ_FILE | _READ_DIR
_ALL = _READING | _WRITE_FILE | _REMOVE_AND_MAKE | _REFER
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE

_LEAST_VERSION = 2  # in version 1 nothing could be renamed from one directory to another
_WITH_TRUNCATE = 3

# What programs read to run: themselves, their libraries, and what they ask of the system.
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"),
    *("/proc", "/dev/null", "/dev/zero", "/dev/urandom"),
)
_SETTINGS = tuple(
    f"/etc/{name}"
    for name in ("ld.so.cache", "ld.so.preload", "passwd", "group", "nsswitch.conf", "localtime", "xattr.conf")
)
_MUSL_SETTINGS = "ld-musl-*.path"

_NEEDED = ("sh", "-c", "tar --version; [ $? -lt 126 ]")
"""What jobs run, doing nothing; 126 and 127 say that it did not even start."""


class _Ruleset(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def confined(root: int, start: Callable[[], T]) -> T:
    """What `start` returns, called where nothing but the directory of this descriptor, and no secret, is within reach.

    Whatever it starts inherits that for ever. Where `why_unconfined` has an answer, `start` is called as it is. Modes,
    owners and times of what is there already are not guarded by it.
    """
    return start() if why_unconfined() else _confined(root, start)


def _confined(root: int, start: Callable[[], T]) -> T:
    def restricted() -> T:
        _restrict(root)
        return start()

    with ThreadPoolExecutor(1, thread_name_prefix="confined") as thread:  # it is the thread that is restricted
        return thread.submit(restricted).result()


@cache
def why_unconfined() -> str | None:
    """Why jobs are not confined, in words that follow "not confined:"; None if they are. Found out once."""
    if landlock_version() < _LEAST_VERSION:  # an old kernel, or a seccomp profile that hides it
        return "no Landlock here"
    with tempfile.TemporaryDirectory(prefix="backupd-") as directory, _looked_up(directory) as root:
        if not _confined(root, _programs_run) and _programs_run():
            return "tar, sh or their libraries are in places where a confined job could not read them"
    return None


def _programs_run() -> bool:
    try:
        return subprocess.run(_NEEDED, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@cache
def landlock_version() -> int:
    """Of the kernel; 0 if there is none that can be used."""
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def _restrict(root: int) -> None:
    access = _ALL | (_TRUNCATE if landlock_version() >= _WITH_TRUNCATE else 0)
    ruleset = _Ruleset(access)
    rules = _checked(
        _libc().syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0)
    )
    try:
        _allow(rules, root, access)
        for place in (*_SYSTEM, *_SETTINGS, *map(str, Path("/etc").glob(_MUSL_SETTINGS)), *os.get_exec_path()):
            with contextlib.suppress(OSError), _looked_up(place) as descriptor:  # not there, or not for this user
                _allow(rules, descriptor, _READING if stat.S_ISDIR(os.fstat(descriptor).st_mode) else _READ_FILE)
        with _looked_up(os.devnull) as descriptor:
            _allow(rules, descriptor, access & _OF_FILES)
        _checked(_libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_libc().syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


@contextlib.contextmanager
def _looked_up(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _allow(rules: int, directory: int, access: int) -> None:
    rule = _Beneath(access, directory)
    _checked(_libc().syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
