"""The dashboard and the alert rules speak of metrics that there are, and the rules do what they say."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families as parse

from backupd.history import Run
from backupd.notify.events import Event
from backupd.web.making import Watched
from tests.support.apt import NotInstallable
from tests.support.promtool import promtool
from tests.support.runtime import BEGIN
from tests.support.web import Served, configured, served, snapshot_with_runs

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "config" / "prometheus" / "backupd.rules.yaml"
DASHBOARD = json.loads((ROOT / "config" / "grafana" / "backupd.json").read_text())
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text()


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        yield from ((f"panel {panel['title']}", target["expr"]) for target in panel.get("targets", ()))
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from ((f"rule {rule['alert']}", rule["expr"]) for rule in group["rules"])


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The web server of a daemon in full use."""
    settings = configured(tmp_path_factory.mktemp("full"), "web: {port: 0}\nalerts: {free_percent: 100}")
    snapshot_with_runs(settings)
    with served(settings) as web:
        watched: Watched = web.watched
        watched._counter.ended(Run(id="ff", kind="backup", plan="nightly", started=BEGIN, outcome="failed"))
        watched._observers.deliveries.notified("ops", Event("alert", "x", ()), None)
        yield web


@pytest.fixture(scope="module")
def families(full: Served) -> dict[str, set[str]]:
    """Every sample that it exposes, with its labels."""
    text = full.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in parse(text):
        found.setdefault(family.name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_metrics_and_labels_exist(where: str, expression: str, families: dict[str, set[str]]) -> None:
    names = re.findall(r"\b((?:backupd|process)_[a-z_]+)(?:\{([^}]*)\})?", expression)
    assert names or "up{" in expression, where
    for name, selector in names:
        assert name in families, f"{where}: no metric {name}"
        labels = {label for label in re.findall(r"([a-z_]+)\s*(?:=~|!=|=)", selector) if label != "instance"}
        assert labels <= families[name], f"{where}: {name} has no {labels - families[name]}"


def test_legends_and_groupings_use_labels_that_exist(families: dict[str, set[str]]) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            name = re.search(r"(?:backupd|process)_[a-z_]+", target["expr"])
            assert name is not None
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"instance"}
            assert labels <= families[name[0]], (panel["title"], labels)


def test_every_metric_is_documented_and_no_other(families: dict[str, set[str]]) -> None:
    exposed = {name for name, labels in families.items() if name.startswith("backupd_")}
    exposed -= {
        "backupd_runs",
        "backupd_notifications",
        "backupd_build",
    }  # families, whose samples are …_total and …_info
    rows = dict(re.findall(r"^\| `(backupd_\w+)` \| (.*?) \|", DOCUMENT, re.MULTILINE))
    assert set(rows) == exposed
    for name, labels in rows.items():
        documented = set(re.findall(r"\w+", labels.replace("none", "")))
        assert documented == families[name], name


def test_every_rule_is_documented() -> None:
    rules = [name for name in re.findall(r"^| `(\w+)` \| ", DOCUMENT, re.MULTILINE) if name]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["alert"] in rules
            assert set(rule["annotations"]) == {"summary", "description"}
            assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at: dict[str, int] = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
    variables: list[dict[str, Any]] = DASHBOARD["templating"]["list"]
    assert [variable["name"] for variable in variables] == ["datasource", "instance"]


def test_grafana_knows_every_field() -> None:
    """Through Grafana's own model, with those of panels and data source: it drops what it doesn't know."""
    register_default_plugins()
    back = json.loads(json.dumps(Dashboard.from_json(json.loads(json.dumps(DASHBOARD))), cls=JSONEncoder))
    ours = {
        key: value for key, value in DASHBOARD.items() if not key.startswith("__")
    }  # of those the import page reads
    assert set(fields(ours)) - set(fields(back)) == set()


def fields(value: Any, *at: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where there is something in a document."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from fields(inner, *at, key)
    if at:
        yield at


@pytest.fixture(scope="module")
def tool() -> Path:
    try:
        return promtool()
    except NotInstallable as exc:
        pytest.skip(f"NOT CHECKED WITH PROMTOOL: {exc}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "--lint=all", "--lint-fatal", "backupd.rules.yaml"),
        ("test", "rules", "backupd.rules.test.yaml"),
        ("check", "config", "--syntax-only", "prometheus.yaml"),
    ],
)
def test_promtool(tool: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run([tool, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout + done.stderr


def test_promtool_takes_the_exposition(tool: Path, tmp_path: Path) -> None:
    settings = configured(tmp_path, "web: {port: 0}")
    snapshot_with_runs(settings)
    with served(settings) as web:
        text = web.get("/metrics").text
    own = "".join(line + "\n" for line in text.splitlines() if "backupd_" in line)
    done = subprocess.run([tool, "check", "metrics"], input=own, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
