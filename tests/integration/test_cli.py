"""The command line as its user has it: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from backupd.repository import RepositoryConfig
from backupd.repository.documents import decode, encode
from tests.support.cli import Cli
from tools.fingerprint import differences, fingerprint


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    volume = tmp_path / "storage"
    (volume / "photos").mkdir(parents=True)
    (volume / "photos" / "1.jpg").write_bytes(os.urandom(100_000))
    (volume / "notes.txt").write_text("remember the milk\n")
    return volume


@pytest.fixture
def cli(make_cli: Callable[..., Cli], volume: Path, tmp_path: Path) -> Cli:
    return make_cli(
        engine="mounted",
        volumes={
            "storage": {"path": str(volume)},
            "cache": {"path": str(tmp_path / "cache"), "optional": True},
        },
    )


def test_a_day_in_the_life(cli: Cli, volume: Path, tmp_path: Path) -> None:
    original = fingerprint(volume)
    out = cli.run("backup")
    assert re.search(r"storage +full", out.stdout)
    assert "cache: left out" in out.stderr
    first = cli.json("list")["snapshots"][0]["id"]
    (volume / "notes.txt").write_text("remember the bread\n")
    cli.run("backup")
    assert cli.run("list").stdout.count("complete") == 2

    shown = cli.run("show", first[:8]).stdout
    assert f"snapshot  {first}" in shown
    assert "cache: left out" in shown
    assert "notes.txt" in cli.run("ls", first, "storage").stdout
    assert cli.run("cat", first, "storage", "notes.txt").stdout == "remember the milk\n"
    assert "~ storage/notes.txt" in cli.run("diff", first, "latest").stdout
    assert cli.run("restore", first, "--dry-run").stdout.endswith("dry run: nothing was changed\n")
    assert (volume / "notes.txt").read_text() == "remember the bread\n"

    restored = cli.json("restore", first, "--yes")
    assert differences(original, fingerprint(volume)) == []
    assert cli.run("cat", restored["safety_snapshot"], "storage", "notes.txt").stdout == "remember the bread\n"
    assert cli.json("list")["snapshots"][0]["reason"] == "safety"
    assert cli.json("show", "latest")["reason"] == "backup", "`latest` is never a safety snapshot"

    cli.run("restore", first, "storage", "--to-dir", str(tmp_path / "look"))
    assert differences(original, fingerprint(tmp_path / "look")) == []
    cli.run("export", first, "storage", "-o", str(tmp_path / "out.tar"))
    listed = subprocess.run(["tar", "tf", tmp_path / "out.tar"], capture_output=True, text=True, check=True).stdout
    assert "./photos/1.jpg" in listed
    imported = cli.json("import", "storage", str(tmp_path / "out.tar"))["snapshot"]
    assert imported["reason"] == "import"
    verified = cli.json("verify", "--read-data")
    assert verified["problems"] == []
    assert len(verified["archives"]) == 4
    assert cli.run("recover").stdout == "nothing was left half-done\n"


def test_errors_are_one_line_with_a_hint_and_the_right_code(cli: Cli, volume: Path, tmp_path: Path) -> None:
    before = fingerprint(volume)
    assert "holds no repository" in cli.error("list", code=10)
    assert "holds no repository" in cli.error("restore", "latest", "--yes", code=10)
    cli.run("backup")
    cli.run("backup")
    cases = {
        ("show", "ffffffffff"): (10, "no snapshot 'ffffffffff'"),
        ("restore", "latest", "postgres", "--yes"): (10, "holds no volume postgres"),
        ("restore", "latest", "--path", "photos/2.jpg", "--yes"): (1, "holds no photos/2.jpg"),
        ("restore", "latest", "--path", "../etc", "--yes"): (2, "not a path inside"),
        ("restore", "latest"): (2, "nobody is there to confirm"),
        ("restore", "latest", "--into", "a", "--to-dir", "b"): (2, "exclude each other"),
        ("cat", "latest", "storage", "photos"): (1, "photos is no file but a directory"),
        ("backup", "weekly"): (2, "no plan 'weekly'"),
        ("backup", "--volume", "postgres"): (2, "no volume postgres"),
        ("list", "--store", "nowhere"): (2, "no store 'nowhere'"),
        ("verify", "--read-data=110"): (2, "not a percentage"),
        ("import", "storage", str(tmp_path / "backupd.yaml")): (13, "tar"),
        ("import", "storage", str(tmp_path / "missing.tar")): (2, "not a file"),
        ("export", "latest", "storage", "-o", str(tmp_path / "no" / "x.tar")): (1, "cannot write"),
        ("frobnicate",): (2, "No such command"),
        ("restore",): (2, "Missing argument"),
    }
    for arguments, (code, text) in cases.items():
        message = cli.error(*arguments, code=code)
        assert text in message, message
        assert message.count("\n") <= 1
    assert differences(before, fingerprint(volume)) == []
    assert len(cli.json("list")["snapshots"]) == 2


def test_where_the_old_data_are(cli: Cli, volume: Path, tmp_path: Path) -> None:
    """`--keep-old` names the directory, in words and in the document; where there was nothing, none."""
    cli.run("backup")
    (volume / "notes.txt").write_text("remember the bread\n")
    said = cli.run("restore", "latest", "--yes", "--keep-old").stdout
    (name,) = re.findall(r"what it held before is in (\S+), inside the volume", said)
    assert (volume / name / "notes.txt").read_text() == "remember the bread\n"
    shutil.rmtree(volume / name)
    (done,) = cli.json("restore", "latest", "--yes", "--keep-old")["restored"]
    assert (volume / done["old_data"] / "notes.txt").read_text() == "remember the milk\n"
    (done,) = cli.json("restore", "latest", "--yes", "--keep-old", "--into", str(tmp_path / "new"))["restored"]
    assert done["old_data"] is None
    (done,) = cli.json("restore", "latest", "--yes")["restored"]
    assert done["old_data"] is None


def test_a_failure_is_a_document_too(cli: Cli) -> None:
    failed = cli.json("show", "latest", code=10)
    assert failed == {
        "error": "store local holds no repository",
        "hint": "the first `backupd backup` makes it",
        "exit_code": 10,
    }
    assert cli.json("frobnicate", code=2)["exit_code"] == 2
    assert cli.json("backup", "--volum", code=2)["hint"] == "`backupd backup --help` says what it takes"
    cli.config.write_text("storess: {}")
    assert "storess: unknown key" in cli.json("config", "check", code=2)["error"]


def test_a_configured_volume_is_restored_into_by_its_name(cli: Cli, volume: Path, tmp_path: Path) -> None:
    cli.run("backup")
    planned = cli.run("restore", "latest", "--into", "storage", "--dry-run").stdout
    assert f"storage → directory {volume}: all of it" in planned
    assert "the mounted engine knows no services" in planned
    new = cli.run("restore", "latest", "--into", str(tmp_path / "new"), "--dry-run").stdout
    assert "knows no services" not in new, "nobody uses what is not there yet"


def test_history_says_what_it_looked_for(cli: Cli) -> None:
    assert cli.run("history").stdout.endswith("nothing has run yet\n")
    cli.run("backup")
    assert cli.run("history", "--plan", "another").stdout.endswith("no such run is known\n")


def test_ambiguous_prefix(cli: Cli, tmp_path: Path) -> None:
    cli.run("backup")
    (manifest,) = (tmp_path / "backups" / "snapshots").iterdir()
    twin = manifest.with_name(manifest.stem[:8] + "0" * 8 + ".json")
    twin.write_text(manifest.read_text().replace(manifest.stem, twin.stem))
    assert "2 snapshots begin with" in cli.error("show", manifest.stem[:8], code=10)


def test_what_is_not_a_repository_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    (backups / "family-photos.zip").write_text("precious")
    assert "not a repository" in cli.error("backup", code=10)
    assert [path.name for path in backups.iterdir() if path.name != ".unfinished"] == ["family-photos.zip"]


def test_newer_format_is_refused(cli: Cli, tmp_path: Path) -> None:
    cli.run("backup")
    config = tmp_path / "backups" / "backupd.json"
    config.write_bytes(encode(structs.replace(decode(config.read_bytes(), RepositoryConfig, "config"), format=3)))
    for arguments in (("list",), ("backup",), ("restore", "latest", "--yes")):
        assert "format 3" in cli.error(*arguments, code=10)


def test_a_damaged_description_of_the_repository(cli: Cli, tmp_path: Path) -> None:
    cli.run("backup")
    config = tmp_path / "backups" / "backupd.json"
    config.write_text(config.read_text().replace('"format": 1', '"format": 2'))
    for command in ("list", "verify", "backup"):
        assert "put it back from a copy" in cli.error(command, code=13)


def test_damage_reaches_nobody(cli: Cli, volume: Path, tmp_path: Path) -> None:
    cli.run("backup")
    before = fingerprint(volume)
    (archive,) = (tmp_path / "backups" / "archives" / "storage").glob("*.tar.zst")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    assert "damaged" in cli.error("restore", "latest", "--yes", "--no-safety-snapshot", code=13)
    assert differences(before, fingerprint(volume)) == []
    assert cli.json("verify", "--read-data", code=13)["problems"]
    archive.write_bytes(bytes(data[:-1]))
    assert "bytes instead of" in cli.error("restore", "latest", "--yes", code=13)
    archive.unlink()
    assert "missing" in cli.error("restore", "latest", "--yes", code=13)
    assert differences(before, fingerprint(volume)) == []


def test_part_of_a_run_failing_is_exit_3_and_shown(cli: Cli, volume: Path) -> None:
    cli.config.write_text(cli.config.read_text().replace("optional: true", "optional: false"))
    assert "cache" in cli.error("backup", code=3)
    assert "partial: no cache" in cli.run("list").stdout
    assert "now holds storage as in" in cli.run("restore", "latest", "--yes", code=3).stdout


def test_no_engine_is_a_clear_error(make_cli: Callable[..., Cli], tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    cli = make_cli(docker={"host": f"unix://{socket}"}, volumes={"storage": {"volume": "storage"}})
    message = cli.error("backup", code=1)
    assert str(socket) in message


def test_options_of_everywhere_may_stand_before_the_command(cli: Cli) -> None:
    cli.run("backup")
    assert cli.run("--json", "--store", "local", "list").stdout == cli.run("list", "--store", "local", "--json").stdout
    assert "configuration: " in cli.run("-v", "list").stderr


def test_restore_askson_a_terminal(cli: Cli, volume: Path) -> None:
    cli.run("backup")
    (volume / "notes.txt").unlink()
    for answer, code in ((b"n\n", 130), (b"y\n", 0)):
        screen, status = on_a_terminal(cli, answer, "restore", "latest", "--no-safety-snapshot")
        assert "Restore? [y/N]" in screen
        assert status == code, screen
        assert (volume / "notes.txt").exists() is (code == 0)


def on_a_terminal(cli: Cli, answer: bytes, *arguments: str) -> tuple[str, int]:
    """Run with a terminal, type a line of `answer` each time it asks; the screen and the exit code."""
    master, slave = pty.openpty()
    process = subprocess.Popen(cli.command(*arguments), env=cli.env(), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen, asked, answers = b"", 0, answer.splitlines(keepends=True)
    while select.select([master], [], [], 60)[0]:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        screen += data
        if answers and screen.count(b"[y/N]") > asked:
            asked += 1
            os.write(master, answers.pop(0))
    os.close(master)
    return screen.decode(), process.wait()


def test_sigterm_leaves_nothing_half_done(cli: Cli, volume: Path, tmp_path: Path) -> None:
    with (volume / "big").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(1024 * 1024))
    process = subprocess.Popen(cli.command("backup"), env=cli.env(), stderr=subprocess.PIPE, text=True)
    unfinished = tmp_path / "backups" / ".unfinished"
    deadline = time.monotonic() + 60
    while not (unfinished.exists() and any(path.stat().st_size for path in unfinished.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count("error: interrupted") == 1
    assert "Traceback" not in err
    assert list(unfinished.iterdir()) == []
    assert cli.json("list")["snapshots"] == []


def test_reader_that_goes_away_is_no_error(cli: Cli) -> None:
    cli.run("backup")
    command = " ".join(cli.command("export", "latest", "storage"))
    result = subprocess.run(["sh", "-c", f"{command} | head -c 10"], env=cli.env(), capture_output=True, check=True)
    assert b"Traceback" not in result.stderr
    assert b"error" not in result.stderr


def test_json_is_the_only_thing_on_stdout(cli: Cli) -> None:
    assert cli.json("backup")["snapshot"]["plan"] == "default"
    assert cli.json("ls", "latest", "storage", "-R")["files"][-1]["path"] == "photos/1.jpg"
    assert cli.json("diff", "latest", "latest")["volumes"] == {"storage": []}
    assert cli.json("restore", "latest", "--dry-run")["plan"][0]["volume"] == "storage"
    assert cli.json("config", "check")["valid"] is True
    assert cli.json("config", "show")["engine"] == "mounted"
    assert cli.json("recover") == {"recovered": []}


def test_completion_is_offered(cli: Cli) -> None:
    # It looks at the shell that it was called from; `true` keeps bash from making way for it.
    script = f"{shlex.join(cli.command('--show-completion'))}; true"
    result = subprocess.run(["bash", "-c", script], env=cli.env(), capture_output=True, text=True, check=False)
    assert "backupd" in result.stdout
