from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.socketproxy.world import World, helper, volume_mount

CREATE = ("POST", "/containers/create")


def test_a_helper_is_created_from_what_was_understood() -> None:
    made = json.loads(World().allowed(*CREATE, helper(), name="backupd-1").body or b"")
    assert made["Image"] == "sha256:b"
    assert made["Labels"]["backupd.proxy"] == "shop"
    assert made["HostConfig"]["Mounts"] == [volume_mount("shop_data")]
    assert "Hostname" not in made
    assert "Binds" not in made["HostConfig"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Privileged", True),
        ("Binds", ["/:/host"]),
        ("Binds", ["shop_data:/data"]),
        ("CapAdd", ["SYS_ADMIN"]),
        ("CapAdd", ["ALL"]),
        ("CapAdd", ["DAC_READ_SEARCH", "SYS_PTRACE"]),
        ("CapDrop", []),
        ("CapDrop", ["NET_RAW"]),
        ("Devices", [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]),
        ("DeviceRequests", [{"Count": -1}]),
        ("DeviceCgroupRules", ["a *:* rwm"]),
        ("PidMode", "host"),
        ("PidMode", "container:postgres"),
        ("IpcMode", "host"),
        ("UTSMode", "host"),
        ("UsernsMode", "host"),
        ("CgroupnsMode", "host"),
        ("CgroupParent", "/"),
        ("Cgroup", "container:postgres"),
        ("Runtime", "evil"),
        ("SecurityOpt", ["seccomp=unconfined"]),
        ("SecurityOpt", ["no-new-privileges", "apparmor=unconfined"]),
        ("SecurityOpt", ["no-new-privileges:false"]),
        ("SecurityOpt", []),
        ("ReadonlyRootfs", False),
        ("NetworkMode", "host"),
        ("NetworkMode", "bridge"),
        ("NetworkMode", "shop_default"),
        ("NetworkMode", "container:stranger"),
        ("NetworkMode", ""),
        ("VolumesFrom", ["postgres"]),
        ("Links", ["postgres:p"]),
        ("PortBindings", {"80/tcp": [{"HostPort": "80"}]}),
        ("PublishAllPorts", True),
        ("ExtraHosts", ["a:1.2.3.4"]),
        ("Sysctls", {"kernel.shm_rmid_forced": "1"}),
        ("LogConfig", {"Type": "syslog", "Config": {"syslog-address": "tcp://1.2.3.4"}}),
        ("RestartPolicy", {"Name": "always"}),
        ("AutoRemove", True),
        ("StorageOpt", {"size": "1T"}),
        ("MaskedPaths", ["/none"]),
        ("ReadonlyPaths", ["/none"]),
        ("VolumeDriver", "evil"),
        ("ContainerIDFile", "/etc/cron.d/x"),
        ("Tmpfs", {"/etc": ""}),
        ("Memory", 0),
        ("MemorySwap", -1),
        ("PidsLimit", -1),
        ("OomKillDisable", True),
        ("OomScoreAdj", -1000),
        ("Ulimits", [{"Name": "nofile", "Soft": 1, "Hard": 1}]),
        ("privileged", True),
        ("PRIVILEGED", True),
        ("Something", "new"),
        ("Mounts", "shop_data"),
        ("Mounts", [{"Type": "bind", "Source": "/", "Target": "/data"}]),
        ("Mounts", [{"Type": "bind", "Source": "/srv/files/../..", "Target": "/data"}]),
        ("Mounts", [{"Type": "bind", "Source": "/srv/files/", "Target": "/data"}]),
        ("Mounts", [{"Type": "bind", "Source": "//srv/files", "Target": "/data"}]),
        ("Mounts", [{"Type": "bind", "Source": "/srv/files/within", "Target": "/data"}]),
        ("Mounts", [{"Type": "bind", "Source": "/srv", "Target": "/data"}]),
        ("Mounts", [{"Type": "bind", "Source": "/srv/site", "Target": "/data"}]),
        ("Mounts", [{"Type": "bind", "Source": "/srv/site/inner", "Target": "/look", "ReadOnly": True}]),
        ("Mounts", [{"Type": "bind", "Source": "/srv/config", "Target": "/look"}]),
        ("Mounts", [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/look", "ReadOnly": True}]),
        ("Mounts", [{"Type": "bind", "Source": "/", "Target": "/look", "ReadOnly": True}]),
        ("Mounts", [{"Type": "BIND", "Source": "/", "Target": "/data"}]),
        ("Mounts", [{"Source": "/", "Target": "/data"}]),
        ("Mounts", [{"Type": "npipe", "Source": "/", "Target": "/data"}]),
        ("Mounts", [{"Type": "tmpfs", "Target": "/data"}]),
        ("Mounts", [volume_mount("other_data")]),
        ("Mounts", [volume_mount("plain")]),
        ("Mounts", [volume_mount("not-there")]),
        ("Mounts", [volume_mount("shop_run")]),
        ("Mounts", [volume_mount("shop_images")]),
        ("Mounts", [{"Type": "bind", "Source": "/mnt/docker/volumes", "Target": "/look", "ReadOnly": True}]),
        ("Mounts", [volume_mount("/")]),
        ("Mounts", [volume_mount("shop_data", Target="/etc")]),
        ("Mounts", [volume_mount("shop_data", VolumeOptions={})]),
        ("Mounts", [volume_mount("shop_data", source="/")]),
        ("Mounts", [volume_mount("shop_data", BindOptions={"Propagation": "shared"})]),
        (
            "Mounts",
            [
                volume_mount(
                    "new",
                    VolumeOptions={
                        "NoCopy": True,
                        "DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}},
                    },
                )
            ],
        ),
    ],
)
def test_settings_that_give_power_over_the_host(key: str, value: Any) -> None:
    assert World().refused(*CREATE, helper(**{f"HostConfig__{key}": value}), name="backupd-1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Image", "evil"),
        ("Image", "not-there"),
        ("Image", ""),
        ("Image", ["backupd"]),
        ("Entrypoint", []),
        ("Entrypoint", "sh"),
        ("Cmd", ["sh"]),
        ("Volumes", {"/x": {}}),
        ("ExposedPorts", {"80/tcp": {}}),
        ("Labels", {"com.docker.compose.project": "shop"}),
        ("Labels", {"backupd.job": "1", "backupd.proxy": "other"}),
        ("Labels", {"traefik.enable": "true"}),
        ("NetworkingConfig", {"EndpointsConfig": {"shop_default": {}}}),
        ("MacAddress", "02:42:ac:11:00:02"),
        ("Runtime", "evil"),
        ("OnBuild", ["RUN x"]),
        ("hostconfig", {"Privileged": True}),
        ("HostConfig", None),
        ("HostConfig", []),
    ],
)
def test_containers_that_are_no_helpers(key: str, value: Any) -> None:
    assert World().refused(*CREATE, helper(**{key: value}), name="backupd-1")


