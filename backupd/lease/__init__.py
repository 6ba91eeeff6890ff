"""Leases: who writes a store, and who prunes it, so that never both do (docs/decisions/0020-leases.md)."""

from backupd.lease.commit import commit
from backupd.lease.document import DURATION, Holder, problem_with_lease, standing
from backupd.lease.lease import Lease
from backupd.lease.leases import Leases

__all__ = ["DURATION", "Holder", "Lease", "Leases", "commit", "problem_with_lease", "standing"]
