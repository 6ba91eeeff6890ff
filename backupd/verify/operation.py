"""Verify: every store asked whether it holds what its snapshots say, and mended from another if that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from backupd.errors import BackupdError, IntegrityError, NoRepository, PartialFailure, SnapshotNotFound
from backupd.known import KnownRepositories
from backupd.ports import Store
from backupd.repository import Manifest, RecordDoubted, Repository, Standing, standings
from backupd.runtime import Runtime
from backupd.strays import damaged_strays
from backupd.verify.recording import Look, keep_findings
from backupd.verify.repair import Repair, Repaired
from backupd.verify.verifier import Finding, Verifier


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """What is to be checked: one `snapshot` (id, prefix or `latest`), those of a `plan`, or all.

    `fraction` of the data is read: see Verifier. `keyless`: what there is no key for is hashed as it is stored, instead
    of a KeyMissing. `repair`: what is damaged in one store is replaced by what another one holds.
    """

    snapshot: str | None = None
    plan: str | None = None
    fraction: float = 0.0
    keyless: bool = False
    repair: bool = False


@dataclass(frozen=True, slots=True)
class StoreVerified:
    """What was found in one store. `problems`, in words, are what is wrong now, after `repaired` if it was.

    `suspects` are the snapshots that are damaged, `standings` what is known of each by now. `error`: it could not be
    checked to the end. `absent`: it holds no repository, or not the snapshot, as yet.
    """

    store: str
    snapshots: int = 0
    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()
    suspects: tuple[Manifest, ...] = ()
    standings: Mapping[str, Standing] = field(default_factory=dict)
    repaired: Repaired | None = None
    error: BackupdError | None = None
    absent: bool = False

    @property
    def read(self) -> int:
        """Bytes of data that were read and checked."""
        return sum(finding.read for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in all stores."""

    stores: tuple[StoreVerified, ...]

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words, in whatever store."""
        return [f"{one.store}: {problem}" for one in self.stores for problem in one.problems]

    @property
    def empty(self) -> bool:
        """Whether there was nothing to check, and nothing is wrong either."""
        return not any(one.snapshots or one.problems or one.error for one in self.stores)

    def require_good(self) -> None:
        """IntegrityError if anything is damaged; else the error of a store, PartialFailure if others were checked."""
        if count := len(self.problems):
            whole = ", ".join(one.store for one in self.stores if not (one.problems or one.error or one.absent))
            hint = "no other store is whole: `backupd verify --repair` mends what any of them holds"
            if any(one.repaired and one.repaired.left for one in self.stores):
                hint = (
                    "what no store holds whole is lost: `backupd backup` takes a sound snapshot, and"
                    " `backupd prune ID` gives up the damaged one"
                )
            elif whole:
                hint = f"`backupd verify --repair` mends what another store holds (whole: {whole})"
            elif len(self.stores) == 1:
                hint = (
                    "if another store holds it, `backupd verify --repair` brings it back, and a restore reads it there"
                )
            noun = "problem" if count == 1 else "problems"
            raise IntegrityError(f"{count} {noun} found", hint=hint)
        errors = [one.error for one in self.stores if one.error is not None]
        if errors and len(errors) < sum(not one.absent for one in self.stores):
            raise PartialFailure(str(errors[0]), hint=errors[0].hint)
        if errors:
            raise errors[0]


def verify(stores: Sequence[Store], request: VerifyRequest, runtime: Runtime, random: Random) -> Verified:
    """Check what the stores hold, and note with every snapshot what was found.

    A store that can't be checked is named in the result and does not keep the others from it. A repair takes from all
    of the stores that are given. SnapshotNotFound, NoRepository if none of them holds what was asked for.
    """
    repositories: dict[str, Repository] = {}
    results: dict[str, StoreVerified] = {}
    for store in stores:
        try:
            repositories[store.name] = _open(store, runtime)
        except NoRepository as exc:
            results[store.name] = StoreVerified(store.name, error=exc, absent=True)
        except BackupdError as exc:
            results[store.name] = StoreVerified(store.name, error=exc)
    checks = {name: _Check(repository, request, runtime, random) for name, repository in repositories.items()}
    for name, check in checks.items():
        results[name] = check.run()
    if request.repair:
        for name, check in checks.items():
            others = [found for other, found in repositories.items() if other != name]
            results[name] = check.repaired(results[name], others)
    ordered = [results[store.name] for store in stores]
    if all(one.absent for one in ordered):
        raise next(one.error for one in ordered if one.error is not None)
    return Verified(tuple(replace(one, error=None) if one.absent else one for one in ordered))


def _open(store: Store, runtime: Runtime) -> Repository:
    known = KnownRepositories(runtime.state)
    try:
        repository = Repository.open(store, threads=runtime.threads, security=runtime.security)
    except NoRepository:
        known.check(store.name, None)  # one that is gone has not been checked
        raise
    known.check(store.name, repository.config.id)
    return repository


@dataclass(slots=True)
class _Check:
    """One store."""

    repository: Repository
    request: VerifyRequest
    runtime: Runtime
    random: Random

    def run(self) -> StoreVerified:
        """Look, and note what was found."""
        try:
            manifests, damaged = self._chosen()
            if self.request.fraction > 0 and self.request.snapshot is None:
                damaged += damaged_strays(self.repository)
            findings = self._verify(manifests, self.request.fraction, keyless=self.request.keyless)
            return self._result(manifests, damaged, findings)
        except SnapshotNotFound as exc:
            return StoreVerified(self._name, error=exc, absent=True)
        except IntegrityError as exc:  # of the manifest that was asked for
            return StoreVerified(self._name, problems=(self._here(exc),))
        except BackupdError as exc:
            return StoreVerified(self._name, error=exc)

    def repaired(self, before: StoreVerified, others: Sequence[Repository]) -> StoreVerified:
        """Mend what was found, and what is known from before; read what was mended whole. The result as it is then."""
        if before.error is not None or not before.problems:
            return before
        try:
            repair = Repair(self.repository, others, self.runtime)
            outcome = repair.run(before.suspects, self.request.snapshot)
            manifests, damaged = self._chosen()
            mended = [manifest for manifest in manifests if manifest.id in outcome.snapshots]
            stands = [finding for finding in before.findings if finding.snapshot not in outcome.snapshots]
            again = self._verify(mended, 1.0, keyless=True)
            return replace(self._result(manifests, damaged, [*stands, *again]), repaired=outcome)
        except IntegrityError as exc:
            return replace(before, problems=(*before.problems, self._here(exc)))
        except BackupdError as exc:
            return replace(before, error=exc)

    @property
    def _name(self) -> str:
        return self.repository.store.name

    def _here(self, problem: BackupdError) -> str:
        return str(problem).removeprefix(f"{self._name}: ")

    def _plainly(self, finding: Finding) -> str:
        """The problem without the store and the volume, which are told before."""
        problem = (finding.problem or "").removeprefix(f"{self._name}: ")
        return problem.removeprefix(f"{finding.volume}: ")

    def _chosen(self) -> tuple[list[Manifest], list[BackupdError]]:
        if self.request.snapshot is not None:
            return [self.repository.resolve(self.request.snapshot)], []
        manifests, damaged = self.repository.snapshots()
        plan = self.request.plan
        return [manifest for manifest in manifests if plan in (None, manifest.plan)], damaged

    def _verify(self, manifests: Sequence[Manifest], fraction: float, *, keyless: bool) -> list[Finding]:
        """Oldest first, each noted as soon as it was looked at. One that was pruned meanwhile is left out."""
        verifier = Verifier(self.repository, self.runtime.progress, fraction, self.random, keyless)
        found: list[Finding] = []
        for manifest in sorted(manifests, key=lambda manifest: manifest.time):
            started = self.runtime.clock.now()
            own = list(verifier.verify([manifest]))
            if any(finding.problem for finding in own) and manifest.id not in self.repository.snapshot_ids():
                continue
            kind = own[0].kind if own else "sizes"
            look = Look(started, kind, 0.0 if kind == "sizes" else fraction)
            keep_findings(self.repository, manifest, own, look, self.runtime)
            found += own
        return found

    def _result(
        self, manifests: Sequence[Manifest], damaged: Sequence[BackupdError], findings: Sequence[Finding]
    ) -> StoreVerified:
        known = standings(self.repository)
        problems = [self._here(problem) for problem in damaged]
        for problem in known.problems:
            if isinstance(problem, RecordDoubted):
                self.runtime.progress.note(str(problem))
            elif self._here(problem) not in problems:
                problems.append(self._here(problem))
        bad = {(finding.snapshot, finding.volume) for finding in findings if finding.problem is not None}
        problems += [
            f"snapshot {finding.snapshot[:8]}, {finding.volume}: {self._plainly(finding)}"
            for finding in findings
            if finding.problem is not None
        ]
        suspects = [m for m in manifests if known.get(m.id).state == "damaged" or any(m.id == id_ for id_, _ in bad)]
        for manifest in suspects:
            for volume, check in known.get(manifest.id).damaged.items():
                if (manifest.id, volume) not in bad:
                    when = f"{check.time:%Y-%m-%d %H:%M} UTC"
                    problems.append(
                        f"snapshot {manifest.short_id}, {volume}: a check of {check.how} at {when} found it damaged"
                    )
        states = {manifest.id: known.get(manifest.id) for manifest in manifests}
        return StoreVerified(
            self._name, len(manifests), tuple(findings), tuple(problems), tuple(suspects), standings=states
        )
