"""What every probe is given and gives."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from backupd.drill.options import DrillOptions
from backupd.errors import SourceError
from backupd.model import VolumeSpec
from backupd.repository import Finding
from backupd.sandbox import ExtraArguments
from backupd.services import CommandResult, Service, Services

_SECRET_NAME = re.compile(r"(?i)pass|secret|token|key|credential|dsn|url")
_SHORTEST_SECRET = 4
_LONGEST_TEXT = 300
_MASK = "********"

# What a shell says of a command that there is not; `Subject.run` makes the same of the engine's own words.
NOT_FOUND = 127


class OutOfTime(SourceError):  # noqa: N818
    """The probe used up its time."""


class Subject(Struct, frozen=True):
    """A copy that is up, with what a probe has to know. `known` is what was counted in the drill before.

    `command` is what it was started with, which may hold secrets.
    `files` holds the sizes in bytes of some files of the archive, by path: those that a probe's `files` asks for.
    """

    services: Services
    service: Service
    command: Sequence[str]
    spec: VolumeSpec
    options: DrillOptions
    known: Mapping[str, int]
    files: Mapping[str, int]
    deadline: float

    @property
    def seconds_left(self) -> float:
        """Until the probe has to be done; OutOfTime if that was earlier."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime(f"the time for it ({self.options.probe_seconds:g} s) is over")
        return left

    def variable(self, name: str) -> str | None:
        """A variable of the service, or what is in the file that `<name>_FILE` names, as official images have it."""
        environment = self.service.environment
        if value := environment.get(name):
            return value
        path = environment.get(f"{name}_FILE")
        shown = self.run(["cat", path]) if path else None
        return shown.stdout.strip() or None if shown and shown.exit_code == 0 else None

    def run(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, user: str | None = None
    ) -> CommandResult:
        """Run a command in the copy, within the time that is left."""
        left = self.seconds_left
        try:
            result = self.services.run(self.service, command, user=user, environment=environment, timeout_seconds=left)
        except SourceError as exc:
            if time.monotonic() >= self.deadline:
                raise OutOfTime(f"{command[0]} takes longer than is left of {self.options.probe_seconds:g} s") from exc
            raise
        if result.exit_code in {126, NOT_FOUND} and "executable file not found" in result.stdout + result.stderr:
            return CommandResult(NOT_FOUND, "", result.stdout + result.stderr)
        return result


class Results(Struct):
    """What probes found, in order, and what they counted."""

    probe: str
    subject: str
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def proven(self, text: str) -> None:
        """Something is as it should be."""
        self._add("proven", text)

    def skipped(self, text: str) -> None:
        """Something could not be looked into, and why."""
        self._add("skipped", text)

    def warning(self, text: str) -> None:
        """Something that a person should look at."""
        self._add("warning", text)

    def failed(self, text: str, *, damage: bool = False) -> None:
        """Something is wrong; with the data themselves if `damage`."""
        self._add("failed", text, damage=damage)

    def _add(self, verdict: str, text: str, *, damage: bool = False) -> None:
        self.findings.append(
            Finding(probe=self.probe, subject=self.subject, verdict=verdict, text=text, damage=damage)  # type: ignore[arg-type]
        )


class Probe(Protocol):
    """Asks a kind of server whether what was restored is all right. One small module each in this package.

    `files` says which files of an archive it has to know the sizes of; `extra` what its server is started with besides.
    """

    name: str
    extra: ExtraArguments | None
    files: re.Pattern[str] | None

    def fits(self, service: Service) -> bool:
        """Whether the service is of that kind, by image and environment."""
        ...

    def run(self, subject: Subject, results: Results) -> None:
        """Ask. SourceError when it cannot; what is wrong with the data goes into the results."""
        ...


def image_name(service: Service) -> str:
    """The last part of an image's name, without registry, tag and digest: `postgres` of `docker.io/postgres:16`."""
    return service.image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def said(result: CommandResult, service: Service) -> str:
    """What a command complained of, in a line, without the secrets that its container knows."""
    text = (result.stderr.strip() or result.stdout.strip()).splitlines()
    return without_secrets(text[0] if text else f"exit code {result.exit_code}", service)


def without_secrets(text: str, service: Service) -> str:
    """A line that may be written down: values of a container's variables that may be secrets are masked."""
    for name, value in service.environment.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, _MASK)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
