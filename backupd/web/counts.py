"""How many runs ended, and how."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import product

from backupd.history import Run

_SEEN = ("done", "partial", "failed", "interrupted", "skipped")


class RunCounter:
    """Watches runs; starts at 0 for what is expected, so that the first failure is an increase, too."""

    def __init__(self, plans: Collection[str]) -> None:
        self._lock = threading.Lock()
        self._counts = Counter(dict.fromkeys(product(("backup",), plans, _SEEN), 0))

    def began(self, run: Run) -> None:
        """It does not count yet."""

    def ended(self, run: Run) -> None:
        """Count it."""
        with self._lock:
            self._counts[run.kind, run.plan or "", run.outcome] += 1

    def counts(self) -> Mapping[tuple[str, str, str], int]:
        """By kind, plan and outcome."""
        with self._lock:
            return dict(self._counts)
