from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.socketproxy.world import World, changed

CREATE = ("POST", "/containers/create")
COPY: dict[str, Any] = {
    "Image": "sha256:p",
    "Cmd": ["postgres"],
    "Env": ["PGDATA=/data"],
    "User": "",
    "Labels": {"backupd.job": "d", "backupd.drill": "d", "backupd.owner": "o", "backupd.home": "h"},
    "HostConfig": {
        "ShmSize": 67108864,
        "NetworkMode": "backupd-drill-net",
        "Dns": ["192.0.2.1"],
        "DnsSearch": ["."],
        "Mounts": [
            {"Type": "volume", "Source": "backupd-drill-v", "Target": "/data", "VolumeOptions": {"NoCopy": True}},
            {"Type": "volume", "Target": "/anonymous", "VolumeOptions": {"Labels": {"backupd.drill": "d"}}},
            {"Type": "tmpfs", "Target": "/run"},
            {
                "Type": "bind",
                "Source": "/srv/config",
                "Target": "/config",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "private", "NonRecursive": True},
            },
        ],
        "CapAdd": [],
        "CapDrop": ["MKNOD", "NET_RAW"],
        "SecurityOpt": [],
        "Privileged": False,
        "PublishAllPorts": False,
        "PortBindings": {},
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "8m", "max-file": "1"}},
        "Memory": 1 << 30,
        "MemorySwap": 1 << 30,
        "NanoCpus": 10**9,
        "PidsLimit": 4096,
        "OomScoreAdj": 500,
    },
    "NetworkingConfig": {"EndpointsConfig": {"backupd-drill-net": {"Aliases": ["postgres"]}}},
}


def world() -> World:
    made = World()
    made.volumes["backupd-drill-v"] = {"backupd.proxy": "shop"}
    made.volumes["backupd-drill-theirs"] = {"backupd.proxy": "other"}
    return made


def test_a_copy() -> None:
    made = json.loads(world().allowed(*CREATE, COPY, name="backupd-drill-1").body or b"")
    assert made["Labels"]["backupd.proxy"] == "shop"
    assert made["HostConfig"]["Mounts"][1]["VolumeOptions"]["Labels"]["backupd.proxy"] == "shop"
    assert "Privileged" not in made["HostConfig"]


def mount(**changes: Any) -> list[dict[str, Any]]:
    return [{**COPY["HostConfig"]["Mounts"][3], **changes}]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Image", "evil"),
        ("HostConfig__Privileged", True),
        ("HostConfig__CapAdd", ["SYS_ADMIN"]),
        ("HostConfig__CapDrop", []),
        ("HostConfig__CapDrop", ["MKNOD"]),
        ("HostConfig__NetworkMode", "host"),
        ("HostConfig__NetworkMode", "shop_default"),
        ("HostConfig__NetworkMode", "backupd-drill-open"),
        ("HostConfig__NetworkMode", "backupd-drill-none"),
        ("HostConfig__Dns", ["8.8.8.8"]),
        ("HostConfig__SecurityOpt", ["seccomp=unconfined"]),
        ("HostConfig__RestartPolicy", {"Name": "always"}),
        ("HostConfig__PortBindings", {"80/tcp": [{}]}),
        ("HostConfig__Binds", ["/:/x"]),
        ("HostConfig__PidMode", "host"),
        ("HostConfig__Devices", [{"PathOnHost": "/dev/sda"}]),
        ("HostConfig__OomScoreAdj", -500),
        ("HostConfig__LogConfig", {"Type": "json-file", "Config": {"max-size": "8m", "labels": "x"}}),
        ("HostConfig__LogConfig", {"Type": "json-file"}),
        ("HostConfig__Mounts", mount(Source="/")),
        ("HostConfig__Mounts", mount(Source="/srv/unknown")),
        ("HostConfig__Mounts", mount(Source="/srv/site/inner")),
        ("HostConfig__Mounts", mount(Source="/var/run/docker.sock")),
        ("HostConfig__Mounts", mount(ReadOnly=False)),
        ("HostConfig__Mounts", mount(BindOptions={"Propagation": "shared"})),
        ("HostConfig__Mounts", [COPY["HostConfig"]["Mounts"][0] | {"Source": "shop_data"}]),
        ("HostConfig__Mounts", [COPY["HostConfig"]["Mounts"][0] | {"Source": "backupd-drill-theirs"}]),
        (
            "HostConfig__Mounts",
            [{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": {"device": "/"}}}}],
        ),
        ("NetworkingConfig", {"EndpointsConfig": {"shop_default": {}}}),
        ("NetworkingConfig", {"EndpointsConfig": {"backupd-drill-net": {}, "shop_default": {}}}),
        ("NetworkingConfig", {"EndpointsConfig": {"backupd-drill-net": {"IPAMConfig": {"IPv4Address": "1.2.3.4"}}}}),
        ("NetworkingConfig", None),
    ],
)
def test_copies_that_could_do_harm(key: str, value: Any) -> None:
    assert world().refused(*CREATE, changed(COPY, {key: value}), name="backupd-drill-1")
