"""All checks, in the order in which one would ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct

from backupd.consistency import with_enabled
from backupd.doctor import engine, machine, plans, repositories, runs, stores, volumes
from backupd.doctor.repositories import Held
from backupd.doctor.result import Check, Result
from backupd.errors import BackupdError
from backupd.model import VolumeSpec
from backupd.ports import Store
from backupd.runtime import Runtime
from backupd.settings import Settings


class Patient(Struct, frozen=True):
    """A deployment. `identity` is the secret key file that this process was given, if any."""

    settings: Settings
    runtime: Runtime
    stores: Sequence[Store]
    identity: Path | None = None


def all_checks(patient: Patient) -> Iterator[Check]:
    """Lazily: what later checks look at is found by earlier ones."""
    settings, runtime = patient.settings, patient.runtime
    encrypted = bool(settings.encryption.recipients)
    for name, plan in settings.plans.items():
        yield Check("configuration", f"plan {name}", partial(plans.look_at_plan, name, plan, settings))
    yield Check("configuration", "stores and volumes", partial(plans.look_for_leftovers, settings))
    yield Check("configuration", "upkeep", partial(plans.look_at_upkeep, settings))
    yield Check("configuration", "encryption", partial(plans.look_at_encryption, settings))
    yield Check("machine", "state_dir", partial(machine.look_at_state, runtime.state))
    keys = partial(machine.look_at_keys, runtime.state, patient.identity, encrypted=encrypted)
    yield Check("machine", "keys", keys)
    yield from _engine(settings, runtime)
    seen: list[Held] = []
    for store in patient.stores:
        yield Check("stores", f"store {store.name}", partial(_store, store, settings, runtime, seen))
    yield Check("snapshots", "snapshots", partial(repositories.look_at_ages, settings, runtime, seen))
    yield Check("snapshots", "history", partial(runs.look_at_runs, settings, runtime, seen))


def _engine(settings: Settings, runtime: Runtime) -> Iterator[Check]:
    """An engine that does not answer is one error, and not one for each volume."""
    answers: list[bool] = []

    def look() -> Iterator[Result]:
        yield from engine.look_at_engine(runtime.engine)
        answers.append(True)

    yield Check("engine", "engine", look)
    if not answers:
        return
    yield Check("engine", "helper image", partial(engine.look_at_tar, runtime.engine))
    specs = {name: settings.volume_spec(name) for name in settings.volumes}
    yield Check("volumes", "labels", partial(_labelled, settings, runtime, specs))
    for name, spec in list(specs.items()):
        yield Check("volumes", f"volume {name}", partial(volumes.look_at_volume, spec, runtime))
    for name in settings.plans:
        plan = settings.plan(name)
        hooks = (*plan.pre, *plan.post)
        if hooks:
            yield Check("volumes", f"plan {name}", partial(_plan_hooks, name, settings, runtime))


def _store(store: Store, settings: Settings, runtime: Runtime, seen: list[Held]) -> Iterator[Result]:
    """The store, then what it holds: one that does not answer is one error."""
    yield from stores.look_at_store(store, settings, runtime)
    yield from repositories.look_at_repository(store, runtime, seen)


def _labelled(settings: Settings, runtime: Runtime, specs: dict[str, VolumeSpec]) -> Iterator[Result]:
    """Volumes that labels add, which are looked at like the others then."""
    configured = list(specs.values())
    for name in settings.plans:
        plan = with_enabled(settings.plan(name), list(settings.plans), configured, runtime.engine)
        for spec in plan.volumes:
            if spec.name not in settings.volumes:
                specs[spec.name] = spec
                yield Result("ok", f"volume {spec.name}", f"is in plan {name} by its labels")
        if not plan.volumes:
            advice = "name some in the configuration, or label them backupd.enable=true"
            yield Result("error", f"plan {name}", "has no volumes", advice)


def _plan_hooks(name: str, settings: Settings, runtime: Runtime) -> Iterator[Result]:
    plan = settings.plan(name)
    found = []
    for spec in plan.volumes:
        try:
            found.append(runtime.engine.find(spec))
        except BackupdError:  # told by the look at the volume
            continue
    yield from volumes.look_at_hooks(f"plan {name}", (*plan.pre, *plan.post), found, runtime)
