"""Settings into objects: the only place where adapters are chosen."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace
from pydantic import BaseModel, SecretStr

from backupd import __version__
from backupd.consistency import STRATEGIES, Consistency, with_enabled
from backupd.crypto import Identities, Recipients
from backupd.engine import MountedEngine
from backupd.errors import ConfigError, SourceError, UsageError
from backupd.indexcache import IndexCache
from backupd.model import LockPolicy, Plan
from backupd.notify.hiding import url_secrets
from backupd.ports import Engine, Progress, Store
from backupd.prune.rules import Rules
from backupd.repository import layout
from backupd.runtime import Runtime
from backupd.security import Security, no_identities
from backupd.settings import LocalStoreSettings, S3StoreSettings, Settings
from backupd.signingkey import OwnKey
from backupd.stores import LocalStore, S3Options
from backupd.trust import Trust

if TYPE_CHECKING:
    from backupd.socketproxy import ProxyServer


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)


def new_id() -> str:
    """A snapshot id: 16 random hex digits, so that a million snapshots collide with a chance of 1 in 37 million."""
    return secrets.token_hex(8)


def make_plan(settings: Settings, name: str, engine: Engine) -> Plan:
    """A plan with the volumes that labels add to it; UsageError if there is none of that name."""
    plan = joined_plan(settings, name, engine)
    if not plan.volumes:
        raise ConfigError(
            f"plan {name} has no volumes",
            hint="name some in the configuration, or label them backupd.enable=true in the Compose file",
        )
    return plan


def joined_plan(settings: Settings, name: str, engine: Engine) -> Plan:
    """The same for who only looks: it may have no volumes."""
    configured = [settings.volume_spec(volume) for volume in settings.volumes]
    return with_enabled(settings.plan(name), list(settings.plans), configured, engine)


def refuse_unavailable(settings: Settings) -> None:
    """ConfigError for a volume whose consistency this version does not have."""
    there = [entry.name for entry in STRATEGIES]
    for name, volume in settings.volumes.items():
        if volume.consistency not in there:
            raise ConfigError(
                f"volumes.{name}.consistency: {volume.consistency!r} is not available in this version",
                hint=f"there are: {', '.join(there)}",
            )


def make_runtime(
    settings: Settings, progress: Progress, engine: Engine | None = None, security: Security | None = None
) -> Runtime:
    """The collaborators of an operation; `engine` replaces the configured one. SourceError if state can't be kept.

    Without `security` there is no identity to decrypt with.
    """
    state = Path(settings.state_dir)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise SourceError(
            f"cannot make the state directory {state}: {exc.strerror}", hint="set state_dir to one that can be written"
        ) from exc
    if not os.access(state, os.W_OK | os.X_OK):
        raise SourceError(f"cannot write the state directory {state}", hint="run as the user who owns it")
    return unprepared_runtime(settings, progress, engine, security)


def unprepared_runtime(
    settings: Settings, progress: Progress, engine: Engine | None = None, security: Security | None = None
) -> Runtime:
    """The same for who only looks: nothing is made or checked."""
    return Runtime(
        engine=engine or make_engine(settings),
        progress=progress,
        clock=SystemClock(),
        new_id=new_id,
        threads=settings.threads,
        host=socket.gethostname(),
        program=f"backupd {__version__}",
        state=Path(settings.state_dir),
        strategies=Consistency(),
        lock_wait=settings.lock_wait,
        security=security or make_security(settings, no_identities, progress.note),
    )


def make_security(settings: Settings, identities: Callable[[], Identities], warn: Callable[[str], None]) -> Security:
    """Keys and trust as configured. Only who writes needs the right to write the state directory."""
    state = Path(settings.state_dir)
    own = OwnKey(state)
    trust = None
    if not _may_read(state):
        warn(f"{state} cannot be read: whether the snapshots are genuine is not checked")
    else:
        trust = Trust(state, settings.trust.signers, own.public, warn)
    recipients = settings.encryption.recipients
    return Security(
        recipients=Recipients(recipients) if recipients else None,
        identities=identities,
        signer=own,
        machine=own.public,
        trust=trust,
        indexes=IndexCache(state),
        records=state / "records",
    )


def _may_read(state: Path) -> bool:
    """Whether a state directory can be read, or is not there yet."""
    try:
        state.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return os.access(state, os.R_OK | os.X_OK)


def make_engine(settings: Settings) -> Engine:
    """The configured engine. Nothing is contacted yet."""
    if settings.engine == "mounted":
        return MountedEngine(settings.state_dir / "scratch")
    from backupd.engine import DockerEngine, DockerOptions  # noqa: PLC0415  (the SDK takes half a second)

    docker = settings.docker
    return DockerEngine(
        DockerOptions(
            pipe_directory=Path(docker.pipe_dir or settings.state_dir / "pipes"),
            host=docker.host,
            project=settings.project,
            helper_image=docker.helper_image,
            transport=docker.transport,
            memory_limit_bytes=docker.memory_limit,
            pids_limit=docker.pids_limit,
        )
    )


def make_socket_proxy(settings: Settings, listen: Path, engine: str, containers: frozenset[str]) -> ProxyServer:
    """The proxy before the Engine's socket `engine`, for the configured project, volumes and helper image."""
    from backupd.engine.docker.images import DEFAULT_IMAGE  # noqa: PLC0415
    from backupd.engine.docker.place import own_id  # noqa: PLC0415
    from backupd.socketproxy import ProxyServer, Rules  # noqa: PLC0415
    from backupd.socketproxy.facts import EngineFacts  # noqa: PLC0415

    if settings.project is None:
        raise ConfigError("the socket proxy has to know `project`", hint="`docker compose ls` shows its name")
    rules = Rules(
        project=settings.project,
        helper_images=(settings.docker.helper_image or DEFAULT_IMAGE,),
        containers=containers,
        volumes=frozenset(volume.volume for volume in settings.volumes.values() if volume.volume),
        paths=frozenset(str(volume.path) for volume in settings.volumes.values() if volume.path),
        engine_socket=engine,
    )
    own = own_id()
    if settings.docker.helper_image is None and own is not None:
        container = EngineFacts(engine, rules).container(own)
        if container is not None:
            rules = replace(rules, helper_images=(container["Image"],))
    return ProxyServer(listen, engine, rules)


