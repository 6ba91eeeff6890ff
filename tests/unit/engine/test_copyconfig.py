"""What a copy of a container keeps of the original, and what it must not."""

from __future__ import annotations

from typing import Any

import pytest

from backupd.engine.docker.copyconfig import CopyConfig, Frame, copy_config
from backupd.model import Volume
from backupd.sandbox import ExtraArguments, Limits

POSTGRES = ExtraArguments("postgres", ("-c", "fsync=off"))


def inspected(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    base = {
        "Image": "postgres:16", "Cmd": ["postgres"], "Entrypoint": ["docker-entrypoint.sh"], "Env": ["A=b"],
        "User": "999", "WorkingDir": "/w", "Hostname": "0123456789ab", "Labels": {"com.docker.compose.service": "db"},
        "Healthcheck": {"Test": ["CMD", "x"]}, "ExposedPorts": {"5432/tcp": {}}, "StopSignal": "SIGINT",
    }  # fmt: skip
    return {
        "Id": "0123456789ab" + "0" * 52,
        "Name": "/shop-db-1",
        "Image": "sha256:1",
        "Config": base | (config or {}),
        "HostConfig": host or {},
        "Mounts": [],
        "NetworkSettings": {"Networks": {"shop_default": {"Aliases": ["db", "database", "0123456789ab"]}}},
        **rest,
    }


def copied(found: dict[str, Any], extra: ExtraArguments | None = None, *, usable: bool = True) -> CopyConfig:
    volumes = {"shop_data": Volume(name="data", kind="volume", source="scratch")}
    frame = Frame("copy", "net", {"backupd.drill": "x"}, volumes, Limits(1 << 28, 0.5), extra, lambda _path: usable)
    return copy_config(found, frame)


def test_what_is_kept() -> None:
    host = {"ShmSize": 1 << 27, "Ulimits": [{"Name": "nofile"}], "ReadonlyRootfs": True, "Tmpfs": {"/tmp": ""},
            "Sysctls": {"net.core.somaxconn": "512"}, "GroupAdd": ["5"], "Init": True}  # fmt: skip
    made = copied(inspected(host=host))
    config = made.config
    for key in ("Cmd", "Entrypoint", "Env", "User", "WorkingDir", "Healthcheck", "StopSignal"):
        assert config[key] == inspected()["Config"][key]
    assert config["Image"] == "sha256:1"
    assert {key: config["HostConfig"][key] for key in host} == host
    assert config["NetworkingConfig"] == {"EndpointsConfig": {"net": {"Aliases": ["database", "db", "shop-db-1"]}}}
    assert "Hostname" not in config
    assert made.notes == ()
    assert copied(inspected({"Hostname": "rabbit"})).config["Hostname"] == "rabbit"


def test_what_is_not() -> None:
    host = {
        "Privileged": True, "PortBindings": {"5432/tcp": [{}]}, "PublishAllPorts": True, "NetworkMode": "host",
        "RestartPolicy": {"Name": "always"}, "LogConfig": {"Type": "syslog"}, "Devices": [{}], "PidMode": "host",
        "IpcMode": "host", "ExtraHosts": ["prod:10.0.0.1"], "VolumesFrom": ["x"], "Links": ["a"], "Dns": ["10.0.0.2"],
        "CapAdd": ["SYS_ADMIN", "CAP_IPC_LOCK", "NET_ADMIN"], "CapDrop": ["ALL"], "Binds": ["/:/host"],
        "SecurityOpt": ["seccomp=unconfined", "no-new-privileges"], "Runtime": "nvidia", "CgroupParent": "x",
        "UsernsMode": "host", "AutoRemove": True, "Memory": 1 << 40, "PidsLimit": 10, "OomScoreAdj": -900,
    }  # fmt: skip
    made = copied(inspected(host=host))
    kept = made.config["HostConfig"]
    assert kept["Privileged"] is False
    assert (kept["PortBindings"], kept["PublishAllPorts"], kept["NetworkMode"]) == ({}, False, "net")
    assert kept["RestartPolicy"] == {"Name": "no"}
    assert kept["LogConfig"]["Type"] == "json-file"
    assert kept["CapAdd"] == ["IPC_LOCK"]
    assert kept["CapDrop"] == ["ALL", "MKNOD", "NET_RAW"]
    assert kept["SecurityOpt"] == ["no-new-privileges"]
    assert kept["Dns"] == ["192.0.2.1"]
    assert (kept["Memory"], kept["MemorySwap"], kept["NanoCpus"]) == (1 << 28, 1 << 28, 500_000_000)
    assert (kept["PidsLimit"], kept["OomScoreAdj"]) == (10, 500)
    for key in ("Devices", "PidMode", "IpcMode", "ExtraHosts", "VolumesFrom", "Links", "Binds", "Runtime",
                "CgroupParent", "UsernsMode", "AutoRemove"):  # fmt: skip
        assert key not in kept
    assert made.config["Labels"] == {"backupd.drill": "x"}
    assert "ExposedPorts" not in made.config
    assert set(made.notes) == {
        "without `privileged`", "without its devices", "without its volumes_from",
        "with Docker's own security profiles",
        "without the host's Pid namespace", "without the host's Ipc namespace",
        "without the capabilities NET_ADMIN, SYS_ADMIN",
    }  # fmt: skip


def mount(kind: str, source: str, target: str, *, writable: bool = True) -> dict[str, Any]:
    key = "Name" if kind == "volume" else "Source"
    return {"Type": kind, key: source, "Destination": target, "RW": writable}


def mounts_of(made: CopyConfig) -> dict[str, dict[str, Any]]:
    return {mount["Target"]: mount for mount in made.config["HostConfig"]["Mounts"]}


def test_mounts() -> None:
    mounts = [
        mount("volume", "shop_data", "/data"),
        mount("volume", "shop_other", "/other"),
        mount("volume", "f" * 64, "/anonymous"),
        mount("bind", "/srv/app.conf", "/etc/app.conf", writable=False),
        mount("bind", "/srv/uploads", "/uploads"),
        mount("tmpfs", "", "/scratch"),
        mount("npipe", "x", "/pipe"),
    ]
    made = copied(inspected(Mounts=mounts))
    found = mounts_of(made)
    assert found["/data"] == {"Type": "volume", "Source": "scratch", "Target": "/data",
                              "VolumeOptions": {"NoCopy": True}}  # fmt: skip
    for target in ("/other", "/anonymous"):
        assert found[target] == {"Type": "volume", "Target": target,
                                 "VolumeOptions": {"Labels": {"backupd.drill": "x"}}}  # fmt: skip
    for target in ("/etc/app.conf", "/uploads"):
        assert found[target]["ReadOnly"] is True
    assert found["/scratch"] == {"Type": "tmpfs", "Target": "/scratch"}
    assert "/pipe" not in found
    assert set(made.notes) == {
        "/other: a new empty volume in place of shop_other", "/uploads: read-only", "/pipe: left out (x)",
    }  # fmt: skip


@pytest.mark.parametrize(
    "source",
    ["/", "/var/run/docker.sock", "/run/x", "/dev", "/proc", "/sys/fs", "/var/lib/docker/volumes", "/run/../run"],
)
def test_the_hosts_own_is_never_mounted(source: str) -> None:
    assert mounts_of(copied(inspected(Mounts=[mount("bind", source, "/x", writable=False)]))) == {}


def test_what_is_not_files_alone_is_left_out() -> None:
    made = copied(inspected(Mounts=[mount("bind", "/srv/x", "/x")]), usable=False)
    assert mounts_of(made) == {}
    assert made.notes == ("/x: left out (/srv/x)",)


def test_a_part_of_a_volume() -> None:
    host = {"Mounts": [{"Target": "/data", "VolumeOptions": {"Subpath": "a/b"}}]}
    found = mounts_of(copied(inspected(host=host, Mounts=[mount("volume", "shop_data", "/data")])))
    assert found["/data"]["VolumeOptions"] == {"NoCopy": True, "Subpath": "a/b"}


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({}, ["postgres", "-c", "fsync=off"]),
        ({"Cmd": ["postgres", "-c", "a=b"]}, ["postgres", "-c", "a=b", "-c", "fsync=off"]),
        ({"Cmd": ["/usr/bin/postgres"], "Entrypoint": None}, ["/usr/bin/postgres", "-c", "fsync=off"]),
        ({"Cmd": ["docker-entrypoint.sh", "postgres"], "Entrypoint": None},
         ["docker-entrypoint.sh", "postgres", "-c", "fsync=off"]),
        ({"Cmd": None, "Entrypoint": ["postgres"]}, ["-c", "fsync=off"]),
        ({"Cmd": ["-c", "a=b"]}, ["-c", "a=b", "-c", "fsync=off"]),
    ],
)  # fmt: skip
def test_extra_arguments(config: dict[str, Any], command: list[str]) -> None:
    assert copied(inspected(config), POSTGRES).config["Cmd"] == command


@pytest.mark.parametrize("command", [["sh", "-c", "postgres"], ["patroni", "postgres"]])
def test_commands_that_are_something_else_stay(command: list[str]) -> None:
    made = copied(inspected({"Cmd": command}), POSTGRES)
    assert made.config["Cmd"] == command
    assert made.notes == ("its command is not plainly `postgres`: started exactly as it is",)
