"""Copies of services for drills: the shape of `backupd.engine.docker.copyconfig`."""

from __future__ import annotations

from typing import Any

from backupd.engine.docker.copyconfig import HARMLESS, NOWHERE
from backupd.socketproxy import shapes
from backupd.socketproxy.model import OWNED_LABEL, Refusal
from backupd.socketproxy.shapes import between, equals, is_true, matches, take, texts
from backupd.socketproxy.things import Things

_SECURITY = frozenset({"no-new-privileges", "no-new-privileges:true"})
_LIMIT = between(1, 1 << 50)

_HOST = {
    "ShmSize": _LIMIT,
    "Ulimits": lambda value: isinstance(value, list),
    "ReadonlyRootfs": is_true,
    "GroupAdd": texts,
    "Sysctls": shapes.table,
    "Init": is_true,
    "Tmpfs": shapes.table,
    "NetworkMode": matches(r"backupd-drill-[A-Za-z0-9_.-]{1,100}"),
    "Dns": equals([NOWHERE]),
    "DnsSearch": equals(["."]),
    "Mounts": lambda value: isinstance(value, list),
    "CapAdd": shapes.subset(HARMLESS),
    "CapDrop": lambda value: texts(value) and {"NET_RAW", "MKNOD"} <= set(value),
    "SecurityOpt": shapes.subset(_SECURITY),
    "RestartPolicy": lambda value: isinstance(value, dict) and value.get("Name") == "no",
    "LogConfig": lambda value: isinstance(value, dict) and value.get("Type") == "json-file",
    "Memory": _LIMIT,
    "MemorySwap": _LIMIT,
    "NanoCpus": _LIMIT,
    "PidsLimit": between(1, 4096),
    "OomScoreAdj": between(500, 1000),
}
_NEEDED = (
    "NetworkMode",
    "Dns",
    "CapDrop",
    "RestartPolicy",
    "LogConfig",
    "Memory",
    "MemorySwap",
    "NanoCpus",
    "PidsLimit",
)
_LOG_OPTIONS = {"max-size": matches(r"[0-9]{1,4}[km]"), "max-file": matches(r"[0-9]{1,2}")}
_LOG = {"Type": equals("json-file"), "Config": shapes.anything}
_TARGET = matches(r"/[^\x00]{1,4095}")


def copy_host_config(things: Things, given: Any, image: str) -> tuple[str, dict[str, Any]]:
    """The copy's network, and its HostConfig."""
    if image not in {box["Image"] for box in things.facts.project_containers() if things.is_of_project(box)}:
        raise Refusal("the image is not one of the project's services")
    host = take("HostConfig", given, _HOST, _NEEDED)
    log = take("LogConfig", host["LogConfig"], _LOG, ("Config",))
    host["LogConfig"] = {**log, "Config": take("LogConfig.Config", log["Config"], _LOG_OPTIONS, ("max-size",))}
    host["RestartPolicy"] = {"Name": "no"}
    network = things.facts.network(host["NetworkMode"])
    if network is None or not things.is_owned(network.get("Labels")) or not network.get("Internal"):
        raise Refusal("a copy has a network of its drill's")
    host["Mounts"] = [_mount(things, mount) for mount in host.get("Mounts") or ()]
    return host["NetworkMode"], host


def copy_networking(given: Any, network: str) -> dict[str, Any]:
    """Names in the drill's network and nothing else."""
    config = take("NetworkingConfig", given, {"EndpointsConfig": shapes.anything}, ("EndpointsConfig",))
    if set(config["EndpointsConfig"]) != {network}:
        raise Refusal("a copy has no network but its drill's")
    endpoint = take("the endpoint", config["EndpointsConfig"][network], {"Aliases": texts})
    return {"EndpointsConfig": {network: endpoint}}


def _mount(things: Things, given: Any) -> dict[str, Any]:
    kind = given.get("Type") if isinstance(given, dict) else None
    if kind == "tmpfs":
        return take("a mount", given, {"Type": equals("tmpfs"), "Target": _TARGET}, ("Target",))
    if kind == "volume":
        return _volume(things, given)
    bind = {"Propagation": "private", "NonRecursive": True}
    shape = {
        "Type": equals("bind"),
        "Source": _TARGET,
        "Target": _TARGET,
        "ReadOnly": is_true,
        "BindOptions": equals(bind),
    }
    mount = take("a mount", given, shape, tuple(shape))
    if not things.path_may_be_mounted(mount["Source"], read_only=True):
        raise Refusal(f"the directory {mount['Source']} of the host is not one that may be mounted")
    return mount


def _volume(things: Things, given: Any) -> dict[str, Any]:
    shape = {
        "Type": equals("volume"),
        "Source": matches(r"backupd-drill-[A-Za-z0-9_.-]{1,120}"),
        "Target": _TARGET,
        "VolumeOptions": shapes.anything,
    }
    mount = take("a mount", given, shape, ("Type", "Target", "VolumeOptions"))
    options = {"NoCopy": is_true, "Subpath": matches(r"[^\x00]{1,1024}"), "Labels": shapes.table}
    chosen = take("VolumeOptions", mount["VolumeOptions"], options)
    if "Source" in mount:
        volume = things.facts.volume(mount["Source"])
        if volume is None or not things.is_owned(volume.get("Labels")):
            raise Refusal(f"volume {mount['Source']} is not a drill's")
    else:
        chosen["Labels"] = {**(chosen.get("Labels") or {}), OWNED_LABEL: things.rules.project}
    return {**mount, "VolumeOptions": chosen}
