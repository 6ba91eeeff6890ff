"""Options that every command takes, before or after its own, and the session that they make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

from backupd.cli.output import Output
from backupd.errors import BackupdError, UsageError
from backupd.jobs.site import Site
from backupd.log import Redactor, configure
from backupd.ports import Engine, Store
from backupd.repository import Manifest, Repository
from backupd.runs import Recorder
from backupd.runtime import Runtime
from backupd.security import Security
from backupd.settings import IDENTITY_VARIABLE, Settings, load_settings
from backupd.wiring import refuse_unavailable, secret_values

_PANEL = "Everywhere"

EVERYWHERE_VALUES = ("--config", "--store", "--identity")
EVERYWHERE_FLAGS = ("--json", "--verbose", "-v")


class Session(Struct):
    """One run of a command: what was asked for everywhere, and the objects made from it when they are first needed."""

    config: Path | None
    store_name: str | None
    output: Output
    verbose: bool
    identity: Path | None = None
    _settings: Settings | None = None
    _site: Site | None = None

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
    def site(self) -> Site:
        """Where jobs are done."""
        if self._site is None:
            self._site = Site(
                self.settings,
                self.output.progress,
                self.output.warn,
                self.detail,
                store_name=self.store_name,
                identity=self.identity,
                interactive=self.output.interactive,
            )
        return self._site

    @property
    def security(self) -> Security:
        """Keys, and whom to believe."""
        return self.site.security

    def recorder(self) -> Recorder:
        """Records runs of this process."""
        return self.site.recorder()

    def runtime(self, engine: Engine | None = None) -> Runtime:
        """What operations need; with an engine of its own in place of the configured one, if given."""
        return self.site.runtime(engine)

    def closing(self, opened: Store | Engine) -> None:
        """Close it when the command ends."""
        self.site.closing(opened)

    def stores(self, names: tuple[str, ...]) -> list[Store]:
        """Stores to write to: those of a plan, or the one that `--store` names."""
        return self.site.stores(names)

    def repositories(self) -> Iterator[Repository]:
        """The repositories to read; see Site."""
        return self.site.repositories()

    def repository(self) -> Repository:
        """The first of them."""
        return next(self.repositories())

    def find(self, snapshot: str, volumes: Collection[str] = ()) -> tuple[Repository, Manifest]:
        """A snapshot and a repository that holds it; see Site."""
        return self.site.find(snapshot, volumes)

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
        self.output.fail(str(error), error.hint, error.exit_code)

    def detail(self, text: str) -> None:
        """A line for those who asked to hear more."""
        if self.verbose:
            self.output.detail(text)

    def close(self) -> None:
        """Let go of engines and stores."""
        if self._site is not None:
            self._site.close()


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
