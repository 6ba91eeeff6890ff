"""What may be created: helpers, copies for drills, their networks, scratch volumes and volumes of the project.

The shapes are those of `backupd.engine.docker`: `helper` and `copyconfig`. A setting that is not named here is refused,
also one that a later Docker invents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backupd.engine.docker.helper import COPYING, DATA, HOME_LABEL, JOB_LABEL, OWNER_LABEL, READING, SCRATCH, WRITING
from backupd.model import PROJECT_LABEL
from backupd.socketproxy import shapes
from backupd.socketproxy.copies import copy_host_config, copy_networking
from backupd.socketproxy.model import OWNED_LABEL, Refusal
from backupd.socketproxy.shapes import between, equals, is_true, matches, take, texts
from backupd.socketproxy.things import Things, bound_by

DRILL_LABEL = "backupd.drill"
LOOK = "/look"
NETWORK_OPTIONS = {"com.docker.network.bridge.inhibit_ipv4": "true"}

_USER = matches(r"[A-Za-z0-9_.-]{1,64}(:[A-Za-z0-9_.-]{1,64})?")
_DIRECTORY = matches(r"/[^\x00]{0,4095}")
_LIMIT = between(1, 1 << 50)
_CAPABILITIES = tuple(sorted(names) for names in ((), READING, COPYING, WRITING))

_LABELS = dict.fromkeys((JOB_LABEL, OWNER_LABEL, HOME_LABEL, DRILL_LABEL), matches(r"[A-Za-z0-9_.:-]{1,128}"))

_HELPER = {
    "User": _USER,
    "OpenStdin": is_true,
    "StdinOnce": is_true,
    "AttachStdin": is_true,
    "AttachStdout": is_true,
    "AttachStderr": is_true,
    "Env": texts,
    "Image": matches(r"[A-Za-z0-9_./:@-]{1,255}"),
    "NetworkDisabled": is_true,
    "Entrypoint": texts,
    "WorkingDir": lambda value: value in {DATA, "/"},
    "Healthcheck": shapes.anything,
    "Labels": shapes.anything,
    "HostConfig": shapes.anything,
}
_COPY = _HELPER | {
    "Cmd": texts,
    "Healthcheck": shapes.anything,
    "Hostname": matches(r"[A-Za-z0-9_.-]{1,255}"),
    "NetworkingConfig": shapes.anything,
    "Shell": texts,
    "StopSignal": matches(r"[A-Z0-9+-]{1,20}"),
    "Tty": is_true,
    "User": shapes.matches(r"[^\x00]{1,255}"),
    "WorkingDir": _DIRECTORY,
}
_HEALTH = {
    "Test": texts,
    "Interval": _LIMIT,
    "Timeout": _LIMIT,
    "StartPeriod": _LIMIT,
    "StartInterval": _LIMIT,
    "Retries": between(1, 1000),
}
_HELPER_HOST = {
    "Memory": between(4 << 20, 1 << 50),
    "MemorySwap": between(4 << 20, 1 << 50),
    "ReadonlyRootfs": is_true,
    "NetworkMode": matches(r"none|container:[A-Za-z0-9][A-Za-z0-9_.-]*"),
    "CapAdd": lambda value: texts(value) and sorted(value) in _CAPABILITIES,
    "CapDrop": equals(["ALL"]),
    "SecurityOpt": equals(["no-new-privileges"]),
    "LogConfig": lambda value: isinstance(value, dict) and value.get("Type") == "none" and not value.get("Config"),
    "Tmpfs": lambda value: shapes.table(value) and set(value) == {"/tmp"},  # noqa: S108  (in the helper)
    "PidsLimit": between(1, 4096),
    "Mounts": lambda value: isinstance(value, list),
}
_HELPER_NEEDS = (
    *("Memory", "MemorySwap", "ReadonlyRootfs", "NetworkMode", "CapDrop", "SecurityOpt", "LogConfig", "PidsLimit"),
)


def new_container(things: Things, given: dict[str, Any]) -> dict[str, Any]:
    """The body to create a helper or a copy with."""
    labels = given.get("Labels")
    drill = isinstance(labels, dict) and DRILL_LABEL in labels
    config = take("the container", given, _COPY if drill else _HELPER, ("Image", "Labels", "HostConfig"))
    config["Labels"] = own_labels(things, config["Labels"])
    if "Healthcheck" in config:
        config["Healthcheck"] = take("Healthcheck", config["Healthcheck"], _HEALTH)
    config["Image"] = things.image(config["Image"])["Id"]  # a tag could be moved between this look and the creation
    if drill:
        network, host = copy_host_config(things, config["HostConfig"], config["Image"])
        config["NetworkingConfig"] = copy_networking(config.get("NetworkingConfig"), network)
    else:
        host = _helper_host_config(things, config)
    config["HostConfig"] = host
    return config


def _helper_host_config(things: Things, config: dict[str, Any]) -> dict[str, Any]:
    if "Entrypoint" not in config:
        raise Refusal("a helper says what it runs")
    host = take("HostConfig", config["HostConfig"], _HELPER_HOST, _HELPER_NEEDS)
    if host["MemorySwap"] != host["Memory"]:
        raise Refusal("HostConfig.MemorySwap has to be the same as Memory")
    is_helper = config["Image"] in helper_images(things)
    if not is_helper and config["Image"] not in project_images(things):
        raise Refusal("the image is neither the helper image nor one of the project's services")
    capabilities = set(host.get("CapAdd") or ())
    mounts = [_helper_mount(things, mount) for mount in host.get("Mounts") or ()]
    if not is_helper and (capabilities - set(READING) or not all(mount.get("ReadOnly") for mount in mounts)):
        raise Refusal("helpers of a service's image may only read")
    if host["NetworkMode"] != "none":
        if capabilities or mounts or "NetworkDisabled" in config:
            raise Refusal("a helper in a service's network has no capabilities and no mounts")
        host["NetworkMode"] = _beside(things, host["NetworkMode"].partition(":")[2])
    host["Mounts"] = mounts
    return host


def _beside(things: Things, name: str) -> str:
    service = things.container(name)
    if not things.is_of_project(service):
        raise Refusal(f"container {name} is not of project {things.rules.project}")
    if reason := things.why_not_within(service):
        raise Refusal(f"nothing may run beside container {name}: {reason}")
    return f"container:{service['Id']}"


def _helper_mount(things: Things, given: Any) -> dict[str, Any]:
    kind = given.get("Type") if isinstance(given, dict) else None
    if kind == "volume":
        return _volume_mount(things, given, {DATA, SCRATCH})
    shape = {"Type": equals("bind"), "Source": _DIRECTORY, "Target": matches(f"{DATA}|{LOOK}"), "ReadOnly": is_true}
    mount = take("a mount", given, shape, ("Type", "Source", "Target"))
    read_only = mount.get("ReadOnly", False)
    if mount["Target"] == LOOK and not read_only:
        raise Refusal("what is looked at is mounted read-only")
    if not things.path_may_be_mounted(mount["Source"], read_only=read_only):
        raise Refusal(f"the directory {mount['Source']} of the host is not one that may be mounted")
    return mount


def _volume_mount(things: Things, given: Any, targets: set[str]) -> dict[str, Any]:
    shape: dict[str, Callable[[Any], bool]] = {
        "Type": equals("volume"),
        "Source": matches(r"[A-Za-z0-9][A-Za-z0-9_.-]*"),
        "Target": lambda value: value in targets,
        "ReadOnly": is_true,
        "VolumeOptions": equals({"NoCopy": True}),
    }
    mount = take("a mount", given, shape, ("Type", "Source", "Target", "VolumeOptions"))
    volume = things.volume(mount["Source"])
    if not things.volume_is_allowed(volume):
        raise Refusal(f"volume {mount['Source']} is not of project {things.rules.project}")
    if (source := bound_by(volume)) and things.is_the_engines(source):
        raise Refusal(f"volume {mount['Source']} is {source} of the host, which may not be mounted")
    return mount


def helper_images(things: Things) -> set[str]:
    """The ids of the images that helpers are made from."""
    found = (things.facts.image(name) for name in things.rules.helper_images)
    return {image["Id"] for image in found if image is not None}


def project_images(things: Things) -> set[str]:
    """The ids of the images of the project's services."""
    return {box["Image"] for box in things.facts.project_containers() if things.is_of_project(box)}


