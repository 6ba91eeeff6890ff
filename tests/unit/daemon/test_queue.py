"""Which runs may take place at one time."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd.daemon.orders import Order, make_order
from backupd.daemon.queue import Dropped, Queue, Waits
from backupd.history import RunKind
from backupd.settings import Settings, load_settings
from tests.support.runtime import BEGIN

CONFIG = """
engine: mounted
stores: {here: {type: local, path: ./here}, there: {type: local, path: ./there}}
volumes: {a: {path: ./a}, b: {path: ./b}, also-a: {path: ./a}}
plans:
  one: {volumes: [a], stores: [here]}
  two: {volumes: [b], stores: [here]}
  both: {volumes: [a, b], stores: [there]}
  again: {volumes: [also-a], stores: [there], overlap: skip}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "backupd.yaml").write_text(CONFIG)
    return load_settings(tmp_path / "backupd.yaml", {})


@pytest.fixture
def order(settings: Settings):  # type: ignore[no-untyped-def]
    def make(plan: str | None, kind: RunKind = "backup") -> Order:
        overlap = settings.plans[plan].overlap if plan else "wait"
        return make_order(kind, plan, "schedule", overlap, BEGIN, settings)

    return make


def names(orders: list[Order]) -> list[str]:
    return [str(order) for order in orders]


def test_different_volumes_run_at_once(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(4)
    assert queue.offer(order("one")) is None
    assert queue.offer(order("two")) is None
    assert names(queue.take()) == ["backup of one", "backup of two"]


def test_one_volume_is_waited_for(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(4)
    queue.offer(one := order("one"))
    queue.take()
    answer = queue.offer(order("both"))
    assert isinstance(answer, Waits)
    assert answer.why.startswith("the backup of one, which is under way, has the volume ")
    assert queue.take() == []
    queue.done(one)
    assert names(queue.take()) == ["backup of both"]


def test_or_not_as_the_plan_says_also_under_another_name(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(4)
    queue.offer(order("one"))
    queue.take()
    answer = queue.offer(order("again"))
    assert isinstance(answer, Dropped)
    assert queue.waiting == []


def test_a_plan_does_not_overtake_itself(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(4)
    queue.offer(order("one"))
    queue.take()
    assert queue.offer(order("one")) == Waits("the backup of one is under way")
    assert isinstance(queue.offer(order("one")), Dropped), "one that waits is enough"
    assert len(queue.waiting) == 1


def test_prune_has_the_stores_and_is_not_starved(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(4)
    queue.offer(one := order("one"))
    queue.take()
    assert isinstance(queue.offer(order(None, "prune")), Waits)
    assert isinstance(queue.offer(order("two")), Waits), "it would keep prune waiting"
    assert queue.take() == []
    queue.done(one)
    (prune,) = queue.take()
    assert str(prune) == "prune"
    assert queue.take() == []
    queue.done(prune)
    assert names(queue.take()) == ["backup of two"]


def test_who_waits_for_something_else_is_overtaken(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(4)
    queue.offer(order("one"))
    queue.take()
    queue.offer(order("one"))
    queue.offer(order("two"))
    assert names(queue.take()) == ["backup of two"]


def test_verification_goes_on_beside_a_backup_and_drills_one_by_one(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(4)
    for plan, kind in (("one", "backup"), ("one", "verify"), ("one", "drill"), ("two", "drill")):
        queue.offer(order(plan, kind))
    assert names(queue.take()) == ["backup of one", "verify of one", "drill of one"]
    assert names(queue.waiting) == ["drill of two"]


def test_no_more_than_so_many(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(1)
    queue.offer(one := order("one"))
    queue.take()
    assert queue.offer(order("two")) == Waits("1 run is under way")
    assert queue.take() == []
    queue.done(one)
    assert names(queue.take()) == ["backup of two"]


def test_nobody_waits_for_those_behind(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(1)
    queue.offer(order("two"))
    queue.take()
    queue.offer(order("one"))
    queue.offer(order("both"))
    (first, before), (second, all_before) = queue.in_line()
    assert queue.obstacle(first, before) is None
    assert queue.obstacle(second, all_before) == "the backup of two, which is under way, has the volume " + str(
        second.settings.volume_spec("b").path
    )


def test_clearing(order) -> None:  # type: ignore[no-untyped-def]
    queue = Queue(1)
    queue.offer(order("one"))
    queue.take()
    queue.offer(order("two"))
    assert names(queue.clear()) == ["backup of two"]
    assert names(queue.running) == ["backup of one"]
