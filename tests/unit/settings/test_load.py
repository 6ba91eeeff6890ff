# ruff: noqa: ISC004, E501  (a table)
"""Files, overlays and variables over each other, and what comes out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from backupd.errors import UsageError
from backupd.model import Compression, FullEvery, Plan, VolumeSpec
from backupd.settings import LocalStoreSettings, S3StoreSettings, Settings, SettingsError, load_settings, show
from tests.unit.settings.conftest import MINIMAL

OFFSITE = MINIMAL.replace("volumes:", "  off-site: {type: s3, bucket: bb}\nvolumes:")
Load = Callable[..., Settings]
Problems = Callable[..., list[str]]


def test_the_least_configuration(load: Load) -> None:
    settings = load()
    assert settings.engine == "docker"
    assert settings.state_dir == Path("/var/lib/backupd")
    assert 1 <= settings.threads <= 64
    assert settings.stores["local"] == LocalStoreSettings(type="local", path=Path("/backups"))
    assert settings.plan("default") == Plan(
        "default", (VolumeSpec("data", volume="data", said=frozenset({"volume"})),), ("local",)
    )
    assert settings.origins["plans.default.volumes"] == "default"


@pytest.mark.parametrize("plans", ["", "plans:\n", "plans: {}\n"])
def test_without_plans_there_is_one_over_everything(load: Load, plans: str) -> None:
    plan = load(OFFSITE + "  more: {path: /srv}\n" + plans).plan("default")
    assert [spec.name for spec in plan.volumes] == ["data", "more"]
    assert plan.stores == ("local", "off-site")


def test_a_plan_as_the_model_has_it(load: Load) -> None:
    text = MINIMAL.replace("{volume: data}", "{volume: data, optional: true, exclude: ['*.log', a/b]}")
    text += (
        "plans: {n: {volumes: [data], stores: [local], compression: gzip, compression_level: 9, full_every: never}}\n"
    )
    spec = VolumeSpec(
        "data",
        volume="data",
        optional=True,
        exclude=("*.log", "a/b"),
        said=frozenset({"volume", "optional", "exclude"}),
    )
    assert load(text).plan("n") == Plan("n", (spec,), ("local",), Compression("gzip", 9), FullEvery(None))


def test_names_that_are_not_there(load: Load) -> None:
    with pytest.raises(UsageError, match=r"there is no plan 'defualt' in the configuration; did you mean default\?"):
        load().plan("defualt")
    with pytest.raises(UsageError, match="there is no volume 'x'"):
        load().volume_spec("x")


def test_the_overlay_is_merged_over_the_base(load: Load) -> None:
    base = OFFSITE + "log: {level: debug, format: json}\nplans: {n: {volumes: [data], stores: [local]}}\n"
    overlay = (
        "stores: {local: null, off-site: {prefix: prod}}\nlog: {level: null}\n"
        "plans: {n: {stores: [off-site]}, m: {volumes: [data], stores: [off-site]}}\n"
    )
    settings = load(base, overlay)
    assert list(settings.stores) == ["off-site"]
    store = settings.stores["off-site"]
    assert isinstance(store, S3StoreSettings)
    assert (store.bucket, store.prefix) == ("bb", "prod")
    assert (settings.log.level, settings.log.format) == ("info", "json")
    assert settings.plans["n"].stores == ("off-site",)
    origins = settings.origins
    assert origins["stores.off-site.bucket"] == "backupd.yaml"
    assert origins["stores.off-site.prefix"] == "backupd.prod.yaml"
    assert origins["stores.off-site.region"] == "default"
    assert origins["log.level"] == "default"
    assert origins["plans.m.stores"] == "backupd.prod.yaml"


def test_what_a_null_took_away_does_not_come_back(load: Load) -> None:
    """A variable begins the entry anew, whatever the base said about it."""
    settings = load(
        OFFSITE.replace("bucket: bb", "bucket: bb, prefix: old, region: r"),
        "stores: {off-site: null}\nlog: null\n",
        {"BACKUPD_STORES__OFF_SITE__TYPE": "s3", "BACKUPD_STORES__OFF_SITE__BUCKET": "cc"},
    )
    store = settings.stores["off_site"]
    assert isinstance(store, S3StoreSettings)
    assert (store.bucket, store.prefix, store.region) == ("cc", "", None)
    settings = load(MINIMAL, "stores: {local: null}\n", {"BACKUPD_STORES__LOCAL": "{type: s3, bucket: bb}"})
    assert list(settings.stores) == ["local"]
    assert isinstance(settings.stores["local"], S3StoreSettings)


def test_an_overlay_is_named_after_its_base(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(MINIMAL)
    (tmp_path / "x.prod.yml").write_text("threads: 3\n")
    (tmp_path / "backupd.prod.yaml").write_text("threads: 4\n")
    assert load_settings(tmp_path / "x.yml", {"APP_ENV": "prod"}).threads == 3
    assert load_settings(tmp_path / "x.yml", {"APP_ENV": "staging", "BACKUPD_THREADS": "5"}).threads == 5
    assert load_settings(None, {"BACKUPD_CONFIG": str(tmp_path / "x.yml"), "APP_ENV": "prod"}).threads == 3


def test_where_the_base_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("config/backupd.yaml", "named.yaml", "given.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(MINIMAL + f"project: {Path(name).stem}\n")
    assert load_settings(None, {}).project == "backupd"
    assert load_settings(None, {}).origins["project"] == "config/backupd.yaml"
    assert load_settings(None, {"BACKUPD_CONFIG": "named.yaml"}).project == "named"
    assert load_settings(Path("given.yaml"), {"BACKUPD_CONFIG": "named.yaml"}).project == "given"


def test_paths_are_relative_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "config"
    directory.mkdir()
    monkeypatch.chdir("/")
    (directory / "b.yaml").write_text(
        "engine: mounted\nstate_dir: state\nstores: {local: {type: local, path: ../backups}, far: {type: s3, bucket: bb,"
        " ca_bundle: ca.pem}}\nvolumes: {data: {path: data/x}}\n"
    )
    settings = load_settings(directory / "b.yaml", {"BACKUPD_DOCKER__PIPE_DIR": "pipes"})
    assert settings.state_dir == directory / "state"
    assert settings.stores["local"] == LocalStoreSettings(type="local", path=tmp_path / "backups")
    assert show(settings)["stores"]["far"]["ca_bundle"] == str(directory / "ca.pem")
    assert settings.volume_spec("data") == VolumeSpec("data", path=str(directory / "data/x"), said=frozenset({"path"}))
    assert settings.docker.pipe_dir == directory / "pipes"


def test_the_mounted_engine_takes_directories_only(load: Load, problems: Problems) -> None:
    assert problems(MINIMAL, "engine: mounted\n") == [
        "backupd.yaml: volumes.data.volume: the mounted engine knows no Docker volumes: give the directory that it is"
        " mounted at as path (and `volume: null`, if another file sets it)"
    ]
    settings = load(MINIMAL, "engine: mounted\nvolumes: {data: {volume: null, path: /mnt/data}}\n")
    assert settings.volume_spec("data") == VolumeSpec("data", path="/mnt/data", said=frozenset({"path"}))


@pytest.mark.parametrize(
    ("variable", "value", "key", "expected"),
    [
        ("BACKUPD_THREADS", "7", "threads", 7),
        ("BACKUPD_LOG__LEVEL", "DEBUG", "log.level", "debug"),
        ("BACKUPD_PROJECT", "123", "project", "123"),
        ("BACKUPD_STORES__LOCAL__PATH", "/mnt", "stores.local.path", "/mnt"),
        ("BACKUPD_STORES__OFF_SITE__BUCKET", "cc", "stores.off-site.bucket", "cc"),
        ("BACKUPD_STORES__OFF-SITE__READ_TIMEOUT", "2m", "stores.off-site.read_timeout", "2m"),
        ("BACKUPD_STORES__off_site__MAX_ATTEMPTS", "9", "stores.off-site.max_attempts", 9),
        ("BACKUPD_STORES__OFF_SITE__ACCESS_KEY_ID", "", "stores.off-site.access_key_id", None),
        ("BACKUPD_STORES__OFF_SITE", "{bucket: dd}", "stores.off-site.bucket", "dd"),
        ("BACKUPD_VOLUMES__DATA__OPTIONAL", "true", "volumes.data.optional", True),
        ("BACKUPD_VOLUMES__DATA__EXCLUDE", "*.log, a/b", "volumes.data.exclude", ["*.log", "a/b"]),
        ("BACKUPD_VOLUMES__DATA__EXCLUDE", '["a,b"]', "volumes.data.exclude", ["a,b"]),
        ("BACKUPD_VOLUMES__NEW__PATH", "/srv", "volumes.new.path", "/srv"),
        ("BACKUPD_PLANS__N__FULL_EVERY", "always", "plans.n.full_every", "always"),
        ("BACKUPD_PLANS__N__KEEP", '{"last": 2}', "plans.n.keep.last", 2),
    ],
)
def test_variables(load: Load, variable: str, value: str, key: str, expected: object) -> None:
    settings = load(OFFSITE + "plans: {n: {volumes: [data], stores: [local]}}\n", None, {variable: value})
    found = show(settings)
    for name in key.split("."):
        found = found[name]
    assert found == expected
    assert settings.origins[key] == (variable if value else "default")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"BACKUPD_THREDS": "1"}, ["BACKUPD_THREDS: unknown setting; did you mean BACKUPD_THREADS?"]),
        ({"BACKUPD_LOG_LEVEL": ""}, ["BACKUPD_LOG_LEVEL: unknown setting; did you mean BACKUPD_LOG__LEVEL?"]),
        ({"BACKUPD_": "1"}, ["BACKUPD_: unknown setting"]),
        ({"BACKUPD_XYZZY": "1"}, ["BACKUPD_XYZZY: unknown setting"]),
        ({"BACKUPD_THREADS__X": "1"}, ["BACKUPD_THREADS__X: unknown setting; did you mean BACKUPD_THREADS?"]),
        ({"BACKUPD_STORES__OFF_SITE__BUKET": "x"},
         ["BACKUPD_STORES__OFF_SITE__BUKET: unknown setting; did you mean BACKUPD_STORES__OFF_SITE__BUCKET?"]),
        ({"BACKUPD_STORES__NEW__PTH": "x"},
         ["BACKUPD_STORES__NEW__PTH: unknown setting; did you mean BACKUPD_STORES__NEW__PATH?"]),
        ({"BACKUPD_STORES__NEW__PATH": "/x"},
         ["BACKUPD_STORES__NEW__PATH: stores.new.type: the type of the store is missing: expected local or s3"]),
        ({"BACKUPD_STORES__LOCAL__PATH_FILE": "/x"},
         ["BACKUPD_STORES__LOCAL__PATH_FILE: stores.local.path: only secrets and lists are read from files"]),
        ({"BACKUPD_STORES__OFF_SITE__SESSION_TOKEN_FILE": "/nope"},
         ["BACKUPD_STORES__OFF_SITE__SESSION_TOKEN_FILE: stores.off-site.session_token: cannot read /nope:"
          " No such file or directory"]),
        ({"BACKUPD_STORES": "x"}, ["BACKUPD_STORES: stores: expected a mapping, such as {key: value}, not text"]),
        ({"BACKUPD_STORES": "{"}, ["BACKUPD_STORES: stores: line 1, column 9: not valid YAML: expected the node content,"
                                   " but found '<stream end>'"]),
        ({"BACKUPD_THREADS": "x"}, ["BACKUPD_THREADS: threads: expected a whole number, not 'x'"]),
        ({"BACKUPD_VOLUMES__DATA": "{volume: x}", "BACKUPD_VOLUMES__DATA__VOLUM": "y"},
         ["BACKUPD_VOLUMES__DATA__VOLUM: unknown setting; did you mean BACKUPD_VOLUMES__DATA__VOLUME?"]),
        ({"BACKUPD_THREADS": "1", "BACKUPD_Threads": "2"},
         ["BACKUPD_Threads: threads: already set by BACKUPD_THREADS: expected one of them"]),
    ],
)  # fmt: skip
def test_variables_that_are_wrong(problems: Problems, environment: dict[str, str], expected: list[str]) -> None:
    assert problems(OFFSITE, environment=environment) == expected


def test_the_environment_alone_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("backupd.settings.load.DEFAULT_FILES", ())
    settings = load_settings(
        None,
        {"BACKUPD_STORES__LOCAL__TYPE": "local", "BACKUPD_STORES__LOCAL__PATH": "b", "BACKUPD_VOLUMES__A__VOLUME": "a"},
    )
    assert settings.stores["local"] == LocalStoreSettings(type="local", path=tmp_path / "b")


def test_the_environment_alone_is_named_as_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("backupd.settings.load.DEFAULT_FILES", ())
    with pytest.raises(Exception, match="environment: stores: a store is missing"):
        load_settings(None, {"BACKUPD_THREADS": "1"})


@pytest.mark.parametrize("content", ["s3cr3t", "s3cr3t\n", "s3cr3t\r\n"], ids=["bare", "newline", "crlf"])
def test_secrets_from_files(load: Load, tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_bytes(content.encode())
    variable = "BACKUPD_STORES__OFF_SITE__SECRET_ACCESS_KEY_FILE"
    settings = load(OFFSITE, None, {variable: "key", "BACKUPD_STORES__OFF_SITE__ACCESS_KEY_ID": "AKIA"})
    store = settings.stores["off-site"]
    assert isinstance(store, S3StoreSettings)
    assert store.secret_access_key is not None
    assert store.secret_access_key.get_secret_value() == "s3cr3t"
    assert settings.origins["stores.off-site.secret_access_key"] == f"{variable} ({tmp_path / 'key'})"
    assert "s3cr3t" not in repr(settings) + str(settings) + str(show(settings)) + str(settings.origins)
    assert "AKIA" not in repr(settings) + str(show(settings))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n", "which is empty"), (b"", "which is empty"), (b"x" * 70_000, "which is too long"), (b"\xff", "UTF-8 text")],
)
def test_files_that_hold_no_secret(problems: Problems, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "key").write_bytes(content)
    (line,) = problems(OFFSITE, environment={"BACKUPD_STORES__OFF_SITE__SESSION_TOKEN_FILE": "key"})
    assert message in line


def test_a_secret_from_two_variables(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cr3t")
    name = "BACKUPD_STORES__OFF_SITE__SESSION_TOKEN"
    lines = problems(OFFSITE, environment={name: "t0k3n", f"{name}_FILE": "key"})
    assert lines[0] == f"{name}_FILE: stores.off-site.session_token: already set by {name}: expected one of them"


def test_variables_that_contradict_each_other(problems: Problems) -> None:
    lines = problems(environment={"BACKUPD_DOCKER": "{host: {a: 1}}", "BACKUPD_LOG": "{level: [x]}"})
    contradiction = {"BACKUPD_STORES": "{local: 5}", "BACKUPD_STORES__LOCAL__PATH": "/x"}
    assert problems(environment=contradiction) == [
        "BACKUPD_STORES__LOCAL__PATH: stores.local.path: another variable sets a part of this to something else",
        "BACKUPD_STORES: stores.local: expected a mapping, not a number",
    ]
    assert lines == [
        "BACKUPD_DOCKER: docker.host: expected text, not a mapping",
        "BACKUPD_LOG: log.level: expected debug, info, warning or error, not a list",
    ]


def test_settings_from_keywords_obey_the_same_rules() -> None:
    stores = {"local": {"type": "local", "path": "/b"}}
    assert Settings(stores=stores, volumes={"a": {"volume": "a"}}).plan("default").stores == ("local",)
    with pytest.raises(SettingsError, match=r"^volumes\.a: expected exactly one"):
        Settings(stores=stores, volumes={"a": {}})


def test_what_is_shown_loads_again(load: Load, tmp_path: Path) -> None:
    text = OFFSITE + (
        "log: {level: warning}\nplans: {n: {volumes: [data], stores: [local, off-site], full_every: 36h,"
        " keep: {within: 90s, last: 1}}}\n"
    )
    first = load(text)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(show(first)))
    again = load_settings(tmp_path / "again.yaml", {})
    assert again.model_dump() == first.model_dump()
    assert again.plans["n"].keep is not None
    assert again.plans["n"].keep.within == timedelta(seconds=90)


def test_settings_are_frozen(load: Load) -> None:
    settings = load()
    for target, name in ((settings, "threads"), (settings.log, "level"), (settings.stores["local"], "path")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(target, name, None)


def test_settings_import_no_adapter() -> None:
    code = (
        "import sys, backupd.settings;"
        "print([name for name in ('docker', 'boto3', 'botocore', 'backupd.stores', 'backupd.engine', 'loguru', 'rich')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
