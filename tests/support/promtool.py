"""Prometheus's promtool, out of Debian's package; the package is not installed, which would start a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.apt import NotInstallable, apt_lock, update

_BUILT = Path(__file__).resolve().parents[2] / ".build" / "promtool"


def promtool() -> Path:
    """The program; NotInstallable where there is none."""
    installed = shutil.which("promtool")
    if installed:
        return Path(installed)
    if not _BUILT.exists():
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NotInstallable("promtool is fetched on Debian and Ubuntu only, by root")
        with apt_lock():
            if not _BUILT.exists():
                _fetch()
    return _BUILT


def _fetch() -> None:
    update()
    with tempfile.TemporaryDirectory() as scratch:
        for command in (
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "prometheus"],
            ["sh", "-c", "dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool"],
        ):
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise NotInstallable(f"`{command[0]}`: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        _BUILT.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(scratch, "usr/bin/promtool"), _BUILT.with_suffix(".new"))
        _BUILT.with_suffix(".new").rename(_BUILT)
