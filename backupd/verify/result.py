"""What a verification is asked for, and what it found."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from backupd.errors import BackupdError, IntegrityError, PartialFailure
from backupd.repository import Manifest, Standing
from backupd.verify.repair import Repaired
from backupd.verify.verifier import Finding


class VerifyRequest(Struct, frozen=True):
    """What is to be checked: one `snapshot` (id, prefix or `latest`), those of a `plan`, or all.

    `fraction` of the data is read: see Verifier. `keyless`: what there is no key for is hashed as it is stored, instead
    of a KeyMissing. `repair`: what is damaged in one store is replaced by what another one holds.
    """

    snapshot: str | None = None
    plan: str | None = None
    fraction: float = 0.0
    keyless: bool = False
    repair: bool = False


class StoreVerified(Struct, frozen=True):
    """What was found in one store. `problems`, in words, are what is wrong now, after `repaired` if it was.

    `suspects` are the snapshots that are damaged, `standings` what is known of each by now. `error`: it could not be
    checked to the end. `absent`: it holds no repository, or not the snapshot, as yet. `hint`: what to do, where
    nothing can be done about its problems but that.
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
    hint: str | None = None

    @property
    def read(self) -> int:
        """Bytes of data that were read and checked."""
        return sum(finding.read for finding in self.findings)


class Verified(Struct, frozen=True):
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
            raise IntegrityError(f"{count} {'problem' if count == 1 else 'problems'} found", hint=self._hint())
        errors = [one.error for one in self.stores if one.error is not None]
        if errors and len(errors) < sum(not one.absent for one in self.stores):
            raise PartialFailure(str(errors[0]), hint=errors[0].hint)
        if errors:
            raise errors[0]

    def _hint(self) -> str:
        """What to do about damage."""
        left = [key for one in self.stores if one.repaired for key in one.repaired.left]
        whole = ", ".join(one.store for one in self.stores if not (one.problems or one.error or one.absent))
        if hint := next((one.hint for one in self.stores if one.hint), None):
            return hint
        if left:
            return (
                "what no store holds whole is lost: `backupd backup` takes a sound snapshot, and"
                " `backupd prune ID` gives up the damaged one"
            )
        if whole:
            return f"`backupd verify --repair` mends what another store holds (whole: {whole})"
        if len(self.stores) == 1:
            return "if another store holds it, `backupd verify --repair` brings it back, and a restore reads it there"
        return "no other store is whole: `backupd verify --repair` mends what any of them holds"
