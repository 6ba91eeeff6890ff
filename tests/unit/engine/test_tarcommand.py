"""Which tar it is, and what it is told."""

from __future__ import annotations

import pytest

from backupd.engine.tarcommand import LocalTar, create_command, refuse_outside, tar_from_words
from backupd.errors import SourceError
from backupd.model import Tool


@pytest.mark.parametrize(
    ("text", "tar"),
    [
        ("tar (GNU tar) 1.34\nCopyright\nexcludes\n", LocalTar(Tool("gnu", "1.34"))),
        ("tar (busybox) 1.37.0\nexcludes\n", LocalTar(Tool("busybox", "1.37.0"))),
        ("tar (busybox) 1.35.0\n", LocalTar(Tool("busybox", "1.35.0"), excludes=False)),
        ("BusyBox v1.30.1 (Debian) multi-call binary.\n", LocalTar(Tool("busybox", "1.30.1"), excludes=False)),
    ],
)
def test_version(text: str, tar: LocalTar) -> None:
    assert tar_from_words(text) == tar


@pytest.mark.parametrize("text", ["", "bsdtar 3.6.2 - libarchive 3.6.2\n"])
def test_strange_tar(text: str) -> None:
    with pytest.raises(SourceError, match="neither GNU's nor BusyBox's"):
        tar_from_words(text)


def test_busybox_excludes_are_anchored_the_same_way() -> None:
    command = create_command(LocalTar(Tool("busybox", "1.37.0")), "/data", ["*.log", "/cache"])
    assert "--exclude=*.log" in command
    assert "--exclude=./cache" in command
    assert "--exclude=./.backupd-old-*" in command


@pytest.mark.parametrize("path", ["/etc", "..", "a/..", "../b"])
def test_outside(path: str) -> None:
    with pytest.raises(SourceError):
        refuse_outside(path)


@pytest.mark.parametrize("path", ["", "a", "a/b", ".backupd-restore-1", "a..b"])
def test_inside(path: str) -> None:
    refuse_outside(path)
