"""The application: probes, metrics, API, and errors that are JSON."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from fastapi import FastAPI, Header, Request, Response
from fastapi import Security as Secured
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from backupd.errors import BackupdError
from backupd.web import models
from backupd.web.api import make_router
from backupd.web.counts import RunCounter
from backupd.web.guard import AccessLog, Guard
from backupd.web.metrics import make_registry
from backupd.web.state import Sources

_REFUSALS: dict[int | str, dict[str, object]] = {
    401: {"model": models.Problem, "description": "no token, or a wrong one"},
    403: {"model": models.Problem, "description": "no token is configured"},
    422: {"model": models.Problem, "description": "a parameter is wrong"},
    503: {"model": models.Problem, "description": "the history cannot be read"},
}


def make_app(
    sources: Sources, counter: RunCounter, token: str | None, hosts: Collection[str] | None, log: AccessLog
) -> ASGIApp:
    """The application behind its guard. `hosts` and `log` as for `Guard`."""
    return Guard(make_api(sources, counter), token, hosts, log)


def make_api(sources: Sources, counter: RunCounter) -> FastAPI:
    """The application without a guard: everybody may ask for everything."""
    app = FastAPI(
        title="backupd",
        summary="What a backup daemon does and knows. Everything is read-only.",
        version=sources.version,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    bearer = HTTPBearer(auto_error=False, description="web.token")  # said here, enforced by Guard
    app.include_router(make_router(sources), prefix="/api/v1", dependencies=[Secured(bearer)], responses=_REFUSALS)
    _probes(app, sources)
    registry = make_registry(sources, counter)

    @app.get("/metrics", summary="For Prometheus", tags=["metrics"], dependencies=[Secured(bearer)],
             response_class=Response, responses=_REFUSALS)  # fmt: skip
    def metrics(accept: Annotated[str, Header()] = "") -> Response:
        encoder, content_type = choose_encoder(accept)
        return Response(encoder(registry), headers={"content-type": content_type})

    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong_parameters)
    app.add_exception_handler(BackupdError, _unavailable)
    app.add_exception_handler(Exception, _defect)
    return app


def _probes(app: FastAPI, sources: Sources) -> None:
    """They run in the event loop itself: nothing that is slow elsewhere holds them up."""

    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", summary="Does it answer?", tags=["probes"])
    async def livez() -> models.Probe:
        return models.Probe(status="ok")

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", summary="Do schedules fire?", tags=["probes"], responses={503: {"model": models.Probe}})
    async def readyz(response: Response) -> models.Probe:
        status = sources.daemon.status()
        reasons = ["stopping"] if status.stopping else [] if status.ready else ["recovering"]
        response.status_code = 503 if reasons else 200
        return models.Probe(status="not ready" if reasons else "ok", reasons=reasons)


async def _http_error(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    return _problem(exc.status_code, exc.detail, headers=dict(exc.headers or {}))


async def _wrong_parameters(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    wrong = [f"{'.'.join(map(str, error['loc'][1:]))}: {error['msg']}" for error in exc.errors()]
    return _problem(422, "a parameter is wrong", wrong)


async def _unavailable(_request: Request, exc: Exception) -> JSONResponse:
    return _problem(503, str(exc))


async def _defect(_request: Request, exc: Exception) -> JSONResponse:
    return _problem(500, f"this should not have happened: {type(exc).__name__}")


def _problem(
    status: int, error: str, detail: list[str] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(models.Problem(error=error, detail=detail or []).model_dump(), status, headers)
