"""`/api/v1`: plans, snapshots, runs, schedule, queue. Nothing is changed, nothing waits for a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from fastapi import APIRouter, HTTPException, Path, Query

from backupd.history import Outcome, RunKind
from backupd.web import models, reading
from backupd.web.state import Sources

Item = TypeVar("Item")
Limit = Annotated[int, Query(ge=1, le=500, description="how many at most")]
Offset = Annotated[int, Query(ge=0, le=1_000_000, description="how many to pass over")]
Name = Annotated[str | None, Query(max_length=63)]
Id = Annotated[str, Path(pattern="^[0-9a-f]{1,64}$", description="the id, or an unambiguous beginning of it")]

_NOT_FOUND: dict[int | str, dict[str, object]] = {404: {"model": models.Problem, "description": "there is none"}}


def make_router(sources: Sources) -> APIRouter:
    """The routes."""
    router = APIRouter()
    _plans(router, sources)
    _snapshots(router, sources)
    _runs(router, sources)
    return router


def _plans(router: APIRouter, sources: Sources) -> None:
    @router.get("/plans", summary="Plans as configured, and how they are", tags=["plans"])
    def plans(limit: Limit = 50, offset: Offset = 0) -> models.Page[models.Plan]:
        return _page([reading.plan(facts, sources) for facts in sources.plans], limit, offset)

    @router.get("/plans/{name}", summary="One plan", tags=["plans"], responses=_NOT_FOUND)
    def plan(name: Annotated[str, Path(max_length=63)]) -> models.Plan:
        facts = next((facts for facts in sources.plans if facts.name == name), None)
        if facts is None:
            raise HTTPException(404, f"there is no plan {name!r}")
        return reading.plan(facts, sources)

    @router.get("/schedule", summary="What runs next, soonest first", tags=["schedule"])
    def schedule(plan: Name = None, limit: Limit = 50, offset: Offset = 0) -> models.Page[models.Scheduled]:
        due = [one for one in reading.scheduled(sources) if plan in {None, one.plan}]
        return _page(due, limit, offset)

    @router.get("/schedule/{plan}", summary="What a plan runs next", tags=["schedule"], responses=_NOT_FOUND)
    def schedule_of(plan: Annotated[str, Path(max_length=63)]) -> list[models.Scheduled]:
        due = [one for one in reading.scheduled(sources) if one.plan == plan]
        if not due:
            raise HTTPException(404, f"nothing is scheduled for a plan {plan!r}")
        return due

    @router.get("/queue", summary="What the daemon is at, and what waits", tags=["schedule"])
    def queue(plan: Name = None, limit: Limit = 50, offset: Offset = 0) -> models.Page[models.Activity]:
        return _page([one for one in reading.activities(sources) if plan in {None, one.plan}], limit, offset)


def _snapshots(router: APIRouter, sources: Sources) -> None:
    @router.get("/snapshots", summary="Snapshots as last seen, newest first", tags=["snapshots"])
    def snapshots(
        plan: Name = None, store: Name = None, volume: Name = None, limit: Limit = 50, offset: Offset = 0
    ) -> models.Snapshots:
        chosen = [
            one
            for one in reading.snapshots(sources)
            if plan in {None, one.plan}
            and (store is None or store in one.stores)
            and (volume is None or any(archive.volume == volume for archive in one.archives))
        ]
        now = datetime.now(UTC)
        ages = [reading.age(name, state, now) for name, state in sources.stores().items()]
        return models.Snapshots(**_page(chosen, limit, offset).model_dump(), stores=ages)

    @router.get("/snapshots/{id}", summary="One snapshot", tags=["snapshots"], responses=_NOT_FOUND)
    def snapshot(id: Id) -> models.Snapshot:  # noqa: A002
        return _only([one for one in reading.snapshots(sources) if one.id.startswith(id)], "snapshot", id)


def _runs(router: APIRouter, sources: Sources) -> None:
    @router.get("/runs", summary="Runs, newest first", tags=["runs"])
    def runs(
        kind: RunKind | None = None,
        plan: Name = None,
        outcome: Annotated[list[Outcome] | None, Query(description="repeatable")] = None,
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> models.Page[models.Run]:
        found = sources.history.runs(kind=kind, plan=plan, outcomes=outcome or (), limit=offset + limit + 1)
        return _page(found, limit, offset, reading.run)

    @router.get("/runs/{id}", summary="One run", tags=["runs"], responses=_NOT_FOUND)
    def run(id: Id) -> models.Run:  # noqa: A002
        return reading.run(_only(sources.history.find(id), "run", id))


def _page(
    items: Sequence[object], limit: int, offset: int, convert: Callable[..., Item] = lambda item: item
) -> models.Page[Item]:
    more = len(items) > offset + limit
    return models.Page(
        items=[convert(item) for item in items[offset : offset + limit]],
        limit=limit,
        offset=offset,
        next_offset=offset + limit if more else None,
    )


def _only(found: Sequence[Item], noun: str, name: str) -> Item:
    if len(found) != 1:
        many = f"{len(found)} {noun}s begin with" if found else f"there is no {noun}"
        raise HTTPException(404, f"{many} {name!r}")
    return found[0]
