# ruff: noqa: ISC004, E501  (a table)
"""Every mistake is told with its file, its key and what was expected; all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backupd.errors import ConfigError
from backupd.settings import load_settings
from tests.unit.settings.conftest import MINIMAL

S3 = "stores.offsite: {type: s3, bucket: backups"
SECRET = "hunter2-hunter2"


def _config(dotted: str) -> str:
    """MINIMAL with `a.b: value` put in."""
    key, _, value = dotted.partition(": ")
    head, *rest = key.split(".")
    inner = "".join(f"{'  ' * (depth + 1)}{name}:\n" for depth, name in enumerate(rest[:-1]))
    if not rest:
        return f"{MINIMAL}{head}: {value}\n"
    line = f"{'  ' * len(rest)}{rest[-1]}: {value}\n"
    start = f"{head}:\n"
    return MINIMAL.replace(start, start + inner + line) if start in MINIMAL else MINIMAL + start + inner + line


PLAN = "plans.n: {volumes: [data], stores: [local]"

CASES = [
    ("projct: a", "projct: unknown key; did you mean project?"),
    ("project: Contra Vento", "project: expected the name of a Compose project: lower-case letters, digits, `_` and `-`"),
    ("project: 7", "project: expected text, not 7: put it in quotes"),
    ("engine: dokcer", "engine: expected docker or mounted, not 'dokcer'; did you mean docker?"),
    ("threads: 0", "threads: expected at least 1, not 0"),
    ("threads: 65", "threads: expected at most 64, not 65"),
    ("threads: many", "threads: expected a whole number, not 'many'"),
    ("threads: true", "threads: expected a whole number, not true"),
    ("threads: 1.5", "threads: expected a whole number, not 1.5"),
    ("state_dir: ''", "state_dir: expected a path, not an empty text"),
    ("state_dir: ~/x", "state_dir: expected a path, not '~/x': `~` is not expanded, write the directory out"),
    ("log: loud", "log: expected a mapping, not text"),
    ("log: {level: loud}", "log.level: expected debug, info, warning or error, not 'loud'"),
    ("log: {levl: info}", "log.levl: unknown key; did you mean level?"),
    ("docker: {memory_limit: 512m}", "docker.memory_limit: expected a size such as 64MiB, 1GiB or 500MB, not '512m'"),
    ("docker: {memory_limit: 1MiB}", "docker.memory_limit: expected at least 64MiB, not 1MiB"),
    ("encryption: {recipients: [age1x]}",
     "encryption.recipients.0: not a valid public key (age1…, ssh-ed25519 … or ssh-rsa …): invalid Bech32 encoding"),
    ("encryption: {recipients: [me@example.org]}",
     "encryption.recipients.0: expected a public key (age1…, ssh-ed25519 … or ssh-rsa …)"),
    ("encryption: {recipients: [AGE-SECRET-KEY-1ABC]}",
     "encryption.recipients.0: this is a secret key: expected the public key that belongs to it"),
    ("trust: {signers: ['ed25519:12']}",
     "trust.signers.0: expected a signer's public key: ed25519: and 64 hex digits, as `backupd trust` prints it"),
    ("stores.Bad: {type: local, path: /b}",
     "stores.Bad: not a name: expected lower-case letters, digits, `_`, `.` and `-`, a letter or digit first,"
     " at most 63 characters"),
    ("stores.x: {path: /b}", "stores.x.type: the type of the store is missing: expected local or s3"),
    ("stores.x: {type: S3}", "stores.x.type: expected local or s3, not 'S3'; did you mean s3?"),
    ("stores.x: {type: [s3]}", "stores.x.type: expected local or s3, not a list"),
    (f"{S3}, endpoint_url: 'http://['}}",
     "stores.offsite.endpoint_url: expected a URL such as https://s3.example.org:9000, without a user name or password in it"),
    (f"{S3}, region: 2024-01-01}}", "stores.offsite.region: expected text, not a date"),
    ("volumes.x: {volume: a, exclude: ['']}",
     "volumes.x.exclude.0: '' names no file: expected a shell pattern such as *.log or cache/tmp"),
    ("stores.x: /b", "stores.x: expected a mapping, not text"),
    ("stores.x: {type: local}", "stores.x.path: a directory is missing"),
    ("stores.x: {type: local, path: /b, pth: /c}", "stores.x.pth: unknown key; did you mean path?"),
    ("stores.offsite: {type: s3}", "stores.offsite.bucket: a bucket name is missing"),
    ("stores.offsite: {type: s3, bucket: }", "stores.offsite.bucket: a bucket name is missing"),
    ("stores.offsite: {type: s3, bucket: 's3://b'}",
     "stores.offsite.bucket: expected the bare name of a bucket, such as contravento-backups"),
    (f"{S3}, bukcet: b}}", "stores.offsite.bukcet: unknown key; did you mean bucket?"),
    (f"{S3}, prefix: a/../b}}",
     "stores.offsite.prefix: expected a prefix such as prod or teams/web, without empty, `.` or `..` parts"),
    (f"{S3}, endpoint_url: s3.example.org}}",
     "stores.offsite.endpoint_url: expected a URL such as https://s3.example.org:9000, without a user name or password"
     " in it"),
    (f"{S3}, part_size: 1MiB}}", "stores.offsite.part_size: expected at least 5MiB, not 1MiB"),
    (f"{S3}, part_size: 2GiB}}", "stores.offsite.part_size: expected at most 1GiB, not 2GiB"),
    (f"{S3}, connect_timeout: 10}}",
     "stores.offsite.connect_timeout: expected a duration such as 90s, 15m, 12h, 7d or 2w, not 10: the unit is missing"),
    (f"{S3}, access_key_id: a}}",
     "stores.offsite.secret_access_key: is missing: access_key_id and secret_access_key come together, or not at all"),
    (f"{S3}, session_token: a}}", "stores.offsite.session_token: needs access_key_id and secret_access_key"),
    (f"{S3}, access_key_id: a, secret_access_key: b, profile: c}}",
     "stores.offsite.profile: expected either a profile or access_key_id and secret_access_key, not both"),
    (f"{S3}, sse: AES256, sse_kms_key_id: k}}", "stores.offsite.sse_kms_key_id: needs `sse: aws:kms`"),
    (f"{S3}, sse: kms}}", "stores.offsite.sse: expected AES256 or aws:kms, not 'kms'; did you mean aws:kms?"),
    (f"{S3}, region: ' '}}", "stores.offsite.region: expected text, not an empty one"),
    ("volumes.x: {}",
     "volumes.x: expected exactly one of volume (a Docker volume) and path (a directory), not neither"),
    ("volumes.x: {volume: a, path: /b}",
     "volumes.x: expected exactly one of volume (a Docker volume) and path (a directory), not both"),
    ("volumes.x: {path: data}", "volumes.x.path: expected an absolute path, not 'data'"),
    ("volumes.x: {volume: a, optional: maybe}", "volumes.x.optional: expected true or false, not 'maybe'"),
    ("volumes.x: {volume: a, exclude: '*.log'}", "volumes.x.exclude: expected a list, not text"),
    ("volumes.x: {volume: a, exclude: [./]}",
     "volumes.x.exclude.0: './' names no file: expected a shell pattern such as *.log or cache/tmp"),
    ("volumes.x: {volume: a, consistency: liev}",
     "volumes.x.consistency: expected auto, live, pause, stop, postgres, redis or sqlite, not 'liev'; did you mean live?"),
    ("volumes.x: {volume: a, pre: [{command: x}]}", "volumes.x.pre.0.service: a value is missing"),
    ("volumes.x: {volume: a, post: [{service: a, command: []}]}",
     "volumes.x.post.0.command: expected a command: text for the shell, or a list of a program and its arguments"),
    ("volumes.x: {volume: a, pre: [{service: a, command: b, timeout: 5}]}",
     "volumes.x.pre.0.timeout: expected a duration such as 90s, 15m, 12h, 7d or 2w, not 5: the unit is missing"),
    ("plans.n: {volumes: [], stores: [local]}", "plans.n.volumes: at least one volume is missing"),
    ("plans: []", "plans: expected a mapping, not a list"),
    ("plans.safety: {volumes: [data], stores: [local]}",
     "plans.safety: a plan cannot be called 'safety': the word is reserved"),
    ("plans.n: {stores: [local]}", "plans.n.volumes: a list of volumes is missing"),
    ("plans.n: {volumes: [data], stores: []}", "plans.n.stores: at least one store is missing"),
    ("plans.n: {volumes: [dta], stores: [local]}", "plans.n.volumes: there is no volume 'dta'; did you mean data?"),
    ("plans.n: {volumes: [data], stores: [s3]}", "plans.n.stores: there is no store 's3'"),
    ("plans.n: {volumes: [data, data], stores: [local]}", "plans.n.volumes: the volume 'data' is named twice"),
    ("plans.n: {volumes: [1], stores: [local]}", "plans.n.volumes.0: expected text, not 1: put it in quotes"),
    (f"{PLAN}, schedule: 0 25 * * *}}", "plans.n.schedule: the hour field of the schedule takes 0 to 23, not '25'"),
    (f"{PLAN}, timezone: Mars/Base}}", "plans.n.timezone: expected a time zone such as Europe/Madrid, not 'Mars/Base'"),
    (f"{PLAN}, compression: lz4}}", "plans.n.compression: expected zstd, gzip or none, not 'lz4'"),
    (f"{PLAN}, compression_level: 23}}", "plans.n.compression_level: expected at most 22, not 23"),
    (f"{PLAN}, compression: gzip, compression_level: 10}}",
     "plans.n.compression_level: expected a level from 1 to 9 for gzip"),
    (f"{PLAN}, compression: none, compression_level: 1}}",
     "plans.n.compression_level: `compression: none` has no levels"),
    (f"{PLAN}, full_every: weekly}}",
     "plans.n.full_every: expected always, never or a duration such as 90s, 15m, 12h, 7d or 2w, not 'weekly'"),
    (f"{PLAN}, keep: {{}}}}", "plans.n.keep: expected at least one of last, hourly, daily, weekly, monthly, yearly, within"),
    (f"{PLAN}, keep: {{at_least: 2}}}}",
     "plans.n.keep: expected at least one of last, hourly, daily, weekly, monthly, yearly, within"),
    (f"{PLAN}, keep: {{daily: 0}}}}", "plans.n.keep.daily: expected at least 1, not 0"),
    (f"{PLAN}, keep: {{within: 1y}}}}",
     "plans.n.keep.within: expected a duration such as 90s, 15m, 12h, 7d or 2w, not '1y'"),
]  # fmt: skip


@pytest.mark.parametrize(("dotted", "expected"), CASES)
def test_one_mistake(problems: Callable[..., list[str]], dotted: str, expected: str) -> None:
    assert problems(_config(dotted)) == [f"backupd.yaml: {expected}"]


def test_all_at_once_each_with_its_file(problems: Callable[..., list[str]]) -> None:
    lines = problems(
        MINIMAL + "threads: x\nplans: {n: {volumes: [nope], stores: [local]}}\n",
        "stores: {offsite: {type: s3}}\nthreds: 1\n",
        {"BACKUPD_LOG__LEVEL": "loud", "BACKUPD_LGO__LEVEL": "info"},
    )
    assert sorted(lines) == sorted([
        "backupd.yaml: threads: expected a whole number, not 'x'",
        "backupd.yaml: plans.n.volumes: there is no volume 'nope'",
        "backupd.prod.yaml: stores.offsite.bucket: a bucket name is missing",
        "backupd.prod.yaml: threds: unknown key; did you mean threads?",
        "BACKUPD_LOG__LEVEL: log.level: expected debug, info, warning or error, not 'loud'",
        "BACKUPD_LGO__LEVEL: unknown setting; did you mean BACKUPD_LOG__LEVEL?",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\nb: 2\n", "backupd.yaml: line 2, column 2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 'x\n", "backupd.yaml: line 2, column 1: not valid YAML: found unexpected end of stream"),
        ("a: b: c\n", "backupd.yaml: line 1, column 5: not valid YAML: mapping values are not allowed here"),
        ("\ta: 1\n", "backupd.yaml: line 1, column 1: not valid YAML: found character '\\t' that cannot start any token"),
        (f"a: *{SECRET}\n", "backupd.yaml: line 1, column 4: not valid YAML: found undefined alias …;"
         " quote a value that begins with one of & * ! %"),
        (f"a: !{SECRET} 1\n", "backupd.yaml: line 1, column 4: not valid YAML: could not determine a constructor for"
         " the tag …; quote a value that begins with one of & * ! %"),
        ("- a\n", "backupd.yaml: expected a mapping (`key: value` lines), not a list"),
        ("just text\n", "backupd.yaml: expected a mapping (`key: value` lines), not text"),
        ("a: 2024-99-99\n", "backupd.yaml: not valid YAML: a date, number or nesting that cannot be"),
        ("[" * 500, "backupd.yaml: not valid YAML: a date, number or nesting that cannot be"),
        ("a: 1\n---\nb: 1\n", "backupd.yaml: line 2, column 1: not valid YAML: but found another document"),
    ],
)  # fmt: skip
def test_syntax(problems: Callable[..., list[str]], text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_syntax_errors_of_both_files_and_variables_come_together(problems: Callable[..., list[str]]) -> None:
    lines = problems("a: [", "b: [", {"BACKUPD_TREADS": "1"})
    assert [line.split(":")[0] for line in lines] == ["backupd.yaml", "backupd.prod.yaml", "BACKUPD_TREADS"]
    assert lines[-1].endswith("did you mean BACKUPD_THREADS?")


def test_repeated_keys(problems: Callable[..., list[str]]) -> None:
    text = MINIMAL + "log: {level: info, level: debug}\nlog: {}\n"
    assert problems(text) == [
        "backupd.yaml: log.level: given twice, again in line 5, column 20",
        "backupd.yaml: log: given twice, again in line 6, column 1",
    ]


def test_merge_keys_and_anchors_are_no_repetition(load: Callable[..., object]) -> None:
    load(MINIMAL + "plans:\n  a: &a {volumes: [data], stores: [local], schedule: '@daily'}\n"
         "  b: {<<: *a, schedule: '@weekly'}\n")  # fmt: skip


def test_keys_that_are_not_text(problems: Callable[..., list[str]]) -> None:
    assert problems(MINIMAL + "1: a\nlog: {on: x}\n") == [
        "backupd.yaml: the key 1 is not text: put it in quotes",
        "backupd.yaml: log: the key true is not text: put it in quotes",
    ]


def test_a_mapping_that_contains_itself(problems: Callable[..., list[str]]) -> None:
    assert problems(MINIMAL + "docker: &d {host: *d}\n") == [
        "backupd.yaml: docker.host: refers to a mapping that it is in"
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "null\n"])
def test_empty_file(problems: Callable[..., list[str]], text: str) -> None:
    assert problems(text) == ["backupd.yaml: stores: a store is missing", "backupd.yaml: volumes: a volume is missing"]


def test_empty_tables(problems: Callable[..., list[str]]) -> None:
    assert problems("stores: {}\nvolumes: {}\n") == [
        "backupd.yaml: stores: at least one store is missing",
        "backupd.yaml: volumes: at least one volume is missing",
    ]


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("directory.yaml").mkdir()
    Path("latin.yaml").write_bytes(b"a: \xe9\n")
    cases = [
        (Path("no.yaml"), {}, "there is no such file: no.yaml"),
        (Path("no/no.yaml"), {}, "there is no such file: no/no.yaml"),
        (None, {"BACKUPD_CONFIG": "no.yaml"}, "BACKUPD_CONFIG: there is no such file: no.yaml"),
        (Path("directory.yaml"), {}, "directory.yaml: expected a file, not a directory (Docker makes one where a"),
        (Path("latin.yaml"), {}, "latin.yaml: expected UTF-8 text; byte 3 is not"),
    ]
    for path, environment, expected in cases:
        with pytest.raises(ConfigError) as error:
            load_settings(path, environment)
        assert str(error.value).startswith(expected)
        assert "\n" not in str(error.value)


def test_a_file_that_may_not_be_read(problems: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert problems() == ["backupd.yaml: cannot be read: Permission denied"]


def test_no_configuration_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("backupd.settings.load.DEFAULT_FILES", (Path("a.yaml"), Path("b.yaml")))
    with pytest.raises(ConfigError) as error:
        load_settings(None, {})
    assert str(error.value) == "there is no configuration: looked for a.yaml and b.yaml, and for BACKUPD_… variables"


@pytest.mark.parametrize("name", ["../prod", "a/b", ".", "a b"])
def test_app_env_is_a_name(problems: Callable[..., list[str]], name: str) -> None:
    assert problems(environment={"APP_ENV": name}) == [f"APP_ENV: expected a name such as prod, not {name!r}"]


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        (f"{S3}, access_key_id: AKIA, secret_access_key: [{SECRET}]}}", {}),
        (f"{S3}, access_key_id: AKIA, secret_acess_key: {SECRET}}}", {}),
        (f"{S3}, access_key_id: AKIA, secret_access_key: {SECRET}, sse: {SECRET}}}", {}),
        (f"{S3}, secret_access_key: {SECRET}}}", {}),
        (f"{S3}, endpoint_url: 'https://user:{SECRET}@host'}}", {}),
        ("threads: x", {"BACKUPD_STORES__LOCAL": "{type: s3, secret_access_key: *" + SECRET + "}"}),
        ("threads: x", {"BACKUPD_STORES__OFFSITE__SECRET_ACESS_KEY": SECRET}),
        ("threads: x", {"BACKUPD_STORES": SECRET}),
    ],
)
def test_no_message_holds_a_secret(problems: Callable[..., list[str]], text: str, environment: dict[str, str]) -> None:
    assert not any(SECRET in line for line in problems(_config(text), environment=environment))


def test_a_number_as_a_secret_is_not_shown(problems: Callable[..., list[str]]) -> None:
    text = _config(f"{S3}, access_key_id: 12345678, secret_access_key: x}}")
    assert problems(text) == [
        "backupd.yaml: stores.offsite.access_key_id: expected text, not a number: put it in quotes"
    ]
