"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from backupd import __version__


def machine(work: Path) -> dict[str, str]:
    """Processor, memory, kernel, file system."""
    return {
        "processor": f"{_line('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{int(_line('/proc/meminfo', 'MemTotal').split()[0]) / 1024**2:.0f} GiB",
        "system": f"{_line('/etc/os-release', 'PRETTY_NAME', '=')}, Linux {platform.release()}",
        "file system": said("findmnt", "-no", "FSTYPE", "-T", str(work)) or "unknown",
    }


def versions(docker_host: str | None) -> dict[str, str]:
    """Of the programs that were measured."""
    found = {
        "backupd": __version__,
        "Python": platform.python_version(),
        "tar": said("tar", "--version").split("\n")[0],
        "zstd": said("zstd", "--version").strip("* "),
        "restic": said("restic", "version"),
        "borg": said("borg", "--version"),
    }
    if docker_host:
        found["Docker Engine"] = said("docker", "-H", docker_host, "version", "--format", "{{.Server.Version}}")
    return {name: version for name, version in found.items() if version}


def said(*command: str) -> str:
    """What a program prints; nothing if there is no such program."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _line(path: str, key: str, separator: str = ":") -> str:
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    values = (line.partition(separator)[2].strip().strip('"') for line in lines if line.startswith(key))
    return next(values, "unknown 0" if key == "MemTotal" else "unknown")
