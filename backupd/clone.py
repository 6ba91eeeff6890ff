"""A clone of a volume's files inside the volume, on file systems that share blocks between files (XFS, Btrfs).

To make one takes a moment, so services have to stand only for that long; then the clone is read, and removed. It is
journaled, and `recover` removes what a kill has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from backupd.errors import SourceError
from backupd.journal import CloneAct, Journal
from backupd.model import Volume
from backupd.ports import Engine
from backupd.runtime import Runtime
from backupd.services import TarStream

PREFIX = ".backupd-clone-"

# Says `yes` if the volume's files can be cloned by GNU's cp, and leaves an empty directory with the root's attributes
# then; nothing is written where the file system is not one of those that can. What is dirty is written out now, because
# cloning a file waits for that.
_PREPARE = """
set -eu
case $(stat -f -c %T . 2>/dev/null) in xfs | btrfs | bcachefs | ocfs2) ;; *) exit 0 ;; esac
cp --version 2>/dev/null | grep -q 'GNU coreutils' || exit 0
time=$(stat -c %y .)
umask 077
mkdir "$1"
printf x >"$1/from"
if cp --reflink=always "$1/from" "$1/to" 2>/dev/null; then
    rm "$1/from" "$1/to"
    tar -c -f - --format=posix --xattrs '--xattrs-include=*' --acls --no-recursion . |
        tar -x -p -f - --xattrs '--xattrs-include=*' --acls --numeric-owner -C "$1"
    touch -d "$time" "$1"
    sync -f .
    echo yes
else
    rm -r "$1"
fi
touch -d "$time" .
"""

# The root's own time is kept: entries come into the clone's root, which changes it.
_TAKE = """
set -eu
clone=$1
time=$(stat -c %y "$clone")
set --
for name in * .[!.]* ..?*; do
    case $name in .backupd-*) continue ;; esac
    if [ -e "$name" ] || [ -L "$name" ]; then set -- "$@" "./$name"; fi
done
[ $# -eq 0 ] || cp -a --reflink=always -t "$clone" -- "$@"
touch -d "$time" "$clone"
"""

_REMOVE = """
set -eu
[ -d "$1" ] || exit 0
time=$(stat -c %y .)
rm -rf -- "$1"
touch -d "$time" . 2>/dev/null || :
"""

_LEFT = 'for name in .backupd-clone-*; do if [ -d "$name" ]; then echo "$name"; fi; done'


class Clone:
    """A context manager: entering finds out whether cloning is possible here, leaving removes the clone."""

    def __init__(self, runtime: Runtime, volume: Volume) -> None:
        self._runtime = runtime
        self._volume = volume
        self._name = f"{PREFIX}{runtime.new_id()[:8]}"
        self._journal = Journal(runtime.state)
        self._resources = ExitStack()
        self._made = False
        self.possible = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._act = self._journal.begin(CloneAct(volume=self._volume, name=self._name), self._runtime.clock.now())
            stack.callback(self._remove)
            self._made = True
            try:
                said = self._runtime.engine.run_script(self._volume, _PREPARE, [self._name])
            except SourceError as exc:
                self._runtime.progress.note(f"{self._volume}: not cloned: {exc}")
            else:
                self._made = self.possible = said.strip() == "yes"
            self._resources = stack.pop_all()
        return self

    def take(self) -> bool:
        """Clone all files as they are now; False if that cannot be done, and the volume itself has to be read."""
        if not self.possible:
            return False
        try:
            self._runtime.engine.run_script(self._volume, _TAKE, [self._name])
        except SourceError as exc:
            self._runtime.progress.note(f"{self._volume}: not cloned, read at a standstill: {exc}")
            return False
        return True

    def tar_out(self, exclude: Sequence[str]) -> TarStream:
        """Read the clone as if it were the volume."""
        return self._runtime.engine.tar_out(self._volume, exclude, self._name)

    def _remove(self) -> None:
        """The data are safe by now: a clone that can't be removed is told, and left to `recover`."""
        try:
            if self._made:
                remove(self._runtime.engine, self._volume, self._name)
        except SourceError as exc:
            self._runtime.progress.note(
                f"{self._volume}: {self._name} could not be removed, run `backupd recover`: {exc}"
            )
        else:
            self._journal.end([self._act])

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._resources.__exit__(exc_type, exc, tb)


def remove(engine: Engine, volume: Volume, name: str) -> None:
    """Remove a clone; not an error if there is none."""
    engine.run_script(volume, _REMOVE, [name])


def left(engine: Engine, volume: Volume) -> Sequence[str]:
    """The names of the clones that are in a volume."""
    return engine.run_script(volume, _LEFT).splitlines()
