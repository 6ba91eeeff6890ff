"""Which snapshots count as runs of a plan: those of this machine, and of the plan as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backupd.daemon.child import carry_out
from backupd.daemon.messages import Task
from backupd.history import History, Run
from backupd.jobs.backup import run_backup
from backupd.jobs.catching_up import LastRuns, last_runs
from backupd.jobs.drill import newest_to_drill
from backupd.jobs.site import Site
from backupd.jobs.verify import run_verify
from backupd.runs import Draft
from backupd.security import no_identities
from backupd.settings import Settings, load_settings
from backupd.web.counts import RunCounter
from backupd.web.making import plan_facts
from backupd.web.metrics import make_registry
from backupd.web.state import Sources
from backupd.web.storeview import StoreView
from backupd.wiring import SystemClock, make_security, make_store
from tests.support.keys import pair
from tests.support.runtime import BEGIN, RecordingProgress
from tests.support.web import Status


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def machines(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Settings, Settings]:
    """Two with a store in common, and a plan of the same name."""
    recipients = [pair().public] if request.param else []
    for name in ("data", "more"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)

    def machine(name: str) -> Settings:
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"engine: mounted\nstate_dir: {tmp_path}/{name}\nencryption: {{recipients: {recipients}}}\n"
            f"stores: {{shared: {{type: local, path: {tmp_path}/shared}}}}\n"
            f"volumes: {{data: {{path: {tmp_path}/data}}, more: {{path: {tmp_path}/more}}}}\n"
            "plans: {n: {volumes: [data, more], stores: [shared], schedule: '0 2 * * *'}}\n"
        )
        return load_settings(path, {})

    return machine("one"), machine("other")


@contextmanager
def at(settings: Settings) -> Iterator[Site]:
    with closing(Site(settings, RecordingProgress(), print)) as site:
        yield site


def back_up(settings: Settings, *volumes: str) -> datetime:
    with at(settings) as site:
        return run_backup(site, "n", Draft(Run(id="a", kind="backup", started=BEGIN)), volumes).manifest.time


def known(settings: Settings) -> LastRuns:
    with at(settings) as site:
        return last_runs(site, ["n"])


def to_drill(settings: Settings) -> datetime:
    with at(settings) as site:
        return newest_to_drill(site, "n", Draft(Run(id="a", kind="drill", started=BEGIN)))[1].time


def view_of(settings: Settings) -> StoreView:
    view = StoreView(
        ["shared"],
        lambda name: make_store(settings, name),
        lambda: make_security(settings, no_identities, print),
        SystemClock(),
        timedelta(hours=1),
    )
    view.look()
    return view


def succeeded(settings: Settings) -> datetime | None:
    """As alerts hear of it when the history is lost."""
    view = view_of(settings)
    assert view.seen()["shared"].error is None
    return view.newest("n")


def newest(settings: Settings) -> dict[str, float]:
    """By volume, as Prometheus hears of it."""
    return {labels["volume"]: value for labels, value in told(settings, "newest_snapshot_timestamp_seconds")}


def newest_good(settings: Settings) -> list[float]:
    return [value for _, value in told(settings, "newest_good_snapshot_timestamp_seconds")]


def told(settings: Settings, name: str) -> list[tuple[dict[str, str], float]]:
    """What a metric says in the plan's store."""
    stores, nothing = view_of(settings).seen, dict[str, object]
    history = History(Path(settings.state_dir))
    sources = Sources(plan_facts(settings), history, Status(), stores, nothing, nothing, nothing, "1")  # type: ignore[arg-type]
    return [
        (sample.labels, sample.value)
        for family in make_registry(sources, RunCounter([])).collect()
        for sample in family.samples
        if sample.name == f"backupd_{name}"
    ]


def prepare(settings: Settings) -> None:
    """As a daemon that starts."""
    carry_out(Task("prepare", Run(id="a", kind="recover", started=BEGIN), settings))


def test_a_part_of_a_plan_is_no_run_of_it(machines: tuple[Settings, Settings]) -> None:
    one, _ = machines
    back_up(one, "data")
    back_up(one, "data", "more")
    assert (known(one), succeeded(one)) == ({"n": None}, None)
    whole = back_up(one)
    back_up(one, "more")
    finished = succeeded(one)
    assert known(one) == {"n": whole}
    assert finished is not None
    assert finished >= whole


def test_what_another_machine_has_done_is_not_done_here(machines: tuple[Settings, Settings]) -> None:
    one, other = machines
    first = back_up(one)
    assert known(other) == {"n": first}, "a state directory without a key is new, or was lost: whatever is there counts"
    back_up(other, "data")
    assert (known(other), succeeded(other)) == ({"n": None}, None)
    second = back_up(other)
    assert (known(one), known(other)) == ({"n": first}, {"n": second})
    mine, others = succeeded(one), succeeded(other)
    assert mine is not None
    assert others is not None
    assert mine < second <= others
    third = back_up(one)  # which the other one believes
    assert (known(one), known(other)) == ({"n": third}, {"n": second})
    assert succeeded(other) == others


def test_a_drill_by_schedule_takes_a_run_of_this_machine(machines: tuple[Settings, Settings]) -> None:
    other, one = machines  # it came later, and believes the other one
    back_up(other)
    part = back_up(one, "data")
    assert to_drill(one) == part, "there is nothing else yet"
    whole = back_up(one)
    back_up(one, "data")
    assert to_drill(one) == whole
    others = back_up(other)
    assert to_drill(one) == whole
    with at(one) as site:
        assert site.newest_of("n")[1].time == others, "by hand it is the newest of all"


def test_metrics_count_parts_and_no_other_machine(machines: tuple[Settings, Settings]) -> None:
    other, one = machines
    back_up(other)
    whole = back_up(one).timestamp()
    part = back_up(one, "data").timestamp()
    back_up(other)
    assert newest(one) == {"data": part, "more": whole}


def test_the_newest_good_one_is_of_this_machine(machines: tuple[Settings, Settings]) -> None:
    other, one = machines  # it came later, and believes the other one
    back_up(other)
    own = back_up(one).timestamp()
    back_up(other)
    assert newest_good(one) == [], "nothing was looked at yet"
    with at(one) as site:
        assert run_verify(site, "n", 100, Draft(Run(id="a", kind="verify", started=BEGIN))).problems == []
    assert newest_good(one) == [own]


def test_a_silent_store_leaves_open_which_machine_this_is(machines: tuple[Settings, Settings], tmp_path: Path) -> None:
    """The state directory was lost, and a store can't say what ran: it is asked again at the next start."""
    one, other = machines
    whole = back_up(one)
    (tmp_path / "shared").rename(tmp_path / "away")
    (tmp_path / "shared").write_text("no directory")
    prepare(other)
    assert not (tmp_path / "other" / "signing.key").exists()
    (tmp_path / "shared").unlink()
    (tmp_path / "away").rename(tmp_path / "shared")
    assert known(other) == {"n": whole}
    prepare(other)
    assert (tmp_path / "other" / "signing.key").exists()
    assert known(other) == {"n": None}


def test_a_broken_key_is_like_a_silent_store(machines: tuple[Settings, Settings], tmp_path: Path) -> None:
    one, _ = machines
    back_up(one)
    (tmp_path / "one" / "signing.key").write_text("no key")
    assert known(one) == {}
    view = view_of(one)
    assert view.newest("n") is None
    assert "is not a signing key" in str(view.seen()["shared"].error)
