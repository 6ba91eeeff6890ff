"""What was found out about a server is kept between runs, for as long as it can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd.errors import ObjectExists, StoreError
from backupd.stores.s3 import S3Store
from backupd.stores.s3.remembered import GOOD_FOR
from tests.support import s3_proxy
from tests.support.runtime import TickingClock
from tests.support.s3 import S3Server
from tests.support.s3_proxy import Answer, Proxy

pytestmark = pytest.mark.s3


@pytest.fixture
def proxy(moto_s3: S3Server) -> Iterator[Proxy]:
    with s3_proxy.running(moto_s3.endpoint_url) as running:
        yield running


@pytest.fixture
def open_store(
    proxy: Proxy, moto_s3: S3Server, make_s3_store: Callable[..., S3Store], tmp_path: Path
) -> Callable[..., S3Store]:
    """As a new process would."""

    def make(**changes: object) -> S3Store:
        options = {"prefix": tmp_path.name, "endpoint_url": proxy.endpoint_url} | changes
        return make_s3_store(moto_s3, findings=tmp_path / "state" / "store.json", **options)

    return make


def probes(proxy: Proxy) -> int:
    return proxy.count("PUT", "/probe/")


def test_the_next_process_does_not_probe(proxy: Proxy, open_store: Callable[..., S3Store]) -> None:
    first = open_store()
    first.put("a", b"1")
    seen = probes(proxy)
    assert seen
    second = open_store()
    second.put("b", b"2")
    with pytest.raises(ObjectExists):
        second.put("a", b"3")
    assert probes(proxy) == seen
    assert second.facts().conditional_create == first.facts().conditional_create
    assert "found out" in second.facts().details


def test_checksums_that_were_refused_are_not_sent_again(proxy: Proxy, open_store: Callable[..., S3Store]) -> None:
    def refuse(request: s3_proxy.Request) -> Answer | None:
        return (
            Answer(411, "MissingContentLength")
            if request.has("x-amz-checksum-crc32") or request.has("x-amz-trailer")
            else None
        )

    proxy.rules.append(refuse)
    open_store().put("a", b"1")
    again = open_store()
    again.put("b", b"2")
    assert not again._bucket.checksums


@pytest.mark.parametrize("change", ["options", "age", "future", "damage", "refusal"])
def test_what_cannot_be_believed_is_found_out_again(
    change: str, proxy: Proxy, open_store: Callable[..., S3Store], tmp_path: Path
) -> None:
    kept = tmp_path / "state" / "store.json"
    open_store().put("a", b"1")
    changes: dict[str, object] = {}
    if change == "options":
        changes["checksum"] = "when_required"
    elif change == "damage":
        kept.write_bytes(kept.read_bytes()[:-10])
    elif change == "refusal":
        proxy.rules.append(lambda request: Answer(501, "NotImplemented") if request.has("If-None-Match") else None)
        with pytest.raises(StoreError, match="NotImplemented"):
            open_store().put("b", b"2")
    else:
        moved = GOOD_FOR + timedelta(hours=1) if change == "age" else -timedelta(hours=1)
        changes["clock"] = TickingClock(datetime.now(UTC) + moved)
    seen = probes(proxy)
    store = open_store(**changes)
    store.put("c", b"3")
    assert probes(proxy) > seen
    assert store.facts().conditional_create == (change != "refusal")


def test_nothing_secret_is_kept(open_store: Callable[..., S3Store], moto_s3: S3Server, tmp_path: Path) -> None:
    open_store().put("a", b"1")
    kept = (tmp_path / "state" / "store.json").read_text()
    assert moto_s3.secret_access_key not in kept
    assert moto_s3.access_key_id not in kept


def test_a_place_that_cannot_be_written_costs_a_probe(
    proxy: Proxy, moto_s3: S3Server, make_s3_store: Callable[..., S3Store], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for key in ("a", "b"):
        seen = probes(proxy)
        options = {"prefix": tmp_path.name, "endpoint_url": proxy.endpoint_url}
        make_s3_store(moto_s3, findings=tmp_path / "file" / "store.json", **options).put(key, b"1")
        assert probes(proxy) > seen
