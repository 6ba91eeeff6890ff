"""Stores: whether they can be written, have room, and are what they were."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from backupd.doctor import bucket
from backupd.doctor.machine import room
from backupd.doctor.result import Result
from backupd.errors import BackupdError, NoRepository
from backupd.facts import ExaminedBucket
from backupd.ports import Store
from backupd.repository import Repository
from backupd.runtime import Runtime
from backupd.settings import LocalStoreSettings, S3StoreSettings, Settings


def look_at_store(store: Store, settings: Settings, runtime: Runtime) -> Iterator[Result]:
    """What it can do, by trying."""
    configured = settings.stores[store.name]
    if isinstance(configured, S3StoreSettings) and isinstance(store, ExaminedBucket):
        yield from bucket.judge(store.name, store.examine(), configured)
    elif isinstance(configured, LocalStoreSettings):
        yield from look_at_directory(store, configured.path, runtime)


def look_at_directory(store: Store, path: Path, runtime: Runtime) -> Iterator[Result]:
    """Permissions and room of a local store, for a snapshot as large as the newest would be in full."""
    subject = f"store {store.name}"
    if not path.exists():
        parent = next(directory for directory in path.parents if directory.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            advice = f"make it, owned by user {os.geteuid()}, or mount it"
            yield Result("error", subject, f"{path} is not there, and this user can't make it", advice)
            return
        yield Result("note", subject, f"{path} is not there yet: the first backup makes it. Is its disk mounted?")
        yield room(subject, parent)
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        advice = f"give it to user {os.geteuid()}, or run as its owner, {path.stat().st_uid}"
        yield Result("error", subject, f"{path} cannot be written by this user", advice)
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o022:
        yield Result("warning", subject, f"others can write {path} (mode {mode:03o})", f"chmod 700 {path}")
    facts = store.facts()
    if not facts.conditional_create:
        yield Result("error", subject, f"{path} cannot create files only if they are absent: {dict(facts.details)}")
    yield room(subject, path, _largest(store, runtime))


def _largest(store: Store, runtime: Runtime) -> int:
    """Bytes that a full snapshot would take, going by what is there: all that the newest one refers to."""
    try:
        manifests, _ = Repository.open(store, threads=1, security=runtime.security).snapshots()
    except BackupdError:  # told by the look at the repository
        return 0
    newest = next((found for found in manifests if found.reason == "backup"), None)
    return sum(ref.size for archive in newest.archives for ref in archive.objects) if newest else 0


def open_repository(store: Store, runtime: Runtime) -> Repository | Result:
    """The repository, or what it means that there is none yet."""
    try:
        return Repository.open(store, threads=runtime.threads, security=runtime.security)
    except NoRepository as exc:
        return Result("note", f"store {store.name}", str(exc), exc.hint)
