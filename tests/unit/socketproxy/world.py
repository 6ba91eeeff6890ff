"""A host with a stack, another project and the socket proxy itself, as the Engine would tell of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backupd.socketproxy import Allowed, Decision, Refused, Request, Rules, decide

RULES = Rules("shop", ("backupd",), paths=frozenset({"/srv/files"}))
IMAGES = {"backupd": "sha256:b", "postgres": "sha256:p", "evil": "sha256:e"}


def container(name: str, image: str, labels: dict[str, str], **host: Any) -> dict[str, Any]:
    mounts = host.pop("mounts", [])
    return {
        "Id": (name.encode().hex() * 64)[:64],
        "Name": f"/{name}",
        "Image": IMAGES[image],
        "Config": {"Labels": labels, "Image": image},
        "HostConfig": host,
        "Mounts": mounts,
    }


def bind(source: str, *, writable: bool = True) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Destination": "/x", "RW": writable}


def named(name: str) -> dict[str, Any]:
    return {"Type": "volume", "Name": name, "Source": f"/somewhere/{name}", "Destination": "/x", "RW": True}


SHOP = {"com.docker.compose.project": "shop"}
OTHER = {"com.docker.compose.project": "other"}
OWN = {"backupd.proxy": "shop", "backupd.job": "1"}


def containers() -> list[dict[str, Any]]:
    socket = bind("/var/run/docker.sock", writable=False)
    return [
        container("postgres", "postgres", SHOP, NetworkMode="shop_default", mounts=[named("shop_data")]),
        container("app", "postgres", SHOP, mounts=[bind("/srv/site"), bind("/srv/config", writable=False)]),
        container("nested", "postgres", SHOP, mounts=[bind("/srv/site/inner", writable=False)]),
        container("sidecar", "backupd", SHOP, mounts=[named("shop_state")]),
        container("proxy", "backupd", SHOP, mounts=[socket]),
        container("watcher", "postgres", SHOP, mounts=[bind("/", writable=False)]),
        container("agent", "postgres", SHOP, Privileged=True),
        container("outside", "postgres", SHOP, NetworkMode="host"),
        container("debugger", "postgres", SHOP, CapAdd=["SYS_ADMIN"]),
        container("editor", "postgres", SHOP, mounts=[bind("/etc")]),
        container("insider", "postgres", SHOP, mounts=[named("shop_run")]),
        container("kernel", "postgres", SHOP, MaskedPaths=[], ReadonlyPaths=[]),
        container("beside", "postgres", SHOP, NetworkMode="container:postgres"),
        container("beside-outside", "postgres", SHOP, NetworkMode="container:outside"),
        container("far-beside", "postgres", SHOP, NetworkMode="container:beside-outside"),
        container("beside-stranger", "postgres", SHOP, NetworkMode="container:stranger"),
        container("beside-nobody", "postgres", SHOP, NetworkMode="container:gone"),
        container("sees-agent", "postgres", SHOP, PidMode="container:agent"),
        container("shares-kernel", "postgres", SHOP, IpcMode="container:kernel"),
        container("ring", "postgres", SHOP, NetworkMode="container:ring-2"),
        container("ring-2", "postgres", SHOP, PidMode="container:ring", NetworkMode="container:ring"),
        container("librarian", "postgres", SHOP, mounts=[bind("/mnt/docker/volumes", writable=False)]),
        container("stranger", "evil", OTHER, mounts=[named("other_data")]),
        container("neighbour", "evil", OTHER, mounts=[named("shop_data")]),
        container("helper", "backupd", OWN),
        container("copy", "postgres", {**OWN, "backupd.drill": "d"}, NetworkMode="backupd-drill-net"),
        container("theirs", "backupd", {"backupd.proxy": "other", "backupd.job": "1"}),
    ]


@dataclass
class World:
    """Facts; `asked` is what the Engine would be asked for."""

    boxes: list[dict[str, Any]] = field(default_factory=containers)
    volumes: dict[str, dict[str, str]] = field(
        default_factory=lambda: {
            "shop_data": SHOP,
            "other_data": OTHER,
            "backupd-scratch-1": OWN,
            "plain": {},
            "shop_run": SHOP,
            "shop_files": SHOP,
            "shop_images": SHOP,
        }
    )
    options: dict[str, dict[str, str]] = field(
        default_factory=lambda: {
            "shop_run": {"type": "none", "o": "rw,bind", "device": "/var/run"},
            "shop_files": {"type": "none", "o": "bind", "device": "/srv/data/"},
            "shop_images": {"type": "none", "o": "bind", "device": "/mnt/docker/overlay2"},
        }
    )
    root: str | None = "/mnt/docker"
    executions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def container(self, name: str) -> dict[str, Any] | None:
        return next((box for box in self.boxes if name in {box["Id"], box["Name"].lstrip("/")}), None)

    def project_containers(self) -> Sequence[dict[str, Any]]:
        return [box for box in self.boxes if box["Config"]["Labels"].get("com.docker.compose.project") == "shop"]

    def volume(self, name: str) -> dict[str, Any] | None:
        if name not in self.volumes:
            return None
        return {"Name": name, "Labels": self.volumes[name], "Options": self.options.get(name)}

    def image(self, name: str) -> dict[str, Any] | None:
        number = name if name in IMAGES.values() else IMAGES.get(name)
        return {"Id": number} if number else None

    def network(self, name: str) -> dict[str, Any] | None:
        networks: dict[str, dict[str, Any]] = {
            "backupd-drill-net": {"Labels": OWN, "Internal": True},
            "backupd-drill-open": {"Labels": OWN, "Internal": False},
            "shop_default": {"Labels": SHOP},
        }
        return networks.get(name)

    def data_root(self) -> str | None:
        return self.root

    def execution(self, number: str) -> dict[str, Any] | None:
        return self.executions.get(number)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> Decision:
        text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return decide(RULES, self, Request(method, "/v1.41", path, query, body=text))

    def refused(self, method: str, path: str, body: Any = None, **query: str) -> str:
        decision = self.ask(method, path, body, **query)
        assert isinstance(decision, Refused), decision
        return decision.reason

    def allowed(self, method: str, path: str, body: Any = None, **query: str) -> Allowed:
        decision = self.ask(method, path, body, **query)
        assert isinstance(decision, Allowed), decision
        return decision


def helper(**changes: Any) -> dict[str, Any]:
    """What the SDK sends for a helper that writes a volume; keys such as `HostConfig.Privileged` change it."""
    body: dict[str, Any] = {
        "Hostname": None,
        "User": "0:0",
        "Tty": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Env": ["LC_ALL=C"],
        "Cmd": [],
        "Image": "backupd",
        "NetworkDisabled": True,
        "Entrypoint": ["sh", "-c", "true"],
        "WorkingDir": "/data",
        "Labels": {"backupd.job": "1", "backupd.owner": "2", "backupd.home": "3"},
        "Healthcheck": {"Test": ["NONE"], "Interval": None},
        "HostConfig": {
            "Memory": 1 << 30,
            "MemorySwap": 1 << 30,
            "ReadonlyRootfs": True,
            "NetworkMode": "none",
            "CapAdd": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Binds": [],
            "LogConfig": {"Type": "none", "Config": {}},
            "PidsLimit": 64,
            "Mounts": [volume_mount("shop_data")],
        },
    }
    return changed(body, changes)


def volume_mount(name: str, **changes: Any) -> dict[str, Any]:
    mount = {"Target": "/data", "Source": name, "Type": "volume", "VolumeOptions": {"NoCopy": True}}
    return {**mount, **changes}


def changed(body: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(body)
    for key, value in changes.items():
        place = body
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    return body
