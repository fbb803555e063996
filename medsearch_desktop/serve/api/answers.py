"""What all routes share: how answers are written, pages are told apart, and files are cached."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse

from medsearch_desktop import __version__

MOST_QUESTION = 4000
MOST_HITS = 1000

Question = Annotated[str, Query(max_length=MOST_QUESTION, description="A question in the query language.")]
Count = Annotated[int, Query(ge=1, le=MOST_HITS, description="How many to answer with at most.")]
Cursor = Annotated[str, Query(max_length=200, description="`next` of the page before; empty for the first.")]


class Json(JSONResponse):
    """JSON in ASCII: names on disk that are not UTF-8 hold surrogates, which only the escaped form can carry."""

    def render(self, content: Any) -> bytes:
        """Return the bytes of one JSON value."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, default=str, separators=(",", ":")).encode()


def example(value: Any, description: str = "The answer", *, model: Any = None) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that answers with JSON of the class `model`, like `value`."""
    told = {"model": model} if model is not None else {}
    return {200: {"description": description, "content": {"application/json": {"example": value}}, **told}}


def binary(kind: str, description: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that answers with bytes of a media type."""
    return {200: {"description": description, "content": {kind: {}}}, 304: {"description": "As it was"}}


def not_modified(request: Request, etag: str) -> Response | None:
    """Return the 304 for a client that has what `etag` names already, or None."""
    given = request.headers.get("if-none-match", "")
    if given.strip() == "*" or etag in [part.strip().removeprefix("W/") for part in given.split(",")]:
        return Response(status_code=304, headers=caching(etag))
    return None


def caching(etag: str) -> dict[str, str]:
    """Return the headers that let this user's browser, and nobody between, keep an answer and ask whether it holds."""
    return {"etag": etag, "cache-control": "private, no-cache"}


def etag_of(*parts: object) -> str:
    """Return the entity tag of whatever these parts determine."""
    # Another release may draw the same file otherwise.
    told = repr((__version__, *parts))
    return f'"{hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]}"'
