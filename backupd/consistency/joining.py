"""Volumes that are backed up because a label says so: `backupd.enable=true`, on themselves or on a container.

They are of the configured Compose project, and not in the configuration: what is there, is said there. The label
`backupd.plan` names their plan; without it they join the plan `default`, or else the first. `backupd.name` is what
their archives are filed under, without it the name in the Compose file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from backupd.errors import ConfigError, VolumeMissing
from backupd.model import PROJECT_LABEL, VOLUME_LABEL, Plan, Volume, VolumeSpec
from backupd.ports import Engine
from backupd.services import Service

ENABLE = "backupd.enable"
PLAN = "backupd.plan"
NAME = "backupd.name"

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0", ""})
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


def with_enabled(plan: Plan, plans: Sequence[str], configured: Sequence[VolumeSpec], engine: Engine) -> Plan:
    """The plan with the volumes that labels add to it. `plans` are the names of all, in the configuration's order.

    ConfigError for a label that names no plan, or one that makes no sense: a volume must not be left out in silence.
    """
    volumes = engine.volumes()
    if not volumes:
        return plan
    known = set(_sources(configured, engine))
    names = {spec.name for spec in configured}
    specs = []
    for volume in volumes:
        labels = _labels(volume, engine)
        if volume.source in known or not labels:
            continue
        name = _name(volume, labels)
        if name in names:
            raise ConfigError(
                f"volume {volume.source} would be called {name} like another one",
                hint=f"give it a label {NAME}, or put it into the configuration",
            )
        names.add(name)
        if _plan(volume, labels, plans) == plan.name:
            specs.append(VolumeSpec(name, volume=volume.source))
    return replace(plan, volumes=(*plan.volumes, *specs))


def _labels(volume: Volume, engine: Engine) -> Mapping[str, str]:
    """The labels that say that it is backed up, its own before those of containers; empty if none says so."""
    if ENABLE in volume.labels:
        return volume.labels if _is_true(volume.labels[ENABLE], f"volume {volume.source}") else {}
    for service in _containers(volume, engine):
        if ENABLE in service.labels and _is_true(service.labels[ENABLE], f"container {service.name}"):
            own = {key: value for key, value in volume.labels.items() if key.startswith("backupd.")}
            return {ENABLE: "true", **{key: service.labels[key] for key in (PLAN,) if key in service.labels}, **own}
    return {}


def _containers(volume: Volume, engine: Engine) -> Sequence[Service]:
    project = volume.labels.get(PROJECT_LABEL)
    found = engine.services.of_project(project) if project else ()
    return [service for service in found if service.mount_of(volume)]


def _is_true(value: str, where: str) -> bool:
    if value.strip().lower() not in _TRUE | _FALSE:
        raise ConfigError(f"label {ENABLE} of {where}: expected true or false, not {value!r}", hint="say true or false")
    return value.strip().lower() in _TRUE


def _plan(volume: Volume, labels: Mapping[str, str], plans: Sequence[str]) -> str:
    wanted = labels.get(PLAN, "").strip()
    if wanted and wanted not in plans:
        raise ConfigError(
            f"volume {volume.source} is to be in plan {wanted!r} ({PLAN}), which there is not",
            hint=f"there are: {', '.join(plans)}",
        )
    return wanted or ("default" if "default" in plans else plans[0])


def _name(volume: Volume, labels: Mapping[str, str]) -> str:
    if said := labels.get(NAME, "").strip():
        if not _NAME.fullmatch(said):
            raise ConfigError(
                f"label {NAME} of volume {volume.source}: {said!r} is not a name",
                hint="lower-case letters, digits, `_`, `.` and `-`, a letter or digit first, at most 63",
            )
        return said
    name = re.sub(r"[^a-z0-9_.-]", "_", volume.labels.get(VOLUME_LABEL, volume.source).lower())[:63]
    return name if _NAME.fullmatch(name) else f"v{name}"[:63]


def _sources(configured: Sequence[VolumeSpec], engine: Engine) -> Iterator[str]:
    for spec in configured:
        try:
            yield engine.find(spec).source
        except VolumeMissing:
            continue
