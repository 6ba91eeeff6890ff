"""Everything that can go wrong, as one tree.

A class carries the exit code that the command line ends with and, where one helps, a hint: what the reader can do
next. The message says what happened, in one line and without secrets. Only the command line turns an error into an
exit code. Only `StoreUnavailable` may be retried.
"""


class BackupdError(Exception):
    """Something went wrong."""

    exit_code = 1
    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class UsageError(BackupdError):
    """The command was not given what it needs."""

    exit_code = 2


class ConfigError(BackupdError):
    """The configuration cannot be used."""

    exit_code = 2
    hint = "`backupd config check` names every problem with its file and key"


class PartialFailure(BackupdError):  # noqa: N818  (reads as what it is)
    """Some of what was asked for was done, some failed."""

    exit_code = 3


class SourceError(BackupdError):
    """A volume could not be read or written."""


class EngineUnavailable(SourceError):  # noqa: N818
    """The Docker Engine does not answer."""

    hint = "is Docker running, and may this user use its socket?"


class VolumeFull(SourceError):  # noqa: N818
    """A volume has no room left."""

    hint = "make room on the disk that holds it"


class VolumeMissing(SourceError):  # noqa: N818
    """A volume that was asked for does not exist."""


class VolumeInUse(SourceError):  # noqa: N818
    """A running container uses the volume."""

    hint = "stop the container first"


class ServiceUnhealthy(BackupdError):  # noqa: N818
    """A service did not come back as it should."""


class StoreError(BackupdError):
    """A store did not do what it was asked."""


class ObjectNotFound(StoreError):  # noqa: N818
    """The store has no such object."""


class ObjectExists(StoreError):  # noqa: N818
    """The store already has an object of that name, and objects are never overwritten."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The store cannot be reached now; the same call may succeed later."""


class StoreDenied(StoreError):  # noqa: N818
    """The store refused the credentials or the act."""


class StoreFull(StoreError):  # noqa: N818
    """The store has no room left."""


class RepositoryError(BackupdError):
    """The store holds no repository that this program can use."""

    exit_code = 10


class NoRepository(RepositoryError):  # noqa: N818
    """The store holds no repository, though it may hold other things."""

    hint = "the first `backupd backup` makes it"


class SnapshotNotFound(RepositoryError):  # noqa: N818
    """No snapshot has that id."""

    hint = "`backupd list` shows what there is"


class LockedError(BackupdError):
    """Another backupd works on the same volume or store."""

    exit_code = 11


class RunSkipped(LockedError):  # noqa: N818
    """A run did not take place: another one works on the same, or there is nothing yet that it could be about."""


class LeaseLost(LockedError):  # noqa: N818
    """This process stood still for so long that another one went on without it."""

    hint = "nothing is damaged: run it again"


class PruneRefused(BackupdError):  # noqa: N818
    """A snapshot that was to be removed is one that must stay."""


class KeyMissing(BackupdError):  # noqa: N818
    """The snapshot is encrypted for a key that is not at hand."""

    exit_code = 12
    hint = "--identity FILE, or BACKUPD_IDENTITY_FILE, names the secret key"


class DrillFailed(BackupdError):  # noqa: N818  (reads as what it is)
    """A drill found that a snapshot does not come back as it should."""

    hint = "`backupd show ID` has all that was found; `backupd restore --into` brings data elsewhere to look at"


class IntegrityError(BackupdError):
    """What is stored is not what was written."""

    exit_code = 13
    hint = "`backupd verify --read-data` tells how far the damage goes; another store may hold a good copy"


class DeliveryFailed(BackupdError):  # noqa: N818  (reads as what it is)
    """A notification or a ping could not be delivered. `again`: it may work later."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


class Interrupted(BackupdError):  # noqa: N818
    """Stopped by a signal."""

    exit_code = 130
