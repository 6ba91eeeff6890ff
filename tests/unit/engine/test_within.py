"""Directories of volumes that are opened step by step."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from backupd.engine.within import within
from backupd.errors import VolumeFull


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """It is the disk that is full, and not the user who may not."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(VolumeFull, match=os.strerror(number)), within(str(tmp_path), "sub", create=True):
        pass
