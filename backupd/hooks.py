"""Commands that are run in containers before and after a volume is read.

`post` commands are always run: after failures and signals by the process itself, and after a kill by `recover`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from backupd.errors import BackupdError, EngineUnavailable, SourceError
from backupd.journal import Journal, PostAct
from backupd.lock import token_lock
from backupd.model import PROJECT_LABEL, Hook, Volume
from backupd.runtime import Runtime
from backupd.services import Service, Services

_SHOWN_LINES = 20


class Around:
    """A context manager: entering runs the `pre` commands, leaving the `post` commands unless `finish` has.

    The containers are found, and `post` is journaled, before the first command is run. SourceError from entering if a
    `pre` command fails; what `post` has to complain of is in `trouble`. `volumes` tell which projects are meant.
    """

    def __init__(self, runtime: Runtime, pre: Sequence[Hook], post: Sequence[Hook], volumes: Sequence[Volume]) -> None:
        self._runtime = runtime
        self._journal = Journal(runtime.state)
        self._pre = pre
        self._post = post
        self._volumes = volumes
        self._resources = ExitStack()
        self._act: int | None = None
        self.trouble: list[str] = []

    def __enter__(self) -> Self:
        if not self._pre and not self._post:
            return self
        services = self._runtime.engine.services
        pre = [_addressed(services, hook, self._volumes) for hook in self._pre]
        post = [_addressed(services, hook, self._volumes) for hook in self._post]
        with ExitStack() as stack:
            token = self._runtime.new_id()
            stack.enter_context(token_lock(self._runtime.locks, token))
            if post:
                act = PostAct(token=token, hooks=post)
                self._act = self._journal.begin(act, self._runtime.clock.now())
                self._post = post
            stack.callback(self.finish)
            for hook in pre:
                run_hook(self._runtime, hook, "pre")
            self._resources = stack.pop_all()
        return self

    def finish(self) -> None:
        """Run the `post` commands, all of them, whatever becomes of one; may be repeated."""
        if self._act is None:
            return
        act, self._act = self._act, None
        for hook in self._post:
            try:
                run_hook(self._runtime, hook, "post")
            except EngineUnavailable as exc:  # nothing was tried: `recover` will
                self.trouble.append(str(exc))
                return
            except BackupdError as exc:
                self.trouble.append(str(exc))
                self._runtime.progress.note(str(exc))
        self._journal.end([act])

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._resources.__exit__(exc_type, exc, tb)


def run_hook(runtime: Runtime, hook: Hook, what: str) -> None:
    """Run one command; its output becomes notes. SourceError if it fails or takes too long."""
    services = runtime.engine.services
    service = services.inspect(hook.service)
    if service is None or not service.alive:
        state = "gone" if service is None else "not running"
        raise SourceError(f"the {what} command could not be run: container {hook.service} is {state}")
    said = services.run(service, hook.command, user=hook.user, timeout_seconds=hook.timeout_seconds)
    lines = [line for line in (said.stdout + said.stderr).splitlines() if line.strip()]
    for line in lines[-_SHOWN_LINES:]:
        runtime.progress.note(f"{what} in {service.name}: {line}")
    if said.exit_code != 0:
        last = f": {lines[-1]}" if lines else ""
        raise SourceError(f"the {what} command in container {service.name} ended with {said.exit_code}{last}")


def _addressed(services: Services, hook: Hook, volumes: Sequence[Volume]) -> Hook:
    """The hook with a container's own name in place of a service's. The running one, where a service has several."""
    found = [service for project in _projects(services, volumes) for service in services.of_project(project)]
    named = [service for service in found if service.service == hook.service]
    exact = services.inspect(hook.service)
    chosen: Service | None = next((service for service in named if service.alive), named[0] if named else exact)
    if chosen is None:
        raise SourceError(
            f"there is no container {hook.service} to run a command in", hint="give its service in the Compose file"
        )
    return replace(hook, service=chosen.name)


def _projects(services: Services, volumes: Sequence[Volume]) -> Sequence[str]:
    found = [volume.labels.get(PROJECT_LABEL) for volume in volumes]
    found += [user.project for volume in volumes for user in services.users(volume)]
    return list(dict.fromkeys(project for project in found if project))
