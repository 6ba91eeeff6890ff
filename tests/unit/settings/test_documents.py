"""What config/ and docs/CONFIGURATION.md say is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from backupd.settings import S3StoreSettings, Settings, load_settings, show
from backupd.settings.environment import CONFIG_VARIABLE
from backupd.settings.load import DEFAULT_FILES
from backupd.settings.schema import Node, leaves, schema

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "config" / "backupd.yaml"
DOCUMENT = (ROOT / "docs" / "CONFIGURATION.md").read_text()
TABLES: dict[tuple[str, ...], tuple[str, ...]] = {(name,): ("NAME",) for name in ("stores", "volumes", "plans")}
TABLES["plans", "NAME", "keep", "stores"] = ("NAME",)
TABLES["notifications", "targets"] = ("NAME",)
KEYS: dict[str, Node] = {".".join(key): node for key, node in leaves(schema(Settings), TABLES)}
ROWS = {row[0]: row[2] for row in re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \|.* \|$", DOCUMENT, re.MULTILINE)}


@pytest.mark.parametrize("app_env", ["", "local", "staging", "prod", "another"])
def test_the_samples_load(app_env: str) -> None:
    settings = load_settings(SAMPLE, {"APP_ENV": app_env})
    assert {"postgres", "redis", "storage", "pgadmin"} == set(settings.volumes)
    for name in settings.plans:
        assert settings.plan(name).volumes
    assert ("offsite" in settings.stores) == (app_env in {"staging", "prod"})
    assert {volume.consistency for volume in settings.volumes.values()} == {"auto"}


@pytest.mark.parametrize("app_env", ["staging", "prod"])
def test_the_samples_take_their_secrets_from_the_files_that_they_name(tmp_path: Path, app_env: str) -> None:
    text = SAMPLE.with_name(f"backupd.{app_env}.yaml").read_text()
    variables = re.findall(r"(BACKUPD_\w+_FILE)=/run/secrets/(\w+)", text)
    assert len(variables) >= 2
    for variable, name in variables:
        (tmp_path / name).write_text("https://example.org/x\n" if variable.endswith("URL_FILE") else f"the-{name}\n")
    files = {variable: str(tmp_path / name) for variable, name in variables}
    store = load_settings(SAMPLE, {"APP_ENV": app_env, **files}).stores["offsite"]
    assert isinstance(store, S3StoreSettings)
    assert store.secret_access_key is not None
    assert store.secret_access_key.get_secret_value() == "the-backupd_secret_access_key"


def test_every_key_is_documented_and_nothing_else() -> None:
    assert set(ROWS) == set(KEYS)


def test_the_documented_defaults_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "stores: {NAME: {type: s3, bucket: bb}}\nvolumes: {NAME: {volume: v}}\n"
        "plans: {NAME: {volumes: [NAME], stores: [NAME], keep: {stores: {NAME: {last: 1}}}}}\n"
        "notifications: {targets: {NAME: {url: json://localhost}}}\n".replace("NAME", "name")
    )
    shown = show(load_settings(tmp_path / "b.yaml", {}))
    given = {"stores.NAME.type", "stores.NAME.path", "stores.NAME.bucket", "volumes.NAME.volume", "plans.NAME.volumes",
             "plans.NAME.stores", "plans.NAME.keep.stores.NAME.last", "threads",
             "stores.NAME.object_lock.mode", "stores.NAME.object_lock.duration",
             "notifications.targets.NAME.url"}  # fmt: skip
    for key in set(KEYS) - given:
        value: Any = shown
        for name in key.split("."):
            value = value[name.lower()]
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, list) and value:
            value = ", ".join(value)
        expected = "none" if value is None else "empty" if value in ("", []) else f"`{value}`"
        assert ROWS[key] == expected, key


def test_secrets_are_marked() -> None:
    types = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", DOCUMENT, re.MULTILINE))
    assert {key for key, kind in types.items() if kind == "secret"} == {
        key for key, node in KEYS.items() if node.secret
    }


def test_places_are_documented() -> None:
    assert CONFIG_VARIABLE in DOCUMENT
    assert all(str(path) in DOCUMENT for path in DEFAULT_FILES)
