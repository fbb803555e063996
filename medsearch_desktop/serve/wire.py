"""Answers as JSON and back: what the interface sends, `--json` prints, and the command line reads from an owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from datetime import date
from enum import StrEnum
from itertools import repeat
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from medsearch_desktop.records import Bucket, Facet, SearchAnswer, VisualAnswer

Facets = Mapping[str, Sequence[Facet | Bucket]]
Record = TypeVar("Record")


def search_json(answer: SearchAnswer) -> dict[str, Any]:
    """Return the object that `medsearch search --json` prints."""
    hits = []
    for hit in answer.hits:
        row = asdict(hit)
        row["study_date"] = hit.study_date.isoformat() if hit.study_date else None
        row["highlights"] = [list(span) for span in hit.highlights]
        hits.append(row)
    return {
        "total": answer.total,
        "hits": hits,
        "facets": facets_json(answer.facets),
        "notes": list(answer.notes),
    }


def similar_json(answer: VisualAnswer) -> dict[str, Any]:
    """Return the object that `medsearch similar --json` prints."""
    hits = []
    for hit in answer.hits:
        row = asdict(hit)
        row["study_date"] = hit.study_date.isoformat() if hit.study_date else None
        hits.append(row)
    return {
        "query": answer.query,
        "model_id": answer.model_id,
        "nothing_close": answer.nothing_close,
        "expected": answer.expected,
        "chance": answer.chance,
        "notes": list(answer.notes),
        "hits": hits,
    }


def facets_json(facets: Facets) -> dict[str, Any]:
    """Return the object that `medsearch facets --json` prints."""
    return {name: [asdict(row) for row in rows] for name, rows in facets.items()}


def record(kind: type[Record], value: Mapping[str, Any]) -> Record:
    """Return the record of class `kind` that a JSON object was made of; names that it lacks are left out.

    Raises KeyError, TypeError or ValueError for an object that is of another class.
    """
    hints = get_type_hints(kind)
    known = [each.name for each in fields(cast(Any, kind)) if each.name in value]
    return kind(**{name: _value(hints[name], value[name]) for name in known})


def facets(value: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, tuple[Facet | Bucket, ...]]:
    """Return the facets that `facets_json` was given."""
    return {name: tuple(_facet(row) for row in rows) for name, rows in value.items()}


def search_answer(value: Mapping[str, Any]) -> SearchAnswer:
    """Return the answer that `search_json` was given."""
    answer = record(SearchAnswer, {**value, "facets": {}})
    return SearchAnswer(answer.total, answer.hits, facets(value["facets"]), answer.notes)


def _facet(row: Mapping[str, Any]) -> Facet | Bucket:
    return record(Facet, row) if "code" in row else record(Bucket, row)


def _value(kind: Any, value: Any) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if value is None or kind is Any:
        return value
    if origin in (Union, UnionType):
        return _value(next(part for part in parts if part is not NoneType), value)
    if origin is tuple:
        kinds = repeat(parts[0]) if parts[-1] is Ellipsis else parts
        return tuple(_value(each, item) for each, item in zip(kinds, value, strict=False))
    if is_dataclass(kind):
        return record(cast(type[Any], kind), value)
    if kind is date:
        return date.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    return value