def prune_rules(settings: Settings, store: str) -> Rules:
    """What is kept in a store."""
    return Rules(
        plans={name: (plan.keep_in(store), plan.timezone or "UTC") for name, plan in settings.plans.items()},
        safety=settings.prune.keep_safety,
        grace=settings.prune.grace,
    )


def make_stores(settings: Settings, names: Sequence[str]) -> list[Store]:
    """The stores of those names, in that order. Nothing is contacted yet."""
    return [make_store(settings, name) for name in names]


def make_store(settings: Settings, name: str) -> Store:
    """One store; UsageError for a name that is not configured."""
    store = settings.stores.get(name)
    match store:
        case None:
            raise UsageError(f"there is no store {name!r}", hint=f"configured are: {', '.join(settings.stores)}")
        case LocalStoreSettings():
            return LocalStore(name, Path(store.path))
        case S3StoreSettings():
            from backupd.stores.s3 import S3Store  # noqa: PLC0415  (boto3 takes half a second and 40 MiB)

            state = Path(settings.state_dir)
            claims = state / "uploads" / name
            return S3Store(name, _s3_options(store), SystemClock(), state / "stores" / f"{name}.json", claims)
    raise ConfigError(f"store {name!r} is of an unknown type")  # pragma: no cover - the settings know only these two


def _s3_options(store: S3StoreSettings) -> S3Options:
    return S3Options(
        bucket=store.bucket,
        prefix=store.prefix,
        endpoint_url=store.endpoint_url,
        region=store.region,
        addressing_style=store.addressing_style,
        access_key_id=_revealed(store.access_key_id),
        secret_access_key=_revealed(store.secret_access_key),
        session_token=_revealed(store.session_token),
        profile=store.profile,
        storage_class=store.storage_class,
        sse=store.sse,
        sse_kms_key_id=store.sse_kms_key_id,
        ca_bundle=str(store.ca_bundle) if store.ca_bundle else None,
        checksum=store.checksum,
        connect_timeout_seconds=store.connect_timeout.total_seconds(),
        read_timeout_seconds=store.read_timeout.total_seconds(),
        max_attempts=store.max_attempts,
        part_size_bytes=store.part_size,
        upload_threads=store.upload_threads,
        lock=LockPolicy(store.object_lock.mode, store.object_lock.duration) if store.object_lock else None,
        unlocked=(layout.LEASES, layout.PROBES),
        purge_versions=store.purge_versions,
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def secret_values(settings: Settings) -> list[str]:
    """Every secret of the configuration, and what of its URLs gives away one, for the log to leave out."""
    values = (secret.get_secret_value() for secret in _secrets(settings))
    return [part for value in values for part in (url_secrets(value) if "://" in value else [value])]


def _secrets(value: object) -> Iterator[SecretStr]:
    if isinstance(value, SecretStr):
        yield value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _secrets(getattr(value, field))
    elif isinstance(value, Mapping | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _secrets(item)
