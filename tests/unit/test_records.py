"""Records: what their repr says, and that there is one kind of them."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import ClassVar

import pytest

import backupd
from backupd.records import Discreet

SECRET = ("S3Options", "VolumeSpec", "Login", "Service", "Copy", "HelperSpec", "Order")


class Named(Discreet, frozen=True):
    _hidden: ClassVar = ("password",)

    user: str
    password: str


def test_what_is_hidden_is_not_in_the_repr() -> None:
    login = Named("copier", "xyzzy")
    assert repr(login) == "Named(user='copier')"
    assert login == Named("copier", "xyzzy") != Named("copier", "plugh")


def test_what_is_hidden_is_a_field() -> None:
    for info in pkgutil.walk_packages(backupd.__path__, "backupd."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    found = {kind.__name__: kind for kind in Discreet.__subclasses__() if kind is not Named}
    assert set(SECRET) <= set(found)
    for name, kind in found.items():
        assert set(kind._hidden) <= set(kind.__struct_fields__), name


@pytest.mark.parametrize("path", sorted(Path(backupd.__path__[0]).rglob("*.py")), ids=lambda path: path.stem)
def test_there_is_one_kind(path: Path) -> None:
    assert "import dataclass" not in (text := path.read_text())
    assert "from dataclasses" not in text
