"""What a copy of a container is created from: the original's settings, without all by which it could act on the world.

Pure: what `docker inspect` says of the original goes in, what the Engine's API takes to create a container comes out.
Nothing is carried over that is not named here: a setting that a later Docker invents is left behind.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from backupd.model import Volume
from backupd.sandbox import ExtraArguments, Limits

NOWHERE = "192.0.2.1"
"""An address of TEST-NET-1 (RFC 5737): a DNS server that never answers."""

_MOST_PROCESSES = 4096
_ENTRYPOINT = "docker-entrypoint.sh"  # of the official images: puts the program before arguments that stand alone
_NAMED_AS_IDS = 12

# Docker's default set without NET_RAW (frames of one's own making could reach the host past its missing address) and
# MKNOD, and two more that act on the process alone.
HARMLESS = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP"),
        *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "IPC_LOCK", "SYS_NICE"),
    }
)
_DROPPED = ("NET_RAW", "MKNOD")

_KEPT_CONFIG = ("Cmd", "Entrypoint", "Env", "User", "WorkingDir", "Healthcheck", "StopSignal", "Shell", "Tty")
_KEPT_HOST = ("ShmSize", "Ulimits", "ReadonlyRootfs", "GroupAdd", "Sysctls", "Init", "Tmpfs")

# Never mounted, whatever is in them: where the host's own sockets, devices and processes are.
_HOSTS_OWN = ("/dev", "/proc", "/sys", "/run", "/var/run", "/var/lib/docker", "/boot")


class Frame(Struct, frozen=True):
    """What a copy gets from its sandbox. `usable` says of a path on the host whether it may be mounted to be read."""

    name: str
    network: str
    labels: Mapping[str, str]
    volumes: Mapping[str, Volume]
    limits: Limits
    extra: ExtraArguments | None
    usable: Callable[[str], bool]


class CopyConfig(Struct, frozen=True):
    """What the Engine's API takes, and how the copy differs from the original."""

    config: dict[str, Any]
    notes: tuple[str, ...]


