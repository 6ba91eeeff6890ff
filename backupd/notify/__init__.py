"""Telling people: notifications through Apprise, dead-man pings, alerts. Nothing here ever fails a run."""
