"""Volumes that are directories of this machine: no Docker involved."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from backupd.engine.confine import confinement
from backupd.engine.localjob import LocalInput, LocalOutput
from backupd.engine.tarcommand import (
    PROBE,
    LocalTar,
    create_command,
    extract_command,
    tar_from_words,
)
from backupd.engine.verdict import Complaints, failure
from backupd.engine.within import job_environment, within
from backupd.engine.workspace import Workspace
from backupd.errors import SourceError, VolumeMissing
from backupd.model import Consumer, Tool, Volume, VolumeSpec
from backupd.sandbox import DirectorySandbox
from backupd.services import NoServices, Services


class MountedEngine:
    """Runs the local `tar` on directories, with the rights of this process.

    Copies are made in `scratch_directory`, else in the directory for temporary files, where a kill leaves them.
    """

    name = "mounted"

    def __init__(self, scratch_directory: Path | None = None) -> None:
        self._tar: LocalTar | None = None
        self._workspace = Workspace(scratch_directory) if scratch_directory else None
        self.services: Services = NoServices()

    def find(self, spec: VolumeSpec) -> Volume:
        """See Engine."""
        if spec.path is None:
            raise SourceError(
                f"volume {spec.name!r} names the Docker volume {spec.volume!r}, and the mounted engine knows no Docker",
                hint="mount it into this container and give the directory as `path:`, or set `engine: docker`",
            )
        path = Path(spec.path)
        if not path.is_absolute():
            raise SourceError(f"volume {spec.name!r}: {spec.path} is not an absolute path")
        volume = self.inspect(Volume(name=spec.name, kind="directory", source=str(path)))
        if volume is None:
            raise VolumeMissing(f"volume {spec.name!r}: there is no directory {spec.path}", hint="is it mounted here?")
        return volume

    def volumes(self) -> Sequence[Volume]:
        """See Engine."""
        return ()

    def inspect(self, volume: Volume) -> Volume | None:
        """See Engine."""
        self._refuse_other_kinds(volume)
        try:
            return volume if Path(volume.source).is_dir() else None
        except OSError as exc:
            raise SourceError(f"cannot look at {volume}: {exc.strerror}", hint="may this user read it?") from exc

    def create(self, volume: Volume) -> None:
        """See Engine."""
        self._refuse_other_kinds(volume)
        try:
            Path(volume.source).mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise SourceError(f"cannot create {volume}: {exc.strerror}") from exc

    def remove(self, volume: Volume) -> None:
        """See Engine."""
        self._refuse_other_kinds(volume)
        try:
            Path(volume.source).rmdir()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise SourceError(f"cannot remove {volume}: {exc.strerror}") from exc

    def consumers(self, volume: Volume) -> Sequence[Consumer]:
        """See Engine: without Docker nobody knows."""
        self._refuse_other_kinds(volume)
        return ()

    def tool(self) -> Tool:
        """See Engine."""
        return self._local_tar().tool

    def _local_tar(self) -> LocalTar:
        if self._tar is None:
            self._tar = _probe()
        return self._tar

    @contextlib.contextmanager
    def ready_to_read(self, volume: Volume, exclude: Sequence[str] = ()) -> Iterator[Callable[[], LocalOutput]]:
        """See Engine. A process is there at once."""
        yield partial(self.tar_out, volume, exclude)

    def tar_out(self, volume: Volume, exclude: Sequence[str] = (), subdirectory: str = "") -> LocalOutput:
        """See Engine."""
        tar = self._local_tar()
        with within(self._directory(volume), subdirectory) as place:
            command = create_command(tar, ".", exclude)
            return LocalOutput(f"reading {volume}", place, command, Complaints(tar.tool.flavour, "out"))

    def tar_in(self, volume: Volume, subdirectory: str = "", *, acls: bool = False, kept: bool = False) -> LocalInput:
        """See Engine."""
        flavour = self.tool().flavour
        with within(self._directory(volume), subdirectory, create=True) as place:
            command = extract_command(flavour, ".", as_root=os.geteuid() == 0, acls=acls)
            return LocalInput(f"writing {volume}", place, command, Complaints(flavour, "in"), kept=kept)

    def run_script(self, volume: Volume, script: str, arguments: Sequence[str] = ()) -> str:
        """See Engine."""
        with within(self._directory(volume)) as place:
            said = _output(place.start, ["sh", "-c", script, "sh", *arguments], f"script on {volume}")
        return said.decode(errors="surrogateescape")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Volume]:
        """See Engine."""
        with contextlib.ExitStack() as stack:
            if self._workspace is None:
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="backupd-"))
            else:
                directory = str(stack.enter_context(self._workspace.scratch(uuid.uuid4().hex)).absolute())
            yield Volume(name="scratch", kind="directory", source=directory)

    def run_python(self, arguments: Sequence[str], volume: Volume, scratch: Volume) -> str:
        """See Engine: with the Python that this process runs on, which can write both volumes and nothing else."""
        command = [sys.executable, *arguments, self._directory(volume), self._directory(scratch)]
        with (
            within(self._directory(volume)) as place,
            within(self._directory(scratch)) as copies,
            place.python(copies) as start,
        ):
            return _output(start, command, str(volume)).decode()

    def remove_leftovers(self) -> Sequence[str]:
        """See Engine: a tar whose backupd is gone ends at its next read or write."""
        return self._workspace.remove_leftovers() if self._workspace else ()

    def sandbox(self, drill: str, directory: Path) -> DirectorySandbox:
        """See Engine."""
        del drill
        return DirectorySandbox(directory)

    def close(self) -> None:
        """See Engine."""
        if self._workspace:
            self._workspace.close()

    def _directory(self, volume: Volume) -> str:
        if self.inspect(volume) is None:
            raise VolumeMissing(f"there is no {volume}")
        return volume.source

    @staticmethod
    def _refuse_other_kinds(volume: Volume) -> None:
        if volume.kind != "directory":
            raise SourceError(
                f"{volume} is Docker's, and the mounted engine knows no Docker",
                hint="set `engine: docker`, or restore into a directory with --to-dir",
            )


def _output(start: Callable[..., subprocess.Popen[bytes]], command: Sequence[str], what: str) -> bytes:
    """What a process prints; SourceError with the last line of its stderr if it fails."""
    try:
        process = start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as exc:
        raise SourceError(
            f"{what}: cannot run {command[0]}: {exc.strerror}", hint="may this user write there?"
        ) from exc
    with process:
        try:
            stdout, stderr = process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            raise
    if process.returncode != 0:
        said = stderr.decode(errors="backslashreplace").strip().splitlines()
        reason = said[-1] if said else f"exit code {process.returncode}"
        raise failure(what, reason)
    return stdout


def _probe() -> LocalTar:
    """Asked as jobs are run: a confined one may find another tar in the PATH."""
    ask = partial(subprocess.run, ["sh", "-c", PROBE], capture_output=True, text=True, env=job_environment())
    with confinement([]) as call:
        return tar_from_words(call(ask).stdout)
