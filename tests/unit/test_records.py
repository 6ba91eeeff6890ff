"""Records: what their repr says, and that there is one kind of them."""

from __future__ import annotations

from typing import ClassVar

from backupd.records import Discreet


class Login(Discreet, frozen=True):
    _hidden: ClassVar = ("password",)

    user: str
    password: str


def test_what_is_hidden_is_not_in_the_repr() -> None:
    login = Login("copier", "xyzzy")
    assert repr(login) == "Login(user='copier')"
    assert login == Login("copier", "xyzzy") != Login("copier", "plugh")
