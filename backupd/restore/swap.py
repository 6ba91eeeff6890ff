"""Puts a restored tree in the place of what a volume holds, so that the volume is wholly old or wholly new.

All of it is renames inside the volume, done by `swap.sh` through the engine, whose first lines say how it works.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal

from msgspec import Struct

from backupd.errors import SourceError
from backupd.model import KIB, Volume
from backupd.ports import Engine

Holds = Literal["old", "new"]


class Survey(Struct, frozen=True):
    """What a volume looks like before a restore: whether it holds anything, room left, and interrupted restores."""

    empty: bool
    free_bytes: int
    device: str
    interrupted: tuple[str, ...]


class Swap(Struct, frozen=True):
    """One restore into one volume; `id` is the name of its staging directory.

    Order of calls: prepare, extract into `staging`, ready, swap, then finish or undo. `undo` may be called in every
    state but after `finish`, and leaves the old data. After a kill: `undo`, or `complete` once the swap was decided,
    or `recover`, which finishes what `swap` began and undoes all else. Any call but `prepare` may be repeated then.
    """

    engine: Engine
    volume: Volume
    id: str

    @property
    def staging(self) -> str:
        """Where the tree is extracted to, relative to the volume's root."""
        return f".backupd-restore-{self.id}/tree"

    @property
    def old(self) -> str:
        """Where the old data are once they were exchanged, relative to the volume's root."""
        return f".backupd-old-{self.id}"

    def survey(self) -> Survey:
        """Look, change nothing."""
        answers = [line.split(" ", 1) for line in self._run("survey").splitlines()]
        facts = dict(answers)
        try:
            free = int(facts["free"]) * KIB
        except (KeyError, ValueError) as exc:
            raise SourceError(f"cannot tell how much room {self.volume} has") from exc
        return Survey(
            empty=facts.get("entries") == "none",
            free_bytes=free,
            device=facts.get("device", ""),
            interrupted=tuple(value for key, value in answers if key == "left"),
        )

    def settled(self, *, decided: bool) -> bool:
        """Whether the root holds one tree, the one that it is to keep: `decided` says whether that is the new one."""
        state = self._run("state").strip()
        return state in {"none", "extracting", "undone"} or state == ("swapped" if decided else "ready")

    def prepare(self) -> None:
        """Make the staging directory."""
        self._run("prepare")

    def ready(self, paths: Sequence[str] = ()) -> None:
        """The tree is extracted. With `paths`, only these are exchanged, and the rest of the volume stays."""
        self._run("ready", *paths)

    def swap(self) -> None:
        """Exchange old and new."""
        self._run("swap")

    def undo(self) -> None:
        """Put the old data back and drop the new."""
        self._run("undo")

    def finish(self, *, keep_old: bool) -> None:
        """Drop the old data (or leave them in `old`)."""
        self._run("finish", *(["keep"] if keep_old else []))

    def complete(self, *, keep_old: bool) -> Holds:
        """Swap and finish, from wherever a kill left it after `ready`; says which data the volume holds now."""
        return self._after_a_kill("complete", keep_old)

    def recover(self, *, keep_old: bool) -> Holds:
        """Finish or undo, whichever keeps the volume whole; says which data it holds now."""
        return self._after_a_kill("recover", keep_old)

    def _after_a_kill(self, verb: str, keep_old: bool) -> Holds:
        answer = self._run(verb, *(["keep"] if keep_old else [])).strip()
        return "new" if answer == "new" else "old"

    def _run(self, verb: str, *arguments: str) -> str:
        return self.engine.run_script(self.volume, _script(), [self.id, verb, *arguments])


@cache
def _script() -> str:
    return resources.files(__package__).joinpath("swap.sh").read_text()
