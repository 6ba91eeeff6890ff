"""What the documents say about the program is true: commands, options, code blocks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from backupd.cli.main import make_app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def commands() -> dict[str, list[str]]:
    """Every command with its long options, as the program has them."""
    found = {}
    for name, command in typer.main.get_command(make_app()).commands.items():  # type: ignore[attr-defined]
        for sub, inner in getattr(command, "commands", {"": command}).items():
            options = [option for parameter in inner.params for option in parameter.opts if option.startswith("--")]
            found[f"{name} {sub}".strip()] = options
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"`(backupd )?{command}\b", README), command


def test_options_of_restore_are_in_the_readme_or_its_help() -> None:
    for option in ("--path", "--into", "--to-dir", "--dry-run", "--force", "--no-stop", "--timeout", "--no-rollback"):
        assert option in README


def test_every_exit_code_is_in_the_readme() -> None:
    from backupd import errors  # noqa: PLC0415

    codes = {
        found.exit_code
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.BackupdError)
    }
    for code in codes:
        assert f"| {code} |" in README, code


def test_quick_start_runs_as_written(tmp_path: Path) -> None:
    """The blocks of the quick start, on directories in place of the Docker volumes (which `make demo` shows)."""
    quick_start = README.split("## Quick start")[1].split("## ")[0]
    (yaml,) = re.findall(r"```yaml\n(.*?)```", quick_start, re.DOTALL)
    shell = re.findall(r"```sh\n(.*?)```", quick_start, re.DOTALL)[-1]
    yaml = re.sub(r"project:.*", "engine: mounted", yaml)
    yaml = re.sub(r"volume: (\w+)", r"path: ./\1", yaml)
    (tmp_path / "backupd.yaml").write_text(yaml)
    for name in ("postgres_data", "backend_storage"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    (bin_directory / "backupd").symlink_to(Path(sys.executable).with_name("backupd"))
    script = shell.replace("restore latest  ", "restore latest --yes  ")
    result = subprocess.run(
        ["sh", "-eux", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{bin_directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "dry run: nothing was changed" in result.stdout
    assert "now holds storage as in snapshot" in result.stdout


@pytest.mark.parametrize(
    "document", ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
)
def test_paths_that_documents_name_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for path in re.findall(r"`((?:docs|config|tests|backupd|benchmarks|tools)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), f"{document} names {path}"
    for module in re.findall(r"`(backupd(?:\.[a-z_0-9]+)+)`", text):
        path = ROOT / module.replace(".", "/")
        parent = path.parent
        assert (
            path.is_dir() or path.with_suffix(".py").exists() or parent.with_suffix(".py").exists() or parent.is_dir()
        )
