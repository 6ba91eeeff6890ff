"""Options that every command takes, before or after its own, and the session that they make."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from backupd.cli.found import find
from backupd.cli.identity import identity_loader
from backupd.cli.output import Output
from backupd.errors import BackupdError, UsageError
from backupd.known import KnownRepositories
from backupd.log import Redactor, configure
from backupd.ports import Engine, Store
from backupd.repository import Elsewhere, Manifest, Repository
from backupd.runtime import Runtime
from backupd.security import Security, no_identities
from backupd.settings import IDENTITY_VARIABLE, Settings, load_settings
from backupd.wiring import (
    make_runtime,
    make_security,
    make_store,
    make_stores,
    refuse_unavailable,
    secret_values,
)

_PANEL = "Everywhere"

EVERYWHERE_VALUES = ("--config", "--store", "--identity")
EVERYWHERE_FLAGS = ("--json", "--verbose", "-v")


@dataclass(slots=True)
class Session:
    """One run of a command: what was asked for everywhere, and the objects made from it when they are first needed."""

    config: Path | None
    store_name: str | None
    output: Output
    verbose: bool
    identity: Path | None = None
    _settings: Settings | None = None
    _security: Security | None = None
    _opened: list[Store | Engine] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """The configuration; ConfigError if it is wrong."""
        if self._settings is None:
            self._settings = load_settings(self.config)
            refuse_unavailable(self._settings)
            secrets = secret_values(self._settings)
            configure(self._settings.log, secrets, level="debug" if self.verbose else None)
            self.output.redact = Redactor(secrets)
            files = {source for source in self._settings.origins.values() if source != "default"}
            self.detail(f"configuration: {', '.join(sorted(files))}")
        return self._settings

    @property
    def security(self) -> Security:
        """Keys, and whom to believe. A secret key is read, and a passphrase asked for, when it is first needed."""
        if self._security is None:
            identities = no_identities
            if self.identity is not None:
                interactive = self.output.interactive
                identities = identity_loader(self.identity, os.environ, interactive=interactive)
            self._security = make_security(self.settings, identities, self.output.warn)
        return self._security

    def runtime(self, engine: Engine | None = None) -> Runtime:
        """What operations need; with an engine of its own in place of the configured one, if given."""
        runtime = make_runtime(self.settings, self.output.progress, engine, self.security)
        self.closing(runtime.engine)
        self.detail(f"engine: {runtime.engine.name}, {runtime.threads} threads, state in {runtime.state}")
        return runtime

    def closing(self, opened: Store | Engine) -> None:
        """Close it when the command ends."""
        self._opened.append(opened)

    def stores(self, names: tuple[str, ...]) -> list[Store]:
        """Stores to write to: those of a plan, or the one that `--store` names."""
        if self.store_name:
            names = (self.store_name,)
        stores = make_stores(self.settings, names)
        self._opened += stores
        return stores

    def repositories(self) -> Iterator[Repository]:
        """The repositories to read: that of `--store`, else of every store that answers, in the configuration's order.

        A store that does not answer is passed over with a warning: at 3 a.m. the one that does is what counts. If none
        does, the first one's error is raised.
        """
        failure: BackupdError | None = None
        answered = False
        for name in [self.store_name] if self.store_name else list(self.settings.stores):
            store = make_store(self.settings, name)
            self._opened.append(store)
            try:
                repository = Repository.open(store, threads=self.settings.threads, security=self.security)
                if self.security.trust is not None:  # another id would make it a repository that we know nothing of
                    KnownRepositories(Path(self.settings.state_dir)).check(name, repository.config.id)
            except BackupdError as exc:
                if failure is not None or answered:
                    self.output.warn(str(exc))
                failure = failure or exc
                continue
            if failure is not None and not answered:
                self.output.warn(f"{failure}; reading from store {name}")
            answered = True
            self.detail(f"store {name}: repository {repository.config.id}")
            yield repository
        if not answered:
            assert failure is not None  # the settings have at least one store
            raise failure

    def repository(self) -> Repository:
        """The first of them."""
        return next(self.repositories())

    def find(self, snapshot: str, volumes: Collection[str] = ()) -> tuple[Repository, Manifest]:
        """A snapshot, and a repository that holds it, helped by the other stores unless `--store` forbids it.

        For `latest`, the newest of all stores with `volumes` that is not known to be damaged. One that is gets chosen
        only if it is named or there is no other, and then a warning says so.
        """
        repository, manifest = find(self.repositories(), snapshot, volumes, self.output.warn)
        return repository.encrypting_like(manifest).helped_by(self._elsewhere(repository)), manifest

    def _elsewhere(self, repository: Repository) -> Elsewhere | None:
        """The other stores, in the configuration's order; None if there are none, or one was named."""
        names = [name for name in self.settings.stores if name != repository.store.name]
        if self.store_name or not names:
            return None

        def opener(name: str) -> Callable[[], Store]:
            def opened() -> Store:
                store = make_store(self.settings, name)
                self._opened.append(store)
                return store

            return opened

        return Elsewhere({name: opener(name) for name in names}, self.output.progress.note)

    def plan_name(self, name: str | None) -> str:
        """The plan that was named, or the only one there is."""
        if name is not None:
            return name
        plans = list(self.settings.plans)
        if len(plans) > 1:
            raise UsageError("there are several plans", hint=f"name one of them: {', '.join(plans)}")
        return plans[0]

    def complain(self, error: BackupdError) -> None:
        """Print an error, and with `-v` what led to it."""
        causes = []
        cause = error.__cause__ if self.verbose else None
        while cause is not None:
            causes.append(f"{type(cause).__name__}: {cause}")
            cause = cause.__cause__
        self.output.error(str(error), error.hint, causes)

    def detail(self, text: str) -> None:
        """A line for those who asked to hear more."""
        if self.verbose:
            self.output.detail(text)

    def close(self) -> None:
        """Let go of engines and stores."""
        for opened in self._opened:
            opened.close()


