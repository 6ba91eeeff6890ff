"""One snapshot: every volume of a plan read, and the manifest committed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from operator import itemgetter

from backupd.backup.passes import Passes, Target, with_outcome
from backupd.backup.together import read_together
from backupd.errors import BackupdError, EngineUnavailable, LockedError, SourceError, VolumeMissing
from backupd.hooks import Around
from backupd.lease import Lease, commit
from backupd.lock import lock_key, volume_lock
from backupd.model import Plan, Volume, VolumeSpec
from backupd.repository import Archive, Failure, Manifest, Reason, Repository
from backupd.runtime import Runtime


class _Failures:
    """The volumes that could not be read."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.failures: list[Failure] = []
        self.errors: list[BackupdError] = []

    def add(self, spec: VolumeSpec, exc: BackupdError) -> None:
        """One more; raised again if it is not the fault of the volume."""
        if isinstance(exc, EngineUnavailable) or not isinstance(exc, SourceError | LockedError):
            raise exc
        optional = spec.optional and isinstance(exc, VolumeMissing)
        self.errors.append(exc)
        self.failures.append(Failure(volume=spec.name, error=str(exc), optional=optional))
        self._runtime.progress.note(f"{spec.name}: {'left out' if optional else 'FAILED'}: {exc}")


def take_snapshot(
    plan: Plan,
    runtime: Runtime,
    repository: Repository,
    lease: Lease,
    reason: Reason = "backup",
    *,
    locked: bool = False,
) -> Manifest:
    """Archive every volume of the plan, then commit the manifest. The snapshot has the lease's id.

    A volume that can't be read is a failure of the snapshot, and the others are kept; SourceError if none is left.
    LeaseLost when the lease was taken away meanwhile, and nothing is committed. `locked` says that the caller holds the
    volumes' locks.
    """
    started = runtime.clock.now()
    # Asked once, before any volume: an engine or helper image that does not work is not the fault of each of them.
    tool = runtime.engine.tool()
    if tool.flavour == "busybox":
        runtime.progress.note(
            f"{tool} keeps no extended attributes, ACLs, holes and fractions of seconds; GNU tar does"
            " (docker.helper_image)"
        )
    earlier, _ = repository.snapshots()
    target = Target(lease.id, plan, runtime, repository, earlier)
    failed = _Failures(runtime)
    found = _found(plan, runtime, failed)
    with Around(runtime, plan.pre, plan.post, [volume for _, volume in found]) as around:
        archives = _read(target, found, failed, locked=locked)
        around.finish()
    for name, seconds in {name: s for archive in archives for name, s in archive.downtime.items()}.items():
        runtime.progress.note(f"container {name} stood for {seconds:.1f} s")
    if not archives:
        raise _nothing(failed)
    moments = {archive.moment for archive in archives}
    manifest = Manifest(
        id=target.id,
        time=started,
        finished=runtime.clock.now(),
        plan=plan.name,
        reason=reason,
        host=runtime.host,
        program=runtime.program,
        archives=archives,
        failures=failed.failures,
        moment=moments.pop() if plan.together and len(moments) == 1 else None,
        trouble=around.trouble,
        part=plan.part,
        encryption=repository.encryption,
    )
    return commit(repository, manifest, lease)


def _found(plan: Plan, runtime: Runtime, failed: _Failures) -> list[tuple[VolumeSpec, Volume]]:
    found = []
    for spec in plan.volumes:
        try:
            found.append((spec, runtime.engine.find(spec)))
        except BackupdError as exc:
            failed.add(spec, exc)
    return found


def _read(
    target: Target, found: Sequence[tuple[VolumeSpec, Volume]], failed: _Failures, *, locked: bool
) -> list[Archive]:
    if target.plan.together:
        with ExitStack() as stack:
            ready = found if locked else _lock_all(target.runtime, found, failed, stack)
            return read_together(target, ready, failed.add)
    archives = []
    for spec, volume in found:
        try:
            with nullcontext() if locked else _lock(target.runtime, volume):
                archives.append(_archive(target, spec, volume))
        except BackupdError as exc:
            failed.add(spec, exc)
    return archives


def _lock_all(
    runtime: Runtime, found: Sequence[tuple[VolumeSpec, Volume]], failed: _Failures, stack: ExitStack
) -> list[tuple[VolumeSpec, Volume]]:
    """Those whose locks the stack holds now: each once, since one directory may have several names."""
    keyed = [(lock_key(volume), spec, volume) for spec, volume in found]
    held: set[str] = set()
    for key, spec, volume in sorted(keyed, key=itemgetter(0)):
        try:
            if key not in held:
                stack.enter_context(_lock(runtime, volume))
                held.add(key)
        except BackupdError as exc:
            failed.add(spec, exc)
    return [(spec, volume) for key, spec, volume in keyed if key in held]


def _lock(runtime: Runtime, volume: Volume) -> AbstractContextManager[None]:
    return volume_lock(runtime.locks, volume, runtime.volume_wait_seconds, runtime.progress.note)


def _archive(target: Target, spec: VolumeSpec, volume: Volume) -> Archive:
    """Archive one volume, whose lock is held. Services go on and `post` is run before the storing is done."""
    with Passes.begin(target, spec, volume) as passes:
        choice, source = passes.choice, passes.source
        with (
            Around(target.runtime, choice.spec.pre, choice.spec.post, [volume]) as around,
            choice.strategy.read(source) as reading,
        ):
            report = None
            while (stream := reading.next(report)) is not None:
                report = passes.add(stream)
            around.finish()
            archive = passes.commit()
            return with_outcome(archive, reading.outcome(), around.trouble)
    raise AssertionError  # pragma: no cover - the blocks above swallow nothing


def _nothing(failed: _Failures) -> BackupdError:
    """The error of a run that read no volume: of the kind that all volumes failed with, if they agree."""
    errors = failed.errors
    if len(errors) == 1:
        return errors[0]
    kind = type(errors[0]) if len({type(error) for error in errors}) == 1 else SourceError
    reasons = "; ".join(f"{failure.volume}: {failure.error}" for failure in failed.failures)
    return kind(f"no volume could be backed up: {reasons}")
