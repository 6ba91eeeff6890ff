"""Questions to services that were started on restored data: one small module for each kind, chosen by image."""

from collections.abc import Sequence

from backupd.drill.probes.base import OutOfTime, Probe, Results, Subject, without_secrets
from backupd.drill.probes.check import run_checks
from backupd.drill.probes.postgres import PostgresProbe
from backupd.drill.probes.redis import RedisProbe
from backupd.drill.probes.sqlite import check_database
from backupd.services import Service

PROBES: Sequence[Probe] = (PostgresProbe(), RedisProbe())


def probe_for(service: Service) -> Probe | None:
    """The built-in probe that fits a service."""
    return next((probe for probe in PROBES if probe.fits(service)), None)


__all__ = [
    "PROBES",
    "OutOfTime",
    "Probe",
    "Results",
    "Subject",
    "check_database",
    "probe_for",
    "run_checks",
    "without_secrets",
]
