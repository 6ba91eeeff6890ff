"""The Docker engine: volumes and directories of a Docker host, read and written by short-lived helper containers."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from docker.types import Mount

from backupd.engine.docker.consumers import find_consumers
from backupd.engine.docker.facts import engine_facts
from backupd.engine.docker.helper import COPYING, DATA, READING, SCRATCH, WRITING, Helper, HelperSpec
from backupd.engine.docker.jobs import AttachInput, AttachOutput, PipeInput, PipeOutput
from backupd.engine.docker.leftovers import remove_helpers, remove_volumes
from backupd.engine.docker.options import DockerOptions
from backupd.engine.docker.sandbox import DockerSandbox, remove_sandboxes
from backupd.engine.docker.scripts import (
    HELD_PATIENCE_SECONDS,
    IN_BY_ATTACH,
    IN_BY_PIPE,
    KEPT,
    OUT_BY_ATTACH,
    OUT_BY_PIPE,
    PIPE,
    PIPE_PATIENCE_SECONDS,
)
from backupd.engine.docker.services import DockerServices
from backupd.engine.docker.surroundings import Said, Surroundings
from backupd.engine.docker.volumes import (
    create_volume,
    data_mount,
    find_volume,
    inspect_volume,
    remove_volume,
    scratch_volume,
    volumes_of,
)
from backupd.engine.tarcommand import create_command, extract_command, refuse_outside
from backupd.engine.verdict import Complaints, failure, refuse_death
from backupd.errors import SourceError, VolumeMissing
from backupd.facts import EngineFacts
from backupd.model import Consumer, Tool, Volume, VolumeSpec
from backupd.services import Services


class DockerEngine:
    """Connects when it is first needed. Thread-safe; the jobs that it hands out are not."""

    name = "docker"

    def __init__(self, options: DockerOptions) -> None:
        self._surroundings = Surroundings(options)
        self.options = options
        self.services: Services = DockerServices(self._surroundings)

    def find(self, spec: VolumeSpec) -> Volume:
        """See Engine."""
        if spec.volume is not None:
            return find_volume(self._surroundings.api, spec.name, spec.volume, self.options.project)
        volume = Volume(name=spec.name, kind="bind", source=str(spec.path))
        if self.inspect(volume) is None:
            raise VolumeMissing(
                f"volume {spec.name!r}: the Docker host has no directory {spec.path}",
                hint="`path:` is a path on the Docker host, not in backupd's container",
            )
        return volume

    def volumes(self) -> Sequence[Volume]:
        """See Engine."""
        return volumes_of(self._surroundings.api, self.options.project) if self.options.project else ()

    def inspect(self, volume: Volume) -> Volume | None:
        """See Engine."""
        if volume.kind == "volume":
            return inspect_volume(self._surroundings.api, volume.name, volume.source)
        try:
            said = self._run(["sh", "-c", f"[ -d {DATA} ]"], (data_mount(volume, read_only=True),))
        except VolumeMissing:
            return None
        return volume if said.exit_code == 0 else None

    def create(self, volume: Volume) -> None:
        """See Engine."""
        if volume.kind == "volume":
            create_volume(self._surroundings.api, volume)
        elif self.inspect(volume) is None:  # the old way of naming a bind mount creates its source
            spec = HelperSpec(
                self._surroundings.image(),
                ["sh", "-c", f"[ -d {DATA} ]"],
                binds={volume.source: DATA},
                labels=self._surroundings.labels(),
            )
            if self._surroundings.run(spec).exit_code != 0:
                raise SourceError(f"cannot create {volume}: it exists and is not a directory")

    def remove(self, volume: Volume) -> None:
        """See Engine."""
        if volume.kind == "volume":
            remove_volume(self._surroundings.api, volume)
        elif self.inspect(volume) is not None:
            parent, name = posixpath.split(posixpath.normpath(volume.source))
            spec = HelperSpec(
                self._surroundings.image(),
                ["rmdir", "--", f"{DATA}/{name}"],
                (Mount(target=DATA, source=parent, type="bind"),),
                capabilities=WRITING,
                labels=self._surroundings.labels(),
            )
            said = self._surroundings.run(spec)
            if said.exit_code != 0:
                raise SourceError(f"cannot remove {volume}: {said.last_line or f'exit code {said.exit_code}'}")

    def consumers(self, volume: Volume) -> Sequence[Consumer]:
        """See Engine."""
        own = self._surroundings.own
        return find_consumers(self._surroundings.api, volume, own["Id"] if own else None)

    def tool(self) -> Tool:
        """See Engine."""
        return self._surroundings.tar().tool

    def tar_out(self, volume: Volume, exclude: Sequence[str] = (), subdirectory: str = "") -> PipeOutput | AttachOutput:
        """See Engine."""
        return self._output(volume, exclude, subdirectory, PIPE_PATIENCE_SECONDS)

    @contextmanager
    def ready_to_read(
        self, volume: Volume, exclude: Sequence[str] = ()
    ) -> Iterator[Callable[[], PipeOutput | AttachOutput]]:
        """See Engine: a helper that waits at its pipe."""
        output = self._output(volume, exclude, "", HELD_PATIENCE_SECONDS)
        with ExitStack() as stack:
            stack.push(output)
            output.get_ready()
            yield lambda: output

    def _output(
        self, volume: Volume, exclude: Sequence[str], subdirectory: str, patience_seconds: int
    ) -> PipeOutput | AttachOutput:
        refuse_outside(subdirectory)
        tar = create_command(self._surroundings.tar(), f"{DATA}/{subdirectory}".rstrip("/"), exclude)
        what, nonce, job = f"reading {volume}", uuid.uuid4().hex, uuid.uuid4().hex
        complaints = Complaints(self.tool().flavour, "out")
        mounts = (data_mount(self._existing(volume), read_only=True),)
        if not self._surroundings.pipes_work():
            helper = self._helper(job, ["sh", "-c", OUT_BY_ATTACH, "sh", nonce, *tar], mounts, READING)
            return AttachOutput(what, nonce, helper, complaints)
        command = ["sh", "-c", OUT_BY_PIPE, "sh", nonce, PIPE, str(patience_seconds), *tar]
        helper = self._helper(job, command, mounts, READING, pipe=True)
        return PipeOutput(what, nonce, helper, complaints, self._surroundings.workspace.pipe(job))

    def tar_in(
        self, volume: Volume, subdirectory: str = "", *, acls: bool = False, kept: bool = False
    ) -> PipeInput | AttachInput:
        """See Engine."""
        refuse_outside(subdirectory)
        flavour = self.tool().flavour
        target = f"{DATA}/{subdirectory}".rstrip("/")
        tar = extract_command(flavour, target, acls=acls)
        what, nonce, job = f"writing {volume}", uuid.uuid4().hex, uuid.uuid4().hex
        complaints = Complaints(flavour, "in")
        mounts = (data_mount(self._existing(volume), read_only=False),)
        if not self._surroundings.pipes_work():
            command = ["sh", "-c", IN_BY_ATTACH, "sh", nonce, target, KEPT if kept else "", *tar]
            return AttachInput(what, nonce, self._helper(job, command, mounts, WRITING, stdin=True), complaints)
        command = ["sh", "-c", IN_BY_PIPE, "sh", nonce, target, KEPT if kept else "", PIPE, *tar]
        helper = self._helper(job, command, mounts, WRITING, pipe=True)
        return PipeInput(what, nonce, helper, complaints, self._surroundings.workspace.pipe(job))

    def run_script(self, volume: Volume, script: str, arguments: Sequence[str] = ()) -> str:
        """See Engine."""
        mount = data_mount(self._existing(volume), read_only=False)
        said = self._run(["sh", "-c", script, "sh", *arguments], (mount,), WRITING)
        refuse_death(f"script on {volume}", said.exit_code, out_of_memory=said.out_of_memory)
        if said.exit_code != 0:
            raise failure(f"script on {volume}", said.last_line or f"exit code {said.exit_code}")
        return said.stdout.decode(errors="surrogateescape")

    def scratch(self) -> AbstractContextManager[Volume]:
        """See Engine: a volume of Docker's default driver."""
        return scratch_volume(self._surroundings.api, self._surroundings.labels())

    def run_python(self, arguments: Sequence[str], volume: Volume, scratch: Volume) -> str:
        """See Engine."""
        mounts = (
            data_mount(self._existing(volume), read_only=False),
            Mount(target=SCRATCH, source=self._existing(scratch).source, type="volume", no_copy=True),
        )
        try:
            said = self._run(["python3", *arguments, DATA, SCRATCH], mounts, COPYING)
        except SourceError as exc:
            if "executable file not found" not in str(exc):
                raise
            raise SourceError(
                "the helper image has no python3, which copies SQLite databases",
                hint="set docker.helper_image to an image with python3 and tar, such as backupd's own",
            ) from exc
        refuse_death(f"program on {volume}", said.exit_code, out_of_memory=said.out_of_memory)
        if said.exit_code != 0:
            raise SourceError(f"{volume}: {said.last_line or f'a program ended with exit code {said.exit_code}'}")
        return said.stdout.decode()

    def remove_leftovers(self) -> Sequence[str]:
        """See Engine."""
        workspace, now = self._surroundings.workspace, datetime.now(UTC)
        return [
            *remove_helpers(self._surroundings.api, workspace, now),
            *remove_volumes(self._surroundings.api, workspace, now),
            *remove_sandboxes(self._surroundings.api, workspace, now),  # whose volumes helpers may have been using
            *workspace.remove_leftovers(),
        ]

    def sandbox(self, drill: str, directory: Path) -> DockerSandbox:
        """See Engine: nothing of it is in a directory."""
        del directory
        return DockerSandbox(self._surroundings, self.services, drill)

    def facts(self) -> EngineFacts:
        """What the Docker Engine says of itself; nothing is pulled or changed."""
        return engine_facts(self._surroundings)

    def close(self) -> None:
        """See Engine."""
        self._surroundings.close()

    def _existing(self, volume: Volume) -> Volume:
        """Mounting a Docker volume that does not exist would create it. A directory's absence is an error by itself."""
        if volume.kind == "volume" and self.inspect(volume) is None:
            raise VolumeMissing(f"there is no Docker volume {volume.source}")
        return volume

    def _helper(
        self,
        job: str,
        command: Sequence[str],
        mounts: tuple[Mount, ...],
        capabilities: Sequence[str],
        *,
        pipe: bool = False,
        stdin: bool = False,
    ) -> Helper:
        pipe_mount = self._surroundings.pipe_mount(job) if pipe else None
        spec = HelperSpec(
            image=self._surroundings.image(),
            command=command,
            mounts=(*mounts, pipe_mount) if pipe_mount is not None else mounts,
            capabilities=capabilities,
            reads_stdin=stdin,
            labels=self._surroundings.labels(),
            job=job,
        )
        return Helper(self._surroundings.api, self.options, spec)

    def _run(self, command: Sequence[str], mounts: tuple[Mount, ...], capabilities: Sequence[str] = ()) -> Said:
        surroundings = self._surroundings
        spec = HelperSpec(
            surroundings.image(), command, mounts, capabilities=capabilities, labels=surroundings.labels()
        )
        return surroundings.run(spec)
