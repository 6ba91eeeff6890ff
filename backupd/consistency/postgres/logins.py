"""As whom a server may be asked: what the configuration says, or what the server's container says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from backupd.model import VolumeSpec
from backupd.records import Discreet
from backupd.services import Service, Services

SUPERUSER = "postgres"


class Login(Discreet, frozen=True):
    """As whom to connect. `password` None: the server was found to want none, or none is known."""

    _hidden: ClassVar = ("password",)

    user: str
    password: str | None = None


def logins(services: Services, service: Service, spec: VolumeSpec) -> Iterator[Login]:
    """Who may be allowed to copy, the likeliest first: the configuration's user, or those that the container names."""
    environment = service.environment
    main = ("POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD")
    named = environment.get("POSTGRES_USER") or environment.get("POSTGRESQL_USERNAME") or SUPERUSER
    if spec.user is not None or spec.password is not None:
        user = spec.user or named
        password = spec.password
        if password is None and user == named:
            password = _password(services, service, main)
        yield Login(user, password)
        return
    yield Login(named, _password(services, service, main))
    if named != SUPERUSER and "POSTGRESQL_USERNAME" in environment:  # Bitnami: its own user is not the superuser
        yield Login(SUPERUSER, _password(services, service, ("POSTGRESQL_POSTGRES_PASSWORD",)))
    if replication := environment.get("POSTGRESQL_REPLICATION_USER"):
        yield Login(replication, _password(services, service, ("POSTGRESQL_REPLICATION_PASSWORD",)))


def _password(services: Services, service: Service, names: Sequence[str]) -> str | None:
    """A password of the container's environment, or of the file that it names: a Docker secret, which root may read."""
    for name in names:
        if value := service.environment.get(name):
            return value
        if path := service.environment.get(f"{name}_FILE"):
            for user in ("0", None):
                said = services.run(service, ["cat", path], user=user)
                if said.exit_code == 0 and (value := said.stdout.rstrip("\n")):
                    return value
    return None
