"""Volumes: whether they are there, how each will be read, and whether that can work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from backupd.doctor.result import Result
from backupd.errors import BackupdError, VolumeMissing
from backupd.model import PROJECT_LABEL, Hook, Volume, VolumeSpec
from backupd.runtime import Runtime
from backupd.services import Source


def look_at_volume(spec: VolumeSpec, runtime: Runtime) -> Iterator[Result]:
    """The volume and its strategy, which is made ready as for a backup: its server is asked, nothing is read."""
    subject = f"volume {spec.name}"
    engine = runtime.engine
    try:
        volume = engine.find(spec)
    except VolumeMissing as exc:
        if spec.optional:
            yield Result("note", subject, f"is optional, and not there: {exc}")
        else:
            yield Result("error", subject, str(exc), exc.hint)
        return
    yield Result("ok", subject, f"is {volume}{_found_by(spec, volume)}")
    choice = runtime.strategies.choose(spec, volume, runtime)
    way = f"is read by {choice.strategy.name}: {choice.why}"
    try:
        choice.strategy.read(Source(choice.spec, volume, first=False))
    except BackupdError as exc:
        yield Result("error", subject, f"{way}. That fails: {exc}", exc.hint)
    else:
        yield Result("ok", subject, way)
    if engine.name == "docker" and not engine.services.users(volume):
        yield Result("note", subject, "no container uses it: is it the one that is meant?")
    yield from look_at_hooks(subject, (*choice.spec.pre, *choice.spec.post), [volume], runtime)


def look_at_hooks(subject: str, hooks: Iterable[Hook], volumes: Sequence[Volume], runtime: Runtime) -> Iterator[Result]:
    """Whether the containers that commands are run in are there and run."""
    services = runtime.engine.services
    projects = {volume.labels[PROJECT_LABEL] for volume in volumes if PROJECT_LABEL in volume.labels}
    running = {name for project in projects for found in services.of_project(project) if found.alive
               for name in (found.service, found.name)}  # fmt: skip
    for name in dict.fromkeys(hook.service for hook in hooks):
        exact = services.inspect(name)
        if name in running or (exact is not None and exact.alive):
            yield Result("ok", subject, f"its commands run in {name}")
            continue
        state = "does not run" if exact is not None else "is not there"
        yield Result(
            "error", subject, f"container {name}, which its commands run in, {state}", "start it, or correct `service`"
        )


def _found_by(spec: VolumeSpec, volume: Volume) -> str:
    if volume.kind != "volume":
        return ""
    if spec.volume == volume.source:
        return ", found by its full name"
    return f", found by Compose's labels in project {volume.labels.get(PROJECT_LABEL)}"
