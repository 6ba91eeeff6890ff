"""Part sizes: arithmetic that must hold for every size of object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import StoreError
from backupd.model import MIB
from backupd.stores.s3.options import LARGEST_PART, SMALLEST_PART
from backupd.stores.s3.parts import PartPlan, plan_parts

GIB = 1024 * MIB
TIB = 1024 * GIB


def capacity(plan: PartPlan) -> int:
    return sum(plan.size(number) for number in range(1, plan.count + 1))


def test_an_object_of_unknown_size_may_grow_to_5_tib() -> None:
    assert capacity(plan_parts(8 * MIB, 10_000, None)) >= 5 * TIB
    assert capacity(plan_parts(SMALLEST_PART, 10_000, None)) >= 5 * TIB


def test_an_object_of_unknown_size_begins_small() -> None:
    plan = plan_parts(8 * MIB, 10_000, None)
    assert [plan.size(number) // MIB for number in (1, 600, 601, 1200, 1201, 4200, 4201, 10_000)] == [
        8, 8, 16, 16, 32, 512, 1024, 1024,
    ]  # fmt: skip


@given(size=st.integers(1, 5 * TIB), part=st.integers(5, 64))
def test_parts_of_an_object_of_known_size_are_equal_and_enough(size: int, part: int) -> None:
    plan = plan_parts(part * MIB, 10_000, size)
    needed = -(-size // plan.base)
    assert needed <= plan.count
    assert plan.size(1) == plan.size(needed) == plan.base
    assert capacity(plan) >= size * 5 // 4
    assert plan.base % MIB == 0


@given(
    part=st.integers(SMALLEST_PART, LARGEST_PART),
    count=st.integers(1, 10_000),
    hint=st.none() | st.integers(0, 5 * TIB),
)
def test_parts_never_shrink_and_stay_within_the_limits(part: int, count: int, hint: int | None) -> None:
    plan = plan_parts(part, count, hint)
    sizes = [plan.size(number) for number in range(1, count + 1)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= SMALLEST_PART
    assert sizes[-1] <= LARGEST_PART


def test_too_many_parts_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(StoreError) as caught:
        plan_parts(8 * MIB, 1000, None).size(1001)
    assert "part size" in str(caught.value.hint)
