"""The results as tables: on the terminal, and in docs/benchmarks.md."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import BACKUPD, Contender
from benchmarks.data import GIB, MIB
from benchmarks.measure import Results
from benchmarks.targets import Target

_PHASES = {
    "mixed": "First snapshot of the mixed volume",
    "mixed again": "Second snapshot, after a change of 1 %",
    "mixed scattered": "Third snapshot, after scattered changes: single small files and single database pages",
    "mixed restore": "Restore of the first snapshot",
    "small": "First snapshot of many small files",
    "small restore": "Restore of many small files",
    "large": "First snapshot of the large volume",
    "large again": "Second snapshot of the large volume, nothing changed",
    "large restore": "Restore of the large volume",
}
_SEEN = (BACKUPD, "zstd", "zstd-synced", "tar", "restic", "borg")  # those whose own processes are all known
_HEAD = ("", "time", "times backupd's", "processor time", "peak memory", "stored")
_NOTES = """\
- Every round measures everybody in turn, in an order that turns by one; ratios are taken within a round. Given are
  medians, and of ratios also the lowest and the highest.
- A run during which other programs took more than 15 % of the processors is repeated up to two times, and the least
  disturbed one counts; that is not possible for second snapshots.
- Everything is read from the page cache (read once before each run) and written to one disk; what is dirty is written
  back before.
- backupd, restic and borg flush what they wrote before they say that it is stored; `tar | zstd` does not. So there is
  a second line for it, with `sync -f` inside the measured time.
- restic cannot write without encryption. borg does here, since backupd does.
- restic and borg pass over files whose size and times are unchanged; backupd reads everything.
- Processor time is of all processes of the command, peak memory the resident set of the largest of them. What runs in
  containers is not seen, so both are left out for the guide's command, and backupd's time with the Docker engine lacks
  that of tar.
- Repositories are new for each round. What was restored is compared with the volume, byte for byte, in the first round.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """All that there is to tell."""

    results: Results
    targets: list[Target]
    contenders: list[Contender]
    machine: dict[str, str]
    versions: dict[str, str]
    command: str
    judged: bool

    def show(self, console: Console) -> None:
        """On the terminal."""
        for title, rows in self._tables():
            table = Table(*_HEAD, title=title, title_justify="left", title_style="bold")
            for row in rows:
                table.add_row(*row)
            console.print(table)
        if not self.judged:
            console.print("Targets are stated for the full size; this run only shows that everything works.")
            return
        table = Table("target", "wanted", "measured", "", title="Targets", title_justify="left", title_style="bold")
        colours = {True: "green", False: "bold red", None: "dim"}
        for target in self.targets:
            verdict = f"[{colours[target.met]}]{target.verdict}[/]"
            table.add_row(target.what, target.wanted, target.measured, verdict)
        console.print(table)

    def markdown(self) -> str:
        """For the documentation."""
        sizes = self.results.data_bytes
        others = sorted(run.others for (_, name), runs in self.results.runs.items() for run in runs if name in _SEEN)
        volumes = ", ".join(
            f"{name} {sizes[name] / GIB:.2f} GiB" for name in ("mixed", "small", "large") if name in sizes
        )
        lines = [
            "# Benchmarks",
            "",
            f"Written by `{self.command}` on {datetime.now(UTC):%-d %B %Y}. Read ratios, not times.",
            "",
            *(f"- {name}: {value}" for name, value in self.machine.items()),
            f"- others on the machine: {_share(others)}",
            f"- versions: {', '.join(f'{name} {version}' for name, version in self.versions.items())}",
            f"- volumes: {volumes}",
            "",
            "## Targets",
            "",
            *_markdown(
                ("target", "wanted", "measured", ""), [(t.what, t.wanted, t.measured, t.verdict) for t in self.targets]
            ),
        ]
        for title, rows in self._tables():
            lines += ["", f"## {title}", "", *_markdown(_HEAD, rows)]
        lines += ["", "## How it was measured", "", _NOTES, "The commands:", ""]
        lines += [f"- {contender.label}: `{contender.first}`" for contender in self.contenders]
        return "\n".join(lines) + "\n"

    def _tables(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        tables = []
        for phase, title in _PHASES.items():
            rows = [self._row(phase, contender) for contender in self.contenders]
            if found := [row for row in rows if row]:
                tables.append((title, found))
        return tables

    def _row(self, phase: str, contender: Contender) -> tuple[str, ...] | None:
        results, name = self.results, contender.name
        seconds, cpu, stored = (results.median(phase, name, of) for of in ("seconds", "cpu_seconds", "stored_bytes"))
        if seconds is None:
            return None
        ratio = results.ratio(phase, name, BACKUPD)
        return (
            contender.label,
            f"{seconds:.2f} s",
            str(ratio) if ratio and name != BACKUPD else "1",
            f"{cpu:.2f} s" if contender.whole else "–",
            f"{results.peak(phase, name) / MIB:.0f} MiB" if contender.whole else "–",
            f"{stored / MIB:.1f} MiB" if stored else "–",
        )


def _share(others: list[float]) -> str:
    """How much of the processors other programs took during the runs."""
    if not others:
        return "not looked at"
    return f"{others[len(others) // 2]:.0%} of the processors in the median run, {others[-1]:.0%} in the worst"


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in (head, ("---",) * len(head), *rows)]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
