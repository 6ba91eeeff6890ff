"""`swap.sh` in a helper container that is killed ahead of every act, through the docker engine, and recovered by it."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError, NotFound

from backupd.engine import DockerEngine
from backupd.errors import SourceError
from backupd.model import Volume, VolumeSpec
from backupd.restore.swap import Swap, _script
from tests.faults.test_swap_kills import Print, new_tree, old_tree, timeless
from tests.support.engines import helper_names
from tests.support.killer import ACTS
from tools.fingerprint import differences, fingerprint

pytestmark = pytest.mark.docker

IMAGE = "backupd-test/stopping:1"
VERBS = ("prepare", "ready", "swap", "finish", "undo")
ROOT_TIME = (b".",)

# Counts the acts of one container, and stands still ahead of the one that it is to die at.
_WRAPPER = """#!/bin/sh
PATH=/usr/bin:/bin
case "{name} $*" in
tar*-xpf*) ;;
tar*) exec {name} "$@" ;;
esac
read n </dev/shm/count || n=0
n=$((n + 1))
echo $n >/dev/shm/count
if [ $n = "$STAND_AT" ]; then exec sleep 98765; fi
exec {name} "$@"
"""


@pytest.fixture(scope="module")
def stopping_image(docker_client: Any, helper_image: str) -> Iterator[str]:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        files = {f"wrap/{name}": _WRAPPER.format(name=name) for name in ACTS}
        for name, text in (files | {"Dockerfile": f"FROM {helper_image}\nCOPY wrap /wrap\n"}).items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
    context.seek(0)
    docker_client.images.build(fileobj=context, custom_context=True, tag=IMAGE, rm=True)
    yield IMAGE
    docker_client.images.remove(IMAGE, force=True)


class Place:
    """A volume, the trees it is to hold, an engine whose helpers stand still, and one to recover with."""

    def __init__(self, engine: DockerEngine, standing: DockerEngine, volume: Volume, root: Path, base: Path) -> None:
        self.engine, self.standing, self.volume, self.root = engine, standing, volume, root
        self.pristine, self.new = old_tree(base / "old"), new_tree(base / "new")
        self.old_print = timeless(fingerprint(self.pristine), ROOT_TIME)
        self.new_print = timeless(fingerprint(self.new), ROOT_TIME)
        self.swap = Swap(engine, volume, "test-1")

    def reset(self) -> None:
        for entry in self.root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.copytree(self.pristine, self.root, symlinks=True, dirs_exist_ok=True)

    def upto(self, verb: str) -> None:
        """All that comes before the verb, unharmed."""
        self.reset()
        for before in ("prepare", "ready", "swap")[: min(VERBS.index(verb), 3)]:
            if before == "ready":
                self.stage()
            {"prepare": self.swap.prepare, "ready": self.swap.ready, "swap": self.swap.swap}[before]()
        if verb == "ready":
            self.stage()

    def stage(self) -> None:
        shutil.copytree(self.new, self.root / self.swap.staging, symlinks=True, dirs_exist_ok=True)

    def run(self, verb: str, stand_at: int) -> int:
        """How many acts the verb took; SourceError when it was killed."""
        setting = f"export PATH=/wrap:/usr/bin:/bin STAND_AT={stand_at}; trap 'cat /dev/shm/count' EXIT\n"
        return int(self.standing.run_script(self.volume, setting + _script(), [self.swap.id, verb]) or 0)

    def recovered(self, verb: str) -> Print:
        """As `recover` does it, which knows from the journal whether the swap was decided."""
        for _ in range(2):
            if verb in {"swap", "finish"}:
                assert self.swap.complete(keep_old=False) == "new"
            else:
                self.swap.undo()
        return timeless(fingerprint(self.root), ROOT_TIME)


@pytest.fixture
def place(
    docker_engine: DockerEngine,
    make_docker_engine: Callable[..., DockerEngine],
    stopping_image: str,
    make_volume: Callable[..., str],
    volume_root: Callable[[str], Path],
    tmp_path: Path,
) -> Place:
    name = make_volume()
    standing = make_docker_engine(helper_image=stopping_image)
    return Place(docker_engine, standing, docker_engine.find(VolumeSpec("v", volume=name)), volume_root(name), tmp_path)


def kill_the_one_that_stands(client: Any, done: threading.Event) -> None:
    while not done.is_set():
        for container in client.containers.list(filters={"label": ["backupd.job"]}):
            try:
                if "sleep 98765" in str(container.top()["Processes"]):
                    container.kill()
                    return
            except (APIError, NotFound):
                continue
        time.sleep(0.02)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("verb", VERBS)
def test_helper_killed_ahead_of_every_act(place: Place, docker_client: Any, verb: str) -> None:
    place.upto(verb)
    acts = place.run(verb, 0)
    assert acts >= (2 if verb in {"finish", "ready"} else 4)
    for number in range(1, acts + 1):
        place.upto(verb)
        done = threading.Event()
        killer = threading.Thread(target=kill_the_one_that_stands, args=(docker_client, done))
        killer.start()
        try:
            with pytest.raises(SourceError, match="killed"):
                place.run(verb, number)
        finally:
            done.set()
            killer.join()
        expected = place.new_print if verb in {"swap", "finish"} else place.old_print
        assert differences(expected, place.recovered(verb)) == [], (verb, number)
    assert helper_names(docker_client) == []
