from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.socketproxy.world import OWN, World

NUMBER = "a" * 64
EVERYTHING_ELSE = [
    ("POST", "/build"),
    ("POST", "/build/prune"),
    ("POST", "/commit"),
    ("POST", "/images/create"),
    ("POST", "/images/load"),
    ("POST", "/images/backupd/tag"),
    ("POST", "/images/backupd/push"),
    ("DELETE", "/images/backupd"),
    ("GET", "/images/backupd/get"),
    ("GET", "/images/json"),
    ("POST", "/swarm/init"),
    ("GET", "/swarm"),
    ("POST", "/services/create"),
    ("GET", "/secrets"),
    ("GET", "/configs"),
    ("GET", "/nodes"),
    ("POST", "/plugins/pull"),
    ("POST", "/plugins/x/enable"),
    ("GET", "/plugins"),
    ("POST", "/session"),
    ("POST", "/grpc"),
    ("POST", "/auth"),
    ("GET", "/events"),
    ("GET", "/system/df"),
    ("GET", "/distribution/backupd/json"),
    ("POST", "/containers/prune"),
    ("POST", "/volumes/prune"),
    ("POST", "/networks/prune"),
    ("POST", "/networks/shop_default/connect"),
    ("PUT", "/containers/postgres/archive"),
    ("GET", "/containers/postgres/archive"),
    ("GET", "/containers/postgres/export"),
    ("GET", "/containers/postgres/top"),
    ("GET", "/containers/postgres/attach/ws"),
    ("POST", "/containers/postgres/update"),
    ("POST", "/containers/postgres/rename"),
    ("POST", "/containers/postgres/kill"),
    ("POST", "/containers/postgres/restart"),
    ("POST", "/containers/postgres/resize"),
    ("PUT", "/volumes/shop_data"),
    ("HEAD", "/containers/postgres/archive"),
    ("GET", "/containers/postgres/json/"),
    ("GET", "/containers//json"),
    ("POST", "/Containers/create"),
    ("GET", "/"),
    ("GET", "/debug/pprof/heap"),
]


@pytest.mark.parametrize(("method", "path"), EVERYTHING_ELSE)
def test_what_backupd_does_not_call(method: str, path: str) -> None:
    assert World().refused(method, path)


@pytest.mark.parametrize("act", ["start", "stop", "pause", "unpause"])
def test_services(act: str) -> None:
    world = World()
    number = world.container("postgres")["Id"]  # type: ignore[index]
    assert world.allowed("POST", f"/containers/postgres/{act}").target == f"/v1.41/containers/{number}/{act}"
    for name in ("stranger", "neighbour", "theirs"):
        assert world.refused("POST", f"/containers/{name}/{act}")
    assert world.refused("POST", f"/containers/postgres/{act}", {"HostConfig": {"Privileged": True}})
    assert world.ask("POST", f"/containers/nobody/{act}").status == 404  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/{}/attach"),
        ("POST", "/containers/{}/wait"),
        ("DELETE", "/containers/{}"),
    ],
)
def test_own_containers(method: str, path: str) -> None:
    world = World()
    world.allowed(method, path.format("helper"))
    for name in ("postgres", "sidecar", "proxy", "stranger", "theirs"):
        assert "was not created by this backupd" in world.refused(method, path.format(name))


def test_looking_at_containers() -> None:
    world = World()
    for name in ("postgres", "sidecar", "proxy", "helper", "neighbour"):  # who uses a volume is looked at
        world.allowed("GET", f"/containers/{name}/json")
    for name in ("stranger", "theirs"):
        assert world.refused("GET", f"/containers/{name}/json")
    assert world.refused("GET", "/containers/neighbour/logs", stdout="1")
    assert world.refused("GET", "/containers/postgres/json", size="1")


EXEC = {"User": "", "Privileged": False, "AttachStdout": True, "AttachStderr": True, "Cmd": ["true"], "Env": ["A=b"]}


def test_commands_in_services() -> None:
    world = World()
    for name in ("postgres", "app", "sidecar", "copy"):
        number = world.container(name)["Id"]  # type: ignore[index]
        made = world.allowed("POST", f"/containers/{name}/exec", {**EXEC, "Container": "stranger"})
        assert made.target == f"/v1.41/containers/{number}/exec"
        assert "Container" not in json.loads(made.body or b"")
        world.executions[NUMBER] = {"ContainerID": number}
        assert world.allowed("POST", f"/exec/{NUMBER}/start", {"Detach": False, "Tty": False}).stream
        world.allowed("GET", f"/exec/{NUMBER}/json")


@pytest.mark.parametrize(
    "name",
    [
        "proxy",
        "watcher",
        "agent",
        "outside",
        "debugger",
        "editor",
        "insider",
        "kernel",
        "librarian",
        "beside-outside",
        "far-beside",
        "beside-stranger",
        "beside-nobody",
        "sees-agent",
        "shares-kernel",
        "stranger",
        "neighbour",
        "helper",
        "theirs",
        "nobody",
    ],
)
def test_commands_elsewhere(name: str) -> None:
    world = World()
    assert world.refused("POST", f"/containers/{name}/exec", EXEC)
    found = world.container(name)
    if found is not None:  # begun by somebody else
        world.executions[NUMBER] = {"ContainerID": found["Id"]}
        assert world.refused("POST", f"/exec/{NUMBER}/start", {})
        assert world.refused("GET", f"/exec/{NUMBER}/json")


@pytest.mark.parametrize(
    "change",
    [{"Privileged": True}, {"privileged": True}, {"Tty": True}, {"AttachStdin": True}, {"Cmd": []}, {"User": "a b"}],
)
def test_commands_with_more_rights(change: dict[str, Any]) -> None:
    assert World().refused("POST", "/containers/postgres/exec", {**EXEC, **change})


