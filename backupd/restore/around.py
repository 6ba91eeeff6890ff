"""The containers around the volumes of a restore: which are to be stopped, and whether they may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from backupd.errors import VolumeInUse
from backupd.model import PROJECT_LABEL
from backupd.quiesce import dependants_first
from backupd.restore.target import RestoreRequest, Step
from backupd.services import Service, Services


class Around(Struct, frozen=True):
    """Containers that run (or are paused, or crash again and again).

    `users` says who mounts which volume. `stopped` are to be stopped for the restore, dependants first, and started in
    the opposite order: users, and what asked Compose to be restarted with them (`restart: true`). `strangers` are those
    among them that are not of the volume's project, `vanishing` those that Docker removes once they stop,
    `orchestrated` those that somebody else would start again at once. `needs` has, for each that is stopped, the ids of
    the others that it depends on, directly or not.
    """

    users: Mapping[str, tuple[Service, ...]]
    stopped: tuple[Service, ...] = ()
    strangers: tuple[Service, ...] = ()
    needs: Mapping[str, frozenset[str]] | None = None

    @property
    def vanishing(self) -> tuple[Service, ...]:
        """See above."""
        return tuple(service for service in self.stopped if service.removed_when_stopped)

    @property
    def orchestrated(self) -> tuple[Service, ...]:
        """See above."""
        return tuple(service for service in self.stopped if service.orchestrator)

    @property
    def questionable(self) -> bool:
        """Whether a person has to agree to what is to be stopped, besides agreeing to the restore."""
        return bool(self.strangers or self.vanishing)

    def layers(self) -> Iterator[Sequence[Service]]:
        """Those to stop, in groups that may be stopped at once: what a service depends on is in a later group.

        A circle, which Compose refuses, is broken anywhere.
        """
        needs = self.needs or {}
        left = list(self.stopped)
        while left:
            now = [s for s in left if not any(s.id in needs.get(other.id, ()) for other in left if other is not s)]
            now = now or left[:1]
            yield now
            left = [service for service in left if service not in now]


def look_around(steps: Sequence[Step], request: RestoreRequest, services: Services) -> Around:
    """Who uses the volumes at this moment. SourceError if the engine does not say."""
    users: dict[str, tuple[Service, ...]] = {}
    homes: dict[str, str | None] = {}
    for step in steps:
        found = tuple(service for service in services.users(step.volume) if service.alive)
        if found:
            users[str(step.volume)] = found
        for service in found:
            homes.setdefault(service.id, request.project or step.volume.labels.get(PROJECT_LABEL))
    if not request.stop or not users:
        return Around(users)
    using = {service.id: service for found in users.values() for service in found}
    known = _neighbours(using.values(), services)
    chosen = using | _restarted_with(using, known)
    return Around(
        users,
        stopped=tuple(service for service in dependants_first(known) if service.id in chosen),
        strangers=tuple(s for s in using.values() if homes[s.id] is not None and s.project != homes[s.id]),
        needs={id_: _needs(service, known) & (chosen.keys() - {id_}) for id_, service in chosen.items()},
    )


def refuse(around: Around, request: RestoreRequest) -> None:
    """VolumeInUse if the restore must not go on among these containers, with what to do about it."""
    if not request.stop:
        refuse_users(around, request)
        return
    if around.orchestrated:
        who = ", ".join(f"{service.name} ({service.orchestrator})" for service in around.orchestrated)
        raise VolumeInUse(
            f"{who} would be started again while the volume is exchanged",
            hint="scale the service to 0 first, or pass --no-stop --force to write under it all the same",
        )
    if around.questionable and not request.force:
        raise VolumeInUse("; ".join(questions(around)), hint="stop them yourself, or --force to have them stopped")


def refuse_users(around: Around, request: RestoreRequest) -> None:
    """VolumeInUse names all running containers that mount the volumes, unless the request is to write under them."""
    if around.users and not (request.force and not request.stop):
        names = " ".join(sorted({user.name for users in around.users.values() for user in users}))
        raise VolumeInUse(
            "; ".join(f"{volume} is in use by {', '.join(u.name for u in us)}" for volume, us in around.users.items()),
            hint=f"`docker stop {names}` first, or --no-stop --force to write under running containers",
        )


def questions(around: Around) -> list[str]:
    """What a person should know before agreeing."""
    return [
        *(
            f"{service.name} uses the volume and is {_whose(service)}, not of this project"
            for service in around.strangers
        ),
        *(f"{service.name} was started with --rm: stopped, it is gone" for service in around.vanishing),
    ]


def _whose(service: Service) -> str:
    return f"of project {service.project}" if service.project else "of no Compose project"


def _neighbours(using: Iterable[Service], services: Services) -> list[Service]:
    """The containers in question and all others of their projects, each once."""
    known = {service.id: service for service in using}
    for project in sorted({service.project for service in known.values() if service.project}):
        for service in services.of_project(project):
            known.setdefault(service.id, service)
    return list(known.values())


def _restarted_with(using: Mapping[str, Service], known: Sequence[Service]) -> dict[str, Service]:
    found: dict[str, Service] = {}
    todo = list(using.values())
    while todo:
        one = todo.pop()
        for other in known:
            asks = one.service in other.restarts_with and other.project == one.project and one.service
            if asks and other.alive and other.id not in using and other.id not in found:
                found[other.id] = other
                todo.append(other)
    return found


def _needs(service: Service, known: Sequence[Service]) -> frozenset[str]:
    """The ids of all that it depends on, through however many others."""
    found: set[str] = set()
    todo = [service]
    while todo:
        one = todo.pop()
        for other in known:
            if other.project == one.project and other.service in one.depends_on and other.id not in found:
                found.add(other.id)
                todo.append(other)
    return frozenset(found)
