"""S3 servers that lack something or fail: what the store finds out, works around, retries and gives up on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from backupd.errors import (
    BackupdError,
    ConfigError,
    IntegrityError,
    ObjectExists,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from backupd.stores.s3 import S3Store
from backupd.stores.s3.client import Found
from backupd.wiring import SystemClock
from tests.support import s3_proxy
from tests.support.s3 import MIB, S3Server
from tests.support.s3_proxy import Action, Answer, CutAnswer, CutRequest, Proxy, Request, Rule, times

pytestmark = pytest.mark.s3

MakeStore = Callable[..., S3Store]


@pytest.fixture
def proxy(seaweedfs_s3: S3Server) -> Iterator[Proxy]:
    with s3_proxy.running(seaweedfs_s3.endpoint_url) as running:
        yield running


@pytest.fixture
def store(proxy: Proxy, seaweedfs_s3: S3Server, make_s3_store: MakeStore) -> S3Store:
    return make_s3_store(seaweedfs_s3, endpoint_url=proxy.endpoint_url)


@pytest.fixture
def lenient_proxy(moto_s3: S3Server) -> Iterator[Proxy]:
    """In front of moto, which checks no signatures: headers can be taken away."""
    with s3_proxy.running(moto_s3.endpoint_url) as running:
        yield running


@pytest.fixture
def lenient_store(lenient_proxy: Proxy, moto_s3: S3Server, make_s3_store: MakeStore) -> S3Store:
    return make_s3_store(moto_s3, endpoint_url=lenient_proxy.endpoint_url)


def write(store: S3Store, key: str, data: bytes) -> None:
    with store.create(key) as writer:
        writer.write(data)
        writer.commit()


def die_while_writing(store: S3Store, key: str) -> None:
    with store.create(key) as writer:
        writer.write(bytes(6 * MIB))
        raise RuntimeError("the source died")


def on(method: str, action: Action, part: str = "") -> Rule:
    """A rule for requests of that method whose path holds `part`."""
    return lambda request: action if request.method == method and part in request.path else None


# --- what servers lack ---


def forget_condition(request: Request) -> None:
    request.drop("If-None-Match")


def test_an_ignored_condition_is_found_out_and_worked_around(lenient_proxy: Proxy, lenient_store: S3Store) -> None:
    lenient_proxy.rules.append(forget_condition)
    assert not lenient_store.facts().conditional_create
    assert lenient_store.facts().details["create only if absent"] == "ignored by the server"
    lenient_store.put("a", b"first")
    with pytest.raises(ObjectExists):
        lenient_store.put("a", b"second")
    write(lenient_store, "b", os.urandom(6 * MIB))
    with pytest.raises(ObjectExists):
        write(lenient_store, "b", os.urandom(6 * MIB))
    with pytest.raises(ObjectExists):
        write(lenient_store, "a", b"small")
    assert lenient_store.read("a") == b"first"
    assert [info.key for info in lenient_store.list()] == ["a", "b"]


def test_without_conditions_an_overwritten_object_is_noticed(lenient_proxy: Proxy, lenient_store: S3Store) -> None:
    lenient_proxy.rules.append(forget_condition)
    assert not lenient_store.facts().conditional_create
    other = S3Store("other", lenient_store._options, SystemClock())
    other.facts()
    once = [True]

    def overwrite(request: Request) -> None:
        # Another writer comes after this one's PUT and before it looks at what it wrote.
        if once and request.method == "HEAD" and lenient_proxy.count("PUT", "/race"):
            once.clear()
            other._bucket.put("race", b"theirs", mark="theirs", absent=False)

    lenient_proxy.rules.append(overwrite)
    with pytest.raises(ObjectExists, match="by another"):
        lenient_store.put("race", b"ours")
    assert lenient_store.read("race") == b"theirs"
    other.close()


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_a_refused_condition_is_worked_around(proxy: Proxy, store: S3Store, status: int, code: str) -> None:
    proxy.rules.append(lambda request: Answer(status, code) if request.has("If-None-Match") else None)
    assert not store.facts().conditional_create
    assert code in store.facts().details["create only if absent"]
    store.put("a", b"first")
    with pytest.raises(ObjectExists):
        store.put("a", b"second")
    write(store, "b", os.urandom(6 * MIB))
    assert store.stat("b").size == 6 * MIB


def test_a_condition_refused_only_for_multipart_is_worked_around(proxy: Proxy, store: S3Store) -> None:
    proxy.rules.append(
        lambda request: (
            Answer(501, "NotImplemented") if request.has("If-None-Match") and request.method == "POST" else None
        )
    )
    assert store.facts().conditional_create
    for key in ("a", "b"):
        write(store, key, os.urandom(6 * MIB))
    conditions = [
        request.has("If-None-Match")
        for request in proxy.seen
        if request.method == "POST" and "uploadId" in request.query
    ]
    assert conditions == [True, False, False]
    with pytest.raises(ObjectExists):
        write(store, "a", os.urandom(6 * MIB))


@pytest.mark.parametrize(
    ("status", "code"),
    [(411, "MissingContentLength"), (501, "NotImplemented"), (400, "InvalidRequest"), (403, "SignatureDoesNotMatch")],
)
def test_refused_checksums_are_left_out(proxy: Proxy, store: S3Store, status: int, code: str) -> None:
    proxy.rules.append(lambda request: Answer(status, code) if request.has("x-amz-checksum-crc") else None)
    data = os.urandom(11 * MIB)
    write(store, "a", data)
    assert store.read("a") == data
    facts = store.facts()
    assert facts.conditional_create
    assert code in facts.details["checksums"]
    refused = [request for request in proxy.seen if request.has("x-amz-checksum-crc")]
    assert len(refused) == 1


def test_checksums_that_were_asked_for_are_not_left_out(
    proxy: Proxy, seaweedfs_s3: S3Server, make_s3_store: MakeStore
) -> None:
    proxy.rules.append(lambda request: Answer(400, "InvalidRequest") if request.has("x-amz-checksum") else None)
    store = make_s3_store(seaweedfs_s3, endpoint_url=proxy.endpoint_url, checksum="when_supported")
    with pytest.raises(StoreError, match="InvalidRequest"):
        store.put("a", b"x")


def test_checksums_can_be_left_out_from_the_start(
    proxy: Proxy, seaweedfs_s3: S3Server, make_s3_store: MakeStore
) -> None:
    store = make_s3_store(seaweedfs_s3, endpoint_url=proxy.endpoint_url, checksum="when_required")
    write(store, "a", os.urandom(6 * MIB))
    assert not any(request.has("x-amz-checksum") or request.has("x-amz-sdk-checksum") for request in proxy.seen)


def test_denied_deletes_are_a_fact_not_an_error(proxy: Proxy, store: S3Store) -> None:
    proxy.rules.append(on("DELETE", Answer(403, "AccessDenied")))
    assert store.facts().details["delete"] == "denied with AccessDenied"
    store.put("a", b"x")
    with pytest.raises(StoreDenied, match="AccessDenied"):
        store.delete("a")
    assert store.read("a") == b"x"


def test_a_server_that_ignores_ranges_is_found_out(lenient_proxy: Proxy, lenient_store: S3Store) -> None:
    lenient_store.put("a", b"0123456789")
    lenient_proxy.rules.append(lambda request: request.drop("Range"))
    assert lenient_store.read("a", 0, 10) == b"0123456789"
    for offset, length in [(0, 5), (5, 5), (5, None)]:
        with pytest.raises(StoreError, match="ignores the range"):
            lenient_store.read("a", offset, length)


# --- servers that fail for a while ---


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown")])
def test_a_short_burst_of_errors_is_retried(proxy: Proxy, store: S3Store, status: int, code: str) -> None:
    store.facts()
    proxy.rules.append(times(2, lambda request: Answer(status, code)))
    store.put("a", b"x")
    proxy.rules[:] = [times(2, lambda request: Answer(status, code))]
    assert store.read("a") == b"x"


def test_lasting_errors_end_in_store_unavailable(proxy: Proxy, store: S3Store) -> None:
    store.facts()
    proxy.rules.append(lambda request: Answer(503, "SlowDown"))
    before = len(proxy.seen)
    with pytest.raises(StoreUnavailable, match="SlowDown") as caught:
        store.put("a", b"x")
    assert proxy.endpoint_url in str(caught.value)
    assert len(proxy.seen) - before == 3
    with pytest.raises(StoreUnavailable):
        list(store.list())


def test_a_failed_part_surfaces_and_leaves_nothing(proxy: Proxy, store: S3Store) -> None:
    store.facts()
    proxy.rules.append(lambda request: Answer(507, "InsufficientStorage") if "partNumber=2" in request.path else None)
    written = []

    def fill() -> None:
        with store.create("a") as writer:
            for number in range(100):
                writer.write(bytes(MIB))
                written.append(number)
            writer.commit()

    with pytest.raises(StoreFull):
        fill()
    assert len(written) <= 60
    assert list(store.list()) == []
    assert not store.remove_stale_uploads(timedelta(0), datetime.now(UTC) + timedelta(hours=1))


def test_a_writer_whose_part_failed_cannot_be_committed(proxy: Proxy, store: S3Store) -> None:
    store.facts()
    proxy.rules.append(lambda request: Answer(403, "AccessDenied") if "partNumber=1" in request.path else None)
    with store.create("a") as writer:
        writer.write(bytes(6 * MIB))
        with pytest.raises(StoreDenied):
            writer.commit()
        with pytest.raises(StoreError, match="has failed before"):
            writer.commit()
        with pytest.raises(StoreError, match="has failed before"):
            writer.write(b"x")
    assert list(store.list()) == []


def test_an_abort_that_fails_does_not_hide_the_reason(proxy: Proxy, store: S3Store) -> None:
    store.facts()
    proxy.rules.append(on("DELETE", Answer(403, "AccessDenied")))
    with pytest.raises(RuntimeError, match="the source died") as caught:
        die_while_writing(store, "a")
    assert "could not be removed" in caught.value.__notes__[0]
    proxy.rules.clear()
    later = datetime.now(UTC) + timedelta(hours=1)
    assert len(store.remove_stale_uploads(timedelta(minutes=5), later)) == 1
    assert not store.remove_stale_uploads(timedelta(minutes=5), later)


# --- connections that break ---


def test_a_body_cut_on_the_way_is_read_again(proxy: Proxy, store: S3Store) -> None:
    data = os.urandom(MIB)
    store.put("a", data)
    proxy.rules.append(times(2, on("GET", CutAnswer(1000))))
    assert store.read("a", 10, 500_000) == data[10:500_010]
    proxy.rules.append(on("GET", CutAnswer(1000)))
    with pytest.raises(StoreUnavailable):
        store.read("a")
    proxy.rules.clear()
    assert store.read("a") == data


def test_a_part_cut_on_the_way_is_sent_again(proxy: Proxy, store: S3Store) -> None:
    data = os.urandom(11 * MIB)
    store.facts()
    proxy.rules.append(times(2, on("PUT", CutRequest(MIB), "partNumber=")))
    write(store, "a", data)
    assert store.read("a") == data


def test_a_lost_answer_to_a_put_is_not_another_writer(proxy: Proxy, store: S3Store) -> None:
    store.facts()
    proxy.rules.append(times(1, on("PUT", CutAnswer(None))))
    store.put("one/two", b"mine")
    assert proxy.count("PUT", "/one/two") == 2  # the second was refused, as the first had worked
    with pytest.raises(ObjectExists):
        store.put("one/two", b"mine")


def test_a_lost_answer_to_the_end_of_an_upload_is_not_a_failure(proxy: Proxy, store: S3Store) -> None:
    store.facts()
    data = os.urandom(6 * MIB)
    proxy.rules.append(times(1, on("POST", CutAnswer(None), "uploadId=")))
    write(store, "a", data)
    assert store.read("a") == data
    assert not store.remove_stale_uploads(timedelta(0), datetime.now(UTC) + timedelta(hours=1))


def test_a_conflict_is_tried_again(proxy: Proxy, store: S3Store) -> None:
    store.facts()
    proxy.rules.append(times(2, on("PUT", Answer(409, "ConditionalRequestConflict"))))
    store.put("a", b"x")
    assert store.read("a") == b"x"


@pytest.mark.parametrize("size", [10, 6 * MIB])
def test_an_object_that_arrives_short_is_not_left(store: S3Store, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    honest = store._bucket.look

    def look(key: str) -> Found:
        found = honest(key)
        return replace(found, info=replace(found.info, size=found.info.size - 1))

    monkeypatch.setattr(store._bucket, "look", look)
    with pytest.raises(StoreError, match=f"{size - 1} bytes after {size} were written"):
        write(store, "short", bytes(size))
    assert list(store.list()) == []


# --- wrong settings ---


def test_nobody_listens(seaweedfs_s3: S3Server, make_s3_store: MakeStore) -> None:
    store = make_s3_store(seaweedfs_s3, endpoint_url="http://127.0.0.1:1", max_attempts=1)
    with pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:1"):
        store.read("a")
    with pytest.raises(StoreUnavailable):
        write(store, "a", bytes(6 * MIB))


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"secret_access_key": "wrong-secret-xyz"}, "secret"),
        ({"access_key_id": "nobody-xyz", "secret_access_key": "wrong-secret-xyz"}, "access key"),
    ],
)
def test_wrong_credentials(
    seaweedfs_s3: S3Server, make_s3_store: MakeStore, changes: dict[str, str], hint: str
) -> None:
    store = make_s3_store(seaweedfs_s3, **changes)
    acts: list[Callable[[], object]] = [
        lambda: store.read("a"),
        lambda: store.stat("a"),
        lambda: list(store.list()),
        lambda: store.put("a", b""),
        lambda: store.delete("a"),
        lambda: write(store, "a", bytes(6 * MIB)),
        lambda: store.remove_stale_uploads(timedelta(0), datetime.now(UTC)),
    ]
    for act in acts:
        with pytest.raises(StoreDenied) as caught:
            act()
        assert "xyz" not in str(caught.value)
        assert caught.value.hint
    assert hint in str(caught.value.hint)
    assert "xyz" not in repr(store._options)


def test_a_missing_bucket_is_named(s3_server: S3Server, make_s3_store: MakeStore) -> None:
    store = make_s3_store(s3_server, bucket="no-such-bucket")
    acts: list[Callable[[], object]] = [
        lambda: store.read("a"),
        lambda: store.stat("a"),
        lambda: list(store.list()),
        lambda: store.put("a", b""),
        lambda: write(store, "a", bytes(6 * MIB)),
    ]
    for act in acts:
        with pytest.raises(StoreError, match="no bucket no-such-bucket") as caught:
            act()
        assert type(caught.value) is StoreError
        assert "no-such-bucket" in str(caught.value.hint)


def test_an_untrusted_certificate(seaweedfs_s3_tls: S3Server, make_s3_store: MakeStore) -> None:
    store = make_s3_store(seaweedfs_s3_tls, ca_bundle=None, max_attempts=1)
    with pytest.raises(StoreError, match="not trusted") as caught:
        store.read("a")
    assert "ca_bundle" in str(caught.value.hint)


def test_a_certificate_file_that_is_missing(seaweedfs_s3_tls: S3Server, make_s3_store: MakeStore) -> None:
    store = make_s3_store(seaweedfs_s3_tls, ca_bundle="/no/such/file.pem")
    with pytest.raises(ConfigError, match="no file"):
        store.read("a")


def test_a_profile_that_is_missing(seaweedfs_s3: S3Server, make_s3_store: MakeStore) -> None:
    store = make_s3_store(seaweedfs_s3, access_key_id=None, secret_access_key=None, profile="no-such-profile")
    with pytest.raises(StoreDenied, match="no profile no-such-profile"):
        store.read("a")


def test_an_unknown_error_surfaces_with_its_code(proxy: Proxy, store: S3Store) -> None:
    proxy.rules.append(lambda request: Answer(400, "SomethingNew", "what it said"))
    with pytest.raises(StoreError, match="SomethingNew: what it said") as caught:
        store.read("a")
    assert type(caught.value) is StoreError


def test_no_secret_in_what_the_server_says(proxy: Proxy, store: S3Store, seaweedfs_s3: S3Server) -> None:
    said = f"key {seaweedfs_s3.access_key_id} secret {seaweedfs_s3.secret_access_key}"
    proxy.rules.append(lambda request: Answer(403, "AccessDenied", said))
    with pytest.raises(BackupdError, match=r"key \*\*\* secret \*\*\*"):
        store.read("a")


def test_a_range_that_the_server_does_not_have(proxy: Proxy, store: S3Store) -> None:
    store.put("a", b"0123456789")
    proxy.rules.append(lambda request: Answer(416, "InvalidRange") if request.has("Range") else None)
    with pytest.raises(IntegrityError):
        store.read("a", 3, 3)
