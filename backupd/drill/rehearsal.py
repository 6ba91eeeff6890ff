"""Copies of the services on restored volumes: which, in what order, until they are up, and what they are asked."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from backupd.drill.probes import OutOfTime, Results, Subject, probe_for, run_checks, without_secrets
from backupd.drill.scratch import Scratch, sizes
from backupd.errors import EngineUnavailable, SourceError
from backupd.model import Volume
from backupd.quiesce import dependants_first
from backupd.repository import Repository, ServiceDrill
from backupd.runtime import Runtime
from backupd.sandbox import Copy, CopySpec, ExtraArguments, Sandbox
from backupd.services import Service

_POLL_SECONDS = 0.2
_LOG_LINES = 12
_HEARD_LINES = 500
_COMPLAINT = re.compile(r"(?i)\b(error|fatal|panic|corrupt\w*|short read|truncated|bad file format|wrong signature)\b")
_TOO_EARLY = re.compile(r"the database system is (starting up|not (yet )?accepting connections|in recovery mode)")


class Rehearsed(Struct):
    """What came of one service, and which volumes it has. `asked`: it came up, so that it could be asked."""

    service: Service
    volumes: list[str]
    drilled: ServiceDrill
    results: list[Results] = field(default_factory=list)
    asked: bool = False

    @property
    def names(self) -> frozenset[str]:
        """What the configuration may call it."""
        return frozenset({self.service.name, self.service.service or self.service.name})


class Cast(Struct):
    """The services of a drill, those that others depend on first, with the volumes that they use, by name."""

    parts: list[tuple[Service, list[Scratch]]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def cast(scratches: Sequence[Scratch], runtime: Runtime) -> Cast:
    """Choose the services: by configuration, else those that write to a volume; `absent` says where there is none."""
    chosen: dict[str, tuple[Service, list[Scratch]]] = {}
    chosen_cast = Cast()
    for scratch in scratches:
        services, why_none = _services_of(scratch, runtime)
        if not services:
            chosen_cast.absent[scratch.archive.volume] = why_none
        for service in services:
            chosen.setdefault(service.id, (service, []))[1].append(scratch)
    order = reversed(dependants_first([service for service, _ in chosen.values()]))
    chosen_cast.parts = [chosen[service.id] for service in order]
    return chosen_cast


def _services_of(scratch: Scratch, runtime: Runtime) -> tuple[list[Service], str]:
    options, source = scratch.options, scratch.source
    if not options.start:
        return [], "the configuration says `drill.start: false`"
    if runtime.engine.name == "mounted":
        return [], "the mounted engine knows no services"
    users = list(runtime.engine.services.users(source))
    if users and not any(service.mount_of(source) for service in users):
        names = ", ".join(service.name for service in users)
        return [], f"{names} mount a directory above or below {source}, for which it cannot be put in place"
    users = [service for service in users if service.mount_of(source) is not None]
    if options.services:
        users = [service for service in users if {service.service, service.name} & set(options.services)]
        return _one_each(users), f"no container of {', '.join(options.services)} uses {source} now"
    users = [service for service in users if service.writes(source)] or users
    users = [service for service in users if service.alive] or users
    return _one_each(users), f"no container uses {source} now"


def _one_each(services: Iterable[Service]) -> list[Service]:
    """One container of each service of a Compose project."""
    return list({(service.project, service.service or service.name): service for service in services}.values())


class Rehearsal:
    """Starts the copies, one after the other, and asks them."""

    def __init__(
        self, sandbox: Sandbox, repository: Repository, runtime: Runtime, volumes: Mapping[str, Volume]
    ) -> None:
        self._sandbox = sandbox
        self._repository = repository
        self._runtime = runtime
        self._volumes = volumes

    def run(self, service: Service, scratches: Sequence[Scratch], known: Mapping[str, int]) -> Rehearsed:
        """Start a copy on the volumes and ask it all there is to ask. What does not work is a finding."""
        up = Results("start", service.name)
        drilled = ServiceDrill(name=service.name, image=service.image, image_id=service.image_id, ready_seconds=None)
        rehearsed = Rehearsed(service, [scratch.archive.volume for scratch in scratches], drilled, [up])
        self._runtime.progress.note(f"starting a copy of {service.name} ({service.image})")
        probe = probe_for(service)
        try:
            copy = self._copy(service, scratches, probe.extra if probe else None)
            began = time.monotonic()
            self._sandbox.start(copy)
            ready = self._wait(copy, scratches, began, up)
        except EngineUnavailable:
            raise
        except SourceError as exc:
            up.failed(without_secrets(str(exc), service))
            return rehearsed
        notes = list(copy.notes)
        rehearsed.drilled = ServiceDrill(
            name=service.name, image=service.image, image_id=service.image_id, ready_seconds=ready, notes=notes
        )
        if ready is None:
            self._show_log(copy)
            return rehearsed
        self._listen(copy, up)
        self._ask(copy, scratches, known, rehearsed)
        if self._sandbox.condition(copy).health in {"gone", "unhealthy"}:
            up.failed("broke down while it was asked")
            self._show_log(copy)
        return rehearsed

    def _copy(self, service: Service, scratches: Sequence[Scratch], extra: ExtraArguments | None) -> Copy:
        limits = max((scratch.options.limits for scratch in scratches), key=lambda limits: limits.memory_bytes)
        return self._sandbox.copy(CopySpec(service, self._volumes, limits, extra))

    def _wait(self, copy: Copy, scratches: Sequence[Scratch], began: float, up: Results) -> float | None:
        """Seconds until it was up; None, with a finding, if it never was."""
        within = max(scratch.options.ready_seconds for scratch in scratches)
        steady = max(scratch.options.steady_seconds for scratch in scratches)
        while True:
            condition, seconds = self._sandbox.condition(copy), time.monotonic() - began
            if condition.health == "healthy":
                up.proven(f"healthy after {seconds:.1f} s")
                return seconds
            if condition.health == "running" and seconds >= steady:
                up.proven(f"runs steadily for {steady:g} s (it has no health check)")
                return 0.0
            if condition.health == "gone":
                why = "out of memory: drill.memory_limit" if condition.out_of_memory else f"code {condition.exit_code}"
                up.failed(f"ended after {seconds:.1f} s ({why})")
                return None
            if condition.health == "unhealthy" or seconds > within:
                up.failed(f"is {condition.health} after {seconds:.0f} s")
                return None
            time.sleep(_POLL_SECONDS)

    def _ask(self, copy: Copy, scratches: Sequence[Scratch], known: Mapping[str, int], rehearsed: Rehearsed) -> None:
        service, services = rehearsed.service, self._runtime.engine.services
        rehearsed.asked = True
        probe = probe_for(service)
        for number, scratch in enumerate(scratches):
            subject = Subject(
                services=services,
                service=copy.service,
                command=copy.command,
                spec=scratch.spec,
                options=scratch.options,
                known=known,
                files=sizes(scratch.archive, self._repository, probe.files) if probe and probe.files else {},
                deadline=time.monotonic() + scratch.options.probe_seconds,
            )
            if probe is not None and number == 0:
                results = Results(probe.name, service.name)
                rehearsed.results.append(results)
                try:
                    probe.run(subject, results)
                except OutOfTime as exc:
                    results.warning(f"not all could be asked: {exc}")
                except EngineUnavailable:
                    raise
                except SourceError as exc:
                    results.failed(without_secrets(str(exc), service))
            checks = Results("check", service.name)
            rehearsed.results.append(checks)
            run_checks(subject, rehearsed.names, checks)

    def _listen(self, copy: Copy, up: Results) -> None:
        """A server that complains while it starts, and goes on, is worth a look."""
        lines = self._sandbox.log(copy, _HEARD_LINES)
        complaints = [line for line in lines if _COMPLAINT.search(line) and not _TOO_EARLY.search(line)]
        if complaints:
            shown = without_secrets(complaints[0], copy.original)
            more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
            up.warning(f"its log says: {shown}{more}")

    def _show_log(self, copy: Copy) -> None:
        """For who watches, and not for the record: a log may hold anything."""
        for line in self._sandbox.log(copy, _LOG_LINES):
            self._runtime.progress.note(f"  {copy.original.name}: {without_secrets(line, copy.original)}")
