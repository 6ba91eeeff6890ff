"""PostgreSQL and Redis data go through the docker engine, a local store and S3; the services start on the result."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.dockerd import Host
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.docker, pytest.mark.s3]

QUERY = "select count(*), sum(id), md5(string_agg(body, ',' order by id)) from notes"


@pytest.fixture
def stack(make_volume: Callable[..., str]) -> dict[str, str]:
    """Two volumes with the labels that Compose gives them; names by their name in the compose file."""
    project = f"contravento{uuid.uuid4().hex[:6]}"
    made = {"project": project}
    for name in ("postgres_data", "redis_data"):
        labels = {"com.docker.compose.project": project, "com.docker.compose.volume": name}
        made[name] = make_volume(f"{project}_{name}", labels=labels)
    return made


@pytest.fixture
def cli(
    make_cli: Callable[..., Cli],
    stack: dict[str, str],
    docker_host: Host,
    helper_image: str,
    seaweedfs_s3: S3Server,
    tmp_path: Any,
) -> Cli:
    """Local first, then S3; secrets in the environment."""
    cli = make_cli(
        project=stack["project"],
        docker={"host": docker_host.url, "helper_image": helper_image},
        stores={
            "local": {"type": "local", "path": str(tmp_path / "backups")},
            "offsite": {
                "type": "s3",
                "bucket": seaweedfs_s3.bucket,
                "prefix": f"services/{uuid.uuid4().hex}",
                "endpoint_url": seaweedfs_s3.endpoint_url,
                "region": "us-east-1",
            },
        },
        volumes={"postgres": {"volume": "postgres_data"}, "redis": {"volume": "redis_data"}},
    )
    cli.environment["BACKUPD_STORES__OFFSITE__ACCESS_KEY_ID"] = seaweedfs_s3.access_key_id
    cli.environment["BACKUPD_STORES__OFFSITE__SECRET_ACCESS_KEY"] = seaweedfs_s3.secret_access_key
    return cli


@pytest.mark.parametrize("store", ["local", "offsite"])
def test_services_start_on_restored_volumes(
    store: str,
    cli: Cli,
    stack: dict[str, str],
    postgres_image: str,
    redis_image: str,
    run_container: Callable[..., Any],
) -> None:
    postgres = start_postgres(run_container, postgres_image, stack)
    sql(postgres, "create table notes (id int, body text)")
    sql(postgres, "insert into notes select i, repeat(md5(i::text), 20) from generate_series(1, 20000) i")
    before = sql(postgres, QUERY)
    redis = start_redis(run_container, redis_image, stack)
    run(redis, "redis-cli", "debug", "populate", "20000", "key", "100")
    run(redis, "redis-cli", "set", "greeting", "hello")
    run(redis, "redis-cli", "save")
    remove(postgres, redis)

    taken = cli.json("backup")
    assert taken["store_failures"] == {}
    assert [archive["volume"] for archive in taken["snapshot"]["archives"]] == ["postgres", "redis"]

    postgres = start_postgres(run_container, postgres_image, stack)
    sql(postgres, "drop table notes")
    redis = start_redis(run_container, redis_image, stack)
    run(redis, "redis-cli", "flushall")
    refused = cli.error("restore", "latest", "--yes", "--store", store, code=1)
    assert f"{postgres.name} uses the volume and is of no Compose project" in refused
    remove(postgres, redis)

    restored = cli.json("restore", "latest", "--yes", "--store", store)
    assert [item["target"]["source"] for item in restored["restored"]] == [stack["postgres_data"], stack["redis_data"]]
    assert restored["safety_snapshot"]

    postgres = start_postgres(run_container, postgres_image, stack)
    assert sql(postgres, QUERY) == before
    redis = start_redis(run_container, redis_image, stack)
    assert run(redis, "redis-cli", "dbsize") == "20001"
    assert run(redis, "redis-cli", "get", "greeting") == "hello"
    assert cli.json("verify", "--read-data", "--store", store)["problems"] == []


def test_missing_volume_is_created_as_it_was(
    cli: Cli,
    stack: dict[str, str],
    docker_client: Any,
    make_volume: Callable[..., str],
    run_container: Callable[..., Any],
    helper_image: str,
) -> None:
    for name in ("postgres_data", "redis_data"):
        writer = run_container(helper_image, ["sh", "-c", "echo data > /data/file"], volumes=[f"{stack[name]}:/data"])
        writer.wait()
        writer.remove()
    cli.run("backup")
    labels = docker_client.volumes.get(stack["postgres_data"]).attrs["Labels"]
    docker_client.volumes.get(stack["postgres_data"]).remove()

    out = cli.run("restore", "latest", "postgres", "--yes").stdout

    assert "will be created" in out
    assert docker_client.volumes.get(stack["postgres_data"]).attrs["Labels"] == labels
    reader = run_container(helper_image, ["cat", "/data/file"], volumes=[f"{stack['postgres_data']}:/data"])
    reader.wait()
    assert reader.logs() == b"data\n"
    docker_client.volumes.get(stack["redis_data"]).remove()
    backup = cli.run("backup", code=3)
    assert "volume redis" in backup.stderr


def start_postgres(run_container: Callable[..., Any], image: str, stack: dict[str, str]) -> Any:
    container = run_container(
        image,
        environment={"POSTGRES_HOST_AUTH_METHOD": "trust"},
        volumes=[f"{stack['postgres_data']}:/var/lib/postgresql/data"],
    )
    wait_for(lambda: container.exec_run(["pg_isready", "-q", "-h", "127.0.0.1"]).exit_code == 0, container)
    return container


def start_redis(run_container: Callable[..., Any], image: str, stack: dict[str, str]) -> Any:
    container = run_container(
        image, ["redis-server", "--enable-debug-command", "yes"], volumes=[f"{stack['redis_data']}:/data"]
    )
    wait_for(lambda: container.exec_run(["redis-cli", "ping"]).output.strip() == b"PONG", container)
    return container


def wait_for(ready: Callable[[], bool], container: Any) -> None:
    for _ in range(300):
        container.reload()
        if container.status != "running":
            break
        if ready():
            return
        time.sleep(0.1)
    pytest.fail(f"{container.name} did not become ready: {container.logs().decode()}")


def sql(container: Any, query: str) -> str:
    return run(container, "psql", "-U", "postgres", "-h", "127.0.0.1", "-At", "-v", "ON_ERROR_STOP=1", "-c", query)


def run(container: Any, *command: str) -> str:
    code, output = container.exec_run(list(command))
    assert code == 0, output.decode()
    return str(output.decode().strip())


def remove(*containers: Any) -> None:
    """Stop as `docker stop` does, then remove."""
    for container in containers:
        container.stop(timeout=30)
        container.remove()
