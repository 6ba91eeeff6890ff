"""Processes of `backupd` that begin with everything imported: hundreds of them take a tenth of the time.

`python -m tests.support.zygote` imports, then forks a process for each line that it reads: a JSON object with
`arguments`, `stderr` (a file) and `dying` (arguments of `tests.support.dying`, or null). It answers with the process's
number. To the line `wait` it answers, once that process has ended, with its exit code, negative for a signal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.cli import ROOT, Cli


@dataclass
class Started:
    """A process of a Zygote."""

    zygote: Zygote
    pid: int
    stderr: Path

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)  # not reaped before it is waited for: the number is still its own

    def wait(self) -> subprocess.CompletedProcess[str]:
        code = int(self.zygote.ask("wait"))
        said = self.stderr.read_text()
        self.stderr.unlink()
        assert "Traceback" not in said, said
        return subprocess.CompletedProcess([], code, "", said)


class Zygote:
    """One command line after the other."""

    def __init__(self, cli: Cli) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote"],
            cwd=ROOT, env=cli.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.communicate()

    def start(self, arguments: Sequence[str], dying: Sequence[object] | None = None) -> Started:
        descriptor, path = tempfile.mkstemp()
        os.close(descriptor)
        pid = int(self.ask(json.dumps({"arguments": arguments, "dying": dying, "stderr": path})))
        return Started(self, pid, Path(path))

    def run(self, *arguments: str, dying: Sequence[object] | None = None) -> subprocess.CompletedProcess[str]:
        return self.start(arguments, dying).wait()

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def main() -> None:
    import backupd.cli  # noqa: PLC0415
    import backupd.engine.docker  # noqa: PLC0415
    import backupd.stores.s3.store  # noqa: PLC0415
    from tests.support.dying import arm  # noqa: PLC0415

    def child(given: dict[str, Any]) -> None:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(os.open(given["stderr"], os.O_WRONLY), 2)
        sys.argv = ["backupd", *given["arguments"]]
        acts = arm(*given["dying"]) if given["dying"] else []
        code = 0
        try:
            backupd.cli.main()
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        print(*acts, file=sys.stderr, flush=True)
        os._exit(code)

    pid = 0
    for line in sys.stdin:
        if line == "wait\n":
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            try:
                child(json.loads(line))
            except BaseException:
                sys.excepthook(*sys.exc_info())
            os._exit(99)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
