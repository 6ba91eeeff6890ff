"""Recover: finishes or undoes what a killed process had begun."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from msgspec import Struct

from backupd import clone
from backupd.errors import BackupdError, EngineUnavailable, LockedError, VolumeMissing
from backupd.hooks import run_hook
from backupd.journal import Act, CloneAct, DrillAct, HoldAct, Journal, OpenAct, PostAct, RestoreAct
from backupd.lock import drill_lock, remove_unlocked, service_lock, token_lock, volume_lock
from backupd.model import Volume, VolumeSpec
from backupd.ports import Store
from backupd.quiesce import dependants_first, let_go, wait_until_healthy
from backupd.restore.change import undo
from backupd.restore.swap import Holds, Swap
from backupd.runtime import Runtime
from backupd.sandbox import drill_directory, remove_directory
from backupd.services import NoServices, Service, Services

_WELL_WITHIN_SECONDS = 60.0
"""How long recovering waits for a service that another one depends on."""


class Recovery(Struct, frozen=True):
    """What was found and what was done about it, in words."""

    subject: str
    outcome: str


def recover(runtime: Runtime, scan: Iterable[VolumeSpec] = ()) -> Sequence[Recovery]:
    """Make every volume wholly old or wholly new again; may be repeated. What a live process holds is left to it.

    The journal says where to look and what was decided; volumes of `scan` are looked into besides, for when the journal
    is lost. Acts of another engine wait for it. Helpers that a killed process left running are ended first: a swap must
    not have two hands on it. A volume that can't be recovered does not keep the others from it; its error comes last.
    """
    journal = Journal(runtime.state)
    acts = _open(journal, runtime)
    volumes = _found(runtime, scan)
    if not acts and not volumes:
        return []
    attempts = _Attempts(runtime)
    attempts.done += [Recovery("leftover", text) for text in runtime.engine.remove_leftovers()]
    # Volumes first: a service is not to see one that is neither old nor new.
    kept_down = _volumes(acts, volumes, attempts, journal)
    # Services in the opposite order of their stops, so that what others depend on comes first.
    for number, hold in reversed(_holds(journal, runtime)):
        if hold.service not in kept_down:
            attempts.succeed(partial(_let_go, runtime, journal, number, hold))
    for seen in acts:  # last, since nothing can be run in a container that stands
        if isinstance(seen.act, PostAct):
            attempts.succeed(partial(_run_post, runtime, journal, seen.number, seen.act))
    if attempts.errors:
        raise attempts.errors[0]
    return attempts.done


def recover_stores(runtime: Runtime, stores: Iterable[Store]) -> Sequence[Recovery]:
    """Remove what killed processes of this machine left in stores: half-written objects and leases; may be repeated.

    What other machines left runs out. A store that can't be asked does not keep the others from it; its error comes
    last.
    """
    attempts = _Attempts(runtime)
    for store in stores:
        attempts.succeed(partial(_let_go_of, runtime, store))
    remove_unlocked(runtime.locks)
    if attempts.errors:
        raise attempts.errors[0]
    return attempts.done


def _let_go_of(runtime: Runtime, store: Store) -> list[Recovery]:
    subject = f"store {store.name}"
    removed = store.remove_stale_uploads(None, runtime.clock.now())
    done = [Recovery(subject, f"removed an unfinished upload: {text}") for text in removed]
    return done + [
        Recovery(subject, f"ended the lease of a process that is no more: {lease}")
        for lease in runtime.leases(store).release_dead()
    ]


def _volumes(acts: Sequence[OpenAct], scan: Sequence[Volume], attempts: _Attempts, journal: Journal) -> set[str]:
    """Put volumes right; returns the ids of the containers that are not to see theirs."""
    runtime = attempts.runtime
    kept_down: set[str] = set()
    for seen in acts:
        match seen.act:
            case RestoreAct() as act:
                if not attempts.succeed(partial(_put_right, runtime, journal, seen.number, act)):
                    kept_down |= {user.id for user in runtime.engine.services.users(act.volume)}
            case CloneAct() as act:
                attempts.succeed(partial(_unclone, runtime, journal, seen.number, act))
            case DrillAct() as act:
                attempts.succeed(partial(_clear_away, runtime, journal, seen.number, act))
    for volume in scan:
        attempts.succeed(partial(_scan, runtime, volume))
    return kept_down


class _Attempts:
    """What was tried: one that fails does not keep the others from it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.done: list[Recovery] = []
        self.errors: list[BackupdError] = []

    def succeed(self, work: Callable[[], list[Recovery]]) -> bool:
        try:
            self.done += work()
        except LockedError:  # a live process is at it
            pass
        except BackupdError as exc:
            self.runtime.progress.note(f"not recovered: {exc}")
            self.errors.append(exc)
            return False
        return True


