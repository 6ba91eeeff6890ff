"""Redis servers in containers, writers beside them, and what a restored one holds."""

from __future__ import annotations

import io
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITER = Path(__file__).with_name("redis_writer.py")


@dataclass(frozen=True)
class Redis:
    """A server. `options` go to its client, whose name begins with `kind`."""

    container: Any
    options: tuple[str, ...] = ()
    kind: str = "redis"

    def cli(self, *command: str) -> str:
        said = self.container.exec_run([f"{self.kind}-cli", "--no-auth-warning", *self.options, *command])
        return str(said.output.decode().strip())

    def info(self, name: str) -> str:
        lines = self.cli("INFO").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))

    def wait_until(self, done: Callable[[], bool], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self.container.logs().decode()[-1000:]
            time.sleep(0.05)

    def wait(self) -> None:
        self.wait_until(lambda: self.cli("PING") == "PONG")

    def fill(self, keys: int = 20_000, size: int = 500) -> None:
        """So many keys of random names with incompressible content."""
        said = self.container.exec_run(
            ["redis-benchmark", *self.options, "-t", "set", "-r", "100000000", "-P", "50", *_counts(keys, size)]
        )
        assert said.exit_code == 0, said.output


@dataclass(frozen=True)
class Writer:
    """A container beside a server that writes and says how far it has got."""

    container: Any

    def acknowledged(self) -> int:
        deadline = time.monotonic() + 180
        while not (line := self.container.logs(tail=1).split()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return int(line[0])

    def longest_gap(self, begin: float, end: float) -> float:
        lines = [line.split() for line in self.container.logs().decode().splitlines()]
        return max(float(gap) for _, at, gap in lines if begin - 0.1 <= float(at) <= end + 0.5)


def _counts(keys: int, size: int) -> Sequence[str]:
    return ("-n", str(keys), "-d", str(size))


def start_server(
    run_container: Any, image: str, volume: str, arguments: Sequence[str] = (), password: str = "", **rest: Any
) -> Redis:
    kind = rest.pop("kind", "redis")
    container = run_container(image, [f"{kind}-server", *arguments], volumes=[f"{volume}:/data"], **rest)
    server = Redis(container, ("-a", password) if password else (), kind)
    server.wait()
    return server


def start_writer(run_container: Any, image: str, server: Redis, password: str = "", port: int = 6379) -> Writer:
    return Writer(
        run_container(
            image,
            ["python3", "-c", WRITER.read_text(), str(port), password],
            network_mode=f"container:{server.container.id}",
        )
    )


def held_by(server: Redis) -> int:
    """The last number of the writer's that a server holds, with all before it."""
    last = int(server.cli("GET", "last"))
    script = "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + redis.call('EXISTS', 'n:' .. i) end return n"
    assert int(server.cli("EVAL", script, "0", str(last))) == last, "acknowledged writes are missing"
    return last


@contextmanager
def derived_image(client: Any, image: str, programs: Mapping[str, bytes], removed: str = "") -> Iterator[str]:
    """An image with some programs replaced or removed, which goes with the containers that were made of it."""
    tag = f"backupd-test/derived:{uuid.uuid4().hex[:12]}"
    steps = [f"FROM {image}", *([f"RUN rm {removed}"] if removed else []), "COPY files /"]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        files = {f"files/{path}": data for path, data in programs.items()}
        for path, data in {"Dockerfile": "\n".join(steps).encode(), **files}.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    made.seek(0)
    client.images.build(fileobj=made, custom_context=True, tag=tag, rm=True)
    try:
        yield tag
    finally:
        for user in client.containers.list(all=True, filters={"ancestor": tag}):
            user.remove(force=True)
        client.images.remove(tag, force=True)
