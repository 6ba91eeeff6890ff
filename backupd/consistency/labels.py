"""What labels on volumes and containers say about how a volume is backed up.

    backupd.consistency, backupd.exclude, backupd.user
    backupd.pre, backupd.post    shell commands; besides them .user, .timeout (seconds) and, on volumes, .service

A volume's own labels go before those of its containers, and the configuration before both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from backupd.errors import SourceError
from backupd.model import Hook, Volume, VolumeSpec
from backupd.services import Service

CONSISTENCY = "backupd.consistency"
EXCLUDE = "backupd.exclude"
USER = "backupd.user"

_TIMEOUT_SECONDS = 300.0


class Said(Struct, frozen=True):
    """The value of a label and where it is, in words."""

    value: str
    where: str


class Labels(Struct, frozen=True):
    """The labels that speak of a volume."""

    volume: Volume
    users: Sequence[Service]

    @property
    def consistency(self) -> Said | None:
        """The strategy that is asked for. SourceError where containers do not agree."""
        return self._one(CONSISTENCY)

    def complete(self, spec: VolumeSpec) -> VolumeSpec:
        """The configuration's, with what only labels say. SourceError for a label that makes no sense."""
        changes: dict[str, object] = {}
        if not spec.exclude and "exclude" not in spec.said and (said := self._one(EXCLUDE)):
            changes["exclude"] = tuple(part.strip() for part in said.value.split(",") if part.strip())
        if spec.user is None and (said := self._one(USER)):
            changes["user"] = said.value
        if "pre" not in spec.said and "post" not in spec.said and not spec.pre and not spec.post:
            changes["pre"], changes["post"] = tuple(self._hooks("backupd.pre")), tuple(self._hooks("backupd.post"))
        return replace(spec, **changes) if changes else spec

    def _one(self, key: str) -> Said | None:
        if value := self.volume.labels.get(key, "").strip():
            return Said(value, f"label {key} of volume {self.volume.source}")
        found = [
            Said(value, f"label {key} of container {user.name}")
            for user in self.users
            if (value := user.labels.get(key, "").strip())
        ]
        if len({said.value for said in found}) > 1:
            raise SourceError(
                f"{self.volume}: {' and '.join(said.where for said in found)} do not agree",
                hint="say it on the volume, or in the configuration",
            )
        return found[0] if found else None

    def _hooks(self, key: str) -> Iterator[Hook]:
        if command := self.volume.labels.get(key, "").strip():
            yield self._hook(key, command, self.volume.labels, self._service_of_volume(key))
        for user in self.users:
            if command := user.labels.get(key, "").strip():
                yield self._hook(key, command, user.labels, user.name)

    def _service_of_volume(self, key: str) -> str:
        if name := self.volume.labels.get(f"{key}.service", "").strip():
            return name
        writing = [user for user in self.users if user.writes(self.volume)]
        if len(writing) != 1:
            raise SourceError(
                f"{self.volume}: label {key} does not say in which container", hint=f"add a label {key}.service"
            )
        return writing[0].name

    @staticmethod
    def _hook(key: str, command: str, labels: Mapping[str, str], service: str) -> Hook:
        timeout = labels.get(f"{key}.timeout", "").strip().removesuffix("s")
        if timeout and not (timeout.isascii() and timeout.isdigit() and int(timeout)):
            raise SourceError(f"label {key}.timeout of {service}: expected seconds, such as 60, not {timeout!r}")
        user = labels.get(f"{key}.user", "").strip() or None
        return Hook(service, ("sh", "-c", command), user, float(timeout) if timeout else _TIMEOUT_SECONDS)