def _open(journal: Journal, runtime: Runtime) -> list[OpenAct]:
    """What was begun and not ended by this engine. Services are the Docker engine's."""
    has_services = type(runtime.engine.services) is not NoServices

    def is_at_home(act: Act) -> bool:
        match act:
            case HoldAct() | PostAct():
                return has_services
            case DrillAct():
                return act.engine == runtime.engine.name
            case RestoreAct() | CloneAct():
                return (act.volume.kind == "directory") == (runtime.engine.name == "mounted")

    return [seen for seen in journal.open_acts() if is_at_home(seen.act)]


def _holds(journal: Journal, runtime: Runtime) -> list[tuple[int, HoldAct]]:
    return [(seen.number, seen.act) for seen in _open(journal, runtime) if isinstance(seen.act, HoldAct)]


def _let_go(runtime: Runtime, journal: Journal, number: int, act: HoldAct) -> list[Recovery]:
    services = runtime.engine.services
    service = services.inspect(act.service)
    if service is None:
        journal.end([number])
        return [Recovery(f"container {act.name}", "was held still by a process that died, and is gone")]
    with service_lock(runtime.locks, service, patience_seconds=0):
        held = _holds(journal, runtime)
        if all(begun != number for begun, _ in held):
            return []
        if act.how == "stop" and service.state == "paused":  # its stop never came, or somebody has paused it since
            journal.end([number])
            return [Recovery(f"container {act.name}", "is paused")]
        let_go(services, service, act.how)
        what = "runs again" if act.how == "stop" else "goes on"
        if act.paused:
            what = _paused_again(services, service)
        elif act.how == "stop" and _is_waited_for(service, [other for _, other in held], services):
            try:
                wait_until_healthy(services, service, _WELL_WITHIN_SECONDS)
            except BackupdError as exc:
                runtime.progress.note(f"{exc}; what depends on it is started all the same")
        journal.end([number])
    return [Recovery(f"container {act.name}", what)]


def _paused_again(services: Services, service: Service) -> str:
    try:
        services.pause(service)
    except BackupdError as exc:
        return f"runs, though it was paused before: {exc}"
    return "is as it was, paused"


def _is_waited_for(service: Service, held: Sequence[HoldAct], services: Services) -> bool:
    others = [services.inspect(act.service) for act in held if act.service != service.id]
    return any(o is not None and o.project == service.project and service.service in o.depends_on for o in others)


def _unclone(runtime: Runtime, journal: Journal, number: int, act: CloneAct) -> list[Recovery]:
    with volume_lock(runtime.locks, act.volume):
        if all(begun.number != number for begun in journal.open_acts()):
            return []
        if runtime.engine.inspect(act.volume) is not None:
            clone.remove(runtime.engine, act.volume, act.name)
        journal.end([number])
    return [Recovery(str(act.volume), f"{act.name}, left by a backup that died, is removed")]


