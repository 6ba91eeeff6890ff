"""What Prometheus scrapes. docs/monitoring.md lists the metrics, and a test compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
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
        yield _gauge("backupd_ready", "1 once schedules fire.", value=float(status.ready and not status.stopping))
        yield _gauge("backupd_start_time_seconds", "When the daemon started.", value=status.started.timestamp())
        good = float(status.config_error is None)
        yield _gauge("backupd_config_last_reload_successful", "0: the configuration read last is refused.", value=good)
        due = _gauge("backupd_next_run_timestamp_seconds", "When a schedule fires next.", "kind", "plan")
        for run in status.next_runs:
            due.add_metric([run.kind, run.plan or ""], run.at.timestamp())
        yield due
        ages = _gauge("backupd_max_age_seconds", "How old the plan's last success may become.", "plan")
        for plan in self._sources.plans:
            if plan.max_age is not None:
                ages.add_metric([plan.name], plan.max_age.total_seconds())
        yield ages

    def _subjects(self) -> Iterator[tuple[RunKind, str | None]]:
        plans: list[PlanFacts | None] = [*self._sources.plans, None]
        yield from ((kind, plan.name if plan else None) for kind in KINDS for plan in plans)

    def _runs(self) -> Iterator[Family]:
        labels = "kind", "plan"
        last = _gauge("backupd_last_run_timestamp_seconds", "When the newest run ended.", *labels)
        success = _gauge("backupd_last_success_timestamp_seconds", "When the newest good run ended.", *labels)
        good = _gauge("backupd_last_run_success", "1 if the newest run did all it should, 0 otherwise.", *labels)
        took = _gauge("backupd_last_run_duration_seconds", "How long the newest run took.", *labels)
        warnings = _gauge("backupd_last_run_warnings", "What the newest run warned of.", *labels)
        running = _gauge("backupd_running", "Runs under way.", *labels)
        for kind, plan in self._subjects():
            key = [kind, plan or ""]
            ended = self._last(kind, plan, _ENDED)
            if ended is not None:
                last.add_metric(key, _ended(ended).timestamp())
                good.add_metric(key, float(ended.good))
                took.add_metric(key, ended.seconds or 0.0)
                warnings.add_metric(key, ended.warnings)
            done = ended if ended is not None and ended.good else self._last(kind, plan, ["done"])
            if done is not None:
                success.add_metric(key, _ended(done).timestamp())
            if plan is not None or kind == "prune":
                newest = self._sources.history.runs(kind=kind, plan=plan, limit=_NEWEST)
                running.add_metric(key, sum(run.outcome == "running" for run in newest))
        yield from (last, success, good, took, warnings, running)
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
        labels = "plan", "volume"
        plain = _gauge("backupd_volume_plain_bytes", "Size of the volume's data in the newest backup.", *labels)
        new = _gauge("backupd_volume_new_bytes", "What of it no earlier snapshot had.", *labels)
        stored = _gauge("backupd_volume_stored_bytes", "What that took in the first store.", *labels)
        files = _gauge("backupd_volume_files", "Files and directories in it.", *labels)
        warnings = _gauge("backupd_volume_warnings", "What was warned of while it was read.", *labels)
        seconds = _gauge("backupd_volume_duration_seconds", "How long reading it took.", *labels)
        away = _gauge(
            "backupd_service_downtime_seconds", "How long the newest backup held a service.", "plan", "service"
        )
        for plan in self._sources.plans:
            run = self._last("backup", plan.name, ["done", "partial"])
            for volume, figures in run.volumes.items() if run else ():
                key = [plan.name, volume]
                plain.add_metric(key, figures.plain_bytes)
                new.add_metric(key, figures.new_bytes)
                stored.add_metric(key, figures.stored_bytes)
                files.add_metric(key, figures.files)
                warnings.add_metric(key, figures.warnings)
                seconds.add_metric(key, figures.seconds)
            for service, span in run.downtime.items() if run else ():
                away.add_metric([plan.name, service], span)
        yield from (plain, new, stored, files, warnings, seconds, away)

    def _stores(self) -> Iterator[Family]:
        up = _gauge("backupd_store_up", "1 if the last look at the store worked.", "store")
        seen = _gauge(
            "backupd_store_seen_timestamp_seconds", "When the store was last looked at with success.", "store"
        )
        size = _gauge("backupd_store_size_bytes", "All objects of the store.", "store")
        objects = _gauge("backupd_store_objects", "How many objects it has.", "store")
        damaged = _gauge("backupd_store_unreadable", "Snapshots and records that can't be read or believed.", "store")
        snapshots = _gauge("backupd_snapshots", "Snapshots in a store.", "store", "plan")
        newest = _gauge(
            "backupd_newest_snapshot_timestamp_seconds", "When the newest of a volume began.", "store", "plan", "volume"
        )
        for name, state in self._sources.stores().items():
            if state.content is None and state.error is None:
                continue  # not looked at yet
            up.add_metric([name], float(state.error is None))
            if state.content is not None:
                seen.add_metric([name], state.content.time.timestamp())
                size.add_metric([name], state.content.size_bytes)
                objects.add_metric([name], state.content.objects)
                damaged.add_metric([name], state.content.damaged)
                self._content(name, state.content, snapshots, newest)
        yield from (up, seen, size, objects, damaged, snapshots, newest)

    def _content(
        self, store: str, content: StoreContent, snapshots: GaugeMetricFamily, newest: GaugeMetricFamily
    ) -> None:
        counts: dict[str, int] = {plan.name: 0 for plan in self._sources.plans if store in plan.stores}
        for manifest in content.manifests:
            counts[manifest.plan] = counts.get(manifest.plan, 0) + 1
        for plan, count in sorted(counts.items()):
            snapshots.add_metric([store, plan], count)
        for facts in self._sources.plans:
            for volume, time in sorted(_newest(facts, content).items()) if store in facts.stores else ():
                newest.add_metric([store, facts.name, volume], time)

    def _checks(self) -> Iterator[Family]:
        states = _gauge("backupd_snapshot_states", "Snapshots by what their checks say.", "store", "plan", "state")
        newest = _gauge(
            "backupd_newest_good_snapshot_timestamp_seconds", "When the newest good one began.", "store", "plan"
        )
        for store, state in self._sources.stores().items():
            if state.content is None:
                continue
            known = [(manifest, state.content.standing(manifest.id).state) for manifest in state.content.manifests]
            counts = Counter((manifest.plan, word) for manifest, word in known)
            plans = {plan.name for plan in self._sources.plans if store in plan.stores} | {plan for plan, _ in counts}
            for plan, word in product(sorted(plans), get_args(State)):
                states.add_metric([store, plan, word], counts[plan, word])
            good = {manifest.plan: manifest for manifest, word in reversed(known) if word == "good"}
            for plan, manifest in sorted(good.items()):
                newest.add_metric([store, plan], manifest.time.timestamp())
        yield from (states, newest)

    def _drills(self) -> Iterator[Family]:
        labels = "store", "plan", "volume"
        time = _gauge("backupd_drill_timestamp_seconds", "When the volume was last drilled.", *labels)
        proven = _gauge("backupd_drill_success", "1 if that found nothing wrong, 0 if it did.", *labels)
        recovery = _gauge(
            "backupd_drill_recovery_seconds", "How long a restore took, services included (RTO).", *labels
        )
        for store, state in self._sources.stores().items():
            records = state.content.drills if state.content else []
            newest = {(record.plan, volume.volume): (record, volume) for record in records for volume in record.volumes}
            for (plan, name), (record, volume) in newest.items():
                time.add_metric([store, plan, name], record.time.timestamp())
                proven.add_metric([store, plan, name], float(volume.outcome != "failed"))
                recovery.add_metric([store, plan, name], volume.recovery_seconds)
        yield from (time, proven, recovery)

    def _told(self) -> Iterator[Family]:
        alert = _gauge("backupd_alert_active", "1: the alert is on.", "alert", "subject")
        for raised in self._sources.alerts().values():
            alert.add_metric([raised.alert, raised.subject], 1)
        yield alert
        free = _gauge("backupd_free_bytes", "Free space where backupd writes.", "place")
        total = _gauge("backupd_space_bytes", "All space there.", "place")
        for place, space in self._sources.spaces().items():
            if space is not None:
                free.add_metric([place], space.free)
                total.add_metric([place], space.total)
        yield from (free, total)
        sent = CounterMetricFamily("backupd_notifications", "Notifications and pings.", labels=["receiver", "outcome"])
        for (receiver, outcome), count in self._sources.deliveries().items():
            sent.add_metric([receiver, outcome], count)
        yield sent


def _newest(plan: PlanFacts, content: StoreContent) -> dict[str, float]:
    """When the newest snapshot of each volume began. What has left the plan grows old without a word."""
    own = [one for one in content.manifests if one.plan == plan.name and one.reason == "backup"]
    volumes = set(plan.volumes)
    for newest in [one for one in own if not one.part][:1]:  # volumes may be in the plan by their labels
        volumes |= newest.volumes | {failure.volume for failure in newest.failures}
    times: dict[str, float] = {}
    for manifest in reversed(own):
        times |= dict.fromkeys(manifest.volumes & volumes, manifest.time.timestamp())
    return times


def _gauge(name: str, text: str, *labels: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels or None, value=value)


def _ended(run: Run) -> datetime:
    return run.finished or run.started
