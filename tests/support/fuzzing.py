"""What is fed with bytes that anybody may have written: the functions, what each may raise, and bytes to begin with.

Used by `tests/faults/test_fuzzing.py`, which draws variations, and by `tools/torture.py`, which hands them to Atheris.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3

from backupd.archive import Index, TarWalker, codec_of, read_file_list
from backupd.archive.guard import TarGuard
from backupd.crypto import PassphraseNeeded, canonical_recipient, new_identity, parse_identities
from backupd.errors import BackupdError
from backupd.journal import Journal
from backupd.known import KnownRepositories
from backupd.lease.document import standing
from backupd.repository import DrillRecord, Manifest, Repository, RepositoryConfig, layout
from backupd.repository.documents import decode, encode, opened, signature_of
from backupd.repository.drills import drills_of, last_drills, newest_first
from backupd.settings import load_settings
from backupd.settings.yamlfile import parse_yaml
from backupd.signingkey import OwnKey
from backupd.stores.memory import MemoryStore
from backupd.stores.s3.claims import Claims
from backupd.stores.s3.options import S3Options
from backupd.stores.s3.remembered import Remembered
from backupd.trust import Trust
from backupd.verify.verifier import Verifier
from tests.support.fuzz_seeds import CLAIM, DEEP, DRILL, LEASE, SETTINGS, TRUST, journals, signing_keys, tars
from tests.support.runtime import BEGIN, Place, RecordingProgress, TickingClock, put, stored
from tests.support.tars import padded

Consume = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """`feed` raises nothing but BackupdError, whatever it is fed. `json`: most of what it takes is a JSON document."""

    name: str
    feed: Consume
    seeds: Sequence[bytes]
    json: bool = False

    def __call__(self, data: bytes) -> None:
        with contextlib.suppress(BackupdError):
            self.feed(data)


def sealed(body: bytes) -> bytes:
    """A document with a right hash of itself, as somebody would make it who can write to the store."""
    body = body.rstrip().removesuffix(b"}").rstrip(b"\n ,")
    return b'%b,\n "blake3": "%b"\n}\n' % (body, blake3(body).hexdigest().encode())


def unsealed(document: bytes) -> bytes:
    """The other way round: plain JSON."""
    tree = json.loads(document)
    del tree["blake3"]
    return json.dumps(tree).encode()


@cache
def place() -> Place:
    """A volume, a full and an incremental archive in a memory store. Left as it is."""
    base = tempfile.TemporaryDirectory()
    atexit.register(base.cleanup)
    made = Place(Path(base.name))
    (made.root() / "sub").mkdir(parents=True)
    (made.root() / "a").write_bytes(random.Random(1).randbytes(50_000))
    (made.root() / "sub" / "b").symlink_to("../a")
    made.backup()
    (made.root() / "c").write_text("c" * 1000)
    made.backup()
    return made


def _objects(suffix: str) -> list[bytes]:
    return [data for key, data in stored(place().stores[0]).items() if key.endswith(suffix)]


def manifests() -> list[bytes]:
    """The newest first."""
    newest_first = sorted(stored(place().stores[0]).items(), reverse=True)
    return [data for key, data in newest_first if key.startswith("snapshots/")]


def _document(kind: Any) -> Consume:
    def feed(data: bytes) -> None:
        document = sealed(data)
        signature_of(document)
        found = decode(document, kind, "it")
        if isinstance(found, Manifest):
            assert len(found.all_trouble) >= 0
            opened(found, parse_identities(_identity(), "it", _nobody))

    return feed


@cache
def _identity() -> bytes:
    return new_identity(BEGIN)[0].encode()


def _nobody() -> str:
    raise PassphraseNeeded("nobody was to be asked")


def _plain(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _index(data: bytes) -> None:
    for _ in Index([data], "it"):
        pass


def _lines(read: Consume) -> Consume:
    """The same with lines that are compressed first: fuzzers don't get through a checksum."""
    return lambda data: read(zstandard.ZstdCompressor().compress(data))


def _files(data: bytes) -> None:
    for member in read_file_list([data], "it"):
        member.path.encode("utf-8", "surrogateescape")


def _tar(data: bytes) -> None:
    walker, guard = TarWalker(), TarGuard(allow_links=False)
    for piece in (data[:700], data[700:]):
        for member in walker.feed(memoryview(piece)):
            guard.check(member)
    walker.finish()
    guard.finish()


