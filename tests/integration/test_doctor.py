"""The doctor at a real Docker Engine, as its user has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.dockerd import Host
from tests.support.images import Images

NOBODY = 65534


def settings(docker_host: Host, volume: str, image: str, **more: Any) -> dict[str, Any]:
    return {
        "docker": {"host": docker_host.url, "helper_image": image},
        "volumes": {"data": {"volume": volume}},
        "plans": {"nightly": {"volumes": ["data"], "stores": ["local"], "schedule": "@daily", "timezone": "UTC",
                              "keep": {"last": 3}}},
        **more,
    }  # fmt: skip


def said(document: Any, level: str) -> list[str]:
    return [f"{one['subject']}: {one['text']}" for one in document["findings"] if one["level"] == level]


def test_a_deployment_that_is_well(
    make_cli: Callable[..., Cli], docker_host: Host, make_volume: Callable[..., str], helper_image: str
) -> None:
    volume = make_volume()
    cli = make_cli(**settings(docker_host, volume, helper_image))
    cli.run("backup")
    document = cli.json("doctor")
    fine = said(document, "ok")
    assert any(text.startswith("engine: Docker ") and docker_host.url in text for text in fine)
    assert any(text.endswith(", at least 1.40 (Docker 19.03) is needed") for text in fine)
    assert any(text.startswith("engine clock: ") for text in fine)
    assert any("GNU tar" in text for text in fine)
    assert f"volume data: is {volume}, found by its full name" in fine
    assert any(text.startswith("plan nightly in local: the newest snapshot is of") for text in fine)
    assert document["ok"]
    assert document["counts"]["error"] == 0


def test_volumes_by_label_missing_and_ambiguous(
    make_cli: Callable[..., Cli], docker_host: Host, make_volume: Callable[..., str], alpine_image: str
) -> None:
    labels: Mapping[str, str] = {"com.docker.compose.project": "doctored"}
    found = make_volume(labels={**labels, "com.docker.compose.volume": "found"})
    for _ in range(2):
        make_volume(labels={**labels, "com.docker.compose.volume": "twice"})
    labelled = make_volume(labels={**labels, "com.docker.compose.volume": "labelled", "backupd.enable": "true"})
    volumes = {
        "found": {"volume": "found", "pre": [{"service": "nobody-there", "command": "true"}]},
        "twice": {"volume": "twice"},
        "missing": {"volume": "missing"},
        "maybe": {"volume": "maybe", "optional": True},
    }
    plan = {"volumes": list(volumes), "stores": ["local"]}
    configured = settings(docker_host, "x", alpine_image, project="doctored", volumes=volumes, plans={"p": plan})
    cli = make_cli(**configured)
    shown = cli.run("doctor", code=1).stdout
    assert "✗ volume twice: volume 'twice' of project 'doctored' could be any of" in shown
    assert "→ give the full name of the one that is meant" in shown
    assert "✗ volume missing: there is no Docker volume 'missing'" in shown
    assert "· volume maybe: is optional, and not there" in shown
    assert f"✓ volume found: is {found}, found by Compose's labels in project doctored" in shown
    assert "✗ volume found: container nobody-there, which its commands run in, is not there" in shown
    assert "! helper image" in shown
    assert "BusyBox tar" in shown
    document = cli.json("doctor", code=1)
    assert not any("labelled" in text for text in said(document, "error")), labelled


def test_a_helper_image_without_tar_and_one_that_is_not_there(
    make_cli: Callable[..., Cli], docker_host: Host, make_volume: Callable[..., str], docker_client: Any, images: Images
) -> None:
    del images  # whose making has the engine ready
    volume = make_volume()
    empty = subprocess.run(["tar", "-cf", "-", "-T", "/dev/null"], capture_output=True, check=True).stdout
    image = docker_client.api.import_image_from_data(empty, repository="backupd-test-empty", tag="1")
    assert "sha256" in image
    try:
        cli = make_cli(**settings(docker_host, volume, "backupd-test-empty:1"))
        errors = said(cli.json("doctor", code=1), "error")
        assert len(errors) == 1
        assert errors[0].startswith("helper image")
    finally:
        docker_client.images.remove("backupd-test-empty:1")
    cli = make_cli(**settings(docker_host, volume, "backupd-test-nowhere:1"))
    document = cli.json("doctor")
    assert any("backupd-test-nowhere:1: the engine does not have it" in text for text in said(document, "warning"))


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_a_user_who_may_not_use_the_socket(
    make_cli: Callable[..., Cli], docker_host: Host, make_volume: Callable[..., str]
) -> None:
    """As nobody, with a socket that only its group may use."""
    if not docker_host.url.startswith("unix://"):
        pytest.skip("the engine is not at a socket")
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        for name in ("state", "backups"):
            (Path(base) / name).mkdir(mode=0o700)
        stores = {"local": {"type": "local", "path": f"{base}/backups"}}
        configured = settings(docker_host, make_volume(), "alpine", state_dir=f"{base}/state", stores=stores)
        document = as_nobody(make_cli(**configured))
    errors = {one["subject"]: one for one in document["findings"] if one["level"] == "error"}
    assert "permission denied" in errors["engine"]["text"].lower()
    assert errors["engine"]["advice"]
    assert errors[f"state_dir {base}/state"]["text"] == "cannot be written by this user"
    assert any(one["text"].endswith("backups cannot be written by this user") for one in document["findings"])
    assert not any(subject.startswith("volume") for subject in errors), "an engine that is away is one error"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_nothing_that_is_out_of_reach_ends_the_doctor(
    make_cli: Callable[..., Cli], docker_host: Host, tmp_path: Path
) -> None:
    """The directory above all of it is closed to this user."""
    tmp_path.chmod(0o700)
    document = as_nobody(make_cli(**settings(docker_host, "some-volume", "alpine")))
    areas = {one["area"] for one in document["findings"] if one["level"] == "error"}
    assert areas >= {"machine", "engine", "stores"}


def as_nobody(cli: Cli) -> Any:
    """The doctor's document as a user without any rights gets it; the configuration was read before."""
    result = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY],
        env=cli.env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    return json.loads(result.stdout)


_AS_NOBODY = f"""
import os, sys
import backupd.engine.docker.engine
from backupd.cli.main import main
from backupd.cli import options
loaded = options.load_settings(None)
options.load_settings = lambda _: loaded
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.argv = ["backupd", "doctor", "--json"]
main()
"""
