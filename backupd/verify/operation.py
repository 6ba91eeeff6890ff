"""Verify: every store asked whether it holds what its snapshots say, and mended from another if that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from msgspec import Struct, field
from msgspec.structs import replace

from backupd.errors import BackupdError, IntegrityError, NoRepository, SnapshotNotFound, StoreDenied
from backupd.known import KnownRepositories
from backupd.ports import Store
from backupd.repository import Manifest, RecordDoubted, Repository, layout, standings
from backupd.runtime import Runtime
from backupd.strays import damaged_strays
from backupd.verify.document import mend_document
from backupd.verify.recording import Look, keep_findings
from backupd.verify.repair import Repair, Repaired
from backupd.verify.result import StoreVerified, Verified, VerifyRequest
from backupd.verify.verifier import Finding, Verifier


def verify(
    stores: Sequence[Store], request: VerifyRequest, runtime: Runtime, random: Random, sources: Sequence[Store] = ()
) -> Verified:
    """Check what the stores hold, and note with every snapshot what was found.

    A store that can't be checked is named in the result and does not keep the others from it. A repair takes from all
    of the stores that are given, and from `sources`, which are not checked themselves. SnapshotNotFound, NoRepository
    if none of them holds what was asked for.
    """
    visit = _Visit(request, runtime, random)
    visit.open(stores)
    if request.repair:
        visit.find_help(sources)
        visit.mend_documents()
    visit.check()
    if request.repair:
        visit.repair()
    ordered = [visit.results[store.name] for store in stores]
    if all(one.absent for one in ordered):
        raise next(one.error for one in ordered if one.error is not None)
    return Verified(tuple(replace(one, error=None) if one.absent else one for one in ordered))


class _Visit(Struct):
    """All stores: what was found in each, by name; `lost` are those whose own document is damaged or gone."""

    request: VerifyRequest
    runtime: Runtime
    random: Random
    results: dict[str, StoreVerified] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    lost: list[Store] = field(default_factory=list)
    helpers: list[Repository] = field(default_factory=list)

    def open(self, stores: Sequence[Store]) -> None:
        """Those that can't be have their results with that."""
        for store in stores:
            try:
                self.repositories[store.name] = _open(store, self.runtime)
            except IntegrityError as exc:
                problem = _here(store.name, exc)
                self.results[store.name] = StoreVerified(store.name, problems=(problem,), hint=exc.hint)
                self.lost.append(store)
            except BackupdError as exc:
                self.results[store.name] = StoreVerified(store.name, error=exc, absent=isinstance(exc, NoRepository))

    def find_help(self, sources: Sequence[Store]) -> None:
        """Repositories that are only read from."""
        for store in sources:
            try:
                self.helpers.append(_open(store, self.runtime))
            except BackupdError as exc:
                self.runtime.progress.note(f"nothing is taken from store {store.name}: {exc}")

    def mend_documents(self) -> None:
        """Where that can't be done, nothing else can."""
        for store in self.lost:
            try:
                mend_document(store, self._others(store.name), self.runtime)
                self.repositories[store.name] = _open(store, self.runtime)
                self.results[store.name] = StoreVerified(store.name, repaired=Repaired({layout.CONFIG: store.name}))
                self.runtime.progress.note(f"{store.name}: {layout.CONFIG} is mended")
            except (IntegrityError, StoreDenied) as exc:
                left = Repaired(left={layout.CONFIG: str(exc)})
                self.results[store.name] = replace(self.results[store.name], repaired=left)
            except BackupdError as exc:
                self.results[store.name] = replace(self.results[store.name], error=exc)

    def check(self) -> None:
        """Look at each."""
        for name, repository in self.repositories.items():
            before = self.results.get(name)
            after = _Check(repository, self.request, self.runtime, self.random).run()
            self.results[name] = replace(after, repaired=before.repaired) if before else after

    def repair(self) -> None:
        """Mend in each what was found."""
        for name, repository in self.repositories.items():
            check = _Check(repository, self.request, self.runtime, self.random)
            self.results[name] = check.repaired(self.results[name], self._others(name))

    def _others(self, name: str) -> list[Repository]:
        return [found for other, found in self.repositories.items() if other != name] + self.helpers


def _open(store: Store, runtime: Runtime) -> Repository:
    known = KnownRepositories(runtime.state)
    try:
        repository = Repository.open(store, threads=runtime.threads, security=runtime.security)
    except NoRepository:
        known.check(store.name, None)  # one that is gone has not been checked
        raise
    known.check(store.name, repository.config.id)
    return repository


def _here(store: str, problem: BackupdError) -> str:
    return str(problem).removeprefix(f"{store}: ")


class _Check(Struct):
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
            mended_before = before.repaired.mended if before.repaired else {}
            outcome = replace(outcome, mended={**mended_before, **outcome.mended})
            return replace(self._result(manifests, damaged, [*stands, *again]), repaired=outcome)
        except IntegrityError as exc:
            return replace(before, problems=(*before.problems, self._here(exc)))
        except BackupdError as exc:
            return replace(before, error=exc)

    @property
    def _name(self) -> str:
        return self.repository.store.name

    def _here(self, problem: BackupdError) -> str:
        return _here(self._name, problem)

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
