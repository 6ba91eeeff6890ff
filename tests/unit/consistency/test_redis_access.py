"""What a container's settings tell about reaching its Redis."""

from __future__ import annotations

import pytest

from backupd.consistency.redis import recognises
from backupd.consistency.redis_access import accesses, directives_of, words_of
from backupd.model import Volume
from backupd.services import CommandResult, Service
from tests.support.services import FakeServices, service

ENTRYPOINT = "docker-entrypoint.sh"
VOLUME = Volume(name="v", kind="bind", source="/v")


def redis(*command: str, image: str = "redis:7-alpine", **environment: str) -> Service:
    return service("redis", "/v", image=image, command=(ENTRYPOINT, *command), environment=environment)


def found(
    server: Service, files: dict[str, str] | None = None, user: str | None = None, password: str | None = None
) -> list[tuple[tuple[str, ...], str | None]]:
    services = FakeServices()
    services.results = {f"run cat {path} in redis": CommandResult(0, text, "") for path, text in (files or {}).items()}
    directives = directives_of(server, services)
    tried = accesses(server, services, directives, user, password)
    return [(access.arguments, access.password) for access in tried]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("redis-server",), [((), None)]),
        (("redis-server", "--requirepass", "a b"), [((), "a b"), ((), None)]),
        (("redis-server", "--port", "7000", "--save", "60", "1"), [(("-p", "7000"), None)]),
        (("sh", "-c", "exec redis-server --requirepass $PW --port 7"), [(("-p", "7"), "xyz"), (("-p", "7"), None)]),
        (("/bin/sh", "-c", 'redis-server --requirepass "${PW}!" # so'), [((), "xyz!"), ((), None)]),
        (("sh", "-c", 'redis-server --requirepass "open'), [((), '"open'), ((), None)]),
        (("valkey-server", "--port", "0", "--unixsocket", "/s"), [(("-s", "/s"), None)]),
        (
            ("redis-server", "--port", "0", "--tls-port", "6380", "--tls-cert-file", "/c", "--tls-key-file", "/k"),
            [(("-p", "6380", "--tls", "--insecure", "--cert", "/c", "--key", "/k"), None)],
        ),
    ],
)
def test_command_line(command: tuple[str, ...], expected: list[tuple[tuple[str, ...], str | None]]) -> None:
    if "PW" in " ".join(command):
        assert found(redis(*command, PW="xyz")) == expected
    else:
        assert found(redis(*command)) == expected


def test_configuration_file() -> None:
    files = {
        "/etc/redis.conf": "# requirepass no\nport 7000\ninclude /etc/more.conf\nbind * # -::*\n\nsave 60 1\n",
        "/etc/more.conf": 'requirepass "a \\"b\\""\nuser default on >other ~* +@all\nuser x on >never\nodd "\n',
    }
    server = redis("redis-server", "/etc/redis.conf", "--port", "7001")
    place = ("-p", "7001")
    assert found(server, files) == [(place, "other"), (place, None)]


def test_a_file_that_includes_itself() -> None:
    assert found(redis("redis-server", "/x.conf"), {"/x.conf": "include /x.conf\nport 7\n"}) == [(("-p", "7"), None)]


def test_environment_and_secrets() -> None:
    server = redis("redis-server", REDIS_PASSWORD="one", VALKEY_PASSWORD_FILE="/run/secrets/two")
    assert found(server, {"/run/secrets/two": "two\n"}) == [((), "one"), ((), "two"), ((), None)]


def test_a_configuration_file_alone_as_the_official_images_take_it() -> None:
    files = {"/etc/redis.conf": "requirepass xyz\n"}
    assert found(redis("/etc/redis.conf", "--port", "7001"), files) == [(("-p", "7001"), "xyz"), (("-p", "7001"), None)]


def test_what_is_configured_goes_before_all_else() -> None:
    server = redis("redis-server", "--requirepass", "wrong", REDIS_PASSWORD="wrong, too")
    assert found(server, user="backup", password="right") == [(("--user", "backup"), "right")]


def test_passwords_are_not_shown() -> None:
    server = redis("redis-server", "--requirepass", "xyzzy")
    (first, _) = accesses(server, FakeServices(), directives_of(server, FakeServices()), None, None)
    assert first.environment == {"REDISCLI_AUTH": "xyzzy", "VALKEYCLI_AUTH": "xyzzy"}
    assert "xyzzy" not in repr(first)
    assert "xyzzy" not in repr(server)


@pytest.mark.parametrize(
    ("image", "command", "expected"),
    [
        ("redis", ("redis-server",), True),
        ("redis:7@sha256:00", ("redis-server",), True),
        ("registry:5000/team/valkey:8", ("valkey-server",), True),
        ("eqalpha/keydb", ("keydb-server",), True),
        ("company/cache:1", ("/usr/bin/redis-server", "/etc/redis.conf"), True),
        ("company/cache:1", ("sh", "-c", "exec redis-server"), True),
        ("redis/redis-stack-server", (), True),
        ("redis/redisinsight", (), False),
        ("oliver006/redis_exporter", (), False),
        ("redis", ("redis-sentinel", "/etc/sentinel.conf", "--sentinel"), False),
        ("postgres:16", ("postgres",), False),
    ],
)
def test_what_is_recognised(image: str, command: tuple[str, ...], expected: bool) -> None:
    assert recognises(redis(*command, image=image), VOLUME) is expected


def test_one_that_only_reads_is_not_the_server() -> None:
    reader = redis("redis-server")
    mounts = tuple(type(mount)(mount.kind, mount.source, mount.destination, False) for mount in reader.mounts)
    assert not recognises(service("redis", image="redis", mounts=mounts), VOLUME)


def test_words() -> None:
    assert words_of(redis("sh", "-c", "a $B '$B c'", B="x")) == [ENTRYPOINT, "sh", "-c", "a", "x", "x c"]
