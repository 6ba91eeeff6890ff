"""What backupd promises about speed, size and memory, and whether the measured runs kept it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders import BACKUPD
from benchmarks.data import MIB
from benchmarks.measure import Ratio, Results

_MEMORY_LIMIT = 200 * MIB
_SAME = 1.15


@dataclass(frozen=True, slots=True)
class Target:
    """`met` is None for what was not measured."""

    what: str
    wanted: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "met", False: "NOT met", None: "not measured"}[self.met]


def targets(results: Results) -> list[Target]:
    """Every target, in the order of the tables."""
    return [
        _faster(results, "mixed", "guide", 12, "the guide's `docker run … tar czf`"),
        _faster(results, "mixed", "restic", 2, "restic"),
        _faster(results, "mixed", "borg", 2, "borg"),
        _slower(results, "mixed", "zstd", 1.3, "First snapshot, against `tar | zstd -3 -T0`"),
        _slower(results, "mixed", "zstd-synced", 1.3, "The same, `tar | zstd` made durable too (`sync -f`)"),
        _smaller(results),
        _slower(
            results, "mixed again", "tar", 1.5, "Second snapshot after a change of 1 %, against `tar | cat > /dev/null`"
        ),
        _increment(results),
        _slower(results, "mixed restore", "zstd", 1.3, "Restore, against `zstd -dc | tar x`"),
        _slower(results, "mixed restore", "zstd-synced", 1.3, "The same, `tar x` made durable too (`sync -f`)"),
        *(_one_file(results, how) for how in ("restore --path", "cat")),
        _slower(results, "small", "zstd", 1.6, "Many small files, against `tar | zstd -3 -T0`"),
        _slower(results, "small", "zstd-synced", 1.6, "The same, `tar | zstd` made durable too (`sync -f`)"),
        *(_memory(results, phase, what) for phase, what in _MEMORY.items()),
        _same_memory(results),
    ]


_MEMORY = {
    "mixed": "Memory of a first backup",
    "mixed again": "Memory of a second backup",
    "mixed restore": "Memory of a restore",
    "small": "Memory of a backup of many small files",
    "large": "Memory of a backup of the large volume",
    "large restore": "Memory of its restore",
}


def _faster(results: Results, phase: str, peer: str, wanted: float, name: str) -> Target:
    ratio = results.ratio(phase, peer, BACKUPD)
    return Target(
        f"First snapshot, times faster than {name}",
        f"at least {wanted:g}×",
        _times(ratio),
        ratio and ratio.median >= wanted,
    )


def _slower(results: Results, phase: str, peer: str, wanted: float, name: str) -> Target:
    ratio = results.ratio(phase, BACKUPD, peer)
    return Target(name, f"at most {wanted:g}×", _times(ratio), ratio and ratio.median <= wanted)


def _smaller(results: Results) -> Target:
    ratio = results.ratio("mixed", BACKUPD, "zstd", of="stored_bytes")
    measured = f"{ratio.median:.3f}×" if ratio else "–"
    return Target(
        "First snapshot, size against `tar | zstd -3 -T0`", "not larger", measured, ratio and ratio.median <= 1
    )


def _increment(results: Results) -> Target:
    stored, size = results.median("mixed again", BACKUPD, "stored_bytes"), results.data_bytes.get("mixed", 0)
    return Target(
        "Second snapshot after a change of 1 %, stored",
        "at most 3 % of the data",
        f"{stored / size:.1%}" if stored and size else "–",
        stored / size <= 0.03 if stored and size else None,
    )


def _one_file(results: Results, how: str) -> Target:
    read = results.facts.get(f"one file, {how}")
    return Target(
        f"A file of 10 KiB out of an archive on S3 with `{how}`, read from S3",
        "under 16 MiB",
        f"{read / MIB:.1f} MiB" if read else "–",
        read < 16 * MIB if read else None,
    )


def _memory(results: Results, phase: str, what: str) -> Target:
    peak, size = results.peak(phase, BACKUPD), results.data_bytes.get(phase.split(maxsplit=1)[0], 0)
    what += f" ({size / MIB / 1024:.1f} GiB)" if size else ""
    return Target(
        what, "under 200 MiB", f"{peak / MIB:.0f} MiB" if peak else "–", peak < _MEMORY_LIMIT if peak else None
    )


def _same_memory(results: Results) -> Target:
    ratios = []
    for phase in ("", " restore"):
        small, large = results.peak(f"mixed{phase}", BACKUPD), results.peak(f"large{phase}", BACKUPD)
        if small and large:
            ratios.append(large / small)
    measured = ", ".join(f"{ratio:.2f}×" for ratio in ratios) or "–"
    met = max(ratios) <= _SAME if ratios else None
    return Target("Memory, large volume against mixed volume (backup, restore)", "the same", measured, met)


def _times(ratio: Ratio | None) -> str:
    return f"{ratio}×" if ratio else "–"
