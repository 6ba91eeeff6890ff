"""What Prometheus scrapes. docs/monitoring.md lists the metrics, and a test compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import get_args

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from backupd.history import Outcome, Run, RunKind
from backupd.repository import State
from backupd.web.counts import RunCounter
from backupd.web.state import PlanFacts, Sources, StoreContent

KINDS: tuple[RunKind, ...] = ("backup", "verify", "drill", "prune")
_NEWEST = 20  # nothing that runs is older than that many runs of its plan
_ENDED: tuple[Outcome, ...] = ("done", "partial", "failed", "interrupted")

Family = GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily


def make_registry(sources: Sources, counter: RunCounter) -> CollectorRegistry:
    """A registry of its own, with the process's figures."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(BackupdCollector(sources, counter))
    return registry


class BackupdCollector(Collector):
    """Reads anew at each scrape. SourceError if the history can't be read."""

    def __init__(self, sources: Sources, counter: RunCounter) -> None:
        self._sources = sources
        self._counter = counter

    def collect(self) -> Iterable[Family]:
        """All metrics."""
        yield InfoMetricFamily("backupd_build", "The program.", {"version": self._sources.version})
        yield from self._daemon()
        yield from self._runs()
        yield from self._figures()
        yield from self._stores()
        yield from self._checks()
        yield from self._drills()
        yield from self._told()

    def _daemon(self) -> Iterator[Family]:
        status = self._sources.daemon.status()
        daemon = _Gauges(
            (),
            ready="1 once schedules fire.",
            start_time_seconds="When the daemon started.",
            config_last_reload_successful="0: the configuration read last is refused.",
        )
        ready = status.ready and not status.stopping
        daemon.add((), ready, status.started.timestamp(), status.config_error is None)
        due = _Gauges(("kind", "plan"), next_run_timestamp_seconds="When a schedule fires next.")
        for run in status.next_runs:
            due.add((run.kind, run.plan or ""), run.at.timestamp())
        ages = _Gauges(("plan",), max_age_seconds="How old the plan's last success may become.")
        for plan in self._sources.plans:
            ages.add((plan.name,), plan.max_age.total_seconds() if plan.max_age is not None else None)
        yield from (*daemon, *due, *ages)

    def _subjects(self) -> Iterator[tuple[RunKind, str | None]]:
        plans: list[PlanFacts | None] = [*self._sources.plans, None]
        yield from ((kind, plan.name if plan else None) for kind in KINDS for plan in plans)

    def _runs(self) -> Iterator[Family]:
        labels = "kind", "plan"
        last = _Gauges(
            labels,
            last_run_timestamp_seconds="When the newest run ended.",
            last_run_success="1 if the newest run did all it should, 0 otherwise.",
            last_run_duration_seconds="How long the newest run took.",
            last_run_warnings="What the newest run warned of.",
        )
        success = _Gauges(labels, last_success_timestamp_seconds="When the newest good run ended.")
        running = _Gauges(labels, running="Runs under way.")
        for kind, plan in self._subjects():
            key = (kind, plan or "")
            ended = self._last(kind, plan, _ENDED)
            if ended is not None:
                last.add(key, _ended(ended), ended.good, ended.seconds or 0.0, ended.warnings)
            done = ended if ended is not None and ended.good else self._last(kind, plan, ["done"])
            if done is not None:
                success.add(key, _ended(done))
            if plan is not None or kind == "prune":
                newest = self._sources.history.runs(kind=kind, plan=plan, limit=_NEWEST)
                running.add(key, sum(run.outcome == "running" for run in newest))
        yield from (*last, *success, *running)
        total = CounterMetricFamily(
            "backupd_runs", "Runs that this daemon saw end.", labels=["kind", "plan", "outcome"]
        )
        for (kind_, plan_, outcome), count in self._counter.counts().items():
            total.add_metric([kind_, plan_, outcome], count)
        yield total

    def _last(self, kind: RunKind, plan: str | None, outcomes: Iterable[Outcome]) -> Run | None:
        limit = 1 if plan else _NEWEST
        runs = self._sources.history.runs(kind=kind, plan=plan, outcomes=list(outcomes), limit=limit, whole=True)
        return next((run for run in runs if run.plan == plan), None)

    def _figures(self) -> Iterator[Family]:
        read = _Gauges(
            ("plan", "volume"),
            volume_plain_bytes="Size of the volume's data in the newest backup.",
            volume_new_bytes="What of it no earlier snapshot had.",
            volume_stored_bytes="What that took in the first store.",
            volume_files="Files and directories in it.",
            volume_warnings="What was warned of while it was read.",
            volume_duration_seconds="How long reading it took.",
        )
        away = _Gauges(("plan", "service"), service_downtime_seconds="How long the newest backup held a service.")
        for plan in self._sources.plans:
            run = self._last("backup", plan.name, ["done", "partial"])
            for volume, one in run.volumes.items() if run else ():
                key = (plan.name, volume)
                read.add(key, one.plain_bytes, one.new_bytes, one.stored_bytes, one.files, one.warnings, one.seconds)
            for service, span in run.downtime.items() if run else ():
                away.add((plan.name, service), span)
        yield from (*read, *away)

    def _stores(self) -> Iterator[Family]:
        up = _Gauges(("store",), store_up="1 if the last look at the store worked.")
        seen = _Gauges(
            ("store",),
            store_seen_timestamp_seconds="When the store was last looked at with success.",
            store_size_bytes="All objects of the store.",
            store_objects="How many objects it has.",
            store_unreadable="Snapshots and records that can't be read or believed.",
        )
        snapshots = _Gauges(("store", "plan"), snapshots="Snapshots in a store.")
        newest = _Gauges(
            ("store", "plan", "volume"), newest_snapshot_timestamp_seconds="When the newest of a volume began."
        )
        for name, state in self._sources.stores().items():
            if state.content is None and state.error is None:
                continue  # not looked at yet
            up.add((name,), state.error is None)
            if (content := state.content) is not None:
                seen.add((name,), content.time.timestamp(), content.size_bytes, content.objects, content.damaged)
                self._content(name, content, snapshots, newest)
        yield from (*up, *seen, *snapshots, *newest)

    def _content(self, store: str, content: StoreContent, snapshots: _Gauges, newest: _Gauges) -> None:
        counts: dict[str, int] = {plan.name: 0 for plan in self._sources.plans if store in plan.stores}
        for manifest in content.manifests:
            counts[manifest.plan] = counts.get(manifest.plan, 0) + 1
        for plan, count in sorted(counts.items()):
            snapshots.add((store, plan), count)
        for facts in self._sources.plans:
            for volume, time in sorted(_newest(facts, content).items()) if store in facts.stores else ():
                newest.add((store, facts.name, volume), time)

    def _checks(self) -> Iterator[Family]:
        states = _Gauges(("store", "plan", "state"), snapshot_states="Snapshots by what their checks say.")
        newest = _Gauges(("store", "plan"), newest_good_snapshot_timestamp_seconds="When the newest good one began.")
        for store, state in self._sources.stores().items():
            if state.content is None:
                continue
            known = [(manifest, state.content.standing(manifest.id).state) for manifest in state.content.manifests]
            counts = Counter((manifest.plan, word) for manifest, word in known)
            plans = {plan.name for plan in self._sources.plans if store in plan.stores} | {plan for plan, _ in counts}
            for plan, word in product(sorted(plans), get_args(State)):
                states.add((store, plan, word), counts[plan, word])
            own = [(manifest, word) for manifest, word in known if manifest.is_by(state.content.machine)]
            good = {manifest.plan: manifest for manifest, word in reversed(own) if word == "good"}
            for plan, manifest in sorted(good.items()):
                newest.add((store, plan), manifest.time.timestamp())
        yield from (*states, *newest)

    def _drills(self) -> Iterator[Family]:
        drilled = _Gauges(
            ("store", "plan", "volume"),
            drill_timestamp_seconds="When the volume was last drilled.",
            drill_success="1 if that found nothing wrong, 0 if it did.",
            drill_recovery_seconds="How long a restore took, services included (RTO).",
        )
        for store, state in self._sources.stores().items():
            records = state.content.drills if state.content else []
            newest = {(record.plan, volume.volume): (record, volume) for record in records for volume in record.volumes}
            for (plan, name), (record, volume) in newest.items():
                good = volume.outcome != "failed"
                drilled.add((store, plan, name), record.time.timestamp(), good, volume.recovery_seconds)
        yield from drilled

    def _told(self) -> Iterator[Family]:
        alerts = _Gauges(("alert", "subject"), alert_active="1: the alert is on.")
        for raised in self._sources.alerts().values():
            alerts.add((raised.alert, raised.subject), 1)
        room = _Gauges(("place",), free_bytes="Free space where backupd writes.", space_bytes="All space there.")
        for place, space in self._sources.spaces().items():
            if space is not None:
                room.add((place,), space.free, space.total)
        yield from (*alerts, *room)
        sent = CounterMetricFamily("backupd_notifications", "Notifications and pings.", labels=["receiver", "outcome"])
        for (receiver, outcome), count in self._sources.deliveries().items():
            sent.add_metric([receiver, outcome], count)
        yield sent


