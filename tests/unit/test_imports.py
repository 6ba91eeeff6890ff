"""What commands do not need, they do not load: each of these takes a tenth of a second or more."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import subprocess
import sys

import pytest
import typer.main

import backupd.cli
from backupd.cli.main import COMMANDS, main, make_app
from backupd.errors import Interrupted

HEAVY = ("apprise", "boto3", "docker", "fastapi", "prometheus_client", "requests", "starlette", "uvicorn")


@pytest.mark.parametrize("module", ["backupd.cli.main", "backupd.observe", "backupd.web.making"])
def test_heavy_modules_are_imported_when_they_are_used(module: str) -> None:
    assert loaded(f"import {module}") & set(HEAVY) == set()


def test_a_command_loads_what_it_needs_and_not_what_others_need() -> None:
    modules = loaded("from backupd.cli.main import make_app; make_app('backup')")
    assert {"backupd.cli.backup", "backupd.backup.operation"} <= modules
    others = {"apscheduler", "backupd.daemon", "backupd.doctor", "backupd.drill.operation", "backupd.observe"}
    others |= {"backupd.prune.operation", "backupd.restore.operation", "backupd.verify.operation", "backupd.web"}
    assert modules & others == set()


def test_every_command_is_found_in_the_module_that_has_it() -> None:
    assert set(COMMANDS) == {info.name for info in pkgutil.iter_modules(backupd.cli.__path__) if registers(info.name)}
    for module, names in COMMANDS.items():
        for name in names:
            assert commands(name) == names, module
    assert sorted(commands(None)) == sorted(name for names in COMMANDS.values() for name in names)
    assert commands("no-such-command") == commands(None)


def loaded(code: str) -> set[str]:
    program = f"import sys; {code}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def registers(module: str) -> bool:
    return hasattr(importlib.import_module(f"backupd.cli.{module}"), "register")


def commands(named: str | None) -> tuple[str, ...]:
    return tuple(typer.main.get_command(make_app(named)).commands)  # type: ignore[attr-defined]


def test_an_interrupt_while_commands_load_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    monkeypatch.setattr(sys, "argv", ["backupd", "list"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Interrupted.exit_code
    assert capsys.readouterr().err.startswith("error: interrupted\n")
