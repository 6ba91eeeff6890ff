"""Other stores, from which is read what one store can't give whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TypeVar

from backupd.errors import BackupdError, IntegrityError, StoreDenied, StoreError, StoreUnavailable
from backupd.ports import Store

_T = TypeVar("_T")


class PassedOver(StoreUnavailable):
    """A store that did not answer before was not asked again."""


class Elsewhere:
    """Stores that may hold the same objects, by name, each opened when it is first needed. Thread-safe.

    What they give has to be checked by whoever asks, by the hash that the manifest or the index has of it. One that
    does not answer is asked again only when no other can help. `note` is told by `tell`, from the reader's thread.
    """

    def __init__(self, stores: Mapping[str, Callable[[], Store]], note: Callable[[str], None]) -> None:
        self._openers = dict(stores)
        self._opened: dict[str, Store] = {}
        self._note = note
        self._lock = Lock()
        self._away: set[str] = set()
        self._said: set[tuple[str, str]] = set()
        self._untold: list[str] = []
        self._helped: Counter[str] = Counter()

    def is_away(self, store: Store) -> bool:
        """Whether a store did not answer before."""
        return store.name in self._away

    def attempt(self, first: Store, what: str, work: Callable[[Store], _T]) -> _T:
        """The work done with the first store, else with another; the first one's error if none can."""
        try:
            return work(first)
        except (IntegrityError, StoreError) as exc:
            return self.rescue(first, what, exc, work)

    def rescue(self, first: Store, what: str, failure: BackupdError, work: Callable[[Store], _T]) -> _T:
        """The work, which has failed with the first store, done with another one; the failure if none can."""
        self._notice(first.name, failure)
        others: list[BackupdError] = []
        for name in sorted(self._openers, key=lambda name: name in self._away):
            try:
                result = work(self._open(name))
            except (IntegrityError, StoreError) as exc:
                self._notice(name, exc)
                others.append(exc)
                continue
            self._remember(first.name, what, failure, name)
            return result
        if isinstance(failure, PassedOver):
            return work(first)
        if not others:
            raise failure
        reasons = "; ".join(dict.fromkeys(str(exc) for exc in others))
        raise type(failure)(f"{failure}; elsewhere: {reasons}", hint=failure.hint) from failure

    def tell(self) -> None:
        """Pass on what was not told yet."""
        with self._lock:
            untold, self._untold = self._untold, []
        for text in untold:
            self._note(text)

    def summary(self) -> list[str]:
        """How often which store helped since this was last asked, in words."""
        with self._lock:
            helped, self._helped = self._helped, Counter()
        return [
            f"{count} {'piece' if count == 1 else 'pieces'} came from store {name}" for name, count in helped.items()
        ]

    def close(self) -> None:
        """Let go of the stores that were opened."""
        for store in self._opened.values():
            store.close()

    def _open(self, name: str) -> Store:
        with self._lock:
            if name not in self._opened:
                self._opened[name] = self._openers[name]()
            return self._opened[name]

    def _notice(self, name: str, failure: BackupdError) -> None:
        if isinstance(failure, StoreUnavailable | StoreDenied):
            self._away.add(name)

    def _remember(self, first: str, what: str, failure: BackupdError, name: str) -> None:
        with self._lock:
            self._helped[name] += 1
            if (first, what) not in self._said:
                self._said.add((first, what))
                self._untold.append(f"{failure}; taken from store {name}")
