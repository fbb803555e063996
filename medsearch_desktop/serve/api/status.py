"""The library as a whole: counts, disk use, models and changing them, the base of concepts; logging a window in."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from medsearch_desktop import __version__
from medsearch_desktop.doctor import checks_json, examine
from medsearch_desktop.errors import MedSearchError
from medsearch_desktop.library import Library
from medsearch_desktop.registry import list_all
from medsearch_desktop.report.terminology import read_header, shipped_path
from medsearch_desktop.serve.api import library_models as models
from medsearch_desktop.serve.api.answers import Json, example
from medsearch_desktop.serve.errors import error_json
from medsearch_desktop.serve.security import Security

_TOTALS = {"images": 16, "vectors": 16, "reports": 8, "studies": 8, "patients": 4, "files": 24, "failures": 0}
_STATUS = {
    "version": "0.1.0",
    "path": "/home/reader/library",
    "totals": _TOTALS,
    "disk": {"library.duckdb": 4_730_880, "thumbnails": 112_000, "indexes": 300_000, "free": 80_000_000_000},
    "model_id": "densenet121-cxr1-128",
    "waiting_images": 0,
    "terminology": "ICD-10-CM April 2026",
    "switch": None,
}
_MODEL = {"model_id": "densenet121-cxr1-128", "role": "in use", "vectors": 16, "registered": True}
_MODELS = {"models": [_MODEL], "problems": [], "switch": None}
_CHECK = {"name": "text index", "state": "ok", "seen": "8 entries, as many as the database has", "remedy": ""}
_PROGRESS = {"stage": "embedding", "model_id": "other", "total": 16, "settled": 4, "images": 4, "seconds": 0.2}
_SWITCH = {"model_id": "other", "running": True, "progress": _PROGRESS, "summary": None, "error": None}


class Choice(BaseModel):
    """The model that a library is to use."""

    model_id: Annotated[str, Field(min_length=1, max_length=200)]


def status_routes(library: Library, security: Security) -> APIRouter:
    """Return the routes of the library itself, its models, and logging in."""
    router = APIRouter(tags=["library"])
    examining = threading.Lock()

    @router.get("/status", responses=example(_STATUS, model=models.Status))
    def status() -> Json:
        """Show what the library holds, what room it takes, its model and the release of its codes."""
        return Json(
            {
                "version": __version__,
                "path": str(library.path),
                "totals": asdict(library.totals()),
                "disk": library.holdings.disk_use(),
                "model_id": library.model_id,
                "waiting_images": library.waiting_images(),
                "terminology": read_header(shipped_path())["release"],
                "switch": _switch(library),
            }
        )

    @router.get("/models", responses=example(_MODELS, model=models.ModelList))
    def all_models() -> Json:
        """List the models that are registered here or have vectors in the library."""
        rows, problems = list_all(library.config)
        held = {each.model_id: each for each in library.models()}
        found: list[dict[str, Any]] = []
        for row in rows:
            own = held.pop(row["model_id"], None)
            found.append({**row, "registered": True, "role": own.role if own else "", "vectors": _vectors(own)})
        found += [
            {"model_id": own.model_id, "registered": False, "role": own.role, "vectors": own.vectors}
            for own in held.values()
        ]
        told = [error_json(problem)["error"] for problem in problems]
        return Json({"models": found, "problems": told, "switch": _switch(library)})

    @router.post("/models/use", status_code=202, responses={202: example(_SWITCH, model=models.Switch)[200]})
    def use(choice: Choice) -> Json:
        """Change to another model beside the answering; the old one answers until all images are embedded."""
        library.use_model(choice.model_id, background=True)
        return Json(_switch(library), 202)

    @router.post("/models/cancel", responses=example({"switch": _SWITCH}, model=models.SwitchAnswer))
    def cancel() -> Json:
        """Stop a change of model; the same change goes on from there later."""
        if library.switch is not None:
            library.switch.cancel()
        return Json({"switch": _switch(library)})

    @router.get("/doctor", responses=example({"ok": True, "checks": [_CHECK]}, model=models.Checks))
    def doctor() -> Json:
        """Examine decoders, models, language, indexes, permissions and sockets, as `medsearch doctor` does."""
        # It loads models and measures engines, which two at once would spoil.
        with examining:
            return Json(checks_json(examine(library.config, library=library)))

    @router.post("/login", responses=example({"path": "/login?ticket=..."}, model=models.Login))
    def login() -> Json:
        """Return a path that logs one browser window in, once, within a minute."""
        return Json({"path": security.ticket()})

    return router


def _switch(library: Library) -> dict[str, Any] | None:
    switch = library.switch
    if switch is None:
        return None
    return {
        "model_id": switch.model_id,
        "running": switch.running,
        "progress": asdict(switch.event),
        "summary": switch.summary.as_json() if switch.summary is not None else None,
        "error": error_json(switch.error)["error"] if isinstance(switch.error, MedSearchError) else None,
    }


def _vectors(own: Any) -> int:
    return own.vectors if own else 0
