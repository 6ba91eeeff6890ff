"""What a manifest says of who wrote it, and of whether it is its plan's run."""

from __future__ import annotations

import msgspec
import pytest

from backupd.crypto import SigningKey
from backupd.repository import Encryption, Manifest
from backupd.repository.documents import decode, encode, seal
from tests.support.keys import pair
from tests.support.runtime import BEGIN

KEY = SigningKey.generate()
PLAIN = Manifest(id="a" * 16, time=BEGIN, finished=BEGIN, plan="n", host="h", program="b", archives=[])


@pytest.mark.parametrize("recipients", [[], [pair().public]], ids=["plain", "encrypted"])
def test_who_signed_it_is_known_once_it_is_read(recipients: list[str]) -> None:
    encryption = Encryption(recipients=recipients) if recipients else None
    written = msgspec.structs.replace(PLAIN, encryption=encryption, part=True)
    signed = encode(written, KEY)
    found = decode(signed, Manifest, "it")
    assert (found.signer, found.part) == (KEY.public, True)
    assert signed.count(KEY.public.encode()) == 1
    assert decode(encode(written), Manifest, "it").signer is None
    assert b'"signer"' not in encode(found), "the signature alone says so"


def test_a_name_without_a_signature_is_none() -> None:
    forged = msgspec.to_builtins(PLAIN) | {"signer": KEY.public}
    assert decode(seal(msgspec.json.encode(forged)), Manifest, "it").signer is None


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"part": True}, False),
        ({"plan": "m"}, False),
        ({"reason": "safety"}, False),
        ({"signer": "b" * 64}, False),
        ({"signer": None}, False),
    ],
)
def test_which_are_runs_of_a_plan(changes: dict[str, object], counts: bool) -> None:
    manifest = msgspec.structs.replace(PLAIN, **{"signer": "a" * 64} | changes)
    assert manifest.is_run_of("n", "a" * 64) == counts
    assert manifest.is_success_of("n", "a" * 64) == counts
    assert manifest.is_run_of("n", None) == (counts or "signer" in changes)
