"""Programs of another architecture, run by this machine's kernel through QEMU, also inside containers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.apt import NotInstallable, install

BINFMT = Path("/proc/sys/fs/binfmt_misc")
MACHINES = {"arm64": "aarch64", "amd64": "x86_64", "armhf": "arm", "ppc64el": "ppc64le", "riscv64": "riscv64"}
"""QEMU's names by Debian's."""


def emulate(architecture: str) -> None:
    """See to it that the kernel runs programs of that architecture, from now on; NotInstallable if it can't be."""
    machine = MACHINES[architecture]
    if registered(machine):
        return
    install("qemu-user-static", "binfmt-support", programs=(f"qemu-{machine}-static", "update-binfmts"))
    if not (BINFMT / "register").exists():
        _run("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
    if not registered(machine):
        _run("update-binfmts", "--import", f"qemu-{machine}")
        _run("update-binfmts", "--enable", f"qemu-{machine}")
    if not registered(machine):
        raise NotInstallable(f"the kernel does not run programs for {architecture}, although QEMU is installed")


def registered(machine: str) -> bool:
    """So that it works in a container, too: F, the interpreter is opened once and for all."""
    entry = BINFMT / f"qemu-{machine}"
    if not entry.exists():
        return False
    state, _, rest = entry.read_text().partition("\n")
    return state == "enabled" and "F" in rest.partition("flags:")[2].splitlines()[0]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotInstallable(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
