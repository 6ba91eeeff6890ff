"""The command line as a process of its own, as a user has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cli:
    """Runs `backupd` with one configuration file."""

    config: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end; the exit code must be `code`, and stderr never shows a traceback."""
        result = subprocess.run(
            self.command(*arguments), env=self.env(), input=stdin or "", text=True, capture_output=True, check=False
        )
        assert "Traceback" not in result.stderr, result.stderr
        assert result.returncode == code, f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The JSON document that a command prints, which is all that is on stdout."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def error(self, *arguments: str, code: int) -> str:
        """What a failing command says: one line, and at most one hint."""
        lines = self.run(*arguments, code=code).stderr.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, lines
        return "\n".join(line for line in lines if line.startswith(("error: ", "hint: ")))

    def command(self, *arguments: str) -> list[str]:
        """The process to start."""
        return [sys.executable, "-m", "backupd", *arguments]

    def env(self) -> dict[str, str]:
        """Its environment."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("BACKUPD_", "AWS_", "DOCKER_"))}
        if "AWS_CA_BUNDLE" in os.environ:
            clean["AWS_CA_BUNDLE"] = os.environ["AWS_CA_BUNDLE"]
        return clean | {"BACKUPD_CONFIG": str(self.config), "COLUMNS": "120"} | self.environment
