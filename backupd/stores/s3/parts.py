"""How large the parts of a multipart upload are. Arithmetic only."""

from __future__ import annotations

from msgspec import Struct

from backupd.errors import StoreError
from backupd.model import MIB
from backupd.stores.s3.options import LARGEST_PART


class PartPlan(Struct, frozen=True):
    """Sizes in bytes of parts 1, 2, 3, …: `base` for the first `steady` parts, then doubling every `step` parts.

    Some services are said to want parts of one size, so where the size of the object is known beforehand they are
    (with a quarter to spare). Where it is not, parts begin small, to save memory, and grow: with the defaults, 600
    parts of 8 MiB, 600 of 16 MiB and so on up to 1 GiB; 10,000 of those hold more than the 5 TiB that S3 allows.
    """

    base: int
    steady: int
    step: int
    count: int

    def size(self, number: int) -> int:
        """Size of part `number`, counted from 1; StoreError when there may be no more parts."""
        if number > self.count:
            raise StoreError(f"the object needs more than {self.count} parts", hint="raise the part size of the store")
        doublings = max(0, (number - self.steady + self.step - 1) // self.step)
        return min(self.base << doublings, LARGEST_PART)


def plan_parts(part_size_bytes: int, max_parts: int, size_hint: int | None) -> PartPlan:
    """Parts for an object of about `size_hint` bytes, of `part_size_bytes` if that is enough."""
    step = max(1, max_parts * 6 // 100)
    expected = (size_hint or 0) * 5 // 4
    needed = -(-expected // max_parts)
    base = min(max(part_size_bytes, -(-needed // MIB) * MIB), LARGEST_PART)
    return PartPlan(base=base, steady=max(step, -(-expected // base)), step=step, count=max_parts)
