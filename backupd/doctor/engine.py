"""The engine: whether it answers, and whether tar jobs can run on it."""

from __future__ import annotations

from collections.abc import Iterator

from backupd.doctor.machine import skew
from backupd.doctor.result import Result
from backupd.engine.confine import unconfined
from backupd.facts import ExaminedEngine
from backupd.ports import Engine

_PULLS = "needs a registry; `docker pull` it now, or set docker.helper_image to one that is there"


def look_at_engine(engine: Engine) -> Iterator[Result]:
    """Address, versions, clock. That it can't be reached, and why (socket, group), is the error that asking raises."""
    if not isinstance(engine, ExaminedEngine):
        yield Result("ok", "engine", f"{engine.name}: directories, no Docker")
        if said := unconfined():
            advice = "before a restore, stop what uses the volume: a link that it makes meanwhile could lead out of it"
            yield Result("note", "engine", said, advice)
        return
    facts = engine.facts()
    where = f", seen from container {facts.own_container}" if facts.own_container else ""
    yield Result("ok", "engine", f"Docker {facts.version} at {facts.address}{where}")
    # One that is older is refused when it is first asked, as any other command would be.
    yield Result("ok", "engine version", f"API {facts.api_version}, at least {facts.oldest_api} is needed")
    if facts.rootless:
        advice = "what belongs to other users than those of its range can't be restored with its owner"
        yield Result("note", "engine", "is rootless", advice)
    if facts.time is None:
        yield Result("note", "engine clock", "is not known: asking is not allowed (a socket proxy?)")
    else:
        yield skew("engine clock", facts.time - facts.asked)


def look_at_tar(engine: Engine) -> Iterator[Result]:
    """The tar that jobs run, found out by running one without volumes. Nothing is pulled for that."""
    if isinstance(engine, ExaminedEngine):
        facts = engine.facts()
        if not facts.image_there:
            yield Result(
                "warning", f"helper image {facts.image}", "the engine does not have it: the first job pulls it", _PULLS
            )
            return
        subject = f"helper image {facts.image[:40]}"
    else:
        subject = "tar"
    tool = engine.tool()
    if tool.flavour == "gnu":
        yield Result("ok", subject, str(tool))
        return
    text = f"{tool}: extended attributes, ACLs and sub-second times are lost, holes are filled"
    yield Result("warning", subject, text, "use an image with GNU tar, such as backupd's own")
