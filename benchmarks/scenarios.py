"""What is measured: a mixed volume, a volume of small files, one file out of S3, a large volume."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import data
from benchmarks.contenders import BACKUPD, BACKUPD_DOCKER, OUT_VOLUME, Contender, Docker, Place, contenders
from benchmarks.measure import Patience, Results, Run, run

Say = Callable[[str], None]
VOLUME = "backupd-bench-data"
ATTEMPTS = 3
DISTURBED = 0.15


@dataclass(frozen=True, slots=True)
class Bench:
    """Sizes, places, and whom to tell. `cache` keeps the volumes between runs, `work` is removed afterwards."""

    cache: Path
    work: Path
    docker_host: str | None
    images: dict[str, str]
    rounds: int
    size: int
    small_files: int
    large: int
    patience: Patience
    say: Say
    results: Results

    @contextmanager
    def volume(self, name: str, make: Callable[[Path], None]) -> Iterator[Path]:
        """A copy of a cached volume, to be changed at will."""
        self.say(f"{name}: making the data")
        source = self.work / name
        subprocess.run(["cp", "-a", str(data.cached(self.cache, name, make)), str(source)], check=True)
        try:
            yield source
        finally:
            shutil.rmtree(source)

    @contextmanager
    def docker(self, source: Path) -> Iterator[Docker | None]:
        """The engine with a named volume that is `source`."""
        if self.docker_host is None:
            yield None
            return
        command = ["docker", "-H", self.docker_host, "volume"]
        options = ("type=none", "o=bind", f"device={source}")
        subprocess.run([*command, "rm", "-f", VOLUME], check=True, capture_output=True)
        subprocess.run(
            [*command, "create", *(word for option in options for word in ("--opt", option)), VOLUME],
            check=True,
            capture_output=True,
        )
        try:
            yield Docker(self.docker_host, self.images["alpine"], self.images["helper"], VOLUME)
        finally:
            found = subprocess.run(
                [*command, "ls", "-q", "-f", f"name={OUT_VOLUME}"], capture_output=True, text=True, check=False
            )
            subprocess.run([*command, "rm", "-f", VOLUME, *found.stdout.split()], check=False, capture_output=True)


def mixed(bench: Bench) -> None:
    """First snapshot, restore, a second one after a change of 1 %, a third one after scattered changes."""
    with (
        bench.volume(f"mixed-{bench.size // data.MIB}", lambda root: data.mixed(root, bench.size)) as source,
        bench.docker(source) as docker,
    ):
        bench.results.data_bytes["mixed"] = data.size_of(source)
        all_ = contenders(docker)
        for number in range(bench.rounds):
            with _round(bench, number, all_, source, docker) as places:
                _first(bench, "mixed", places)
                _restore(bench, "mixed restore", places, check=number == 0)
                data.change_one_percent(source, bench.size, number)
                _again(bench, "mixed again", places)
                data.scattered_change(source, bench.size, number)
                _again(bench, "mixed scattered", [place for place in places if place.contender.name != "tar"])


def small_files(bench: Bench) -> None:
    """First snapshot and restore of very many files."""
    with bench.volume(f"small-{bench.small_files}", lambda root: data.small_files(root, bench.small_files)) as source:
        bench.results.data_bytes["small"] = data.size_of(source)
        wanted = [contender for contender in contenders(None) if contender.name not in {"guide", "tar"}]
        for number in range(bench.rounds):
            with _round(bench, number, wanted, source, None) as places:
                _first(bench, "small", places)
                _restore(bench, "small restore", places, check=False)


def large(bench: Bench) -> None:
    """Whether the memory of backupd grows with the volume."""
    bench.say("large: making the data")
    source = data.cached(bench.cache, f"large-{bench.large // data.MIB}", lambda root: data.large(root, bench.large))
    bench.results.data_bytes["large"] = data.size_of(source)
    wanted = [contender for contender in contenders(None) if contender.name == BACKUPD]
    with _round(bench, 0, wanted, source, None) as places:
        _first(bench, "large", places)
        _again(bench, "large again", places)
        _restore(bench, "large restore", places, check=False)


@contextmanager
def _round(
    bench: Bench, number: int, among: Sequence[Contender], source: Path, docker: Docker | None
) -> Iterator[list[Place]]:
    """Everybody's empty repository, in an order that turns by one with each round."""
    order = [*among[number % len(among) :], *among[: number % len(among)]]
    places = [Place(contender, bench.work, source, docker) for contender in order]
    bench.say(f"round {number + 1}")
    with ExitStack() as stack:
        for place in places:
            stack.callback(place.remove)
        yield places


def _first(bench: Bench, phase: str, places: Sequence[Place]) -> None:
    for place in places:
        took = _quietest(bench, place, place.contender.first, place.fresh, place.source)
        _note(bench, phase, place, replace(took, stored_bytes=_stored(place)))


def _again(bench: Bench, phase: str, places: Sequence[Place]) -> None:
    for place in places:
        if place.contender.again:
            before = _stored(place)
            place.warm(place.source)
            bench.patience.wait()
            took = run(place.contender.again, place.environment)
            _note(bench, phase, place, replace(took, stored_bytes=_stored(place) - before))


def _restore(bench: Bench, phase: str, places: Sequence[Place], *, check: bool) -> None:
    for place in places:
        if place.contender.restore:
            _note(bench, phase, place, _quietest(bench, place, place.contender.restore, place.new_out, place.repo))
            if check and place.contender.name != BACKUPD_DOCKER:
                _same(place.source, place.out)


def _quietest(bench: Bench, place: Place, command: str, prepare: Callable[[], None], read: Path) -> Run:
    """Run it, and once or twice again where others disturbed it; the run that was disturbed least."""
    runs: list[Run] = []
    while len(runs) < ATTEMPTS:
        prepare()
        place.warm(read)
        bench.patience.wait()
        runs.append(run(command, place.environment))
        known = place.contender.whole and place.contender.name != BACKUPD_DOCKER
        if not known or runs[-1].others < DISTURBED or bench.patience.left <= 0:
            break
        bench.patience.left -= runs[-1].seconds
    return min(runs, key=lambda took: took.others)


def _note(bench: Bench, phase: str, place: Place, took: Run) -> None:
    bench.results.runs[phase, place.contender.name].append(took)
    words = [
        f"{took.seconds:7.2f} s",
        f"{took.cpu_seconds:6.2f} s of processors",
        f"{took.peak_bytes / data.MIB:4.0f} MiB of memory",
        f"others {took.others:3.0%}",
    ]
    if took.stored_bytes:
        words.append(f"{took.stored_bytes / data.MIB:8.1f} MiB stored")
    bench.say(f"  {phase:<16} {place.contender.name:<15} {'  '.join(words)}")


def _stored(place: Place) -> int:
    return data.size_of(place.repo)


def _same(before: Path, after: Path) -> None:
    """Whether a restore brought everything back; a benchmark of something else is worth nothing."""
    with suppress(StopIteration):
        raise RuntimeError(f"{next(_differences(filecmp.dircmp(before, after, ignore=[]), after))} was not restored")


def _differences(comparison: filecmp.dircmp[str], place: Path) -> Iterator[Path]:
    names = [*comparison.left_only, *comparison.right_only, *comparison.funny_files]
    _, differ, errors = filecmp.cmpfiles(comparison.left, comparison.right, comparison.common_files, shallow=False)
    yield from (place / name for name in [*names, *differ, *errors])
    for name, below in comparison.subdirs.items():
        yield from _differences(below, place / name)
