"""A SeaweedFS server for tests: one process on loopback with free ports, a directory and a CA of its own."""

from __future__ import annotations

import atexit
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key-0123456789"
LIMITED_ACCESS_KEY = "limited-access-key"
LIMITED_SECRET_KEY = "limited-secret-key-0123456789"
"""Of an identity that may read, write, list, delete and lock, but not lift locks or look at a bucket's settings."""

READING_ACCESS_KEY = "reading-access-key"
READING_SECRET_KEY = "reading-secret-key-0123456789"
START_TRIES = 3
START_SECONDS = 60

_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "s3.port.https",
)
# Started through a line of Python that asks the kernel to end the server with its parent (PR_SET_PDEATHSIG is 1),
# so that not even a killed test session leaves it running.
_LAUNCH = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9);"
    "os.getppid() == int(sys.argv[1]) or sys.exit('the parent is gone'); os.execv(sys.argv[2], sys.argv[2:])"
)


@dataclass(frozen=True)
class SeaweedFS:
    """A running server."""

    http_url: str
    https_url: str
    ca_bundle: Path


class Killable:
    """A server of its own that a test kills and starts again, on the same data and ports."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = _free_ports()
        self._process: subprocess.Popen[bytes] | None = None
        self._data = directory / "data"
        self.url = f"http://127.0.0.1:{self._ports['s3.port']}"

    def __enter__(self) -> Self:
        self._ca_bundle = make_certificates(self._directory)
        _write_identities(self._directory)
        self._data.mkdir()
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._data)

    def start(self) -> None:
        self._process = _start(self._directory, self._data, self._ports)
        atexit.register(_end, self._process)
        if not _wait(self._process, SeaweedFS(self.url, self.url, self._ca_bundle)):
            raise RuntimeError(f"SeaweedFS did not start: {(self._directory / 'weed.log').read_text()[-2000:]}")

    def kill(self) -> None:
        if self._process is not None:
            _end(self._process)
            atexit.unregister(_end)


def _write_identities(directory: Path) -> None:
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for key, secret, actions in (
            (ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "Write", "List", "Tagging"]),
            (LIMITED_ACCESS_KEY, LIMITED_SECRET_KEY, ["Read", "Write", "List", "PutObjectRetention"]),
            (READING_ACCESS_KEY, READING_SECRET_KEY, ["Read", "List"]),
        )
    ]
    (directory / "s3.json").write_text(json.dumps({"identities": identities}))


@contextmanager
def running(directory: Path) -> Iterator[SeaweedFS]:
    """A server that lives within the block."""
    ca_bundle = make_certificates(directory)
    _write_identities(directory)
    for attempt in range(1, START_TRIES + 1):
        ports = _free_ports()
        data = directory / f"data{attempt}"
        data.mkdir()
        process = _start(directory, data, ports)
        atexit.register(_end, process)
        try:
            server = SeaweedFS(
                f"http://127.0.0.1:{ports['s3.port']}", f"https://127.0.0.1:{ports['s3.port.https']}", ca_bundle
            )
            if _wait(process, server):  # else another process was quicker to take one of the ports
                yield server
                return
        finally:
            _end(process)
            atexit.unregister(_end)
            shutil.rmtree(data)  # pytest keeps the directories of a few sessions
    raise RuntimeError(f"SeaweedFS did not start: {(directory / 'weed.log').read_text()[-2000:]}")


def _start(directory: Path, data: Path, ports: dict[str, int]) -> subprocess.Popen[bytes]:
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    arguments = [
        "-logtostderr",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=100",
        "-filer",
        f"-filer.localSocket={data / 'filer.sock'}",
        "-s3",
        f"-s3.localSocket={data / 's3.sock'}",
        f"-s3.config={directory / 's3.json'}",
        f"-s3.cert.file={directory / 'server.pem'}",
        f"-s3.key.file={directory / 'server.key'}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    environment = os.environ | {"WEED_S3_SSE_KEY": "test", "GOMEMLIMIT": "300MiB"}
    with (directory / "weed.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(os.getpid()), str(weed), *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: subprocess.Popen[bytes], server: SeaweedFS) -> bool:
    """Until an object can be written; False if the process ends or does not get there in time."""
    client = boto3.Session(ACCESS_KEY, SECRET_KEY).client(
        "s3",
        endpoint_url=server.http_url,
        region_name="us-east-1",
        config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + START_SECONDS
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            except client.exceptions.BucketAlreadyOwnedByYou:
                client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
                continue
            return True
    finally:
        client.close()
    return False


def _free_ports() -> dict[str, int]:
    """A free port for each listener; SeaweedFS would derive some of them, where sessions could clash."""
    with ExitStack() as stack:
        found = {}
        for name in _PORTS:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            found[name] = listener.getsockname()[1]
    return found


def make_certificates(directory: Path) -> Path:
    """An authority in `ca.pem` and a certificate for 127.0.0.1 in `server.pem` and `server.key`."""
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "backupd test authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, is_ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if is_ca:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        else:
            loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(certificate(ca_name, ca_key.public_key(), is_ca=True).public_bytes(pem))
    (directory / "server.pem").write_bytes(certificate(name, key.public_key(), is_ca=False).public_bytes(pem))
    (directory / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "ca.pem"


def make_bucket(server: SeaweedFS, name: str) -> None:
    """An empty bucket."""
    client = boto3.Session(ACCESS_KEY, SECRET_KEY).client("s3", endpoint_url=server.http_url, region_name="us-east-1")
    with closing(client):
        client.create_bucket(Bucket=name)
