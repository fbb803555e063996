"""The application: routes under /api, /graphql, errors as JSON, the guard before all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.types import Lifespan

from medsearch_desktop import __version__
from medsearch_desktop.errors import MedSearchError
from medsearch_desktop.library import Library
from medsearch_desktop.serve.api.answers import Json
from medsearch_desktop.serve.api.dicomweb import dicomweb_routes
from medsearch_desktop.serve.api.health import health_routes
from medsearch_desktop.serve.api.images import image_routes
from medsearch_desktop.serve.api.jobs import job_routes
from medsearch_desktop.serve.api.lists import list_routes
from medsearch_desktop.serve.api.models import ErrorAnswer
from medsearch_desktop.serve.api.pages import BUILT, page_routes
from medsearch_desktop.serve.api.preview import preview_routes
from medsearch_desktop.serve.api.search import search_routes
from medsearch_desktop.serve.api.sending import sending_routes
from medsearch_desktop.serve.api.status import status_routes
from medsearch_desktop.serve.api.studies import study_routes
from medsearch_desktop.serve.api.upkeep import upkeep_routes
from medsearch_desktop.serve.api.window import window_routes
from medsearch_desktop.serve.deadline import Deadline
from medsearch_desktop.serve.errors import error_json, status_of
from medsearch_desktop.serve.front import Front
from medsearch_desktop.serve.graphql import graphql_routes
from medsearch_desktop.serve.idle import Counted
from medsearch_desktop.serve.jobs import Jobs
from medsearch_desktop.serve.security import INTERNAL, App, Guard, Security
from medsearch_desktop.serve.upkeep import Upkeep

# FastAPI reports to OpenTelemetry where the environment asks it to. Nothing leaves this machine.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def create_app(
    library: Library,
    security: Security,
    jobs: Jobs | None = None,
    *,
    front: Front | None = None,
    upkeep: Upkeep | None = None,
    pages: Path = BUILT,
) -> App:
    """Return the ASGI application that answers for `library`, behind `security`, and shows the interface in `pages`.

    Its own `Jobs` and `Upkeep`, where none are given, end with its lifespan. The library stays open.
    """
    own = Jobs(library) if jobs is None else jobs
    keeping = Upkeep(library, own) if upkeep is None else upkeep

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(keeping.close)
        await to_thread.run_sync(own.close)

    app = described_app(api_routes(library, security, own, front or Front(), keeping), lifespan=lifespan)
    app.include_router(dicomweb_routes(library, own))
    app.include_router(graphql_routes(library))
    app.include_router(page_routes(pages))
    app.add_exception_handler(MedSearchError, _told)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _internal)
    return Guard(Deadline(Counted(app, own.activity), seconds=library.config.max_answer_seconds), security)


def api_routes(library: Library, security: Security, jobs: Jobs, front: Front, upkeep: Upkeep) -> APIRouter:
    """Return the routes under /api."""
    api = APIRouter(prefix="/api", responses={"default": {"model": ErrorAnswer, "description": "What went wrong"}})
    api.include_router(search_routes(library))
    api.include_router(study_routes(library))
    api.include_router(image_routes(library))
    api.include_router(list_routes(library))
    api.include_router(preview_routes(library))
    api.include_router(job_routes(library, jobs, upkeep))
    api.include_router(sending_routes(library, jobs))
    api.include_router(status_routes(library, security))
    api.include_router(window_routes(front))
    api.include_router(health_routes(library, jobs))
    api.include_router(upkeep_routes(library, upkeep))
    return api


def described_app(api: APIRouter, *, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Return an application with the routes of `api`, and /api/openapi.json, which describes them."""
    app = FastAPI(
        title="MedSearch Desktop",
        version=__version__,
        summary="Search radiology images and reports on one workstation. Not a medical device.",
        openapi_url="/api/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry=_NO_TELEMETRY,
    )
    app.include_router(api)
    return app


async def _told(_: Request, error: Exception) -> Json:
    assert isinstance(error, MedSearchError)
    return Json(error_json(error), status_of(error))


async def _malformed(_: Request, error: Exception) -> Json:
    assert isinstance(error, RequestValidationError)
    # Without what was given: it may be a patient's, and a message repeats nothing of that.
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return Json({"error": {"kind": "request", "message": first["msg"], "item": place}}, 422)


async def _internal(_: Request, error: Exception) -> Json:  # noqa: ARG001 - its words may be a patient's
    # The error goes on to the guard, which says where it came up.
    return Json(INTERNAL.body, INTERNAL.status)


async def _refused(_: Request, error: Exception) -> Json:
    assert isinstance(error, HTTPException)
    kinds = {404: ("not_found", "there is no such route"), 405: ("method", "this route takes another method")}
    kind, message = kinds.get(error.status_code, ("request", "the request cannot be read"))
    return Json(
        {"error": {"kind": kind, "message": message, "remedy": "See /api/openapi.json"}},
        error.status_code,
        headers=dict(error.headers or {}),
    )
