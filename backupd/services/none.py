"""An engine without containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backupd.errors import SourceError
from backupd.model import Volume
from backupd.services.containers import CommandResult, Health, Service, TarStream


class NoServices:
    """Nobody is known to use anything."""

    def users(self, volume: Volume) -> Sequence[Service]:
        """See Services."""
        del volume
        return ()

    def of_project(self, project: str) -> Sequence[Service]:
        """See Services."""
        del project
        return ()

    def inspect(self, service_id: str) -> Service | None:
        """See Services."""
        del service_id
        return None

    def stop(self, service: Service) -> None:
        """See Services."""
        raise self._none(service)

    def start(self, service: Service) -> None:
        """See Services."""
        raise self._none(service)

    def pause(self, service: Service) -> None:
        """See Services."""
        raise self._none(service)

    def unpause(self, service: Service) -> None:
        """See Services."""
        raise self._none(service)

    def health(self, service: Service) -> Health:
        """See Services."""
        raise self._none(service)

    def logs(self, service: Service, lines: int) -> Sequence[str]:
        """See Services."""
        del lines
        raise self._none(service)

    def run(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60,
    ) -> CommandResult:
        """See Services."""
        del command, user, environment, timeout_seconds
        raise self._none(service)

    def examine(self, service: Service, volume: Volume, script: str, arguments: Sequence[str] = ()) -> CommandResult:
        """See Services."""
        del volume, script, arguments
        raise self._none(service)

    def tar_from(
        self,
        service: Service,
        command: Sequence[str],
        *,
        user: str,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> TarStream:
        """See Services."""
        del command, user, environment, stdin
        raise self._none(service)

    @staticmethod
    def _none(service: Service) -> SourceError:
        return SourceError(f"container {service.name} is Docker's, and this engine knows no Docker")
