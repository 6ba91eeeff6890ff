"""What one store keeps: the plans' policies, and the rules for snapshots that belong to no plan. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from backupd.model import KeepPolicy
from backupd.repository import Manifest
from backupd.retention import Decision, decide, zone

Verdict = Decision[Manifest]


class Rules(Struct, frozen=True):
    """The rules of one store.

    `plans` has every plan of the configuration: its policy here (None: all are kept) and its time zone. Safety
    snapshots are kept for `safety`, objects that nothing refers to for `grace`.
    """

    plans: Mapping[str, tuple[KeepPolicy | None, str]]
    safety: timedelta
    grace: timedelta

    @property
    def ask_for_proven(self) -> bool:
        """Whether it matters which snapshots a drill has proven."""
        return any(policy is not None and policy.asks_for_proven for policy, _ in self.plans.values())


def judge(
    manifests: Sequence[Manifest],
    rules: Rules,
    now: datetime,
    proven: Collection[str] = (),
    damaged: Collection[str] = (),
) -> list[Verdict]:
    """A verdict on every snapshot, newest first; `proven` are the ids of those that a drill found to be good.

    Imports are kept until they are named. So are snapshots of plans that have no policy, or that nobody knows any more.
    Whatever the rules say, the newest snapshot of every volume is kept. Those with the ids of `damaged` are kept until
    they are named, and take nobody's place.
    """
    verdicts: list[Verdict] = []
    sound = [manifest for manifest in manifests if manifest.id not in damaged]
    for plan in sorted({manifest.plan for manifest in sound}):
        own = [manifest for manifest in sound if manifest.plan == plan]
        verdicts += _of_plan(plan, own, rules, now, proven)
    verdicts = _with_the_newest(_newest_first(verdicts))
    spoilt = (manifest for manifest in manifests if manifest.id in damaged)
    return _newest_first([*verdicts, *_kept(spoilt, "damaged: kept until it is mended or named")])


def _newest_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return sorted(verdicts, key=lambda verdict: (verdict.snapshot.time, verdict.snapshot.id), reverse=True)


def named(manifests: Iterable[Manifest], ids: Collection[str]) -> list[Verdict]:
    """Verdicts by which only the snapshots of these ids go, newest first."""
    ordered = sorted(manifests, key=lambda manifest: (manifest.time, manifest.id), reverse=True)
    return [Decision(found, found.id not in ids, () if found.id in ids else ("not named",)) for found in ordered]


def _of_plan(
    plan: str, manifests: list[Manifest], rules: Rules, now: datetime, proven: Collection[str]
) -> list[Verdict]:
    taken = [manifest for manifest in manifests if manifest.reason == "backup"]
    verdicts = [_special(manifest, rules, now) for manifest in manifests if manifest.reason != "backup"]
    if plan not in rules.plans:
        return [*verdicts, *_kept(taken, f"there is no plan {plan} in the configuration")]
    policy, timezone = rules.plans[plan]
    if policy is None:
        return [*verdicts, *_kept(taken, f"plan {plan} keeps all")]
    return [*verdicts, *decide(taken, policy, now, zone(timezone), proven)]


def _kept(manifests: Iterable[Manifest], reason: str) -> list[Verdict]:
    return [Decision(manifest, True, (reason,)) for manifest in manifests]


def _special(manifest: Manifest, rules: Rules, now: datetime) -> Verdict:
    if manifest.reason == "import":
        return Decision(manifest, True, ("imported",))
    young = now - manifest.time < rules.safety
    return Decision(manifest, young, ("safety snapshot, still young",) if young else ())


def _with_the_newest(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The same, and besides the newest of every volume, whatever it was taken for."""
    newest: dict[str, str] = {}
    for verdict in verdicts:
        for volume in verdict.snapshot.volumes:
            newest.setdefault(volume, verdict.snapshot.id)
    result = []
    for verdict in verdicts:
        of = sorted(volume for volume, snapshot in newest.items() if snapshot == verdict.snapshot.id)
        if of and not verdict.keep:
            verdict = replace(verdict, keep=True, reasons=(f"the newest of {', '.join(of)}",))  # noqa: PLW2901
        result.append(verdict)
    return result
