"""Whose things are these? Questions about what the Engine says of containers, volumes, networks and paths."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from backupd.model import PROJECT_LABEL
from backupd.socketproxy.model import OWNED_LABEL, Facts, Found, Rules, missing

# A way to the Engine, to the kernel or to other containers' files lies here, and in every directory above.
_NEVER = ("/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/var/lib/docker", "/var/lib/containerd")
# Who can write here is root of the host.
_SYSTEM = ("/etc", "/root", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/var/spool/cron", "/opt/containerd")

_SHAREABLE = ("NetworkMode", "PidMode", "IpcMode")

# Docker's own set: more than that in a container, and a command in it could get out.
_USUAL = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "IPC_LOCK", "SYS_NICE"),
    }
)


class Things:
    """The answers, for one set of rules."""

    def __init__(self, rules: Rules, facts: Facts) -> None:
        self.rules = rules
        self.facts = facts

    def container(self, name: str) -> Found:
        """A container by name or id; Refusal if there is none."""
        return _there("container", name, self.facts.container(name))

    def volume(self, name: str) -> Found:
        """A volume; Refusal if there is none."""
        return _there("volume", name, self.facts.volume(name))

    def network(self, name: str) -> Found:
        """A network by name or id; Refusal if there is none."""
        return _there("network", name, self.facts.network(name))

    def image(self, name: str) -> Found:
        """An image by reference or id; Refusal if there is none."""
        return _there("image", name, self.facts.image(name))

    def is_owned(self, labels: Any) -> bool:
        """Whether these are the labels of something that this proxy created."""
        return (labels or {}).get(OWNED_LABEL) == self.rules.project

    def was_created_here(self, thing: Found) -> bool:
        """Whether a container, volume or network was created through this proxy."""
        return self.is_owned((thing.get("Config") or thing).get("Labels"))

    def is_of_project(self, container: Found) -> bool:
        """Whether it is a service of the project, or a container that the configuration names; not a helper."""
        labels = container["Config"].get("Labels") or {}
        if OWNED_LABEL in labels:
            return False
        return labels.get(PROJECT_LABEL) == self.rules.project or container["Name"].lstrip("/") in self.rules.containers

    def volume_is_allowed(self, volume: Found) -> bool:
        """Whether it is of the project, named in the configuration, or was created through this proxy."""
        labels = volume.get("Labels") or {}
        return (
            labels.get(PROJECT_LABEL) == self.rules.project
            or volume["Name"] in self.rules.volumes
            or self.was_created_here(volume)
        )

    def uses_allowed_volume(self, container: Found) -> bool:
        """Whether it mounts a volume or directory that is backed up: then backupd has to know it."""
        for mount in container.get("Mounts") or ():
            if mount.get("Type") == "volume" and mount.get("Name"):
                volume = self.facts.volume(mount["Name"])
                if volume is not None and self.volume_is_allowed(volume):
                    return True
            source = mount.get("Source") or ""
            if any(_within(source, path) or _within(path, source) for path in self.rules.paths if source):
                return True
        return False

    def why_not_within(self, container: Found) -> str | None:
        """What makes a command in this container, or a neighbour in its network, more than a matter of the project."""
        return next(self._powers(container), None) or next(self._shared(container, {container["Id"]}), None)

    def _shared(self, container: Found, seen: set[str]) -> Iterator[str]:
        """The same of those whose namespaces it shares (`network_mode: container:X`), and of those whose they share."""
        host = container.get("HostConfig") or {}
        for mode in _SHAREABLE:
            name = str(host.get(mode) or "")
            if not name.startswith("container:"):
                continue
            other = self.facts.container(name.partition(":")[2])
            if other is None:
                yield f"its {mode} is that of {name}, which is not there"
            elif other["Id"] not in seen:
                seen.add(other["Id"])
                if not self.is_of_project(other) and not self.was_created_here(other):
                    yield f"its {mode} is that of {name}, which is not of project {self.rules.project}"
                for power in (*self._powers(other), *self._shared(other, seen)):
                    yield f"its {mode} is that of {name}: {power}"

    def _powers(self, container: Found) -> Iterator[str]:
        host = container.get("HostConfig") or {}
        if host.get("Privileged"):
            yield "it is privileged"
        for mode in (*_SHAREABLE, "UTSMode", "UsernsMode"):
            if host.get(mode) == "host":
                yield f"its {mode} is the host's"
        if host.get("Devices") or host.get("DeviceRequests") or host.get("DeviceCgroupRules"):
            yield "it has devices of the host"
        if more := sorted({str(name).upper().removeprefix("CAP_") for name in host.get("CapAdd") or ()} - _USUAL):
            yield f"it has the capabilities {', '.join(more)}"
        if any("unconfined" in option or option.endswith("disable") for option in host.get("SecurityOpt") or ()):
            yield "it is not confined"
        # Without these lists, `systempaths=unconfined`, /proc can be written: `core_pattern` is a command on the host.
        if host.get("MaskedPaths") == [] or host.get("ReadonlyPaths") == []:
            yield "its /proc is not protected"
        for source, writable in (*_binds(container), *self._bound_volumes(container)):
            if self.is_the_engines(source) or (writable and _touches(source, _SYSTEM)):
                yield f"it mounts {source}"

    def _bound_volumes(self, container: Found) -> Iterator[tuple[str, bool]]:
        for mount in container.get("Mounts") or ():
            volume = self.facts.volume(mount["Name"]) if mount.get("Type") == "volume" and mount.get("Name") else None
            if volume is not None and (source := bound_by(volume)):
                yield source, bool(mount.get("RW", True))

    def is_the_engines(self, path: str) -> bool:
        """Whether a path of the host is, holds or is within a place that gives power over the host."""
        places = (*_NEVER, posixpath.normpath(self.rules.engine_socket), self.facts.data_root())
        return _touches(path, tuple(place for place in places if place))

    def path_may_be_mounted(self, path: str, *, read_only: bool) -> bool:
        """A path of the configuration, or to be read, one that a container of the project mounts."""
        if not path.startswith("/") or posixpath.normpath(path) != path or self.is_the_engines(path):
            return False
        mounted = [bind for box in self.facts.project_containers() if self.is_of_project(box) for bind in _binds(box)]
        if path not in self.rules.paths and not (read_only and any(path == source for source, _ in mounted)):
            return False
        # Who can write the directory above could put a symbolic link in its place, which the Engine would follow.
        writable = {source for source, write in mounted if write} | self.rules.paths
        return not any(path != source and _within(path, source) for source in writable)


def _there(noun: str, name: str, found: Found | None) -> Found:
    if found is None:
        raise missing(noun, name)
    return found


def bound_by(volume: Found) -> str | None:
    """The path of the host that a volume is another name for (`o: bind`); None for most."""
    options = volume.get("Options") or {}
    device = options.get("device", "")
    if device.startswith("/") and {"bind", "rbind"} & set(options.get("o", "").split(",")):
        return posixpath.normpath(str(device))
    return None


def _binds(container: Found) -> Iterator[tuple[str, bool]]:
    for mount in container.get("Mounts") or ():
        if mount.get("Type") == "bind" and mount.get("Source"):
            yield posixpath.normpath(mount["Source"]), bool(mount.get("RW", True))


def _touches(path: str, places: tuple[str, ...]) -> bool:
    path = posixpath.normpath(path)
    return any(_within(path, place) or _within(place, path) for place in places)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
