"""What counts for the metrics of a plan."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from backupd.history import History, Run, VolumeFigures
from backupd.web import reading
from backupd.web.counts import RunCounter
from backupd.web.metrics import make_registry
from backupd.web.state import PlanFacts, Sources
from tests.support.runtime import BEGIN
from tests.support.web import Status

FIGURES = VolumeFigures(plain_bytes=7, new_bytes=1, stored_bytes=1, files=1, warnings=0, seconds=1, full=True)


def run(number: int, **fields: object) -> Run:
    started = BEGIN + timedelta(hours=number)
    return Run(
        **{"id": f"{number:016x}", "kind": "backup", "plan": "nightly", "started": started, "finished": started}
        | fields  # type: ignore[arg-type]
    )


def test_a_part_of_a_plan_hides_neither_its_failure_nor_its_figures(tmp_path: Path) -> None:
    history, plan = History(tmp_path), PlanFacts("nightly", ("data", "more"), ("local",), None, "UTC")
    history.put(run(1, outcome="done", volumes={"data": FIGURES, "more": FIGURES}))
    history.put(run(2, outcome="failed"))
    history.put(run(3, outcome="done", part=True, volumes={"data": FIGURES}))
    nothing = dict[str, object]
    sources = Sources([plan], history, Status(), nothing, nothing, nothing, nothing, "1")  # type: ignore[arg-type]
    found = {
        (sample.name, sample.labels.get("volume", "")): sample.value
        for family in parse(generate_latest(make_registry(sources, RunCounter([]))).decode())
        for sample in family.samples
        if sample.labels.get("plan") == "nightly" and sample.labels.get("kind", "backup") == "backup"
    }
    assert found["backupd_last_run_success", ""] == 0
    assert found["backupd_last_success_timestamp_seconds", ""] == (BEGIN + timedelta(hours=1)).timestamp()
    assert found["backupd_volume_plain_bytes", "more"] == 7
    told = reading.plan(plan, sources)
    assert (told.last_success, told.running) == (BEGIN + timedelta(hours=1), False)
    assert told.last_run is not None
    assert told.last_run.outcome == "failed"
    history.put(run(4, part=True))
    assert reading.plan(plan, sources).running, "a part of it keeps the plan busy"
