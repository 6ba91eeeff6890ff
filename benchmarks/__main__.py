"""Measures backupd against tar, zstd, restic, borg and the guide's command, everybody in turn, and shows ratios."""

from __future__ import annotations

import argparse
import compileall
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

import backupd
from benchmarks import scenarios
from benchmarks.contenders import ROOT, Docker, contenders, install_missing
from benchmarks.data import GIB, MIB
from benchmarks.machine import machine, versions
from benchmarks.measure import CommandFailed, Patience, Results
from benchmarks.report import Report
from benchmarks.targets import targets

DOCUMENT = ROOT / "docs" / "benchmarks.md"
CACHE = ROOT / ".build" / "bench"
SCENARIOS = ("mixed", "small-files", "large", "one-file")
BY_HAND = "\n## What stands behind the figures\n"


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if missing := install_missing():
        console.print(f"left out, since they are not installed: {', '.join(missing)}")
    wanted = arguments.only or [name for name in SCENARIOS if name != "large" or arguments.large]
    arguments.cache.mkdir(parents=True, exist_ok=True)
    compileall.compile_dir(Path(backupd.__file__).parent, quiet=1)  # as every installation does
    work = Path(tempfile.mkdtemp(prefix="work-", dir=arguments.cache))
    try:
        with _docker(console, needed="mixed" in wanted and not arguments.no_docker) as (host, images):
            bench = _bench(arguments, work, host, images, console)
            _enough_room(bench, large="large" in wanted)
            for name in wanted:
                console.print(f"[bold]{name}[/]")
                _run(name, bench)
            named = Docker(host, images["alpine"], images["helper"], scenarios.VOLUME) if host else None
            given = (f"--{name.replace('_', '-')}" for name, value in vars(arguments).items() if value is True)
            command = " ".join(("python -m benchmarks", *given))
            everybody = contenders(named)
            report = Report(
                bench.results,
                targets(bench.results),
                everybody,
                machine(work),
                versions(host),
                command,
                not arguments.quick,
            )
        report.show(console)
        if arguments.write:
            DOCUMENT.write_text(report.markdown() + _by_hand(DOCUMENT))
            console.print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    except (CommandFailed, RuntimeError) as exc:
        console.print(f"[red]failed:[/] {exc}")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _by_hand(document: Path) -> str:
    """The part of the document that people write, which stays."""
    _, heading, text = document.read_text().partition(BY_HAND) if document.exists() else ("", "", "")
    return heading + text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 MiB, 2,000 small files, one round: does it work?")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this part only; repeatable")
    parser.add_argument("--large", action="store_true", help="also a volume of 10 GiB (takes 25 GiB of disk)")
    parser.add_argument("--rounds", type=int, help="how often everybody is measured (default 3)")
    parser.add_argument(
        "--patience", type=float, default=600, help="seconds to spend on waiting for a quiet machine (600)"
    )
    parser.add_argument("--no-docker", action="store_true", help="do without a Docker Engine")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="where volumes are kept between runs (default .build/bench)"
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("--quick measures nothing that is worth writing down")
    return arguments


def _bench(
    arguments: argparse.Namespace, work: Path, host: str | None, images: dict[str, str], console: Console
) -> scenarios.Bench:
    quick = arguments.quick
    return scenarios.Bench(
        cache=arguments.cache,
        work=work,
        docker_host=host,
        images=images,
        rounds=arguments.rounds or (1 if quick else 3),
        size=64 * MIB if quick else GIB,
        small_files=2_000 if quick else 200_000,
        large=256 * MIB if quick else 10 * GIB,
        patience=Patience(0 if quick else arguments.patience),
        say=lambda text: console.print(text, markup=False, soft_wrap=True),
        results=Results(),
    )


def _run(name: str, bench: scenarios.Bench) -> None:
    if name == "one-file":
        # boto3 would add to the memory that every command before it is seen to start with.
        from benchmarks.one_file import one_file  # noqa: PLC0415

        one_file(bench)
        return
    {"mixed": scenarios.mixed, "small-files": scenarios.small_files, "large": scenarios.large}[name](bench)


@contextmanager
def _docker(console: Console, *, needed: bool) -> Iterator[tuple[str | None, dict[str, str]]]:
    """An engine and its images, or None with a word about why not."""
    if not needed or shutil.which("docker") is None:
        yield None, {}
        return
    from tests.support.dockerd import NoEngine, docker_host  # noqa: PLC0415  (as above)
    from tests.support.images import Images  # noqa: PLC0415

    try:
        engine = docker_host()
        host = engine.__enter__()
    except NoEngine as exc:
        console.print(f"no Docker Engine: {exc}")
        yield None, {}
        return
    try:
        with Images(host) as images:
            yield host.url, {name: images.tag(name) for name in ("alpine", "helper")}
    finally:
        engine.__exit__(None, None, None)


def _enough_room(bench: scenarios.Bench, *, large: bool) -> None:
    needed = max(12 * bench.size, 2.5 * bench.large if large else 0)
    free = shutil.disk_usage(bench.work).free
    if free < needed:
        raise RuntimeError(f"{needed / GIB:.0f} GiB of disk are needed, and {free / GIB:.0f} GiB are free")


if __name__ == "__main__":
    sys.exit(main())
