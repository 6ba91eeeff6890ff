from __future__ import annotations

from pathlib import Path

import pytest

from backupd.engine import MountedEngine
from tests.support.runtime import Place, fill
from tests.support.services import FakeServices, service


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    fill(place.root())
    return place


@pytest.fixture
def services(place: Place) -> FakeServices:
    """One service, `app`, that writes to the volume `data`."""
    engine = place.runtime.engine
    assert isinstance(engine, MountedEngine)
    engine.services = services = FakeServices()
    services.add(service("app", str(place.root())))
    return services


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits to see whether services that are not there keep running."""
    monkeypatch.setattr("backupd.consistency.standstill._SETTLE_SECONDS", 0)
