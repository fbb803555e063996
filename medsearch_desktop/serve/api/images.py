"""Images: the original file, a frame as a picture or as stored values, the thumbnail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from medsearch_desktop.errors import NotFoundError, RequestError
from medsearch_desktop.library import Library
from medsearch_desktop.serve.api.answers import binary, caching, etag_of, not_modified

ImageId = Annotated[str, Path(max_length=200)]
Frame = Annotated[int | None, Query(ge=1, le=1_000_000, description="Frame of the instance, from 1.")]
Level = Annotated[float | None, Query(allow_inf_nan=False, description="In the unit of the modality (CT: HU).")]

_BLOCK = 1 << 20
# What a file of each kind begins with, and what it then is to a browser.
_MEDIA = ((b"\x89PNG", "image/png", "png"), (b"\xff\xd8\xff", "image/jpeg", "jpg"))
_RAW_HEADERS = {
    "x-rows": "Rows of the frame",
    "x-columns": "Columns of the frame",
    "x-bits-stored": "Bits that values use",
    "x-signed": "1 for int16, 0 for uint16",
    "x-slope": "value x slope + intercept is in the unit of the modality",
    "x-intercept": "See x-slope",
    "x-window-center": "The header's window, where it has one",
    "x-window-width": "See x-window-center",
    "x-dark-is-high": "1 where levels are inverted at the end (MONOCHROME1)",
    "x-row-spacing": "Distance of rows in mm, where it is known",
    "x-column-spacing": "Distance of columns in mm, where it is known",
    "x-at-detector": "1 where these were measured at the detector, so that lengths in the body are less",
}


def image_routes(library: Library) -> APIRouter:
    """Return the routes of images."""
    router = APIRouter(tags=["images"], prefix="/images/{image_id}")

    @router.get(
        "/file", response_class=Response, responses=binary("application/dicom", "The file as it lies in its folder")
    )
    def original(image_id: ImageId, request: Request) -> Response:
        """Send the original file, DICOM or picture, unchanged."""
        file = library.holdings.image_file(image_id)
        etag = etag_of(file.path, file.size, file.mtime_ns, file.sha256)
        if (unchanged := not_modified(request, etag)) is not None:
            return unchanged
        handle, size = library.holdings.open_image(file)
        head = handle.read(4)
        handle.seek(0)
        media, suffix = next(
            ((media, suffix) for mark, media, suffix in _MEDIA if head.startswith(mark)), ("application/dicom", "dcm")
        )
        name = re.sub(r"[^0-9A-Za-z.-]", "_", image_id)

        def blocks() -> Iterator[bytes]:
            left = size
            with handle:
                while left > 0 and (block := handle.read(min(_BLOCK, left))):
                    left -= len(block)
                    yield block

        fields = {"content-length": str(size), "content-disposition": f'attachment; filename="{name}.{suffix}"'}
        return StreamingResponse(blocks(), media_type=media, headers={**caching(etag), **fields})

    @router.get("/frame", response_class=Response, responses=_frame_responses())
    def frame(
        image_id: ImageId,
        request: Request,
        frame: Frame = None,
        center: Level = None,
        width: Level = None,
        form: Annotated[Literal["png", "raw"], Query(alias="format")] = "png",
    ) -> Response:
        """Send one frame: `png` is 8 bit, seen through a window; `raw` is 16-bit little-endian, row by row."""
        if (center is None) != (width is None):
            raise RequestError("a window has both center and width", item="center, width")
        if form == "raw" and center is not None:
            raise RequestError("stored values are sent as they are", item="center, width", remedy="Leave them out")
        file = library.holdings.image_file(image_id)
        etag = etag_of(file.path, file.size, file.mtime_ns, file.sha256, file.frame, frame, center, width, form)
        if (unchanged := not_modified(request, etag)) is not None:
            return unchanged
        number = None if frame is None else frame - 1
        if form == "png":
            window = None if center is None or width is None else (center, width)
            picture = library.holdings.frame_picture(image_id, frame=number, window=window)
            return Response(picture, media_type="image/png", headers=caching(etag))
        stored = library.holdings.frame_values(image_id, frame=number)
        rows, columns = stored.values.shape
        fields = {
            "x-rows": rows,
            "x-columns": columns,
            "x-bits-stored": stored.bits_stored,
            "x-signed": int(stored.values.dtype.kind == "i"),
            "x-slope": stored.slope,
            "x-intercept": stored.intercept,
            "x-dark-is-high": int(stored.dark_is_high),
        }
        if stored.window is not None:
            fields |= {"x-window-center": stored.window[0], "x-window-width": stored.window[1]}
        if stored.spacing is not None:
            fields |= {"x-row-spacing": stored.spacing[0], "x-column-spacing": stored.spacing[1]}
            fields["x-at-detector"] = int(stored.at_detector)
        told = {name: repr(value) for name, value in fields.items()}
        return Response(
            stored.values.tobytes(), media_type="application/octet-stream", headers={**caching(etag), **told}
        )

    @router.get("/thumbnail", response_class=Response, responses=binary("image/webp", "A small picture"))
    def thumbnail(image_id: ImageId, request: Request) -> Response:
        """Send the thumbnail as WebP."""
        picture = library.thumbnail(image_id)
        if picture is None:
            raise NotFoundError("the image has no picture: its pixels could not be decoded", item=image_id)
        etag = etag_of(picture)
        return not_modified(request, etag) or Response(picture, media_type="image/webp", headers=caching(etag))

    return router


def _frame_responses() -> dict[int | str, dict[str, Any]]:
    headers = {name: {"description": text, "schema": {"type": "number"}} for name, text in _RAW_HEADERS.items()}
    content: dict[str, Any] = {"image/png": {}, "application/octet-stream": {}}
    return {
        200: {"description": "The frame", "content": content, "headers": headers},
        304: {"description": "As it was"},
    }
