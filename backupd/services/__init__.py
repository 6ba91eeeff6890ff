"""Services: the containers that use volumes, what may be asked of them, and the ways to read a volume beside them.

The Docker engine has them; where volumes are bare directories there are none that anybody knows of (`NoServices`).
"""

from backupd.services.containers import ALIVE, CommandResult, Health, MountPoint, Service, Services, State, TarStream
from backupd.services.none import NoServices
from backupd.services.reading import Choice, Outcome, Reading, Source, Strategy, Together

__all__ = [
    "ALIVE",
    "Choice",
    "CommandResult",
    "Health",
    "MountPoint",
    "NoServices",
    "Outcome",
    "Reading",
    "Service",
    "Services",
    "Source",
    "State",
    "Strategy",
    "TarStream",
    "Together",
]
