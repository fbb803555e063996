"""How an error travels: its kind and status over the interface, and the same error out of the answer again.

    {"error": {"kind": "not_found", "message": "...", "item": "...", "remedy": "..."}}

`kind` is the name of the class without "Error". A question that cannot be read has "query" and "position"
too. Empty parts are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from medsearch_desktop.errors import (
    ConfigError,
    DecodeError,
    LibraryError,
    LibraryFormatError,
    LibraryLockedError,
    LibraryNotFoundError,
    ListError,
    MedSearchError,
    MeterError,
    ModelError,
    NotFoundError,
    QueryError,
    ReportError,
    RequestError,
    ServeError,
    SourceError,
    StaleCursorError,
    StationError,
    StorageFullError,
    TerminologyError,
)

# The nearest class above an error decides.
STATUSES: dict[type[MedSearchError], int] = {
    MedSearchError: 400,
    ConfigError: 400,
    QueryError: 400,
    RequestError: 400,
    StaleCursorError: 409,
    NotFoundError: 404,
    LibraryNotFoundError: 404,
    SourceError: 422,
    DecodeError: 422,
    ReportError: 422,
    TerminologyError: 422,
    ModelError: 409,
    MeterError: 409,
    ListError: 409,
    LibraryError: 409,
    LibraryLockedError: 423,
    LibraryFormatError: 500,
    StorageFullError: 507,
    StationError: 502,
    ServeError: 500,
}


def kind_of(kind: type[MedSearchError]) -> str:
    """Return the name by which an error class travels."""
    name = kind.__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def status_of(error: MedSearchError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def error_json(error: MedSearchError) -> dict[str, Any]:
    """Return the body that tells of an error."""
    row: dict[str, Any] = {"kind": kind_of(type(error)), "message": error.message}
    row |= {name: text for name, text in (("item", error.item), ("remedy", error.remedy)) if text}
    if isinstance(error, QueryError):
        row |= {"query": error.query, "position": error.position}
    return {"error": row}


def error_from_json(value: Any) -> MedSearchError:
    """Return the error that a body tells of; one of an unknown kind is a MedSearchError."""
    row = value.get("error") if isinstance(value, Mapping) else None
    if not isinstance(row, Mapping) or "message" not in row:
        return ServeError("the server's answer is none that this release knows")
    kinds = {kind_of(kind): kind for kind in _tree(MedSearchError)}
    kind = kinds.get(str(row.get("kind")), MedSearchError)
    message, remedy = str(row["message"]), str(row.get("remedy", ""))
    if issubclass(kind, QueryError):
        return kind(message, query=str(row.get("query", "")), position=int(row.get("position", 0)), remedy=remedy)
    return kind(message, item=str(row.get("item", "")), remedy=remedy)


def _tree(kind: type[MedSearchError]) -> Iterator[type[MedSearchError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)
