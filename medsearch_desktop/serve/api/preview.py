"""A file from outside as a picture, before one asks by it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from medsearch_desktop.image.picture import png_of
from medsearch_desktop.library import Library
from medsearch_desktop.serve.api.search import Upload

Side = Annotated[int, Query(alias="max", ge=16, le=4096, description="No side of the picture is longer, in pixels.")]
_HEADERS = {
    "x-rows": {"description": "Rows of the whole image, in which a region is given", "schema": {"type": "integer"}},
    "x-columns": {"description": "Columns of the whole image", "schema": {"type": "integer"}},
}


def preview_routes(library: Library) -> APIRouter:
    """Return the route of previews."""
    router = APIRouter(tags=["search"])

    @router.post(
        "/preview",
        response_class=Response,
        responses={200: {"description": "The picture", "content": {"image/png": {}}, "headers": _HEADERS}},
    )
    def preview(file: Upload, side: Side = 1024) -> Response:
        """Draw the DICOM, PNG or JPEG file that is the body, as `POST /api/similar` sees it; nothing is kept."""
        display = library.workbench.display("upload", data=file)
        rows, columns = display.shape[:2]
        size = {"x-rows": str(rows), "x-columns": str(columns)}
        return Response(png_of(display, most=side), media_type="image/png", headers=size)

    return router
