"""Processes that can write some directories and nothing else, by Landlock: what a link leads to from there is refused.

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
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

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
_ETC = Path("/etc")
_SETTINGS = ("ld.so.cache", "ld.so.preload", "passwd", "group", "nsswitch.conf", "localtime", "xattr.conf")
_MUSL_SETTINGS = "ld-musl-*.path"


class Programs(Struct, frozen=True):
    """What some jobs run, where its files are besides the system's, and a command that tells whether it runs at all."""

    jobs: str
    what: str
    trial: tuple[str, ...]
    places: tuple[str, ...] = ()


TAR = Programs(
    "jobs", "tar, sh or their libraries", ("sh", "-c", "tar --version; [ $? -lt 126 ]")
)  # 126 and 127: it did not even start
PYTHON = Programs(
    "copies of SQLite databases",
    "Python or its libraries",
    (sys.executable, "-I", "-c", "import ctypes, json, shutil, sqlite3"),
    (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix),
)


class _Ruleset(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


@contextlib.contextmanager
def confinement(roots: Sequence[int], programs: Programs = TAR) -> Iterator[Callable[[Callable[[], T]], T]]:
    """What calls something where nothing but the directories of these descriptors is within reach.

    What programs need to run can be read, and no secret. Whatever is started there inherits that for ever. Where
    `why_unconfined` has an answer, nothing is confined. Modes, owners and times of what is there already are not
    guarded by it. A process that wants to die with its parent (PR_SET_PDEATHSIG) is killed at the end of the block.
    """
    if why_unconfined(programs):
        yield lambda start: start()
        return
    with _confinement(roots, programs.places) as call:
        yield call


@contextlib.contextmanager
def _confinement(roots: Sequence[int], places: Sequence[str]) -> Iterator[Callable[[Callable[[], T]], T]]:
    with ThreadPoolExecutor(1, thread_name_prefix="confined") as thread:  # it is the thread that is restricted
        thread.submit(_restrict, roots, places).result()
        yield lambda start: thread.submit(start).result()


def unconfined() -> str | None:
    """Which jobs are not confined, and why; None if all are."""
    for programs in (TAR, PYTHON):
        if why := why_unconfined(programs):
            return f"{programs.jobs} are not confined: {why}"
    return None


@cache
def why_unconfined(programs: Programs) -> str | None:
    """Why jobs that run these are not confined, in words that follow "not confined:"; None if they are. Cached."""
    if landlock_version() < _LEAST_VERSION:  # an old kernel, or a seccomp profile that hides it
        return "no Landlock here"
    runs = partial(_runs, programs.trial)
    with tempfile.TemporaryDirectory(prefix="backupd-") as directory, _looked_up(directory) as root:
        with _confinement([root], programs.places) as call:
            confined_runs = call(runs)
        if not confined_runs and runs():
            return f"{programs.what} are in places where a confined job could not read them"
    return None


def _runs(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@cache
def landlock_version() -> int:
    """Of the kernel; 0 if there is none that can be used."""
    return max(0, int(libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def _restrict(roots: Sequence[int], places: Sequence[str]) -> None:
    access = _ALL | (_TRUNCATE if landlock_version() >= _WITH_TRUNCATE else 0)
    ruleset = _Ruleset(access)
    rules = _checked(libc().syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0))
    try:
        for root in roots:
            _allow(rules, root, access)
        for place in (*_SYSTEM, *_settings(), *os.get_exec_path(), *places):
            if not place.startswith("/") or place == "/":  # of a PATH or a Python that would open all there is
                continue
            with contextlib.suppress(OSError), _looked_up(place) as descriptor:  # not there, or not for this user
                _allow(rules, descriptor, _READING if stat.S_ISDIR(os.fstat(descriptor).st_mode) else _READ_FILE)
        with _looked_up(os.devnull) as descriptor:
            _allow(rules, descriptor, access & _OF_FILES)
        _checked(libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc().syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _settings() -> list[str]:
    """Where libraries are, says musl in a file that is named for the machine: `ld-musl-x86_64.path`."""
    return [str(path) for path in (*(_ETC / name for name in _SETTINGS), *_ETC.glob(_MUSL_SETTINGS))]


@contextlib.contextmanager
def _looked_up(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _allow(rules: int, directory: int, access: int) -> None:
    rule = _Beneath(access, directory)
    _checked(libc().syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@cache
def libc() -> ctypes.CDLL:
    """The C library, whose errors ctypes.get_errno tells."""
    return ctypes.CDLL(None, use_errno=True)
