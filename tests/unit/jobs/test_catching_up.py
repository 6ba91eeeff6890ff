"""Which snapshots count as runs of a plan: those of this machine, and of the plan as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backupd.history import Run
from backupd.jobs import LastRuns, Site, last_runs, run_backup
from backupd.runs import Draft
from backupd.security import no_identities
from backupd.settings import Settings, load_settings
from backupd.web.storeview import StoreView
from backupd.wiring import SystemClock, make_security, make_store
from tests.support.keys import pair
from tests.support.runtime import BEGIN, RecordingProgress


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


def succeeded(settings: Settings) -> datetime | None:
    """As alerts hear of it when the history is lost."""
    view = StoreView(
        ["shared"],
        lambda name: make_store(settings, name),
        lambda: make_security(settings, no_identities, print),
        SystemClock(),
        timedelta(hours=1),
    )
    view.look()
    assert view.seen()["shared"].error is None
    return view.newest("n")


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
