from __future__ import annotations

import pytest

from backupd.consistency.postgres.recognise import data_directories, inside, recognises
from backupd.model import Volume
from backupd.services import MountPoint, Service

VOLUME = Volume(name="db", kind="volume", source="shop_db")


def service(image: str, destination: str, *, writable: bool = True, **environment: str) -> Service:
    mounts = (MountPoint("volume", "other", "/other", True), MountPoint("volume", "shop_db", destination, writable))
    return Service("1", "db-1", image, "sha256:1", "running", mounts, environment=environment)


@pytest.mark.parametrize(
    "image",
    [
        *("postgres", "postgres:16-alpine", "postgres@sha256:abc", "docker.example:5000/library/postgres:16"),
        *("postgis/postgis:16-3.4", "timescale/timescaledb-ha:pg16", "bitnami/postgresql:17", "pgvector/pgvector:pg17"),
        *("supabase/postgres:15.1", "ghcr.example/immich-app/postgres:14@sha256:abc"),
    ],
)
def test_images_by_name(image: str) -> None:
    assert recognises(service(image, "/bitnami/postgresql"), VOLUME)
    assert recognises(service(image, "/var/lib/postgresql/data", PGDATA="/var/lib/postgresql/data"), VOLUME)
    assert recognises(service(image, "/var/lib/postgresql", PGDATA="/var/lib/postgresql/18/docker"), VOLUME)


@pytest.mark.parametrize(
    "image",
    [
        *("dpage/pgadmin4", "postgrest/postgrest", "prometheuscommunity/postgres-exporter", "postgres/tools:1"),
        *("redis:7", "app/postgres-backup-s3", "sha256:1234"),
    ],
)
def test_other_images(image: str) -> None:
    assert not recognises(service(image, "/var/lib/postgresql/data"), VOLUME)


def test_an_image_of_any_name_that_says_where_its_data_are() -> None:
    assert recognises(service("shop/db", "/srv/pg", PGDATA="/srv/pg/data"), VOLUME)
    assert not recognises(service("shop/db", "/srv/pg", PGDATA="/srv/pgx"), VOLUME)


def test_volumes_of_a_server_that_hold_no_data() -> None:
    data = "/var/lib/postgresql/data"
    assert not recognises(service("postgres", "/docker-entrypoint-initdb.d", PGDATA=data), VOLUME)
    assert not recognises(service("postgres", "/backups"), VOLUME)
    assert not recognises(service("postgres", data, writable=False, PGDATA=data), VOLUME)
    assert not recognises(service("postgres", data, PGDATA=data), Volume(name="x", kind="volume", source="x"))


def test_where_the_data_are() -> None:
    assert data_directories(service("postgres", "/v", PGDATA="/v/18/docker"), VOLUME) == ("/v/18/docker",)
    assert data_directories(service("postgresql", "/v/"), VOLUME) == ("/v/", "/v/data", "/v/pgdata")


def test_inside() -> None:
    assert inside("/a/b/c", "/a") == "b/c"
    assert inside("/a", "/a/") == "."
    assert inside("/ab", "/a") is None
