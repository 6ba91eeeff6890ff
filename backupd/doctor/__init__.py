"""Doctor: looks at everything that a deployment can get wrong, and says what to do about it.

It changes nothing but probe objects in stores, and runs helpers that see no volume.
"""

from backupd.doctor.checks import Patient, all_checks
from backupd.doctor.result import Check, Finding, Level, Result, examine

__all__ = ["Check", "Finding", "Level", "Patient", "Result", "all_checks", "examine"]
