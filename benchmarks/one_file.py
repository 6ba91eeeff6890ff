"""One small file out of an archive on S3: how many bytes the server had to send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import boto3

from benchmarks import data
from benchmarks.contenders import BACKUPD, Place, contenders
from benchmarks.measure import run
from benchmarks.scenarios import Bench
from tests.support import seaweedfs

_CONFIG = """\
engine: mounted
state_dir: {home}/state
stores: {{s3: {{type: s3, bucket: bench, endpoint_url: "{url}", access_key_id: {key}, secret_access_key: {secret}}}}}
volumes: {{data: {{path: {source}}}}}
"""


class Relay:
    """Passes connections on to a server of this machine and counts the bytes that it answers."""

    def __init__(self, upstream: str) -> None:
        self._upstream = (urlsplit(upstream).hostname, urlsplit(upstream).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.answered = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, count: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(data.MIB):
                if count:
                    with self._lock:
                        self.answered += len(piece)
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def _server(bench: Bench) -> Iterator[Relay]:
    directory = bench.work / "seaweedfs"
    directory.mkdir()
    with seaweedfs.running(directory) as server:
        session = boto3.Session(seaweedfs.ACCESS_KEY, seaweedfs.SECRET_KEY)
        client = session.client("s3", endpoint_url=server.http_url, region_name="us-east-1")
        client.create_bucket(Bucket="bench")
        client.close()
        relay = Relay(server.http_url)
        try:
            yield relay
        finally:
            relay.close()


def one_file(bench: Bench) -> None:
    """Back the mixed volume up to S3, then ask for one file of it, in two ways."""
    with (
        bench.volume(f"mixed-{bench.size // data.MIB}", lambda root: data.mixed(root, bench.size)) as source,
        _server(bench) as relay,
    ):
        backupd = next(contender for contender in contenders(None) if contender.name == BACKUPD)
        words = {"url": relay.url, "key": seaweedfs.ACCESS_KEY, "secret": seaweedfs.SECRET_KEY}
        place = Place(replace(backupd, config=_CONFIG), bench.work, source, words=words)
        place.fresh()
        place.new_out()
        bench.say(
            f"  backup to S3     {run(backupd.first, place.environment).seconds:7.2f} s (through a relay that counts)"
        )
        commands = {
            "restore --path": f'$PYTHON -m backupd restore latest data --path {data.ONE_FILE} --to-dir "$OUT" --yes',
            "cat": f'$PYTHON -m backupd cat latest data {data.ONE_FILE} > "$OUT/cat"',
        }
        for name, command in commands.items():
            before = relay.answered
            took = run(command, place.environment)
            bench.results.facts[f"one file, {name}"] = relay.answered - before
            bench.say(
                f"  {name:<16} {took.seconds:7.2f} s  {(relay.answered - before) / data.MIB:.2f} MiB read from S3"
            )
        wanted = (source / data.ONE_FILE).read_bytes()
        for got in (place.out / data.ONE_FILE, place.out / "cat"):
            if got.read_bytes() != wanted:
                raise RuntimeError(f"{got.name} is not the file that was asked for")
        place.remove()
