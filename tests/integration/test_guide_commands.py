"""What people did by hand and what backupd does fit together, both ways, with the guide's own commands."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.dockerd import Host
from tools.fingerprint import differences, fingerprint

pytestmark = pytest.mark.docker


@pytest.fixture
def volume(make_volume: Callable[..., str], volume_root: Callable[[str], Path]) -> str:
    """A volume whose content BusyBox tar can carry: whole seconds, no holes, no attributes."""
    name = make_volume()
    root = volume_root(name)
    (root / "photos").mkdir()
    for number in range(200):
        (root / "photos" / f"{number}.jpg").write_bytes(bytes([number]) * 5000)
    (root / "photos" / "first").symlink_to("0.jpg")
    (root / "config.json").write_text("{}")
    (root / "config.json").chmod(0o640)
    for path in (*root.rglob("*"), root):
        subprocess.run(["touch", "-h", "-d", "@1700000000", path], check=True)
    return name


@pytest.fixture
def docker(docker_host: Host) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """The docker client, as the guide uses it."""

    def run(*arguments: str, **rest: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["docker", "-H", docker_host.url, *arguments], check=True, **rest)  # type: ignore[call-overload,no-any-return]

    return run


def cli_for(make_cli: Callable[..., Cli], host: Host, image: str, volume: str, **plan: str) -> Cli:
    return make_cli(
        docker={"host": host.url, "helper_image": image},
        volumes={"storage": {"volume": volume}},
        plans={"nightly": {"volumes": ["storage"], "stores": ["local"], **plan}},
    )


@pytest.mark.parametrize(
    ("compression", "suffix", "decompress", "flags"),
    [("zstd", "tar.zst", ["zstd", "-dc"], "xf"), ("gzip", "tar.gz", ["cat"], "xzf"), ("none", "tar", ["cat"], "xf")],
)
def test_full_archive_restores_with_the_guides_command(
    compression: str,
    suffix: str,
    decompress: list[str],
    flags: str,
    volume: str,
    make_cli: Callable[..., Cli],
    docker_host: Host,
    helper_image: str,
    alpine_image: str,
    docker: Callable[..., subprocess.CompletedProcess[bytes]],
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    cli_for(make_cli, docker_host, helper_image, volume, compression=compression).run("backup")
    (archive,) = (tmp_path / "backups" / "archives" / "storage").glob(f"*.{suffix}")
    target = make_volume()
    with subprocess.Popen([*decompress, archive], stdout=subprocess.PIPE) as plain:
        docker(
            *("run", "--rm", "-i", "-v", f"{target}:/data", alpine_image, "tar", flags, "-", "-C", "/data"),
            stdin=plain.stdout,
        )
    before, after = fingerprint(volume_root(volume)), fingerprint(volume_root(target))
    for tree in (before, after):
        tree.pop(b".")  # BusyBox leaves the time of directories and of links as it is
        for path in (b"photos", b"photos/first"):
            tree[path].pop("mtime")
    assert differences(before, after) == []


def test_import_of_a_tar_made_with_the_guides_command(
    volume: str,
    make_cli: Callable[..., Cli],
    docker_host: Host,
    helper_image: str,
    alpine_image: str,
    docker: Callable[..., subprocess.CompletedProcess[bytes]],
    volume_root: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    docker(
        *("run", "--rm", "-v", f"{volume}:/data", "-v", f"{tmp_path}:/backup"),
        *(alpine_image, "tar", "czf", "/backup/storage_backup.tar.gz", "-C", "/data", "."),
    )
    before = fingerprint(volume_root(volume))
    cli = cli_for(make_cli, docker_host, helper_image, volume)

    imported = cli.json("import", "storage", str(tmp_path / "storage_backup.tar.gz"))["snapshot"]
    subprocess.run(["rm", "-r", volume_root(volume) / "photos"], check=True)
    cli.run("restore", imported["id"], "--yes")

    assert differences(before, fingerprint(volume_root(volume))) == []


@pytest.mark.parametrize("transport", ["fifo", "attach"])
def test_busybox_helper_does_not_restore_what_it_would_spoil(
    transport: str,
    make_cli: Callable[..., Cli],
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    docker_host: Host,
    helper_image: str,
    alpine_image: str,
    tmp_path: Path,
) -> None:
    name = make_volume()
    with (volume_root(name) / "sparse").open("wb") as file:
        file.truncate(10 * 1024 * 1024)
        file.seek(5 * 1024 * 1024)
        file.write(b"island")
    before = fingerprint(volume_root(name))
    settings = {"volumes": {"storage": {"volume": name}}}
    gnu = {"host": docker_host.url, "helper_image": helper_image, "transport": transport}
    make_cli(docker=gnu, **settings).run("backup")

    message = make_cli(docker={**gnu, "helper_image": alpine_image}, **settings).error(
        "restore", "latest", "--yes", code=1
    )

    assert "sparse" in message
    assert "GNU tar" in message
    assert differences(before, fingerprint(volume_root(name))) == []
    make_cli(docker=gnu, **settings).run("restore", "latest", "--yes")
    assert differences(before, fingerprint(volume_root(name))) == []


def test_snapshot_of_one_project_is_found_by_label_not_by_name(
    make_cli: Callable[..., Cli], make_volume: Callable[..., str], docker_host: Host, helper_image: str
) -> None:
    project = f"stack{uuid.uuid4().hex[:6]}"
    labels = {"com.docker.compose.project": project, "com.docker.compose.volume": "postgres_data"}
    odd_name = make_volume(f"legacy-{uuid.uuid4().hex[:6]}", labels=labels)
    cli = make_cli(
        project=project,
        docker={"host": docker_host.url, "helper_image": helper_image},
        volumes={"postgres": {"volume": "postgres_data"}, "redis": {"volume": "redis_data", "optional": True}},
    )
    snapshot = cli.json("backup")["snapshot"]
    assert snapshot["archives"][0]["source"]["source"] == odd_name
    assert snapshot["failures"][0]["optional"] is True
