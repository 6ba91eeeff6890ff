"""`backupd run`: starts what schedules ask for, each run in a process of its own, until it is told to stop."""