class _Gauges:
    """Gauges with the same labels: names and what they tell; `add` gives each a value, None where there is none."""

    def __init__(self, labels: Sequence[str], **texts: str) -> None:
        self._families = [GaugeMetricFamily(f"backupd_{name}", text, labels=labels) for name, text in texts.items()]

    def __iter__(self) -> Iterator[GaugeMetricFamily]:
        return iter(self._families)

    def add(self, key: Sequence[str], *values: float | None) -> None:
        """A row: the values of the labels, and one value for each gauge."""
        for family, value in zip(self._families, values, strict=True):
            if value is not None:
                family.add_metric(key, float(value))


def _newest(plan: PlanFacts, content: StoreContent) -> dict[str, float]:
    """When this machine's newest snapshot of each volume began. What has left the plan grows old without a word."""
    mine = [one for one in content.manifests if one.is_by(content.machine)]
    own = [one for one in mine if one.plan == plan.name and one.reason == "backup"]
    volumes = set(plan.volumes)
    for newest in [one for one in own if not one.part][:1]:  # volumes may be in the plan by their labels
        volumes |= newest.volumes | {failure.volume for failure in newest.failures}
    times: dict[str, float] = {}
    for manifest in reversed(own):
        times |= dict.fromkeys(manifest.volumes & volumes, manifest.time.timestamp())
    return times


def _ended(run: Run) -> float:
    return (run.finished or run.started).timestamp()
