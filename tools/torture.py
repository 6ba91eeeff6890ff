"""The long random runs: kills, damages, trouble with stores, fuzzing. Prints the seed, and a table as Markdown.

python -m tools.torture [--seed N] [--only kills,damage,stores,fuzz] [--kills 240] [--lanes 3] [--damages 1000]
                        [--rounds 10] [--fuzz-seconds 30]

A part that fails says with what seed; `--seed` and `--only` repeat it. Fuzzing takes Atheris (LibFuzzer for Python),
which is fetched from PyPI into `.build/` and is no dependency; where there is no wheel the same functions are fed by
Hypothesis alone.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ATHERIS = ROOT / ".build" / "atheris"
LOG = ROOT / ".build" / "torture.log"
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Result:
    """One part, for the table."""

    part: str
    good: bool
    seconds: float
    said: str


def pytest(options: argparse.Namespace, part: str, *arguments: str, **environment: object) -> Result:
    """Tests, with what they are to do in the environment."""
    chosen = {"BACKUPD_SEED": options.seed, "BACKUPD_TORTURE_LOG": LOG, **environment}
    print(f"{part}: {' '.join(f'{name}={value}' for name, value in chosen.items())}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    begun = time.monotonic()
    env = os.environ | {name: str(value) for name, value in chosen.items()}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout if done.returncode else done.stdout.splitlines()[-1], flush=True)
    return Result(part, done.returncode == 0, time.monotonic() - begun, done.stdout.splitlines()[-1])


def kills(options: argparse.Namespace) -> list[Result]:
    workers = ["-n", str(options.lanes), "--dist", "load"] if options.lanes > 1 else ["-n", "0"]
    wanted = {"BACKUPD_KILLS": options.kills, "BACKUPD_LANES": options.lanes}
    return [pytest(options, "kills", *workers, "tests/faults/test_kills.py", **wanted)]


def damage(options: argparse.Namespace) -> list[Result]:
    return [pytest(options, "damage", "-n", "0", "tests/faults/test_damage.py", BACKUPD_DAMAGES=options.damages)]


def stores(options: argparse.Namespace) -> list[Result]:
    files = [f"tests/faults/test_{name}.py" for name in ("store_s3_trouble", "full_disks", "clocks", "concurrent")]
    files += [f"tests/faults/test_prune_{name}.py" for name in ("killed", "interleaved", "processes")]
    rounds = {"BACKUPD_S3_ROUNDS": options.rounds}
    return [pytest(options, "stores", "-n", "0", "tests/faults/test_failing_store.py", *files, **rounds)]


def fuzz(options: argparse.Namespace) -> list[Result]:
    """Each target for so many seconds. One that finds something leaves it in `.build/fuzz/`."""
    from tests.support.fuzzing import targets  # noqa: PLC0415

    if not _have_atheris():
        print("Atheris cannot be had here: Hypothesis alone")
        return [pytest(options, "fuzz", "-n", "0", "tests/faults/test_fuzzing.py")]
    results = []
    for target in targets():
        corpus = ROOT / ".build" / "fuzz" / target.name.replace(" ", "-")
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        command = [sys.executable, "-m", "tools.torture_fuzz", target.name, str(corpus)]
        limits = ["-timeout=30", "-rss_limit_mb=2048", "-max_len=300000", f"-artifact_prefix={corpus}-"]
        limits += [f"-max_total_time={options.fuzz_seconds}", f"-seed={options.seed}", "-print_final_stats=1"]
        begun = time.monotonic()
        env = os.environ | {"PYTHONPATH": f"{ATHERIS}:{ROOT}"}
        done = subprocess.run([*command, *limits], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        stats = dict(line[6:].split(":", 1) for line in done.stderr.splitlines() if line.startswith("stat::"))
        said = (
            f"{stats.get('number_of_executed_units', '?').strip()} inputs, {stats.get('peak_rss_mb', '?').strip()} MB"
        )
        print(done.stderr[-3000:] if done.returncode else f"fuzz {target.name}: {said}", flush=True)
        results.append(Result(f"fuzz {target.name}", done.returncode == 0, time.monotonic() - begun, said))
    return results


def _have_atheris() -> bool:
    if not (ATHERIS / "atheris").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--only-binary=:all:",
            "--target",
            str(ATHERIS),
            "atheris",
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return True


PARTS: dict[str, Callable[[argparse.Namespace], list[Result]]] = {
    "damage": damage,
    "stores": stores,
    "fuzz": fuzz,
    "kills": kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1_000_000))
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--lanes", type=int, default=3)
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--fuzz-seconds", type=int, default=30)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    LOG.parent.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    results = [result for name in options.only.split(",") for result in PARTS[name](options)]
    print(f"\nseed {options.seed}; details in {LOG.relative_to(ROOT)}\n")
    print("| part | | seconds | |\n| --- | --- | --- | --- |")
    for result in results:
        print(f"| {result.part} | {'good' if result.good else 'BAD'} | {result.seconds:.0f} | {result.said} |")
    sys.exit(not all(result.good for result in results))


if __name__ == "__main__":
    main()