def own_labels(things: Things, given: Any) -> dict[str, Any]:
    """Labels of backupd's, and the one of the proxy."""
    return {**take("Labels", given, _LABELS), OWNED_LABEL: things.rules.project}


def new_volume(things: Things, given: dict[str, Any]) -> dict[str, Any]:
    """The body to create a volume with: default driver, no options, which could name a place of the host."""
    shape = {
        "Name": matches(r"[A-Za-z0-9][A-Za-z0-9_.-]*"),
        "Driver": equals("local"),
        "Labels": shapes.table,
    }
    volume = take("the volume", given, shape, ("Name",))
    labels = volume.get("Labels") or {}
    name, project = volume["Name"], things.rules.project
    if name.startswith(("backupd-scratch-", "backupd-drill-")):
        return {**volume, "Labels": own_labels(things, labels)}
    if labels.get(PROJECT_LABEL, project) != project or not (
        name.startswith(f"{project}_") or name in things.rules.volumes
    ):
        raise Refusal(f"a volume {name} would not be of project {project}")
    if OWNED_LABEL in labels and labels[OWNED_LABEL] != project:
        raise Refusal(f"the label {OWNED_LABEL} is the proxy's")
    return {**volume, "Labels": {**labels, OWNED_LABEL: project}}


def new_network(things: Things, given: dict[str, Any]) -> dict[str, Any]:
    """The body to create a drill's network with: one that leads nowhere."""
    shape = {
        "Name": matches(r"backupd-drill-[A-Za-z0-9_.-]{1,100}"),
        "Driver": equals("bridge"),
        "Internal": is_true,
        "Options": equals(NETWORK_OPTIONS),
        "Labels": shapes.anything,
    }
    network = take("the network", given, shape, tuple(shape))
    return {**network, "Labels": own_labels(things, network["Labels"])}
