"""What has to be found out before the first job: the engine, our own container, the image, whether pipes work."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from docker.types import Mount
from msgspec import Struct

from backupd.engine.docker.helper import HOME_LABEL, OWNER_LABEL, PIPES, Helper, HelperSpec
from backupd.engine.docker.images import DEFAULT_IMAGE, ensure_image
from backupd.engine.docker.listener import Listener
from backupd.engine.docker.options import DockerOptions
from backupd.engine.docker.place import on_host, own_container
from backupd.engine.docker.scripts import PROBE
from backupd.engine.docker.sdk import connect
from backupd.engine.tarcommand import LocalTar, tar_from_words
from backupd.engine.verdict import Complaints
from backupd.engine.workspace import PIPE_NAME, Workspace
from backupd.errors import EngineUnavailable, SourceError


class Said(Struct, frozen=True):
    """What a helper that ran to its end, without a tar stream, had to say."""

    exit_code: int
    out_of_memory: bool
    stdout: bytes
    last_line: str


class Surroundings:
    """Each finding is made once, when it is first asked for. Thread-safe."""

    def __init__(self, options: DockerOptions) -> None:
        self.options = options
        self.workspace = Workspace(options.pipe_directory)
        self._finding = threading.RLock()
        self._api: docker.APIClient | None = None
        self._image: str | None = None
        self._probed: tuple[LocalTar, bool] | None = None

    @property
    def api(self) -> docker.APIClient:
        """The connection; EngineUnavailable if there is none to be had."""
        with self._finding:
            if self._api is None:
                self._api = connect(self.options.host, self.options.timeout_seconds)
            return self._api

    @functools.cached_property
    def own(self) -> Mapping[str, Any] | None:
        """The container that this process runs in."""
        return own_container(self.api)

    def image(self) -> str:
        """The id of the image that helpers are made from."""
        with self._finding:
            if self._image is None:
                name = self.options.helper_image or (self.own["Image"] if self.own else DEFAULT_IMAGE)
                self._image = ensure_image(self.api, name)
            return self._image

    def tar(self) -> LocalTar:
        """The helper image's tar."""
        return self._probe()[0]

    def pipes_work(self) -> bool:
        """Whether jobs go through pipes."""
        return self._probe()[1]

    def labels(self) -> dict[str, str]:
        """What marks a helper as this process's."""
        return {OWNER_LABEL: self.workspace.owner, HOME_LABEL: self.workspace.home()}

    def pipe_mount(self, job: str) -> Mount | None:
        """The job's pipe directory as a helper gets it, if the engine can see it. Pipes need no writable mount."""
        source: str | None = str(self.workspace.job_directory(job).absolute())
        if self.own is not None:
            source = on_host(Path(str(source)), self.own["Mounts"])
        return None if source is None else Mount(target=PIPES, source=source, type="bind", read_only=True)

    def run(self, spec: HelperSpec) -> Said:
        """Run a helper to its end."""
        complaints = Complaints("gnu", "in")
        with (
            Helper(self.api, self.options, spec) as helper,
            Listener(helper, complaints.feed) as listener,
        ):
            stdout = listener.stdout()
            complaints.close()
            ending = helper.wait()
        return Said(ending.exit_code, ending.out_of_memory, stdout, complaints.last_line)

    def close(self) -> None:
        """Let go of the connection and of the workspace."""
        with self._finding:
            self.workspace.close()
            if self._api is not None:
                self._api.close()
                self._api = None

    def _probe(self) -> tuple[LocalTar, bool]:
        with self._finding:
            if self._probed is None:
                self._probed = self._find_out()
            return self._probed

    def _find_out(self) -> tuple[LocalTar, bool]:
        if self.options.transport != "attach":
            try:
                tar, works = self._probe_with_pipe()
            except EngineUnavailable:
                raise
            except SourceError as exc:
                if self.options.transport == "fifo":
                    raise SourceError(f"pipes do not work here: {exc}", hint="set the transport to auto") from exc
                tar, works = None, False
            if self.options.transport == "fifo" and not works:
                raise SourceError(
                    f"pipes in {self.options.pipe_directory} do not reach the Docker Engine",
                    hint="put them in a directory or volume that the engine's host has too, or use transport auto",
                )
            if tar is not None:
                return tar, works
        return self._ask(self._probe_spec(uuid.uuid4().hex, "", ())), False

    def _probe_with_pipe(self) -> tuple[LocalTar | None, bool]:
        job = uuid.uuid4().hex
        mount = self.pipe_mount(job)
        if mount is None:
            return None, False
        with self.workspace.pipe(job) as path, path.open("r+b", buffering=0) as pipe:
            nonce = uuid.uuid4().hex
            tar = self._ask(self._probe_spec(job, f"{PIPES}/{PIPE_NAME}", (mount,), nonce))
            pipe.write(b"\n")  # so that reading does not block when nothing came
            return tar, pipe.read(len(nonce)) == nonce.encode()

    def _probe_spec(self, job: str, pipe: str, mounts: tuple[Mount, ...], nonce: str = "") -> HelperSpec:
        command = ["sh", "-c", PROBE, "sh", nonce, pipe]
        return HelperSpec(self.image(), command, mounts, labels=self.labels(), job=job)

    def _ask(self, spec: HelperSpec) -> LocalTar:
        said = self.run(spec)
        if said.exit_code != 0:
            raise SourceError(
                f"the helper image {self.options.helper_image or DEFAULT_IMAGE} is of no use: {said.last_line}",
                hint="it needs sh, tar, timeout, cat and mkdir: GNU's, or BusyBox as in alpine",
            )
        return tar_from_words(said.stdout.decode(errors="replace"))
