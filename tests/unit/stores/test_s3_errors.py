"""What each answer of an S3 server means."""

from __future__ import annotations

from datetime import timedelta

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError
from msgspec.structs import replace

from backupd.errors import (
    BackupdError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from backupd.model import LockPolicy
from backupd.stores.s3.errors import code_of, s3_errors, status_of
from backupd.stores.s3.options import S3Options

OPTIONS = S3Options(
    bucket="backups", endpoint_url="https://s3.example:9000", access_key_id="id-123", secret_access_key="hush-456"
)


def translate(exc: Exception) -> BackupdError:
    with pytest.raises(BackupdError) as caught, s3_errors("offsite", OPTIONS, "reading a"):
        raise exc
    return caught.value


def answer(code: str, status: int, message: str = "said") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetObject",
    )


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, ObjectNotFound),
        ("404", 404, ObjectNotFound),
        ("NoSuchBucket", 404, StoreError),
        ("NoSuchUpload", 404, StoreError),
        ("PreconditionFailed", 412, ObjectExists),
        ("412", 412, ObjectExists),
        ("ConditionalRequestConflict", 409, ObjectExists),
        ("OperationAborted", 409, StoreUnavailable),
        ("InvalidRange", 416, IntegrityError),
        ("416", 416, IntegrityError),
        ("AccessDenied", 403, StoreDenied),
        ("403", 403, StoreDenied),
        ("InvalidAccessKeyId", 403, StoreDenied),
        ("SignatureDoesNotMatch", 403, StoreDenied),
        ("RequestTimeTooSkewed", 403, StoreDenied),
        ("ExpiredToken", 400, StoreDenied),
        ("Unauthorized", 401, StoreDenied),
        ("SlowDown", 503, StoreUnavailable),
        ("InternalError", 500, StoreUnavailable),
        ("502", 502, StoreUnavailable),
        ("504", 504, StoreUnavailable),
        ("522", 522, StoreUnavailable),
        ("RequestTimeout", 400, StoreUnavailable),
        ("TooManyRequests", 429, StoreUnavailable),
        ("InsufficientStorage", 507, StoreFull),
        ("QuotaExceeded", 403, StoreFull),
        ("XMinioStorageFull", 507, StoreFull),
        ("NotImplemented", 501, StoreError),
        ("AuthorizationHeaderMalformed", 400, StoreError),
        ("PermanentRedirect", 301, StoreError),
        ("EntityTooLarge", 400, StoreError),
        ("SomethingNew", 418, StoreError),
    ],
)
def test_answers(code: str, status: int, kind: type[BackupdError]) -> None:
    cause = answer(code, status)
    error = translate(cause)
    assert type(error) is kind
    assert error.__cause__ is cause
    assert (code_of(error), status_of(error)) == (code, status)
    assert str(error).startswith("store offsite: reading a: ")


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (boto.NoCredentialsError(), StoreDenied),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), StoreDenied),
        (boto.ProfileNotFound(profile="x"), StoreDenied),
        (boto.EndpointConnectionError(endpoint_url="x"), StoreUnavailable),
        (boto.ConnectTimeoutError(endpoint_url="x"), StoreUnavailable),
        (boto.ReadTimeoutError(endpoint_url="x"), StoreUnavailable),
        (boto.ConnectionClosedError(endpoint_url="x"), StoreUnavailable),
        (boto.ProxyConnectionError(proxy_url="x"), StoreUnavailable),
        (boto.SSLError(endpoint_url="x", error=OSError("EOF occurred")), StoreUnavailable),
        (boto.SSLError(endpoint_url="x", error=OSError("CERTIFICATE_VERIFY_FAILED")), StoreError),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), StoreUnavailable),
        (boto.FlexibleChecksumError(error_msg="x"), IntegrityError),
        (boto.ParamValidationError(report="x"), StoreError),
        (ValueError("Invalid endpoint"), StoreError),
    ],
)
def test_failures_without_an_answer(exc: Exception, kind: type[BackupdError]) -> None:
    error = translate(exc)
    assert type(error) is kind
    assert (code_of(error), status_of(error)) == ("", 0)
    if kind is StoreUnavailable:
        assert "https://s3.example:9000" in str(error)


def test_hints_help() -> None:
    assert "backups at https://s3.example:9000" in str(translate(answer("NoSuchBucket", 404)).hint)
    assert "clock" in str(translate(answer("RequestTimeTooSkewed", 403)).hint)
    assert "region" in str(translate(answer("PermanentRedirect", 301)).hint)
    assert "backups" in str(translate(answer("AccessDenied", 403)).hint)


def test_messages_are_one_line_without_secrets() -> None:
    error = translate(answer("AccessDenied", 403, "key id-123\nsecret hush-456 refused"))
    assert str(error) == "store offsite: reading a: AccessDenied: key *** secret *** refused"


def test_an_answer_without_a_word() -> None:
    """Ceph RGW says nothing but the code."""
    cause = ClientError({"Error": {"Code": "InvalidRequest", "Message": None}}, "PutObject")  # type: ignore[typeddict-item]
    assert str(translate(cause)) == "store offsite: reading a: InvalidRequest"


@pytest.mark.parametrize(("lock", "hint"), [(None, "`sse: AES256`"), (LockPolicy("governance", timedelta(1)), "lock")])
def test_a_setting_that_the_server_may_not_know(lock: LockPolicy | None, hint: str) -> None:
    options = replace(OPTIONS, sse="AES256", lock=lock)
    with pytest.raises(StoreError) as caught, s3_errors("offsite", options, "writing a"):
        raise answer("InvalidRequest", 400)
    assert hint in str(caught.value.hint)
