"""The contravento stack with backupd beside it, brought up by a real Compose."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sysconfig
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.documents import run_as_written

ROOT = Path(__file__).resolve().parents[2]
STACK = ROOT / "tests" / "e2e" / "stack"
BASE = ("docker-compose.yml", "docker-compose.prod.yml", "docker-compose.backup.yml")
OURS = ("docker-compose.test.yml",)
_BINARY = str(Path(sysconfig.get_path("scripts")) / "docker-compose")


@dataclass
class Compose:
    """One project: a directory as on a server, the files that are merged, and what `.env` says."""

    directory: Path
    socket: str
    files: tuple[str, ...]
    variables: Mapping[str, str]
    project: str = field(default_factory=lambda: f"contravento{uuid.uuid4().hex[:6]}")

    def __post_init__(self) -> None:
        for source in (*STACK.glob("*.yml"), *ROOT.glob("docker-compose.backup*.yml")):
            shutil.copy(source, self.directory)
        shutil.copytree(ROOT / "config", self.directory / "config", dirs_exist_ok=True)
        self.configure()

    def configure(self, **variables: str) -> None:
        """Write `.env`, with these besides; `up -d` makes it so."""
        self.variables = {**self.variables, **variables}
        (self.directory / ".env").write_text("".join(f"{key}={value}\n" for key, value in self.variables.items()))

    def as_written(self, block: str) -> str:
        """A code block of docs/operations.md, run in the directory, with its `dc`; what it prints."""
        command = shlex.join([_BINARY, "-p", self.project, *(word for name in self.files for word in ("-f", name))])
        dc = f'dc() {{ {command} "$@"; }}\n'
        return run_as_written(block, self.directory, dc, {"DOCKER_HOST": self.socket})

    def run(self, *arguments: str, code: int | None = 0, stdin: str | None = None) -> str:
        """Run Compose; what it and what it runs say on stdout."""
        files = [word for name in self.files for word in ("-f", name)]
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("BACKUPD_", "COMPOSE_", "AWS_"))
        }
        done = subprocess.run(
            [_BINARY, "-p", self.project, *files, *arguments],
            cwd=self.directory,
            env=clean | {"DOCKER_HOST": self.socket},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def backupd(self, *arguments: str, code: int | None = 0) -> str:
        """`docker compose exec backupd backupd …`."""
        return self.run("exec", "-T", "backupd", "backupd", *arguments, code=code)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.backupd(*arguments, "--json"))

    def psql(self, sql: str) -> str:
        return self.run("exec", "-T", "postgres", "psql", "-U", "contravento", "-Atc", sql).strip()

    def redis(self, *words: str) -> str:
        return self.run("exec", "-T", "redis", "redis-cli", *words).strip()
