"""The window of the process that owns the library."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from medsearch_desktop.serve.api.answers import Json, example
from medsearch_desktop.serve.api.library_models import Raised
from medsearch_desktop.serve.front import Front


class Screen(BaseModel):
    """Where a window is wanted."""

    screen: Annotated[str, Field(max_length=200, description="The display's name; empty where there is but one.")] = ""


def window_routes(front: Front) -> APIRouter:
    """Return the route of the owner's window."""
    router = APIRouter(tags=["library"])

    @router.post("/window", responses=example({"raised": False}, model=Raised))
    def bring(wanted: Screen) -> Json:
        """Bring the window of this library to the front, if its owner has one on that screen."""
        return Json({"raised": front.bring(wanted.screen)})

    return router
