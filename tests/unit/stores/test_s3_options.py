"""Options of an S3 store: what is refused, and that secrets stay inside."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from backupd.errors import ConfigError
from backupd.stores import S3Options


def test_secrets_are_not_in_the_repr() -> None:
    options = S3Options(bucket="b", access_key_id="id-x", secret_access_key="secret-x", session_token="token-x")
    assert "-x" not in repr(options)


@pytest.mark.parametrize(("prefix", "expected"), [("", ""), ("/", ""), ("a", "a/"), ("/a/b/", "a/b/")])
def test_the_prefix_gets_one_slash(prefix: str, expected: str) -> None:
    assert S3Options(bucket="b", prefix=prefix).key_prefix == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"prefix": "a//b"},
        {"prefix": "../a"},
        {"part_size_bytes": 5 * 1024 * 1024 - 1},
        {"part_size_bytes": 2**31},
        {"max_attempts": 0},
        {"upload_threads": 0},
        {"access_key_id": "only"},
        {"secret_access_key": "only"},
        {"endpoint_url": "localhost:9000"},
        {"endpoint_url": "https://user:password@host"},
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        S3Options(bucket="b", **changes)
    assert "password@" not in str(caught.value)


def test_local_users_do_not_pay_for_boto3() -> None:
    code = "import sys, backupd.stores; assert not {'boto3', 'botocore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    subprocess.run([sys.executable, "-c", "from backupd.stores import S3Store; S3Store.__name__"], check=True)
