"""What every store must do: the contract of `backupd.ports.Store`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from backupd.errors import BackupdError, IntegrityError, ObjectExists, ObjectNotFound, StoreError
from backupd.ports import Store
from backupd.stores.s3 import S3Store
from tests.support.s3 import MIB, S3Server

ODD_KEYS = [
    "a",
    "backupd.json",
    "archives/postgres/0123abcd.tar.zst",
    "with space/and+plus",
    "percent%20/amp&er=sand?#hash",
    "ünïcode/日本語/🙂",
    "quote'\"s/<tag>",
    "dots.../..a/b..",
    "tilde~/(paren)/[bracket]/@:,;!$*",
    "deep/" + "/".join("abcdefghij"),
]
BAD_KEYS = ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "a\0b", "a\nb"]


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


def write(store: Store, key: str, *pieces: bytes, size_hint: int | None = None) -> None:
    with store.create(key, size_hint) as writer:
        for piece in pieces:
            writer.write(piece)
        writer.commit()


def keys(store: Store, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_put_is_read_back(store: Store) -> None:
    info = store.put("a/b", b"hello")
    assert (info.key, info.size) == ("a/b", 5)
    assert store.read("a/b") == b"hello"


def test_a_stream_is_read_back(store: Store) -> None:
    with store.create("a/b", size_hint=11) as writer:
        writer.write(b"hello ")
        writer.write(memoryview(b"world"))
        writer.write(b"")
        info = writer.commit()
    assert (info.key, info.size) == ("a/b", 11)
    assert store.read("a/b") == b"hello world"


def test_stat_tells_size_and_time(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    store.put("a", b"123")
    info = store.stat("a")
    assert (info.key, info.size) == ("a", 3)
    assert info.modified is not None
    assert before < info.modified < before + timedelta(minutes=3)
    assert [(listed.key, listed.size) for listed in store.list()] == [("a", 3)]


def test_empty_objects(store: Store) -> None:
    store.put("put", b"")
    write(store, "stream")
    for key in ("put", "stream"):
        assert store.stat(key).size == 0
        assert store.read(key) == b""
        assert store.read(key, 0, 0) == b""
        with pytest.raises(IntegrityError):
            store.read(key, 0, 1)


@pytest.mark.parametrize("size", [5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB, 10 * MIB + 1])
def test_objects_around_a_part_boundary(store: Store, size: int) -> None:
    data = os.urandom(size)
    write(store, "big", data[: 3 * MIB], data[3 * MIB :])
    assert store.stat("big").size == size
    assert store.read("big") == data


def test_an_object_of_three_parts_in_small_writes(store: Store) -> None:
    data = os.urandom(11 * MIB)
    step = 300_001
    write(store, "big", *(data[i : i + step] for i in range(0, len(data), step)), size_hint=len(data))
    for offset, length in [(0, 10), (5 * MIB - 3, 7), (10 * MIB - 1, MIB), (11 * MIB - 1, 1), (0, 11 * MIB)]:
        assert store.read("big", offset, length) == data[offset : offset + length]
    assert store.read("big", 10 * MIB) == data[10 * MIB :]


def test_ranges_are_exact(store: Store) -> None:
    store.put("a", b"0123456789")
    assert store.read("a", 0, 10) == b"0123456789"
    assert store.read("a", 3, 4) == b"3456"
    assert store.read("a", 9, 1) == b"9"
    assert store.read("a", 7) == b"789"
    assert store.read("a", 10) == b""
    assert store.read("a", 10, 0) == b""
    assert store.read("a", 0, 0) == b""


def test_reading_past_the_end_is_an_integrity_error(store: Store) -> None:
    store.put("a", b"0123456789")
    for offset, length in [(0, 11), (9, 2), (10, 1), (11, None), (11, 0), (1000, 5)]:
        with pytest.raises(IntegrityError):
            store.read("a", offset, length)


def test_an_impossible_range_is_a_programming_error(store: Store) -> None:
    for offset, length in [(-1, 1), (0, -1), (-5, None)]:
        with pytest.raises(ValueError, match="not a range"):
            store.read("a", offset, length)


def test_a_missing_key(store: Store) -> None:
    store.put("there", b"")
    for missing in ("none", "there/below", "no/such/directory"):
        for act in (store.read, store.stat, lambda key: store.read(key, 5, 5), lambda key: store.read(key, 0, 0)):
            with pytest.raises(ObjectNotFound):
                act(missing)


def test_a_directory_is_not_an_object(store: Store) -> None:
    store.put("directory/object", b"x")
    with pytest.raises(ObjectNotFound):
        store.read("directory")
    with pytest.raises(ObjectNotFound):
        store.stat("directory")


def test_odd_keys(store: Store) -> None:
    for key in ODD_KEYS:
        store.put(key, key.encode())
        assert store.read(key) == key.encode()
        assert store.stat(key).size == len(key.encode())
        assert keys(store) == [key]
        assert keys(store, key[:2]) == [key]
        with pytest.raises(ObjectExists):
            store.put(key, b"other")
        store.delete(key)
        assert keys(store) == []


def test_bad_keys_are_refused(store: Store) -> None:
    acts: list[Callable[[str], object]] = [
        store.read,
        store.stat,
        store.delete,
        store.create,
        lambda key: store.put(key, b""),
    ]
    for key in BAD_KEYS:
        for act in acts:
            with pytest.raises(StoreError, match="not a key"):
                act(key)


def test_list_is_in_key_order_and_takes_any_prefix(store: Store) -> None:
    # By code point, `-` and `.` come before `/`, which comes before digits: a walk through directories gets it wrong.
    names = ["a-b", "a.b", "a/b", "a/b.c", "a/b-c", "a0", "b/x/1", "b/x/2", "b/y", "é", "日"]
    for name in reversed(names):
        store.put(name, name.encode())
    assert keys(store) == sorted(names)
    for prefix in ("a", "a/", "a/b", "b/x", "b/x/", "b", "zzz", "b/x/1/", "é"):
        assert keys(store, prefix) == sorted(name for name in names if name.startswith(prefix)), prefix
    assert [info.size for info in store.list("a/")] == [3, 5, 5]


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert keys(store) == []
    assert keys(store, "archives/") == []


def test_a_put_never_replaces(store: Store) -> None:
    store.put("a", b"first")
    with pytest.raises(ObjectExists):
        store.put("a", b"second")
    with pytest.raises(ObjectExists):
        store.put("a", b"first")
    assert store.read("a") == b"first"


@pytest.mark.parametrize("size", [10, 6 * MIB])
def test_a_stream_never_replaces(store: Store, size: int) -> None:
    store.put("a", b"first")
    with store.create("a") as writer:
        writer.write(os.urandom(size))
        with pytest.raises(ObjectExists):
            writer.commit()
    assert store.read("a") == b"first"
    assert keys(store) == ["a"]


def test_of_racing_puts_one_wins(store: Store) -> None:
    assert store.facts().conditional_create
    start = threading.Barrier(16)

    def race(number: int) -> int | None:
        start.wait()
        try:
            store.put("a/b/c", f"writer {number}".encode())
        except ObjectExists:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        for _ in range(2):
            winners = [number for number in pool.map(race, range(16)) if number is not None]
            assert len(winners) == 1
            assert store.read("a/b/c") == f"writer {winners[0]}".encode()
            store.delete("a/b/c")


@pytest.mark.parametrize("size", [0, 10, 11 * MIB])
def test_leaving_without_commit_leaves_nothing(store: Store, size: int) -> None:
    with store.create("a") as writer:
        writer.write(os.urandom(size))
    assert keys(store) == []
    with pytest.raises(ObjectNotFound):
        store.stat("a")
    assert not store.remove_stale_uploads(timedelta(0), datetime.now(UTC) + timedelta(hours=1))
    store.put("a", b"free")


@pytest.mark.parametrize("size", [10, 11 * MIB])
def test_an_exception_leaves_nothing_and_passes(store: Store, size: int) -> None:
    def die() -> None:
        with store.create("a") as writer:
            writer.write(os.urandom(size))
            raise RuntimeError("the source died")

    with pytest.raises(RuntimeError, match="the source died"):
        die()
    assert keys(store) == []
    assert not store.remove_stale_uploads(timedelta(0), datetime.now(UTC) + timedelta(hours=1))


def test_an_object_is_invisible_until_commit(store: Store) -> None:
    with store.create("a") as writer:
        writer.write(os.urandom(6 * MIB))
        assert keys(store) == []
        with pytest.raises(ObjectNotFound):
            store.read("a")
        writer.commit()
        assert keys(store) == ["a"]


def test_a_finished_writer_takes_no_more(store: Store) -> None:
    with store.create("a") as writer:
        writer.write(b"x")
        writer.commit()
        with pytest.raises(ValueError, match="committed already"):
            writer.write(b"y")
        with pytest.raises(ValueError, match="committed already"):
            writer.commit()
    assert store.read("a") == b"x"
    with store.create("b") as writer:
        pass
    with pytest.raises(ValueError, match="aborted already"):
        writer.commit()


def test_what_is_written_may_be_reused_at_once(store: Store) -> None:
    buffer = bytearray(b"1" * MIB)
    with store.create("a") as writer:
        for digit in b"12345678":
            buffer[:] = bytes([digit]) * MIB
            writer.write(memoryview(buffer))
        buffer[:] = b"x" * MIB
        writer.commit()
    assert store.read("a") == b"".join(bytes([digit]) * MIB for digit in b"12345678")


def test_delete_is_idempotent(store: Store) -> None:
    store.put("a/b", b"x")
    store.put("a/c", b"y")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    store.delete("a/c/d")
    assert keys(store) == ["a/c"]
    store.put("a/b", b"again")
    assert store.read("a/b") == b"again"


def test_many_readers_at_once(store: Store) -> None:
    data = os.urandom(2 * MIB)
    store.put("a", data)

    def check(number: int) -> bool:
        offset = number * 10_007 % MIB
        return store.read("a", offset, 100_000) == data[offset : offset + 100_000]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(check, range(64)))


def test_many_writers_at_once(store: Store) -> None:
    def go(number: int) -> None:
        write(store, f"stream/{number}", bytes([number]) * (6 * MIB if number % 2 else 10))
        store.put(f"put/{number}", bytes([number]))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(go, range(6)))
    assert keys(store) == [f"put/{i}" for i in range(6)] + [f"stream/{i}" for i in range(6)]
    assert store.read("stream/3") == b"\x03" * 6 * MIB


def test_stale_uploads_of_this_process_are_left_alone(store: Store) -> None:
    with store.create("a") as writer:
        writer.write(os.urandom(6 * MIB))
        assert not store.remove_stale_uploads(timedelta(0), datetime.now(UTC) + timedelta(days=1))
        writer.commit()
    assert store.stat("a").size == 6 * MIB


def test_facts_say_what_kind_of_store_it_is(store: Store) -> None:
    facts = store.facts()
    assert facts.conditional_create
    assert facts.details["kind"] in {"memory", "local", "s3"}
    assert store.facts() is facts or store.facts() == facts
    assert keys(store) == []


def test_errors_name_the_store(store: Store) -> None:
    with pytest.raises(BackupdError, match=r"store test: .*nowhere"):
        store.read("nowhere")


def test_closing_twice_is_fine(store: Store) -> None:
    store.put("a", b"x")
    store.close()
    store.close()


@pytest.mark.s3
def test_s3_lists_more_than_a_page(
    s3_server: S3Server, make_s3_store: Callable[..., S3Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupd.stores.s3.store.PAGE_SIZE", 10)
    store = make_s3_store(s3_server)
    names = [f"snapshots/{number:02}" for number in range(30)] + ["snapshots-old/1", "snapshots.json"]
    for name in ["archives/x", *names, "z"]:
        store.put(name, b"")
    assert keys(store, "snapshots/") == names[:30]
    assert keys(store) == sorted(["archives/x", *names, "z"])
    client = s3_server.client()
    for number in range(12):
        client.create_multipart_upload(Bucket=s3_server.bucket, Key=f"{store._options.key_prefix}unfinished/{number}")
    client.close()
    assert len(store.remove_stale_uploads(timedelta(0), datetime.now(UTC) + timedelta(hours=1))) == 12


@pytest.mark.s3
def test_s3_uploads_that_a_killed_process_left_are_removed_by_age(
    s3_server: S3Server, make_s3_store: Callable[..., S3Store]
) -> None:
    store, neighbour = make_s3_store(s3_server), make_s3_store(s3_server)
    client = s3_server.client()
    for left in (store, neighbour):
        prefix = left._options.key_prefix
        client.create_multipart_upload(Bucket=s3_server.bucket, Key=f"{prefix}archives/a")
    client.close()
    now = datetime.now(UTC)
    if s3_server.strict:  # moto says that every upload was begun in 2010
        assert store.remove_stale_uploads(timedelta(hours=1), now) == []
    (removed,) = store.remove_stale_uploads(timedelta(hours=1), now + timedelta(hours=2))
    assert "of archives/a" in removed
    assert store.remove_stale_uploads(timedelta(hours=1), now + timedelta(hours=2)) == []
    assert len(neighbour.remove_stale_uploads(timedelta(0), now + timedelta(hours=2))) == 1


@pytest.mark.s3
def test_s3_stores_do_not_see_each_other(s3_server: S3Server, make_s3_store: Callable[..., S3Store]) -> None:
    prefix = s3_server.options().prefix
    store, longer = make_s3_store(s3_server, prefix=prefix), make_s3_store(s3_server, prefix=f"{prefix}-longer")
    store.put("a", b"1")
    longer.put("a", b"22")
    assert [info.size for info in store.list()] == [1]
    assert [info.size for info in longer.list()] == [2]


@pytest.mark.s3
def test_s3_attributes_are_accepted(s3_server: S3Server, make_s3_store: Callable[..., S3Store]) -> None:
    store = make_s3_store(s3_server, storage_class="STANDARD", sse="AES256", region="us-east-1")
    write(store, "big", os.urandom(6 * MIB))
    store.put("small", b"x")
    assert keys(store) == ["big", "small"]
    assert store.stat("big").size == 6 * MIB