def test_names_are_backupds() -> None:
    for query in ({}, {"name": "postgres"}, {"name": "backupd-/../x"}, {"name": "backupd-1", "platform": "linux"}):
        assert World().refused(*CREATE, helper(), **query)


def test_the_same_key_twice() -> None:
    """The Engine takes the last one, of any case."""
    text = json.dumps(helper())
    for more in ('"HostConfig": {"Privileged": true}', '"hostconfig": {"Privileged": true}', '"Image": "evil"'):
        body = f"{text[:-1]}, {more}}}".encode()
        assert "twice" in World().refused(*CREATE, body, name="backupd-1")
    inner = text.replace('"CapDrop"', '"capdrop": [], "CapDrop"').encode()
    assert "twice" in World().refused(*CREATE, inner, name="backupd-1")


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b"", b"{}{}", b"\xff", b'{"Memory": NaN}', b"[" * 100_000])
def test_bodies_that_are_none(body: bytes) -> None:
    assert World().refused(*CREATE, body, name="backupd-1")


def test_beside_a_service() -> None:
    """Where `pg_basebackup` runs: the service's own image and network, no mount, no capability."""
    beside = {
        "Image": "sha256:p",
        "User": "postgres",
        "NetworkDisabled": False,
        "WorkingDir": "/",
        "HostConfig__NetworkMode": "container:postgres",
        "HostConfig__CapAdd": [],
        "HostConfig__Mounts": [],
        "HostConfig__Tmpfs": {"/tmp": "size=16m,mode=1777"},
    }
    world = World()
    made = json.loads(world.allowed(*CREATE, helper(**beside), name="backupd-1").body or b"")
    assert made["HostConfig"]["NetworkMode"] == f"container:{world.container('postgres')['Id']}"  # type: ignore[index]
    world.allowed(*CREATE, helper(**beside | {"HostConfig__NetworkMode": "container:beside"}), name="backupd-1")
    world.allowed(*CREATE, helper(**beside | {"HostConfig__NetworkMode": "container:ring"}), name="backupd-1")
    shared = "beside-outside", "far-beside", "beside-stranger", "beside-nobody", "sees-agent", "shares-kernel"
    for name in ("outside", "proxy", "agent", "stranger", "helper", "nobody", "librarian", *shared):
        assert world.refused(
            *CREATE, helper(**beside | {"HostConfig__NetworkMode": f"container:{name}"}), name="backupd-1"
        )
    for change in ({"HostConfig__CapAdd": ["DAC_READ_SEARCH"]}, {"HostConfig__Mounts": [volume_mount("shop_data")]}):
        assert world.refused(*CREATE, helper(**beside | change), name="backupd-1")


def test_a_services_image_reads_only() -> None:
    world = World()
    reads = {"Image": "postgres", "HostConfig__CapAdd": ["DAC_READ_SEARCH"]}
    read_only = [volume_mount("shop_data", ReadOnly=True)]
    world.allowed(*CREATE, helper(**reads, HostConfig__Mounts=read_only), name="backupd-1")
    assert world.refused(*CREATE, helper(**reads), name="backupd-1")
    assert world.refused(*CREATE, helper(Image="postgres", HostConfig__Mounts=read_only), name="backupd-1")


def test_directories_of_the_configuration() -> None:
    world = World()
    mount = {"Type": "bind", "Source": "/srv/files", "Target": "/data"}
    world.allowed(*CREATE, helper(HostConfig__Mounts=[mount]), name="backupd-1")
    look = {"Type": "bind", "Source": "/srv/config", "Target": "/look", "ReadOnly": True}
    world.allowed(*CREATE, helper(HostConfig__Mounts=[look]), name="backupd-1")
    world.allowed(*CREATE, helper(HostConfig__Mounts=[volume_mount("shop_files")]), name="backupd-1")
