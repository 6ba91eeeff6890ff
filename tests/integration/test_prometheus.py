"""A real Prometheus, configured by the sample, scrapes a daemon: what panels and rules ask is answered.

Grafana itself is not at hand: what it does with the answers is checked against its dashboard model (schema version 38,
that of Grafana 10): variables, columns that transformations name, units and fields of each kind of panel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.integration.test_monitoring_files import DASHBOARD, RULES, full
from tests.support.apt import NotInstallable
from tests.support.promtool import Prometheus, prometheus
from tests.support.stacks import wait_until
from tests.support.web import TOKEN, Served

__all__ = ["full"]

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]

# Of Grafana's dashboard model: what a panel of each kind may have besides what all have.
COMMON = {"id", "type", "title", "description", "gridPos", "datasource", "targets", "fieldConfig", "options"}
OWN: dict[str, set[str]] = {"stat": set(), "timeseries": set(), "table": {"transformations"}}
DEFAULTS = {"color", "custom", "decimals", "mappings", "max", "min", "noValue", "thresholds", "unit"}
TARGET = {"datasource", "expr", "format", "instant", "legendFormat", "range", "refId"}
UNITS = {"bytes", "dateTimeAsIso", "none", "percentunit", "s", "short"}


@pytest.fixture(scope="module")
def server(full: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped often enough for `increase`, and looked at the rules."""
    directory = tmp_path_factory.mktemp("prometheus")
    (directory / "token").write_text(TOKEN)
    config = yaml.safe_load((RULES.parent / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    config["global"] |= {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(RULES)]
    job["authorization"]["credentials_file"] = str(directory / "token")
    job["static_configs"] = [{"targets": [f"127.0.0.1:{full.port}"]}]
    try:
        with prometheus(directory, config) as running:
            scraped = f'count_over_time(up{{job="{job["job_name"]}"}}[5m]) > 3'
            wait_until(lambda: running.query(scraped) and all(rule["lastEvaluation"] > "1" for rule in rules(running)))
            yield running
    except NotInstallable as exc:
        pytest.skip(f"NOT CHECKED WITH PROMETHEUS: {exc}")


def rules(server: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]


def asked(expression: str, server: Prometheus) -> str:
    """An expression as Grafana would send it, with all instances chosen, from what the variable's own query finds."""
    (variable,) = (one for one in DASHBOARD["templating"]["list"] if one["type"] == "query")
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert found is not None
    values = server.ask(f"label/{found[2]}/values", **{"match[]": found[1]})
    assert values
    every = "(" + "|".join(re.escape(value).replace("\\", "\\\\") for value in values) + ")"
    text = expression.replace(f"${variable['name']}", every).replace("$__rate_interval", "5m")
    assert "$" not in text
    return text


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_has_data(panel: dict[str, Any], server: Prometheus) -> None:
    columns = {"Time", "__name__", *(["Value"] if len(panel["targets"]) == 1 else [])}
    for target in panel["targets"]:
        series = server.query(asked(target["expr"], server))
        assert series, target["expr"]
        labels = {label for one in series for label in one["metric"]}
        assert set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))) <= labels
        columns |= labels | {f"Value #{target['refId']}"}
    for transformation in panel.get("transformations", ()):
        options = transformation["options"]
        for names in (options.get(key, {}) for key in ("excludeByName", "indexByName", "renameByName")):
            assert set(names) <= columns, (transformation["id"], set(names) - columns)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_rule_is_evaluated(rule: dict[str, Any], server: Prometheus) -> None:
    """Without an error, on series that there are; the words of those that are on say something."""
    (known,) = (one for one in rules(server) if one["name"] == rule["alert"])
    assert (known["health"], known.get("lastError")) == ("ok", None)
    for selector in re.findall(r"\b(?:backupd_\w+|up)\b(?:\{[^}]*\})?", rule["expr"]):
        plain = re.sub(r'(?:state|outcome)="\w+"', "", selector)  # what is not damaged or undelivered is there as well
        assert server.query(plain), selector
    for alert in known["alerts"]:
        words = json.dumps(alert["annotations"])
        assert "<no value>" not in words
        assert "<error" not in words


def test_what_is_wrong_there_is_told(server: Prometheus) -> None:
    """Those rules are on whose failures the daemon was given: at once or, where they wait, pending."""
    on = {rule["name"]: {alert["state"] for alert in rule["alerts"]} for rule in rules(server) if rule["alerts"]}
    assert on["BackupFailed"] == {"firing"}
    assert on["PruneFailed"] == {"pending"}
    assert on["BackupdAlert"] == {"pending"}
    assert "BackupdDown" not in on


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_fields_are_those_of_the_model(panel: dict[str, Any]) -> None:
    assert DASHBOARD["schemaVersion"] == 38
    assert COMMON <= set(panel) <= COMMON | OWN[panel["type"]]
    assert set(panel["fieldConfig"]) == {"defaults", "overrides"}
    defaults = panel["fieldConfig"]["defaults"]
    assert set(defaults) <= DEFAULTS
    units = [defaults.get("unit", "none")]
    for override in panel["fieldConfig"]["overrides"]:
        assert set(override) == {"matcher", "properties"}
        units += [one["value"] for one in override["properties"] if one["id"] == "unit"]
        renamed = [list(one["options"].get("renameByName", {}).values()) for one in panel.get("transformations", ())]
        if override["matcher"]["id"] == "byName":
            assert override["matcher"]["options"] in [name for names in renamed for name in names]
    assert set(units) <= UNITS
    steps = defaults.get("thresholds", {"steps": []})["steps"]
    assert [step["value"] for step in steps[:1]] in ([], [None]), "the first has no lower end"
    assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])
    refs = [target["refId"] for target in panel["targets"]]
    assert len(refs) == len(set(refs))
    for target in panel["targets"]:
        assert set(target) <= TARGET
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert (target.get("format") == "table") == (panel["type"] == "table")
        assert bool(target.get("instant")) == (panel["type"] != "timeseries")