@contextmanager
def _session(
    config: Path | None, store: str | None, identity: Path | None, *, json: bool, verbose: bool
) -> Iterator[Session]:
    session = Session(config, store, Output(json=json), verbose, identity)
    try:
        yield session
    except BackupdError as exc:
        session.output.close()
        session.complain(exc)
        raise typer.Exit(exc.exit_code) from exc
    finally:
        session.output.close()
        session.close()


_EVERYWHERE: dict[str, tuple[Any, Any]] = {
    "config": (
        Annotated[
            Path | None,
            typer.Option(
                "--config",
                envvar="BACKUPD_CONFIG",
                metavar="PATH",
                help="The configuration file (default: config/backupd.yaml, then /etc/backupd/backupd.yaml).",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "store": (
        Annotated[
            str | None,
            typer.Option("--store", metavar="NAME", help="Use this store only.", rich_help_panel=_PANEL),
        ],
        None,
    ),
    "identity": (
        Annotated[
            Path | None,
            typer.Option(
                "--identity",
                envvar=IDENTITY_VARIABLE,
                metavar="FILE",
                help="The secret key for encrypted snapshots: an age identity file or an SSH key.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "json": (
        Annotated[
            bool,
            typer.Option("--json", help="One JSON document on stdout, and nothing else.", rich_help_panel=_PANEL),
        ],
        False,
    ),
    "verbose": (
        Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.", rich_help_panel=_PANEL)],
        False,
    ),
}


def command(app: typer.Typer, name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(session, …)` as a command that takes the options of everywhere besides its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(
            *,
            config: Path | None,
            store: str | None,
            identity: Path | None,
            json: bool,
            verbose: bool,
            **arguments: Any,
        ) -> None:
            with _session(config, store, identity, json=json, verbose=verbose) as session:
                function(session, **arguments)

        own = inspect.signature(function, eval_str=True)
        parameters = list(own.parameters.values())[1:]
        parameters += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in _EVERYWHERE.items()
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, **settings)(run)
        return function

    return register
