"""Questions: by words and fields, by image, counts, and what the word at the end may become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query

from medsearch_desktop.errors import NotFoundError, RequestError
from medsearch_desktop.library import Library
from medsearch_desktop.records import Bucket, Facet
from medsearch_desktop.search.complete import complete
from medsearch_desktop.serve.api import models
from medsearch_desktop.serve.api.answers import Count, Cursor, Json, Question, example
from medsearch_desktop.serve.cursors import read_cursor, write_cursor
from medsearch_desktop.serve.wire import facets_json, search_json, similar_json

Sort = Literal["score", "date", "oldest", "patient"]
Roi = Annotated[
    str,
    Query(max_length=50, description="X,Y,W,H: only this part of the image, in its pixels.", examples=["0,0,64,64"]),
]
Upload = Annotated[
    bytes, Body(media_type="application/octet-stream", description="A DICOM, PNG or JPEG file; it is not kept.")
]
ImageName = Annotated[str, Query(max_length=200, description="The image_id of an image of the library.")]
ModelName = Annotated[str, Query(max_length=200, description="By this model's vectors; empty for the one in use.")]

_HIT = {
    "report_id": "s50414267",
    "study_uid": "1.2.826.0.1.3680043.10.1.1.1",
    "image_ids": ["1.2.826.0.1.3680043.10.1.1.1.1"],
    "score": 3.2,
    "snippet": "Large left pleural effusion.",
    "highlights": [[19, 27]],
    "entities": [],
    "shares": [{"signal": "text", "score": 3.2, "rank": 1, "share": 1.0}],
    "study_date": "2024-03-10",
    "patient_id": "P0001",
}
_CODE = {"code": "J90", "title": "Pleural effusion", "present": 2, "absent": 2, "uncertain": 2, "not_mentioned": 2}
_FACETS = {"icd10cm": [_CODE], "modality": [{"value": "CR", "count": 8}]}
_PAGE = {"total": 1, "hits": [_HIT], "facets": _FACETS, "notes": [], "next": ""}
_COMPLETION = {"kind": "field", "text": "view:", "start": 0, "help": "projection", "count": 0}
_SIMILAR = {
    "query": "1.2.826.0.1.3680043.10.1.1.1.1",
    "model_id": "densenet121-cxr1-128",
    "nothing_close": False,
    "expected": None,
    "chance": None,
    "notes": [],
    "hits": [{"image_id": "1.2.826.0.1.3680043.10.1.2.3.1", "score": 0.93, "modality": "CR", "view_position": "PA"}],
}


def search_routes(library: Library) -> APIRouter:
    """Return the routes of questions."""
    router = APIRouter(tags=["search"])
    counted: dict[int, Mapping[str, Sequence[Facet | Bucket]]] = {}

    @router.get("/search", responses=example(_PAGE, model=models.SearchPage))
    def search(q: Question = "", k: Count = 10, cursor: Cursor = "", sort: Sort = "score", facets: bool = True) -> Json:
        """Find reports and studies; `next` is the cursor of the page that follows, empty on the last."""
        about, generation = f"{sort} {q}", library.fulltext.generation
        offset = read_cursor(cursor, generation=generation, about=about)
        answer = library.search(
            q, k=k, offset=offset, sort=sort, with_facets=facets, outside=lambda image: _known(library, image)
        )
        last = offset + k
        more = write_cursor(last, generation=generation, about=about) if last < answer.total else ""
        return Json({**search_json(answer), "next": more})

    @router.get("/facets", responses=example(_FACETS, model=models.Facets))
    def facets(q: Question = "") -> Json:
        """Count codes, findings and values of fields over all that matches."""
        return Json(facets_json(library.facets(q)))

    @router.get("/complete", responses=example({"completions": [_COMPLETION]}, model=models.Completions))
    def completions(q: Question = "", k: Count = 20) -> Json:
        """Propose what the end of a question may become: fields, values, codes and findings of this library."""
        generation = library.fulltext.generation
        if (now := counted.get(generation)) is None:
            now = library.facets()
            counted.clear()
            counted[generation] = now
        return Json({"completions": [asdict(each) for each in complete(q, now, k=k)]})

    @router.get("/similar", responses=example(_SIMILAR, model=models.VisualAnswer))
    def similar(image: ImageName, k: Count = 10, roi: Roi = "", where: Question = "", model: ModelName = "") -> Json:
        """Find the images nearest to one of the library, or to a region of it."""
        _known(library, image)
        return Json(similar_json(library.similar(image, k=k, roi=_region(roi), where=where, model=model)))

    @router.post("/similar", responses=example(_SIMILAR, model=models.VisualAnswer))
    def similar_to_upload(
        file: Upload, k: Count = 10, roi: Roi = "", where: Question = "", model: ModelName = ""
    ) -> Json:
        """Find the images nearest to the file that is sent as the body, which is read in memory and not kept."""
        answer = library.similar("upload", k=k, roi=_region(roi), where=where, model=model, data=file)
        return Json(similar_json(answer))

    return router


def _known(library: Library, image: str) -> str:
    # What is no identifier would be taken for a path, and a request reaches no file by its name.
    if library.catalogue.image(image) is None and not library.volumes.has_series(image):
        raise NotFoundError(
            "the library has no such image", item=image, remedy="Give an image_id from an answer, or send the file"
        )
    return image


def _region(text: str) -> tuple[int, int, int, int] | None:
    if not text:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise RequestError("is not four whole numbers X,Y,W,H", item="roi") from error
    return x, y, width, height
