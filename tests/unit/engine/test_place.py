"""Own container and paths on the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd.engine.docker.place import container_id, on_host

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "found"),
    [
        (f"655 640 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw", "", ID),
        (f"655 640 0:5 /containers/{ID}/mounts/shm /dev/shm rw - tmpfs shm rw", "0::/", None),
        (f"655 640 0:5 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw", "0::/", None),
        ("", f"3:memory:/docker/{ID}\n", ID),
        ("", f"0::/system.slice/docker-{ID}.scope", ID),
        ("", "0::/user.slice", None),
    ],
)
def test_container_id(mountinfo: str, cgroup: str, found: str | None) -> None:
    assert container_id(mountinfo, cgroup) == found


MOUNTS = [
    {"Type": "volume", "Source": "/docker/volumes/state/_data", "Destination": "/var/lib/backupd"},
    {"Type": "bind", "Source": "/srv/pipes", "Destination": "/var/lib/backupd/pipes"},
    {"Type": "tmpfs", "Source": "", "Destination": "/run"},
]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/var/lib/backupd/x/y", "/docker/volumes/state/_data/x/y"),
        ("/var/lib/backupd/pipes/x", "/srv/pipes/x"),
        ("/var/lib/backupd", "/docker/volumes/state/_data"),
        ("/var/lib/backupd-2", None),
        ("/run/pipes", None),
        ("/tmp/x", None),
    ],
)
def test_on_host(path: str, found: str | None) -> None:
    assert on_host(Path(path), MOUNTS) == found
