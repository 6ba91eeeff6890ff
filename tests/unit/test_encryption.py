"""Encrypted snapshots: what a machine without the secret key can do, what it cannot, and what the store sees."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
from base64 import b64decode, b64encode
from pathlib import Path

import msgspec
import pytest

from backupd.backup import open_or_create
from backupd.browse import cat
from backupd.errors import IntegrityError, KeyMissing, RepositoryError
from backupd.model import Volume
from backupd.repository import HIDDEN, Manifest, Repository
from backupd.repository.documents import decode, encode
from backupd.repository.manifest import Encryption
from backupd.restore.operation import restore
from backupd.restore.target import RestoreRequest, plan_restore
from backupd.security import Security
from backupd.stores.memory import MemoryStore
from backupd.transfer import export_tar, import_tar
from backupd.verify.operation import verify
from backupd.verify.recording import Look, keep_findings
from backupd.verify.result import VerifyRequest
from backupd.verify.verifier import Finding, Verifier
from tests.support.keys import Machine, Pair, pair, use
from tests.support.runtime import Place, RecordingProgress, put, stored

KEY, OTHER = pair(), pair()
SECRET_NAME, SECRET_TEXT = "the-name-of-a-secret-file", "what is in the secret file"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state")


@pytest.fixture
def place(tmp_path: Path, machine: Machine) -> Place:
    place = Place(tmp_path)
    place.root().mkdir(parents=True)
    (place.root() / SECRET_NAME).write_text(SECRET_TEXT)
    (place.root() / "big").write_bytes(random.Random(5).randbytes(12 << 20))
    return use(place, machine.security([KEY.public]))


def grow(place: Place) -> None:
    with (place.root() / "big").open("r+b") as file:
        file.write(os.urandom(100))


def holder(place: Place, machine: Machine, key: Pair = KEY) -> Repository:
    """The repository as one has it who also has the secret key."""
    return Repository.open(place.stores[0], threads=2, security=machine.security([KEY.public], key))


def test_nothing_sensitive_is_in_the_clear(place: Place) -> None:
    manifest = place.backup().manifest
    content = b"".join(stored(place.stores[0]).values())
    for secret in (SECRET_NAME, SECRET_TEXT, "testhost", str(place.root()), "backupd test", "GNU tar"):
        assert secret.encode() not in content
    digests = [ref.digest for ref in use(place, Machine(place.base / "state").security((), KEY)).repository().index(
        manifest.archives[0])]  # fmt: skip
    assert digests
    for digest in digests:
        assert digest.encode() not in content
        assert bytes.fromhex(digest) not in content
    assert all(key.endswith(".age") for key in stored(place.stores[0]) if key.startswith("archives/"))


def test_nothing_sensitive_is_in_the_clear_of_imports_and_checks_either(place: Place, tmp_path: Path) -> None:
    """All that a manifest can hold, and records of checks that found something to say, names of files among it."""
    secrets = {"label": "value-of-a-label", "option": "value-of-an-option", "source": "name-of-the-docker-volume"}
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(place.root(), ".")
    source = Volume(
        name="data",
        kind="volume",
        source=secrets["source"],
        options={"o": secrets["option"]},
        labels={"l": secrets["label"]},
    )
    repository = open_or_create(place.stores[0], place.runtime)
    manifest = import_tar(tmp_path / "x.tar", source, repository, place.runtime, allow_links=True)
    ref = manifest.archives[0].files
    data = place.stores[0].read(ref.key)
    put(place.stores[0], ref.key, data[:-1] + bytes([data[-1] ^ 1]))
    holding = use(place, Machine(place.base / "state").security([KEY.public], KEY)).runtime
    assert verify(place.stores, VerifyRequest(fraction=1.0), holding, random.Random(0)).problems
    keep_findings(
        place.repository(), manifest, [Finding(manifest.id, "data", problem=f"{SECRET_NAME} is gone")],
        Look(place.clock.now(), "data", 1.0), place.runtime,
    )  # fmt: skip
    assert [key for key in stored(place.stores[0]) if key.startswith("checks/")]
    for key, content in stored(place.stores[0]).items():
        for secret in (SECRET_NAME, SECRET_TEXT, "testhost", str(tmp_path), *secrets.values()):
            forms = secret.encode(), b64encode(secret.encode()).rstrip(b"=")[:-1], secret.encode().hex().encode()
            assert not [form for form in forms if form in key.encode() + content], (key, secret)
    opened = place.repository().opened(place.repository().load(manifest.id))
    assert opened.archives[0].source == source, "it was there to be found"


def test_without_the_secret_key(place: Place) -> None:
    """Backs up, builds upon what it wrote, lists, verifies that all is there; reads nothing."""
    first = place.backup().manifest
    grow(place)
    second = place.backup().manifest
    assert [first.archives[0].full, second.archives[0].full] == [True, False]
    assert second.archives[0].new_size < first.archives[0].new_size / 2
    repository = place.repository()
    (listed, _), damaged = repository.snapshots()
    assert not damaged
    assert listed.hidden
    assert (listed.host, listed.archives[0].source.source) == (HIDDEN, HIDDEN)
    assert listed.encryption is not None
    assert listed.encryption.recipients == [KEY.public]
    archive = listed.archives[0]
    assert archive.needs == second.archives[0].needs
    for read in (
        lambda: list(repository.files(archive)),
        lambda: list(repository.tar(archive)),
        lambda: cat(repository, archive, "x", print),
        lambda: repository.opened(listed),
        lambda: list(Verifier(repository, RecordingProgress(), 1.0, random.Random()).verify([listed])),
    ):
        with pytest.raises(KeyMissing) as caught:
            read()
        assert caught.value.exit_code == 12
        assert "--identity" in (caught.value.hint or "")
    findings = list(Verifier(repository, RecordingProgress(), 0.0, random.Random()).verify([listed]))
    assert [finding.problem for finding in findings] == [None]


@pytest.mark.parametrize("which", ["index", "files"])
def test_damage_is_found_without_the_secret_key(place: Place, which: str) -> None:
    manifest = place.backup().manifest
    ref = getattr(manifest.archives[0], which)
    data = place.stores[0].read(ref.key)
    put(place.stores[0], ref.key, data[:-1] + bytes([data[-1] ^ 1]))
    verifier = Verifier(place.repository(), RecordingProgress(), 0.0, random.Random())
    (finding,) = verifier.verify(place.repository().snapshots()[0])
    assert finding.problem is not None
    assert ref.key in finding.problem


def test_with_the_secret_key(place: Place, machine: Machine, tmp_path: Path) -> None:
    before = place.prints()
    written = place.backup().manifest
    repository = holder(place, machine)
    manifest = repository.opened(repository.load(written.id))
    assert not manifest.hidden
    assert msgspec.structs.replace(manifest, format=1) == written
    content = bytearray()
    cat(repository, manifest.archives[0], SECRET_NAME, content.extend)
    assert content == SECRET_TEXT.encode()
    findings = list(Verifier(repository, RecordingProgress(), 1.0, random.Random()).verify([manifest]))
    assert [finding.problem for finding in findings] == [None]
    shutil.rmtree(place.root())
    request = RestoreRequest(safety_snapshot=False)
    restore(plan_restore(request, manifest, repository, place.runtime, {}), request, repository, place.runtime)
    assert place.prints() == before
    export_tar(repository, manifest.archives[0], lambda _: None, RecordingProgress())


def test_with_a_wrong_key(place: Place, machine: Machine) -> None:
    written = place.backup().manifest
    repository = holder(place, machine, OTHER)
    manifest = repository.load(written.id)
    for read in (
        lambda: repository.opened(manifest),
        lambda: list(repository.files(manifest.archives[0])),
        lambda: list(repository.tar(manifest.archives[0])),
    ):
        with pytest.raises(KeyMissing, match="other keys than those of test key"):
            read()
    (finding,) = Verifier(repository, RecordingProgress(), 0.0, random.Random()).verify([manifest])
    assert finding.problem is None


def test_damaged_chunks_reach_nobody(place: Place, machine: Machine) -> None:
    manifest = place.backup().manifest
    repository = holder(place, machine)
    key = manifest.archives[0].needs[0].key
    data = place.stores[0].read(key)
    dice = random.Random(11)
    for at in [dice.randrange(len(data)) for _ in range(12)] + list(range(20, 60, 7)):
        put(place.stores[0], key, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        out = bytearray()
        with pytest.raises(IntegrityError):
            export_tar(repository, manifest.archives[0], out.extend, RecordingProgress())
    put(place.stores[0], key, data)
    whole = b"".join(repository.tar(manifest.archives[0]))
    assert whole.startswith(bytes(out))


def test_a_lost_copy_of_the_index_means_a_full_archive_and_says_so(place: Place) -> None:
    place.backup()
    shutil.rmtree(place.base / "state" / "indexes")
    assert place.backup().manifest.archives[0].full
    assert any("starting anew: this snapshot is encrypted, and there is no identity" in note for note in place.notes)
    grow(place)
    assert not place.backup().manifest.archives[0].full


def test_copies_of_indexes_are_private_and_few(place: Place) -> None:
    for _ in range(6):
        place.backup()
    copies = [path for path in (place.base / "state" / "indexes").rglob("*") if path.is_file()]
    assert len(copies) == 4
    assert {path.stat().st_mode & 0o777 for path in copies} == {0o600}
    assert not place.backup().manifest.archives[0].full


def test_with_the_secret_key_at_hand_no_copy_is_needed(place: Place, machine: Machine) -> None:
    place.backup()
    shutil.rmtree(place.base / "state" / "indexes")
    use(place, machine.security([KEY.public], KEY))
    assert not place.backup().manifest.archives[0].full


@pytest.mark.parametrize(
    ("before", "after", "full", "said"),
    [
        ([], [KEY], True, "it is not encrypted"),
        ([KEY], [], True, "it is encrypted, and the new one is not"),
        ([KEY], [OTHER], True, "1 of the recipients cannot read it"),
        ([KEY], [KEY, OTHER], True, "1 of the recipients cannot read it"),
        ([KEY, OTHER], [KEY], False, None),
        ([KEY, OTHER], [OTHER, KEY], False, None),
    ],
)
def test_changed_recipients(
    place: Place, machine: Machine, before: list[Pair], after: list[Pair], full: bool, said: str | None
) -> None:
    use(place, machine.security([key.public for key in before])).backup()
    grow(place)
    manifest = use(place, machine.security([key.public for key in after])).backup().manifest
    archive = manifest.archives[0]
    assert archive.full == full
    assert [note for note in place.notes if "starting anew" in note] == (
        [f"data: not building on snapshot {archive_before(place, manifest)}, starting anew: {said}"] if said else []
    )
    expected = b"".join(holder(place, machine, after[0] if after else KEY).tar(archive))
    for key in after or [KEY]:
        assert b"".join(holder(place, machine, key).tar(archive)) == expected


def archive_before(place: Place, manifest: Manifest) -> str:
    (other,) = [found for found in place.repository().snapshots()[0] if found.id != manifest.id]
    return other.short_id


def test_mixed_repositories_verify(place: Place, machine: Machine) -> None:
    for keys in ([], [KEY], [OTHER], [KEY, OTHER], []):
        grow(place)
        use(place, machine.security([key.public for key in keys])).backup()
    repository = holder(place, machine, OTHER)
    manifests, damaged = repository.snapshots()
    assert not damaged
    findings = list(Verifier(repository, RecordingProgress(), 0.0, random.Random()).verify(manifests))
    assert [finding.problem for finding in findings] == [None] * 5
    readable = [m for m in manifests if m.encryption is None or OTHER.public in m.encryption.recipients]
    assert len(readable) == 4
    findings = list(Verifier(repository, RecordingProgress(), 1.0, random.Random()).verify(readable))
    assert [finding.problem for finding in findings] == [None] * 4


def test_copies_to_other_stores_need_no_key(place: Place, machine: Machine) -> None:
    place.stores.append(MemoryStore("offsite"))
    manifest = place.backup().manifest
    grow(place)
    assert place.backup().complete
    one, two = ({key: data for key, data in stored(store).items() if key != "backupd.json"} for store in place.stores)
    assert one == two
    place.stores = place.stores[1:]
    assert b"".join(holder(place, machine).tar(manifest.archives[0]))


def test_the_safety_snapshot_is_encrypted_as_well(place: Place, machine: Machine) -> None:
    """By the configuration, and where there is none, for those who can read what is being restored."""
    written = place.backup().manifest
    for security in (machine.security([OTHER.public], KEY), machine.security([], KEY)):
        repository = Repository.open(place.stores[0], threads=2, security=security).encrypting_like(written)
        manifest = repository.opened(repository.load(written.id))
        grow(place)
        request = RestoreRequest()
        steps = plan_restore(request, manifest, repository, place.runtime, {})
        safety = restore(steps, request, repository, place.runtime).safety
        assert safety is not None
        assert safety.encryption is not None
        assert safety.encryption.recipients == [OTHER.public if security.recipients else KEY.public]
        assert all(ref.key.endswith(".age") for ref in safety.archives[0].objects)


def test_imports_are_encrypted(place: Place, machine: Machine, tmp_path: Path) -> None:
    written = place.backup().manifest
    tar = tmp_path / "volume.tar"
    with tar.open("wb") as file:
        export_tar(holder(place, machine), written.archives[0], file.write, RecordingProgress())
    volume = place.runtime.engine.find(place.spec())
    adopted = import_tar(tar, volume, place.repository(), place.runtime, allow_links=False)
    assert adopted.encryption is not None
    assert b"".join(holder(place, machine).tar(adopted.archives[0])) == tar.read_bytes()


def test_older_versions_refuse_it(place: Place) -> None:
    """What they check is the number: of the repository if it began encrypted, and of every encrypted snapshot."""
    manifest = place.backup().manifest
    assert msgspec.json.decode(place.stores[0].read("backupd.json"))["format"] == 2
    assert msgspec.json.decode(place.stores[0].read(f"snapshots/{manifest.id}.json"))["format"] == 2
    put(place.stores[0], "backupd.json", encode(msgspec.structs.replace(place.repository().config, format=3)))
    with pytest.raises(RepositoryError, match="format 3"):
        place.repository()


def test_fields_of_later_versions_are_private() -> None:
    class Later(Manifest, frozen=True, kw_only=True):
        news: str = "a secret that this version does not know"

    fields = {
        "id": "aaaa0000",
        "plan": "p",
        "host": "h",
        "program": "b",
        "archives": [],
        "time": "2026-11-01T00:00:00Z",
    }
    plain = fields | {"finished": fields["time"], "encryption": {"recipients": [KEY.public]}}
    data = encode(msgspec.convert(plain, Later))
    assert b"news" not in data
    assert b"secret" not in data
    manifest = decode(data, Manifest, "k")
    assert manifest.host == HIDDEN
    assert manifest.encryption is not None
    assert manifest.encryption.private is not None
    sealed = msgspec.json.decode(KEY.identities.decrypt(b64decode(manifest.encryption.private), "x"))
    assert sealed["news"] == "a secret that this version does not know"


def test_an_odd_private_part_is_damage(place: Place, machine: Machine) -> None:
    written = place.backup().manifest
    repository = holder(place, machine)
    manifest = repository.load(written.id)
    assert manifest.encryption is not None
    recipients = Security(recipients=machine.security([KEY.public]).recipients).recipients
    assert recipients is not None
    for private in (b"", b"[]", b"{}", b'{"archives":[],"failures":[]}', b'{"archives":[{"source":1}],"failures":[]}'):
        sealed = b64encode(recipients.encrypt(private)).decode()
        odd = msgspec.structs.replace(manifest, encryption=Encryption(recipients=[KEY.public], private=sealed))
        with pytest.raises(IntegrityError, match="private part"):
            repository.opened(odd)
    odd = msgspec.structs.replace(manifest, encryption=Encryption(recipients=[KEY.public], private="&"))
    with pytest.raises(IntegrityError, match="private part"):
        repository.opened(odd)
