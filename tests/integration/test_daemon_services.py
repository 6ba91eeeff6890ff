"""A daemon that is told to stop while a service stands still for a backup."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.cli import Cli
from tests.support.daemon import daemon, known_since
from tests.support.dockerd import Host


def test_an_aborted_backup_lets_services_go(
    make_cli: Callable[..., Cli],
    docker_host: Host,
    docker_client: Any,
    helper_image: str,
    make_volume: Callable[..., str],
    run_container: Callable[..., Any],
    volume_root: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    volume = make_volume()
    script = "while sleep 0.1; do date >>/v/log; done"
    writer = run_container(helper_image, ["sh", "-c", script], volumes=[f"{volume}:/v"], init=True)
    cli = make_cli(
        threads=1,
        log={"format": "json"},
        docker={"host": docker_host.url, "helper_image": helper_image},
        volumes={"v": {"volume": volume, "consistency": "pause"}},
        plans={
            "first": {"volumes": ["v"], "stores": ["local"]},
            "n": {"volumes": ["v"], "stores": ["local"], "schedule": "0 0 1 1 *", "compression_level": 22},
        },
    )
    cli.run("backup", "first")  # with an archive to build upon, nothing is read before the pause
    # So much at the highest level that it takes long to read, and whoever writes stands for as long.
    (volume_root(volume) / "numbers").write_text("\n".join(map(str, range(5_000_000))))
    known_since(tmp_path / "state", "2025-01-01T00:00:00Z", "backup of n")

    def state() -> str:
        writer.reload()
        return str(writer.attrs["State"]["Status"])

    with daemon(cli) as running:
        running.until(lambda: state() == "paused", "the pause")
        running.signal(signal.SIGTERM)
        running.wait_for("told to stop")
        assert state() == "paused", "it may take its time"
        running.signal(signal.SIGTERM)
        assert running.ended() == 0
        assert running.says("backup of n was aborted")
    assert state() == "running"
    assert cli.json("recover") == {"recovered": []}
    assert docker_client.containers.list(all=True, filters={"label": "backupd.job", "volume": volume}) == []
    assert len(list((tmp_path / "backups").glob("snapshots/*"))) == 1
