"""Makes `tests/golden/format-2`: run once, when format 2 was settled.

NEVER run it again for format 2; see make_format_1. Needs root, GNU tar and ssh-keygen:
    python -m tests.golden.make_format_2 tests/golden/format-2
The keys in it protect nothing else.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyrage

from backupd.model import Compression
from backupd.repository import Repository
from backupd.stores.local import LocalStore
from tests.golden.make_format_1 import CHUNKER, dated, fill_data, jsonable
from tests.support.keys import Machine, pair, use
from tests.support.runtime import Place
from tools.fingerprint import fingerprint

PASSPHRASE = "test identity"


def main(target: Path) -> None:
    if target.exists():
        sys.exit(f"{target} exists, and is to stay as it is: see the docstring")
    with tempfile.TemporaryDirectory() as base:
        (target / "keys").mkdir(parents=True)
        one = pair()
        (target / "keys" / "age.txt").write_text(one.secret)
        (target / "keys" / "age-passphrase.txt").write_bytes(
            pyrage.passphrase.encrypt(one.secret.encode(), PASSPHRASE, armored=True)
        )
        public = {"age": one.public}
        for kind in ("ed25519", "rsa"):
            file = Path(base) / kind
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", file], check=True)
            shutil.copy(file, target / "keys" / kind)
            public[kind] = file.with_suffix(".pub").read_text()
        machine = Machine(Path(base) / "state")
        place = Place(Path(base), stores=[LocalStore("golden", target / "store")], names=("data",))
        Repository.open_or_create(
            place.stores[0],
            threads=2,
            now=place.clock.now(),
            new_id=place.runtime.new_id,
            chunker=CHUNKER,
            security=machine.security([one.public]),
        )
        expected = {}

        def take(codec: str, *keys: str) -> None:
            use(place, machine.security([public[key] for key in keys]))
            dated(place.root(place.names[0]))
            place.compression = Compression(codec)  # type: ignore[arg-type]
            snapshot = place.backup().manifest
            expected[snapshot.id] = {"keys": keys, "tree": jsonable(fingerprint(place.root(place.names[0])))}

        fill_data(place.root())
        take("zstd", "age", "ed25519", "rsa")
        (place.root() / "later").write_bytes(random.Random(2).randbytes(20_000))
        take("gzip", "age", "ed25519")  # incremental: frames of two codecs, for more readers and for fewer
        take("zstd")  # clear: a full one
        take("none", "age")
        (target / "signer").write_text(f"{machine.key}\n")
    shutil.rmtree(target / "store" / ".unfinished")
    for name in ("recover.py", "RECOVERY.md"):
        (target / "store" / name).unlink()
    (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