class _Making(Struct):
    found: Mapping[str, Any]
    frame: Frame
    notes: list[str] = field(default_factory=list)

    @property
    def host(self) -> Mapping[str, Any]:
        return self.found.get("HostConfig") or {}

    def config(self) -> dict[str, Any]:
        original, frame = self.found["Config"], self.frame
        config = {key: original[key] for key in _KEPT_CONFIG if original.get(key) is not None}
        if config.get("Cmd") is not None or frame.extra:
            config["Cmd"] = self._command(config)
        if original.get("Hostname") and not self.found["Id"].startswith(original["Hostname"]):
            config["Hostname"] = original["Hostname"]
        endpoint = {"Aliases": sorted(self._names())}
        return {
            **config,
            "Image": self.found["Image"],
            "Labels": dict(frame.labels),
            "HostConfig": self._host_config(),
            "NetworkingConfig": {"EndpointsConfig": {frame.network: endpoint}},
        }

    def _command(self, config: Mapping[str, Any]) -> list[str]:
        command, extra = list(config.get("Cmd") or ()), self.frame.extra
        if extra is None:
            return command
        words = [posixpath.basename(word) for word in command[:2]]
        entry = [posixpath.basename(word) for word in config.get("Entrypoint") or ()]
        if extra.program in words[:1] or (words[:1] == [_ENTRYPOINT] and extra.program in words[1:]):
            return [*command, *extra.arguments]
        if entry in ([extra.program], [_ENTRYPOINT]) and (not command or command[0].startswith("-")):
            return [*command, *extra.arguments]
        self.notes.append(f"its command is not plainly `{extra.program}`: started exactly as it is")
        return command

    def _names(self) -> set[str]:
        """What others of its stack call it. Docker adds a part of the id by itself, which is not one of them."""
        labels = self.found["Config"].get("Labels") or {}
        names = {labels.get("com.docker.compose.service") or "", self.found["Name"].lstrip("/")}
        for endpoint in ((self.found.get("NetworkSettings") or {}).get("Networks") or {}).values():
            names |= set(endpoint.get("Aliases") or ())
        return {name for name in names if name and name != self.found["Id"][:_NAMED_AS_IDS]}

    def _host_config(self) -> dict[str, Any]:
        frame, host = self.frame, self.host
        kept = {key: host[key] for key in _KEPT_HOST if host.get(key)}
        if host.get("Privileged"):
            self.notes.append("without `privileged`")
        for key, noun in (("Devices", "devices"), ("DeviceRequests", "devices"), ("VolumesFrom", "volumes_from")):
            if host.get(key):
                self.notes.append(f"without its {noun}")
        for key in ("PidMode", "IpcMode", "UTSMode"):
            if (host.get(key) or "") == "host":
                self.notes.append(f"without the host's {key.removesuffix('Mode')} namespace")
        return {
            **kept,
            "NetworkMode": frame.network,
            "Dns": [NOWHERE],
            "DnsSearch": ["."],
            "Mounts": list(self._mounts()),
            "CapAdd": self._capabilities(),
            "CapDrop": sorted({*(_bare(name) for name in host.get("CapDrop") or ()), *_DROPPED}),
            "SecurityOpt": self._security(),
            "Privileged": False,
            "PublishAllPorts": False,
            "PortBindings": {},
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "8m", "max-file": "1"}},
            "Memory": frame.limits.memory_bytes,
            "MemorySwap": frame.limits.memory_bytes,
            "NanoCpus": int(frame.limits.cpus * 1_000_000_000),
            "PidsLimit": min(_positive(host.get("PidsLimit")) or _MOST_PROCESSES, _MOST_PROCESSES),
            "OomScoreAdj": max(500, host.get("OomScoreAdj") or 0),
        }

    def _capabilities(self) -> list[str]:
        wanted = {_bare(name) for name in self.host.get("CapAdd") or ()}
        if refused := sorted(wanted - HARMLESS):
            self.notes.append(f"without the capabilities {', '.join(refused)}")
        return sorted(wanted & HARMLESS)

    def _security(self) -> list[str]:
        options = list(self.host.get("SecurityOpt") or ())
        kept = [option for option in options if "unconfined" not in option and not option.endswith("disable")]
        if len(kept) < len(options):
            self.notes.append("with Docker's own security profiles")
        return kept

    def _mounts(self) -> Iterator[dict[str, Any]]:
        tmpfs = set(self.host.get("Tmpfs") or {})
        for mount in sorted(self.found.get("Mounts") or (), key=lambda mount: str(mount.get("Destination"))):
            target = mount.get("Destination") or ""
            made = self._mount(mount, target) if target and target not in tmpfs else None
            if made is not None:
                yield made

    def _mount(self, mount: Mapping[str, Any], target: str) -> dict[str, Any] | None:
        kind = mount.get("Type") or "bind"
        source = (mount.get("Name") if kind == "volume" else mount.get("Source")) or ""
        scratch = self.frame.volumes.get(source)
        if scratch is not None:  # no copy: an empty volume is to stay empty, and not get what the image has there
            options: dict[str, Any] = {"NoCopy": True, **self._subpath(target)}
            return {"Type": "volume", "Source": scratch.source, "Target": target, "VolumeOptions": options}
        if kind == "volume":
            if not self._anonymous(source):
                self.notes.append(f"{target}: a new empty volume in place of {source}")
            return {"Type": "volume", "Target": target, "VolumeOptions": {"Labels": dict(self.frame.labels)}}
        if kind == "tmpfs":
            return {"Type": "tmpfs", "Target": target}
        if kind == "bind" and self._may_be_read(source):
            if mount.get("RW", True):
                self.notes.append(f"{target}: read-only")
            bind = {"Propagation": "private", "NonRecursive": True}
            return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True, "BindOptions": bind}
        self.notes.append(f"{target}: left out ({source or kind})")
        return None

    def _may_be_read(self, source: str) -> bool:
        path = posixpath.normpath(source)
        own = any(path == place or path.startswith(f"{place}/") for place in _HOSTS_OWN)
        return path != "/" and not own and self.frame.usable(path)

    def _subpath(self, target: str) -> dict[str, Any]:
        for mount in self.host.get("Mounts") or ():
            subpath = (mount.get("VolumeOptions") or {}).get("Subpath")
            if mount.get("Target") == target and subpath:
                return {"Subpath": subpath}
        return {}

    @staticmethod
    def _anonymous(name: str) -> bool:
        return len(name) == 64 and all(char in "0123456789abcdef" for char in name)


def copy_config(found: Mapping[str, Any], frame: Frame) -> CopyConfig:
    """The copy of a container, of which the Engine says `found`."""
    making = _Making(found, frame)
    config = making.config()
    return CopyConfig(config, tuple(dict.fromkeys(making.notes)))


def _bare(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


def _positive(number: int | None) -> int | None:
    return number if number and number > 0 else None