def _run_post(runtime: Runtime, journal: Journal, number: int, act: PostAct) -> list[Recovery]:
    """Run them once: one that fails is told, and would fail again."""
    done = []
    with token_lock(runtime.locks, act.token):
        if all(begun.number != number for begun in journal.open_acts()):
            return []
        for hook in act.hooks:
            try:
                run_hook(runtime, hook, "post")
            except EngineUnavailable:
                raise
            except BackupdError as exc:
                done.append(Recovery(f"container {hook.service}", f"after a backup that died {exc}"))
            else:
                done.append(Recovery(f"container {hook.service}", "its post command of a backup that died was run"))
        journal.end([number])
    return done


def _clear_away(runtime: Runtime, journal: Journal, number: int, act: DrillAct) -> list[Recovery]:
    """What a drill had put up on the engine went with `remove_leftovers`; here goes what it had on this machine."""
    with drill_lock(runtime.locks, act.drill):
        if all(begun.number != number for begun in journal.open_acts()):
            return []
        remove_directory(drill_directory(runtime.state, act.drill))
        journal.end([number])
    return [Recovery(f"drill {act.drill}", "was interrupted; nothing of it is left")]


def _put_right(runtime: Runtime, journal: Journal, number: int, act: RestoreAct) -> list[Recovery]:
    with volume_lock(runtime.locks, act.volume):
        begun = next((begun for begun in journal.open_acts() if begun.number == number), None)
        if begun is None:  # a live process has ended it meanwhile
            return []
        if runtime.engine.inspect(act.volume) is None:
            done = Recovery(str(act.volume), "the volume of an interrupted restore is gone")
        else:
            swap = Swap(runtime.engine, act.volume, act.swap)
            if not act.under:
                _clear_the_way(runtime, journal, swap, decided=begun.decided)
            if begun.decided:
                done = _said(swap, swap.complete(keep_old=act.keep_old), kept=act.keep_old)
            else:
                undo(swap, runtime, created=act.created)
                done = _said(swap, "old")
        journal.end([begun.number])
    return [done]


def _clear_the_way(runtime: Runtime, journal: Journal, swap: Swap, *, decided: bool) -> None:
    """Stop what uses a volume whose entries are about to be moved: somebody has started it since the kill."""
    services = runtime.engine.services
    users = [user for user in services.users(swap.volume) if user.alive]
    if not users or swap.settled(decided=decided):
        return
    held = {hold.service for _, hold in _holds(journal, runtime)}
    for user in dependants_first(users):
        with service_lock(runtime.locks, user, patience_seconds=0):
            paused = user.state == "paused"
            if user.id not in held:
                act = HoldAct(service=user.id, name=user.name, how="stop", paused=paused)
                journal.begin(act, runtime.clock.now())
            if paused:
                services.unpause(user)
            services.stop(user)


def _scan(runtime: Runtime, volume: Volume) -> list[Recovery]:
    with volume_lock(runtime.locks, volume):
        swaps = [
            Swap(runtime.engine, volume, left) for left in Swap(runtime.engine, volume, "none").survey().interrupted
        ]
        done = [_said(swap, swap.recover(keep_old=True), kept=True) for swap in swaps]
        for name in clone.left(runtime.engine, volume):
            clone.remove(runtime.engine, volume, name)
            done.append(Recovery(str(volume), f"{name}, left by a backup that died, is removed"))
        return done


def _found(runtime: Runtime, scan: Iterable[VolumeSpec]) -> list[Volume]:
    volumes = []
    for spec in scan:
        try:
            volumes.append(runtime.engine.find(spec))
        except VolumeMissing:
            continue
    return volumes


def _said(swap: Swap, holds: Holds, *, kept: bool = False) -> Recovery:
    outcome = "finished, the restored data are in place" if holds == "new" else "undone, the old data are in place"
    if kept and holds == "new":
        outcome += f", and the old ones in {swap.old}"
    return Recovery(str(swap.volume), f"interrupted restore of snapshot {swap.id.partition('-')[0]}: {outcome}")
