"""Code blocks of the documents, and how they are run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# `dc` of docs/operations.md for a test without Compose: what would run in the container runs here, the rest is noted.
LOCAL_DC = """
dc() {
    verb=$1; shift
    case $verb in
    exec | run)
        while [ "$1" != backupd ]; do shift; done
        shift
        [ "$verb" = exec ] || set -- backupd "$@"
        "$@" ;;
    *) echo "dc $verb $*" >&2 ;;
    esac
}
"""


def blocks(document: str, heading: str) -> list[str]:
    """The indented code blocks below that heading, up to the next one of its level or above."""
    text = (ROOT / document).read_text()
    (start,) = re.finditer(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.MULTILINE)
    section = rest[: end.start()] if end else rest
    found = re.findall(r"(?:^(?: {4,}).*\n(?:\n(?= {4}))?)+", section, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def run_as_written(
    script: str, directory: Path, prelude: str = LOCAL_DC, environment: Mapping[str, str] | None = None, code: int = 0
) -> str:
    """Run a block in that directory, every command of which has to succeed; what it prints, without colours."""
    programs = directory / ".bin"
    programs.mkdir(exist_ok=True)
    program = programs / "backupd"
    if not program.exists():
        program.symlink_to(Path(sys.executable).with_name("backupd"))
    base = {key: value for key, value in os.environ.items() if not key.startswith(("BACKUPD_", "COMPOSE_", "AWS_"))}
    done = subprocess.run(
        ["sh", "-euc", prelude + script],
        cwd=directory,
        env={**base, "PATH": f"{programs}:{base['PATH']}", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"{script}\n{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def substituted(script: str, changes: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """The block with what is an example in it replaced by what there is; each has to be in it."""
    for before, after in dict(changes).items():
        assert before in script, f"{before!r} is not in {script!r}"
        script = script.replace(before, after)
    return script
