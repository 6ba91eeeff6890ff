"""What boto3 and the servers say, as backupd's errors. Messages name store, bucket and endpoint, and hold no secret."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import urllib3.exceptions
from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

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
from backupd.stores.s3.options import S3Options

_DENIED_HINTS = {
    "InvalidAccessKeyId": "the server does not know this access key id",
    "SignatureDoesNotMatch": "the secret access key does not belong to the access key id",
    "RequestTimeTooSkewed": "this machine's clock and the server's differ too much",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "InvalidObjectState": "the object lies in an archive tier: bring it back first",
}
_AWAY = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestTimeout", "OperationAborted"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "StorageFull", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_KINDS: Sequence[tuple[Collection[str], Collection[int], type[BackupdError]]] = (
    ({"NoSuchKey", "NotFound", "404"}, {}, ObjectNotFound),
    ({"PreconditionFailed", "ConditionalRequestConflict"}, {412}, ObjectExists),
    ({"InvalidRange"}, {416}, IntegrityError),
    (_FULL, {507}, StoreFull),
    (_DENIED_HINTS, {401, 403}, StoreDenied),
    (_AWAY, {429, 500, *range(502, 505), *range(506, 600)}, StoreUnavailable),
    ((), range(1000), StoreError),
)
"""Codes and HTTP statuses, and what they mean; the first line that fits counts."""

_OTHER_HINTS = {
    "AuthorizationHeaderMalformed": "check the region of the store",
    "PermanentRedirect": "check the region and the endpoint of the store",
    "IllegalLocationConstraintException": "check the region of the store",
    "EntityTooLarge": "the server has a limit on the size of a request: lower the part size",
}
_NO_SSE = {"InvalidRequest", "InvalidArgument", "NotImplemented"}  # Ceph RGW 16: the first
_NO_LOCK = {"InvalidRequest", "InvalidBucketState", "ObjectLockConfigurationNotFoundError", "NotImplemented"}
_UNREACHABLE = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    urllib3.exceptions.HTTPError,
)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.LoginError,
)


@contextmanager
def s3_errors(store: str, options: S3Options, action: str) -> Iterator[None]:
    """Raise what goes wrong inside as a BackupdError, from its cause."""
    try:
        yield
    except ClientError as exc:
        raise _from_server(exc, f"store {store}: {action}", options) from exc
    except (BotoCoreError, urllib3.exceptions.HTTPError, ValueError) as exc:
        raise _from_client(exc, f"store {store}: {action}", options) from exc


def code_of(error: BaseException) -> str:
    """The server's code behind an error from `s3_errors`, empty if it did not come from the server."""
    cause = error.__cause__
    return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""


def status_of(error: BaseException) -> int:
    """The HTTP status behind an error from `s3_errors`, 0 if it did not come from the server."""
    cause = error.__cause__
    return _status(cause) if isinstance(cause, ClientError) else 0


def _status(exc: ClientError) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _from_server(exc: ClientError, what: str, options: S3Options) -> BackupdError:
    error = exc.response.get("Error", {})
    code, status = str(error.get("Code", "")), _status(exc)
    said = _without_secrets(" ".join(str(error.get("Message") or "").split()), options)
    if code == "NoSuchBucket":
        return no_bucket(what, options)
    kind = next(kind for codes, statuses, kind in _KINDS if code in codes or status in statuses)
    message = f"{what}: {code or status}" + (f": {said}" if said and said != code else "")
    if kind is ObjectNotFound:
        return ObjectNotFound(f"{what}: no such object")
    if kind is StoreUnavailable:
        return StoreUnavailable(f"{message} (from {options.endpoint})")
    if kind is StoreDenied:
        hint = f"check the credentials and what they may do in the bucket {options.bucket}"
        return StoreDenied(message, hint=_DENIED_HINTS.get(code, hint))
    return kind(message, hint=_hint(code, options))


def _hint(code: str, options: S3Options) -> str | None:
    if options.lock and code in _NO_LOCK:
        return f"was the bucket {options.bucket} made with object lock? It cannot be added to all"
    if options.sse and code in _NO_SSE:
        return f"it may be `sse: {options.sse}` that the server does not know"
    return _OTHER_HINTS.get(code)


def no_bucket(what: str, options: S3Options) -> StoreError:
    """The error for a bucket that does not exist."""
    hint = f"create the bucket {options.bucket} at {options.endpoint}, or correct its name"
    return StoreError(f"{what}: there is no bucket {options.bucket}", hint=hint)


def _from_client(exc: Exception, what: str, options: S3Options) -> BackupdError:
    kind = type(exc).__name__
    if isinstance(exc, _NO_CREDENTIALS):
        return StoreDenied(f"{what}: no usable credentials ({kind})", hint="set access_key_id and secret_access_key")
    if isinstance(exc, boto.ProfileNotFound):
        return StoreDenied(f"{what}: there is no profile {options.profile} on this machine")
    if isinstance(exc, boto.FlexibleChecksumError):
        return IntegrityError(f"{what}: the checksum of what arrived is wrong")
    if isinstance(exc, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(exc):
        hint = "set ca_bundle to the PEM file of the authority that signed it"
        return StoreError(f"{what}: the certificate of {options.endpoint} is not trusted", hint=hint)
    if isinstance(exc, _UNREACHABLE):
        hint = "is the endpoint right, and does the server answer?"
        return StoreUnavailable(f"{what}: {options.endpoint} does not answer as it should ({kind})", hint=hint)
    return StoreError(f"{what}: {_without_secrets(str(exc), options)}")


def _without_secrets(text: str, options: S3Options) -> str:
    for secret in (options.secret_access_key, options.session_token, options.access_key_id):
        if secret:
            text = text.replace(secret, "***")
    return text