def test_a_privileged_command_of_somebody_else() -> None:
    world = World()
    number = world.container("postgres")["Id"]  # type: ignore[index]
    world.executions[NUMBER] = {"ContainerID": number, "ProcessConfig": {"privileged": True}}
    assert "privileged" in world.refused("POST", f"/exec/{NUMBER}/start", {})
    assert world.refused("POST", f"/exec/{'b' * 64}/start", {})
    assert world.refused("POST", f"/exec/{NUMBER}/start", {"Detach": True})


def test_lists_are_narrowed() -> None:
    world = World()

    def labels(path: str, filters: Any) -> list[str]:
        target = world.allowed("GET", path, filters=json.dumps(filters)).target
        return json.loads(parse_qs(urlsplit(target).query)["filters"][0]).get("label", [])  # type: ignore[no-any-return]

    assert labels("/containers/json", {"status": ["running"]}) == []
    assert labels("/containers/json", {"label": ["backupd.owner"]}) == ["backupd.owner", "backupd.proxy=shop"]
    assert labels("/containers/json", {"label": {"backupd.drill=1": True}}) == ["backupd.drill=1", "backupd.proxy=shop"]
    project = "com.docker.compose.project"
    assert labels("/volumes", {"label": [f"{project}=other"]}) == [f"{project}=other", f"{project}=shop"]
    assert labels("/volumes", {"label": ["backupd.owner"]}) == ["backupd.owner", "backupd.proxy=shop"]
    assert labels("/networks", {}) == [f"{project}=shop"]
    for filters in ("[]", "{", '{"since": ["x"]}', '{"label": "x"}', '{"label": {"x": false}}', "[" * 100_000):
        assert world.refused("GET", "/volumes", filters=filters)
    assert world.refused("GET", "/containers/json", unknown="1")


def test_volumes() -> None:
    world = World()
    world.allowed("GET", "/volumes/shop_data")
    assert world.refused("GET", "/volumes/other_data")
    assert world.ask("GET", "/volumes/none").status == 404  # type: ignore[union-attr]
    world.allowed("DELETE", "/volumes/backupd-scratch-1", force="True")
    for name in ("shop_data", "other_data", "plain"):
        assert world.refused("DELETE", f"/volumes/{name}")


def test_new_volumes() -> None:
    world = World()
    made = world.allowed("POST", "/volumes/create", {"Name": "shop_data", "Driver": None, "Labels": {"a": "b"}})
    assert json.loads(made.body or b"") == {"Name": "shop_data", "Labels": {"a": "b", "backupd.proxy": "shop"}}
    made = world.allowed("POST", "/volumes/create", {"Name": "backupd-scratch-2", "Labels": {"backupd.owner": "x"}})
    assert json.loads(made.body or b"")["Labels"] == {"backupd.owner": "x", "backupd.proxy": "shop"}


@pytest.mark.parametrize(
    "body",
    [
        {"Name": "shop_x", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}},
        {"Name": "shop_x", "driveropts": {"type": "none", "o": "bind", "device": "/"}},
        {"Name": "shop_x", "Driver": "evil"},
        {"Name": "shop_x", "ClusterVolumeSpec": {"Group": "x"}},
        {"Name": "other_data"},
        {"Name": "../x"},
        {"Name": "shop_x/../../y"},
        {"Name": ""},
        {},
        {"Name": "shop_x", "Labels": {"com.docker.compose.project": "other"}},
        {"Name": "shop_x", "Labels": {"backupd.proxy": "other"}},
        {"Name": "backupd-scratch-2", "Labels": {"com.docker.compose.project": "shop"}},
    ],
)
def test_volumes_that_would_not_be_ours(body: dict[str, Any]) -> None:
    assert World().refused("POST", "/volumes/create", body)


NETWORK = {
    "Name": "backupd-drill-1",
    "Driver": "bridge",
    "Internal": True,
    "Options": {"com.docker.network.bridge.inhibit_ipv4": "true"},
    "Labels": {"backupd.drill": "1"},
    "IPAM": None,
}


def test_networks() -> None:
    world = World()
    assert (
        json.loads(world.allowed("POST", "/networks/create", NETWORK).body or b"")["Labels"]["backupd.proxy"] == "shop"
    )
    world.allowed("DELETE", "/networks/backupd-drill-net")
    assert world.refused("DELETE", "/networks/shop_default")
    changes: list[dict[str, Any]] = [
        {"Internal": False},
        {"Driver": "macvlan"},
        {"Options": {}},
        {"Options": {"com.docker.network.bridge.name": "docker0"}},
        {"Name": "shop_default"},
        {"IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}]}},
        {"Attachable": True},
        {"ConfigFrom": {"Network": "x"}},
        {"Labels": {"com.docker.compose.project": "shop"}},
    ]
    for change in changes:
        assert world.refused("POST", "/networks/create", NETWORK | change)


def test_images() -> None:
    world = World()
    for name in ("backupd", "sha256:b", "postgres"):
        world.allowed("GET", f"/images/{name}/json")
    assert world.refused("GET", "/images/evil/json")
    assert world.ask("GET", "/images/not-there/json").status == 404  # type: ignore[union-attr]


def test_another_project_has_its_own_proxy() -> None:
    world = World()
    world.boxes[0]["Config"]["Labels"] = {**OWN, "backupd.proxy": "other", "com.docker.compose.project": "shop"}
    assert world.refused("POST", "/containers/postgres/stop")