def _with_checksums(data: bytes) -> None:
    """A tar whose headers have right checksums, wherever there seems to be one."""
    blocks = bytearray(padded(data))
    for start in range(0, len(blocks), 512):
        block = blocks[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            blocks[start : start + 512] = block
    _tar(bytes(blocks))


def _in_state(name: str, use: Callable[[Path], object]) -> Consume:
    """A file of the state directory."""

    def feed(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)
            path.write_bytes(data)
            use(Path(directory))

    return feed


def _trust(state: Path) -> None:
    trust = Trust(state, [], lambda: None, lambda _: None)
    trust.believed("repository")
    trust.judge("repository", [], trust.record("repository"))


def _stale(state: Path) -> None:
    Claims(state / "uploads", _OPTIONS).abandoned()
    Remembered(state / "uploads" / "claim", _OPTIONS, TickingClock()).recall()


def _lease(data: bytes) -> None:
    store = MemoryStore("it")
    store.put(layout.lease("0123456789abcdef", 0), sealed(data))
    for lease in standing(store):
        lease.expired(BEGIN, BEGIN)
        lease.expired(None, BEGIN)
        str(lease)


def _drills(data: bytes) -> None:
    store = MemoryStore("it")
    store.put(layout.CONFIG, stored(place().stores[0])[layout.CONFIG])
    store.put("drills/0123456789abcdef/20261101T020100Z-00000001.json", sealed(data))
    repository = Repository.open(store, threads=1)
    newest_first([*last_drills(repository).records.values(), decode(sealed(DRILL), DrillRecord, "it")])
    drills_of(repository, "0123456789abcdef")


def _forged(data: bytes) -> None:
    """All that reads a snapshot reads one whose manifest somebody has made up, with nobody to check signatures."""
    store = MemoryStore("it")
    store._objects.update(place().stores[0]._objects)  # type: ignore[attr-defined]
    snapshot_id = max(place().repository().snapshot_ids())
    put(store, layout.snapshot(snapshot_id), sealed(data))
    repository = Repository.open(store, threads=2)
    found, _ = repository.snapshots()
    for _ in Verifier(repository, RecordingProgress(), 1.0, random.Random(0)).verify(found):
        pass
    for archive in repository.load(snapshot_id).archives:
        for _ in repository.tar(archive):
            pass


def _configuration(data: bytes) -> None:
    parse_yaml(data.decode(errors="replace"), "it")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "backupd.yaml")
        path.write_bytes(data)
        load_settings(path, {})


def _frames(data: bytes) -> None:
    for suffix in (".tar.zst", ".tar.gz", ".tar"):
        with contextlib.suppress(BackupdError):
            codec_of(suffix).decompress(memoryview(data), 1000)


def _keys(data: bytes) -> None:
    with contextlib.suppress(BackupdError):
        parse_identities(data, "it", _nobody).decrypt(data, "it")
    with contextlib.suppress(ValueError):
        canonical_recipient(data.decode(errors="replace"))


_KILO = memoryview(b"x" * 1000)
_OPTIONS = S3Options(bucket="b", access_key_id="k", secret_access_key="s")


def targets() -> list[Target]:
    """All of them."""
    encrypted = _encrypted_manifest()
    files = [_plain(data) for data in _objects(".files.zst")]
    indexes = [_plain(data) for data in _objects(".index.zst")]
    plain = [unsealed(data) for data in manifests()]
    config = unsealed(stored(place().stores[0])[layout.CONFIG])
    return [
        Target("manifest", _document(Manifest), [*plain, encrypted, *DEEP], json=True),
        Target("forged manifest", _forged, plain, json=True),
        Target("backupd.json", _document(RepositoryConfig), [config, *DEEP], json=True),
        Target("drill record", _document(DrillRecord), [DRILL, *DEEP], json=True),
        Target("drill records", _drills, [DRILL.replace(b"00000001", b"00000002"), *DEEP], json=True),
        Target("lease", _lease, [LEASE, *DEEP], json=True),
        Target("index", _index, _objects(".index.zst")),
        Target("index lines", _lines(_index), [*indexes, *DEEP]),
        Target("file list", _files, _objects(".files.zst")),
        Target("file list lines", _lines(_files), [*files, *DEEP]),
        Target("tar", _tar, tars()),
        Target("tar with checksums", _with_checksums, tars()),
        Target(
            "frames",
            _frames,
            [bytes(codec_of(suffix).compress(memoryview(b"x" * 1000))) for suffix in (".tar.zst", ".tar.gz")],
        ),
        Target("trust", _in_state("trust/repository.json", _trust), [TRUST, *DEEP], json=True),
        Target("claim", _in_state("uploads/claim", _stale), [CLAIM, *DEEP], json=True),
        Target(
            "known stores",
            _in_state("stores.json", lambda state: KnownRepositories(state).check("a", "b")),
            [b'{"a":"b"}', *DEEP],
            json=True,
        ),
        Target("journal", _in_state("journal.sqlite", lambda state: Journal(state).open_acts()), journals()),
        Target("signing key", _in_state("signing.key", lambda state: OwnKey(state).public()), signing_keys()),
        Target(
            "configuration",
            _configuration,
            [SETTINGS, b"a: &a [*a]", b"- " * 5000, *(deep[:20_000] for deep in DEEP)],
        ),
        Target("keys", _keys, [_identity(), b"age1" + b"q" * 58, b"ssh-ed25519 AAAA x"]),
    ]


def _encrypted_manifest() -> bytes:
    import msgspec  # noqa: PLC0415

    from backupd.repository.manifest import Encryption  # noqa: PLC0415

    manifest = place().repository().resolve("latest")
    public = new_identity(BEGIN)[1]
    hidden = msgspec.structs.replace(manifest, encryption=Encryption(recipients=[public]))
    return unsealed(encode(hidden))
