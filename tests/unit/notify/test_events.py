"""What is told, to whom, and in what words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from backupd.errors import DeliveryFailed
from backupd.history import Run, VolumeFigures
from backupd.log import Redactor
from backupd.notify.events import EVENTS, Event, judge, of_run
from backupd.notify.hiding import url_secrets
from backupd.notify.notifier import Notifier, Routing, Target
from backupd.notify.outbox import Outbox
from backupd.notify.problems import Problems, after
from backupd.notify.templates import Texts, check_template
from tests.support.runtime import BEGIN

FIGURES = VolumeFigures(
    plain_bytes=5 << 20, new_bytes=2 << 20, stored_bytes=1 << 20, files=30, warnings=0, seconds=2.5, full=False
)


def a_run(outcome: str = "done", **fields: object) -> Run:
    given = {"kind": "backup", "plan": "nightly", "trigger": "schedule", "finished": BEGIN + timedelta(seconds=75)}
    return Run(id="00000000000000ab", started=BEGIN, outcome=outcome, **given | fields)  # type: ignore[arg-type]


Tell = Callable[..., list[str]]


class Kept:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []

    def send(self, event: str, title: str, body: str) -> None:
        self.sent.append((event, title, body))


@pytest.fixture
def told(tmp_path: Path) -> Tell:
    """Runs in, events out, for a target that wants `on`."""

    def told(*runs: Run, on: tuple[str, ...] = EVENTS, **options: object) -> list[str]:
        kept, outbox = Kept(), Outbox()
        routing = Routing(options.pop("routing", {}), manual=bool(options.pop("manual", False)))  # type: ignore[arg-type]
        target = Target("ops", kept, frozenset(on), **options)  # type: ignore[arg-type]
        notifier = Notifier([target], routing, Texts(), Problems(tmp_path), outbox, (str, lambda *_: None))
        for run in runs:
            notifier.ended(run)
        assert outbox.flush(60) == []
        return [f"{event}: {title.partition(': ')[2]}" for event, title, _ in kept.sent]

    return told


@pytest.mark.parametrize(
    ("run", "event"),
    [
        (a_run(), "success"),
        (a_run(warnings=1), "warning"),
        (a_run("partial"), "warning"),
        (a_run("skipped"), "warning"),
        (a_run("failed"), "failure"),
        (a_run("interrupted"), "failure"),
    ],
)
def test_what_the_end_of_a_run_is(run: Run, event: str) -> None:
    assert judge(run) == event


def test_back_to_normal_is_told_once(told: Tell) -> None:
    bad, good = a_run("failed"), a_run()
    assert told(good, bad, bad, good, good) == [
        "success: backup nightly is done",
        "failure: backup nightly FAILED",
        "failure: backup nightly FAILED",
        "recovery: backup nightly is back to normal",
        "success: backup nightly is done",
    ]


def test_nobody_is_told_that_there_is_nothing_yet(told: Tell) -> None:
    skipped = a_run("skipped", kind="verify")
    assert told(a_run("skipped", kind="verify", early=True), skipped) == ["warning: check nightly was skipped"]


def test_it_is_told_after_a_restart_too(told: Tell) -> None:
    assert told(a_run("partial")) == ["warning: backup nightly is done in part"]
    assert told(a_run()) == ["recovery: backup nightly is back to normal"]


def test_subjects_are_apart(told: Tell) -> None:
    assert told(a_run("failed"), a_run(plan="hourly"), a_run(kind="drill"), on=("failure", "recovery")) == [
        "failure: backup nightly FAILED"
    ]


def test_a_skipped_run_heals_nothing(told: Tell) -> None:
    told(a_run("failed"))
    assert told(a_run("skipped"), on=("recovery",)) == []


def test_nor_does_a_part_of_the_plan(told: Tell) -> None:
    part = a_run(part=True, trigger="manual", volumes={"data": FIGURES})
    assert told(a_run("failed"), part, a_run(), manual=True) == [
        "failure: backup nightly FAILED", "success: backup nightly (data) is done",
        "recovery: backup nightly is back to normal",
    ]  # fmt: skip
    assert told(a_run("failed", part=True, trigger="manual"), a_run(), manual=True) == [
        "failure: backup nightly (a part of it) FAILED", "success: backup nightly is done",
    ]  # fmt: skip


def test_a_recovery_is_for_those_who_knew(told: Tell) -> None:
    assert told(a_run("partial"), a_run(), on=("failure", "recovery")) == []


def test_a_success_is_one_for_those_who_want_no_recoveries(told: Tell) -> None:
    assert told(a_run("failed"), a_run(), a_run(), on=("success", "failure")) == [
        "failure: backup nightly FAILED",
        "success: backup nightly is done",
        "success: backup nightly is done",
    ]


def test_a_run_that_still_warns_is_both(told: Tell) -> None:
    assert told(a_run("failed"), a_run(warnings=2))[1:] == [
        "recovery: backup nightly is back to normal",
        "warning: backup nightly is done, with warnings",
    ]


def test_runs_by_hand(told: Tell) -> None:
    bad = a_run("failed", trigger="manual")
    assert told(bad, a_run()) == ["success: backup nightly is done"]
    assert told(bad, manual=True) == ["failure: backup nightly FAILED"]


def test_filters(told: Tell) -> None:
    runs = a_run("failed"), a_run("failed", plan="hourly"), a_run("failed", kind="prune", plan=None)
    assert told(*runs, plans=frozenset(["hourly"])) == ["failure: backup hourly FAILED"]
    assert told(*runs, kinds=frozenset(["prune"])) == ["failure: prune FAILED"]
    routing = {"hourly": frozenset(["success"])}
    assert told(*runs, on=("failure",), routing=routing) == ["failure: backup nightly FAILED", "failure: prune FAILED"]


def test_a_failure_stays_one_until_it_is_done() -> None:
    problems, _ = after(a_run("failed"), {})
    problems, ended = after(a_run("partial"), problems)
    assert (dict(problems), ended) == ({"backup/nightly": "failure"}, None)
    assert after(a_run(), problems) == ({}, "failure")


def test_problems_that_cannot_be_read_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "problems.json").write_text("{")
    assert Problems(tmp_path).note(a_run()) is None
    assert Problems(tmp_path).note(a_run("failed")) is None
    assert Problems(tmp_path).note(a_run()) == "failure"


def test_words() -> None:
    run = a_run(
        "partial", error="snapshot 0a lacks volume redis", snapshot="0a1b2c3d4e5f6071", stores=["local", "offsite"],
        volumes={"data": FIGURES}, warnings=1, downtime={"redis": 1.2}, notes=[f"n{number}" for number in range(25)],
    )  # fmt: skip
    details = of_run(run).details
    assert details[0] == "error: snapshot 0a lacks volume redis"
    assert details[1] == "snapshot 0a1b2c3d in local, offsite"
    assert details[2].endswith(", took 1 min 15 s (schedule)")
    assert details[3:6] == (
        "data 5.0 MiB, new 2.0 MiB, stored 1.0 MiB, 30 files", "1 warning", "services away: redis 1.2 s",
    )  # fmt: skip
    assert details[-2:] == ("… and 5 more notes", "run 00000000000000ab")


def test_templates() -> None:
    texts = Texts(
        "[${event}] $plan\n$$5", "$kind $outcome $run $snapshot $stores $plain_size $files $error", "web", "h"
    )
    run = a_run("failed", error="it broke: $HOME {x}", volumes={"data": FIGURES}, snapshot="0a1b2c3d4e", stores=["x"])
    assert texts.render(of_run(run)) == (
        "[failure] nightly $5",
        "backup failed 00000000000000ab 0a1b2c3d x 5.0 MiB 30 it broke: $HOME {x}",
    )
    title, body = Texts(body="$details$details").render(Event("alert", "little space", ("x" * 9000,)))
    assert (title, len(body)) == ("backupd: little space", 8002)


@pytest.mark.parametrize(
    ("text", "message"),
    [("$nothing", r"knows no \$nothing: there are event,"), ("a $ b", "expected a template"), (" ", "empty")],
)
def test_templates_that_cannot_work(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_template(text)


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("slack://T0AAAAAAA/B0BBBBBBB/c3CCCCCCCCCCCCCC/#ops", ["T0AAAAAAA", "B0BBBBBBB", "c3CCCCCCCCCCCCCC"]),
        ("mailtos://me:pa%20ssw0rd@mail.example.org/?to=x", ["pa%20ssw0rd"]),
        ("https://hc.example.org/ping/0f1e2d3c-aaaa-bbbb", ["0f1e2d3c-aaaa-bbbb"]),
        ("tgram://123456:abcdef/987", ["123456:abcdef"]),
        ("json://hooks.example.org/services/abcdefghijklmnopqrstuvwxyz", ["abcdefghijklmnopqrstuvwxyz"]),
        ("https://x.example.org/?token=abcd1234efgh", ["abcd1234efgh"]),
    ],
)
def test_parts_of_urls_are_hidden_too(url: str, hidden: list[str]) -> None:
    redact = Redactor(url_secrets(url))
    text = redact(f"{' '.join(hidden)} {url} example.org services notifications")
    assert text.startswith(" ".join(["********"] * (len(hidden) + 1)))
    assert text.endswith(" example.org services notifications")


def test_an_outbox_that_is_full_gives_up_the_oldest() -> None:
    gate = threading.Event()
    outcomes: list[tuple[int, Exception | None]] = []
    outbox = Outbox()

    def send() -> None:
        gate.wait()

    def keep(number: int) -> Callable[[Exception | None], None]:
        return lambda error: outcomes.append((number, error))

    for number in range(203):
        outbox.put("a", str(number), send, keep(number))
    assert len(outbox.flush(0.01)) >= 200
    gate.set()
    assert outbox.flush(60) == []
    lost = [number for number, error in outcomes if error]
    assert lost in ([1, 2], [0, 1, 2])
    assert sorted(number for number, _ in outcomes) == list(range(203))


def test_threads_end_and_begin_again() -> None:
    outbox, sent = Outbox(), []
    for number in range(50):
        outbox.put("a", "x", lambda number=number: sent.append(number), lambda _: None)  # type: ignore[misc]
        assert outbox.flush(60) == []
    assert sent == list(range(50))
    deadline = time.monotonic() + 60
    while any(thread.name == "outbox a" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_retries_are_bounded_and_only_for_what_may_work_later() -> None:
    tries: list[int] = []
    ended: list[DeliveryFailed | None] = []

    def send(*, again: bool, works_at: int = 99) -> None:
        tries.append(1)
        if len(tries) < works_at:
            raise DeliveryFailed("no", again=again)

    for options, expected, works in (
        ({"again": True}, 3, False),
        ({"again": False}, 1, False),
        ({"again": True, "works_at": 3}, 3, True),
    ):
        tries.clear()
        outbox = Outbox(3, [0.001])
        outbox.put("a", "x", lambda options=options: send(**options), ended.append)  # type: ignore[misc]
        assert outbox.flush(60) == []
        assert (len(tries), ended[-1] is None) == (expected, works)


def test_a_lane_outlives_a_defect_which_is_told_without_its_words() -> None:
    outbox, ended = Outbox(), list[DeliveryFailed | None]()

    def broken() -> None:
        raise ZeroDivisionError("https://host/secret-token")

    for send in (broken, lambda: None):
        outbox.put("a", "x", send, ended.append)
    assert outbox.flush(60) == []
    failed, delivered = ended
    assert str(failed) == "it failed (ZeroDivisionError), which should not have happened"
    assert delivered is None
