"""A clock that is set while processes live: Debian's libfaketime, unpacked beside the tests and not installed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.support.apt import NotInstallable, apt_lock, update

SITE = Path(__file__).parent / "faketime_site"


def library(directory: Path) -> Path:
    """The library to preload, unpacked there; NotInstallable if it can't be had."""
    try:
        with apt_lock():
            if os.geteuid() == 0:
                update()
            _run(directory, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "libfaketime")
        (package,) = directory.glob("libfaketime_*.deb")
        _run(directory, "dpkg-deb", "-x", package.name, "unpacked")
    except (OSError, ValueError) as exc:
        raise NotInstallable(f"Debian's libfaketime cannot be fetched: {exc}") from exc
    return next(directory.glob("unpacked/usr/lib/*/faketime/libfaketime.so.1"))


def _run(directory: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotInstallable(f"`{' '.join(command)}` failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


@dataclass(frozen=True)
class FakeClock:
    """What processes with this `environment` take for the time of day. Monotonic clocks and files keep theirs."""

    library: Path
    stamp: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "PYTHONPATH": str(SITE),
            "FAKETIME_TIMESTAMP_FILE": str(self.stamp),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, moment: datetime) -> None:
        """It is that time now, and goes on from there."""
        new = self.stamp.with_suffix(".new")
        new.write_text(f"{(moment - datetime.now(UTC)).total_seconds():+.0f}\n")
        new.replace(self.stamp)
