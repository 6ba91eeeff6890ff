"""What tar's words and exit codes come to."""

from __future__ import annotations

import pytest

from backupd.engine.verdict import KEPT_WARNINGS, Complaints, Direction, judge
from backupd.errors import SourceError, VolumeFull
from backupd.model import TarFlavour, TarReport


def heard(text: str, flavour: TarFlavour = "gnu", direction: Direction = "out") -> Complaints:
    complaints = Complaints(flavour, direction)
    data = text.encode()
    for start in range(0, len(data), 7):
        complaints.feed(data[start : start + 7])
    complaints.close()
    return complaints


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("tar: ./a b: file changed as we read it", "a b: file changed as we read it"),
        ("/usr/bin/tar: ./x: File removed before we read it", "x: File removed before we read it"),
        ("tar: ./x: File shrank by 12 bytes; padding with zeros", "x: File shrank by 12 bytes; padding with zeros"),
        ("tar: .: file changed as we read it", ".: file changed as we read it"),
    ],
)
def test_gnu_files_that_moved(line: str, warning: str) -> None:
    assert judge("reading v", heard(f"{line}\n"), 1) == TarReport(1, (warning,), 1)


def test_gnu_socket() -> None:
    assert judge("reading v", heard("tar: ./s: socket ignored\n"), 0) == TarReport(1, ("s: socket ignored",))


def test_gnu_failure_names_the_first_error_behind_many_warnings() -> None:
    lines = ["tar: ./x: file changed as we read it"] * 1000
    lines += ["tar: ./secret: Cannot open: Permission denied", "tar: ./b: Cannot open: Permission denied"]
    lines += ["tar: Exiting with failure status due to previous errors"]
    complaints = heard("\n".join(lines))
    with pytest.raises(
        SourceError, match=r"^reading v: secret: Cannot open: Permission denied \(and 1 more\) \(exit code 2\)$"
    ):
        judge("reading v", complaints, 2)
    assert len(complaints.warnings) == KEPT_WARNINGS
    assert complaints.warning_count == 1000


def test_exit_code_1_needs_a_reason() -> None:
    with pytest.raises(SourceError, match="did not say why"):
        judge("reading v", heard(""), 1)


def test_an_error_beside_a_change_is_a_failure() -> None:
    text = "tar: ./x: file changed as we read it\ntar: ./y: Input/output error\n"
    with pytest.raises(SourceError, match="Input/output error"):
        judge("reading v", heard(text), 1)


def test_busybox() -> None:
    vanished = "tar: ./x: No such file or directory\ntar: error exit delayed from previous errors\n"
    assert judge("v", heard(vanished, "busybox"), 1) == TarReport(1, ("x: No such file or directory",), 1)
    with pytest.raises(SourceError, match="Permission denied"):
        judge("v", heard(f"{vanished}tar: can't open './y': Permission denied\n", "busybox"), 1)
    with pytest.raises(SourceError, match="No such file"):
        judge("v", heard(vanished, "busybox", "in"), 1)


def test_extraction_does_not_excuse_changes() -> None:
    with pytest.raises(SourceError, match="file changed"):
        judge("writing v", heard("tar: ./x: file changed as we read it\n", direction="in"), 1)


@pytest.mark.parametrize(
    ("line", "flavour"),
    [
        ("tar: ./a: Cannot write: No space left on device\ntar: ./b: Cannot open: Permission denied", "gnu"),
        ("tar: ./b: Cannot open: Permission denied\ntar: ./a: Cannot mkdir: Disk quota exceeded", "gnu"),
        ("tar: write error: No space left on device", "busybox"),
    ],
)
def test_a_full_disk(line: str, flavour: TarFlavour) -> None:
    with pytest.raises(VolumeFull, match=r"^writing x: .*(No space left|quota exceeded)"):
        judge("writing x", heard(line, flavour, "in"), 2)


def test_attribute_that_could_not_be_set() -> None:
    line = "setxattrat: Cannot set 'security.capability' extended attribute for file './x': Operation not permitted"
    assert judge("writing v", heard(f"tar: {line}\n", direction="in"), 0) == TarReport(1, (line,))


def test_unknown_words_of_a_job_that_ended_well_are_warnings() -> None:
    assert judge("v", heard("tar: something new\n"), 0) == TarReport(1, ("something new",))


def test_killed() -> None:
    with pytest.raises(SourceError, match="killed by signal 9"):
        judge("v", heard(""), 137)
    with pytest.raises(SourceError, match="out of memory") as caught:
        judge("v", heard(""), 137, out_of_memory=True)
    assert "memory limit" in (caught.value.hint or "")


def test_memory_is_bounded() -> None:
    complaints = Complaints("gnu", "out")
    for _ in range(100):
        complaints.feed(b"x" * 100_000)
    assert len(complaints._partial) <= 4096
