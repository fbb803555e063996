"""The cloud deployment's GraphQL interface over a library: POST /graphql, on the same server, behind the same guard.

`schema.graphql` is the deployment's, name by name, so that a client changes its address and sends the token.
Bucket is the folder that was ingested, as a path, because two folders may have one name; Key is the path of
the file below it, with forward slashes, or the name of a file that was ingested by itself. What is unknown is
null where one thing is asked for, and an empty list of images or buckets.

Errors come in `errors` with what went wrong and its place in the question, and repeat no value that was given:
it may be a patient's. The status is 200, and 400 for a body that holds no question. There is no page to explore
the interface with: it would load scripts from elsewhere.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from anyio import to_thread
from ariadne import QueryType, graphql_sync, make_executable_schema
from fastapi import APIRouter, Request
from graphql import GraphQLError, GraphQLResolveInfo, GraphQLSchema, GraphQLSyntaxError
from graphql.language import ValueNode, VariableDefinitionNode
from numpy.typing import NDArray

from medsearch_desktop.errors import LibraryError, MedSearchError, NotFoundError, RequestError
from medsearch_desktop.library import Library
from medsearch_desktop.records import PlacedImage, Report
from medsearch_desktop.report.parity import PARITY_FIELDS, parity_fields, parity_sources
from medsearch_desktop.search.text import matching_documents, search_documents
from medsearch_desktop.search.wording import any_word, documents_worded_like
from medsearch_desktop.serve.api.answers import Json
from medsearch_desktop.serve.commands import tell_where
from medsearch_desktop.serve.errors import kind_of
from medsearch_desktop.serve.graphql_limits import Budget, read_question
from medsearch_desktop.serve.security import INTERNAL

SCHEMA = Path(__file__).with_name("schema.graphql")
FOUND = 20
MOST_REPORTS = 1000
MOST_SIMILAR = 100
_DEFAULT_COUNT = 10
_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")
_SECTIONS = ("Examination", "Findings", "Impression", "Indication", "Technique")
# The deployment keeps these two of every report, and never fills the others.
_NEVER_NULL = ("Findings", "Impression")
# The words of an error may be a patient's: what is told of one is told by `_error_json`.
_SILENT = logging.Logger("graphql", level=logging.CRITICAL + 1)

Row = dict[str, Any]
Resolver = Callable[..., Any]
Info = GraphQLResolveInfo[Budget]


def graphql_routes(library: Library) -> APIRouter:
    """Return the route /graphql."""
    schema = make_schema(library)
    router = APIRouter(include_in_schema=False)

    @router.post("/graphql")
    async def ask(request: Request) -> Json:
        """Answer a GraphQL question: {"query", "variables", "operationName"}."""
        body = await request.body()
        return await to_thread.run_sync(answer, schema, body)

    return router


def answer(schema: GraphQLSchema, body: bytes) -> Json:
    """Answer the body of a request."""
    try:
        question = _question(body)
    except RequestError as error:
        return Json({"errors": [_error_json(GraphQLError("", original_error=error))]}, 400)
    _, result = graphql_sync(
        schema,
        question,
        context_value=Budget(),
        query_parser=lambda _, asked: _read(asked["query"]),
        error_formatter=_error_json,
        logger=_SILENT,
    )
    return Json(result)


def make_schema(library: Library) -> GraphQLSchema:
    """Return the executable schema over a library."""
    query = QueryType()
    for name, resolver in {**_record_resolvers(library), **_bucket_resolvers(library)}.items():
        query.set_field(name, resolver)
    return make_executable_schema(SCHEMA.read_text("utf-8"), query)


# Images and reports


def _record_resolvers(library: Library) -> dict[str, Resolver]:
    holdings = library.holdings

    def get_image(_: Any, info: Info, **given: Any) -> Row | None:
        return next(iter(_images(holdings.placed_images([_identifier(given, "ImageId")]), info)), None)

    def get_images(_: Any, info: Info, **given: Any) -> list[Row]:
        report_id = _identifier(given, "ReportId")
        return _images(holdings.images_of_reports([report_id])[report_id], info)

    def get_report(_: Any, _info: Info, **given: Any) -> Row | None:
        try:
            stored = library.report(_identifier(given, "ReportId"))
        except NotFoundError:
            return None
        return _reports(library, [stored.report])[0]

    def list_reports(_: Any, info: Info, **given: Any) -> list[Row]:
        offset = _count(given, "from", default=0, least=0, most=None)
        count = _count(given, "size", default=_DEFAULT_COUNT, least=0, most=MOST_REPORTS)
        info.context.spend(count)
        stored = holdings.page_of_reports(offset=offset, count=count)
        return _reports(library, [each.report for each in stored])

    def search_reports(_: Any, info: Info, **given: Any) -> list[Row]:
        info.context.spend(FOUND)
        tree = any_word(_text(given, "input"))
        if tree is None:
            return []
        _, ranked = search_documents(library.fulltext, tree, k=FOUND)
        stored = holdings.reports_of_documents(doc_no for doc_no, _ in ranked)
        return _reports(library, [each.report for each in stored])

    def get_similar_images(_: Any, info: Info, **given: Any) -> list[Row] | None:
        image_id = _identifier(given, "ImageId")
        count = _count(given, "k", default=_DEFAULT_COUNT, least=1, most=MOST_SIMILAR)
        # What is no identifier would be taken for a path, and a request reaches no file by its name.
        if library.catalogue.image(image_id) is None:
            return None
        hits = library.similar(image_id, k=count).hits
        return _images(holdings.placed_images(hit.image_id for hit in hits), info)

    return {
        "getImage": get_image,
        "getImages": get_images,
        "getReport": get_report,
        "listReports": list_reports,
        "searchReports": search_reports,
        "getSimilarImages": get_similar_images,
    }


def _images(images: Sequence[PlacedImage], info: Info) -> list[Row]:
    info.context.spend(len(images))
    return [
        {
            "ImageId": image.image_id,
            "ReportId": image.report_id,
            "Bucket": (place := _place(image.root, image.path))[0],
            "Key": place[1],
            "Modality": image.modality or None,
            "ViewPosition": image.view_position or None,
            "BodyPartExamined": image.body_part or None,
        }
        for image in images
    ]


def _place(root: str, path: str) -> tuple[str, str]:
    folder = PurePath(path).parent if root == path else PurePath(root)
    return str(folder), PurePath(path).relative_to(folder).as_posix()


def _reports(library: Library, reports: Sequence[Report]) -> list[Row]:
    ids = [report.report_id for report in reports]

    @cache
    def images() -> dict[str, list[PlacedImage]]:
        # Of all reports of the answer at once, when the first is asked for its own.
        return library.holdings.images_of_reports(ids)

    def images_of(report_id: str) -> Resolver:
        return lambda field, **_: _images(images()[report_id], field)

    return [
        {
            "ReportId": report.report_id,
            **_sections(report),
            **parity_fields(report.entities),
            "Images": images_of(report.report_id),
        }
        for report in reports
    ]


def _sections(report: Report) -> dict[str, str | None]:
    parts: dict[str, list[str]] = {name: [] for name in _SECTIONS}
    for section in report.sections:
        parts.get(section.name.capitalize(), []).append(report.text[section.start : section.end].strip())
    return {name: "\n".join(bodies) if bodies or name in _NEVER_NULL else None for name, bodies in parts.items()}


# Buckets


def _bucket_resolvers(library: Library) -> dict[str, Resolver]:
    """Return the resolvers of every count: of which reports (all, found, named, alike) times of what."""
    holdings = library.holdings

    def everything(**_: Any) -> None:
        return None

    def found(**given: Any) -> NDArray[np.int64]:
        tree = any_word(_text(given, "input"))
        if tree is None:
            return np.empty(0, np.int64)
        return holdings.numbers_of_documents(matching_documents(library.fulltext, tree))

    def named(**given: Any) -> NDArray[np.int64]:
        return holdings.numbers_of_reports(_identifiers(given, "input"))

    def alike(**given: Any) -> NDArray[np.int64]:
        try:
            stored = library.report(_identifier(given, "input"))
        except NotFoundError:
            return np.empty(0, np.int64)
        said = _sections(stored.report)
        text = f"{said['Findings']}\n{said['Impression']}"
        numbers = holdings.numbers_of_documents(documents_worded_like(library.fulltext, text))
        others: NDArray[np.int64] = numbers[numbers != stored.report_no]
        return others

    def counting(field: str, among: Callable[..., NDArray[np.int64] | None]) -> Resolver:
        assertions, categories, codes = parity_sources(field)

        def count(_: Any, _info: Info, **given: Any) -> list[Row]:
            buckets = holdings.tally(assertions, categories, codes=codes, among=among(**given))
            return [{"key": value, "doc_count": reports} for value, reports in buckets]

        return count

    resolvers = {f"get{field}byReports": counting(field, named) for field in PARITY_FIELDS}
    for field in (name for name in PARITY_FIELDS if parity_sources(name)[2]):
        resolvers[f"getAll{field}"] = counting(field, everything)
        resolvers[f"get{field}"] = counting(field, found)
        resolvers[f"get{field}bySimilarReport"] = counting(field, alike)
    return resolvers


# What is given


def _question(body: bytes) -> Row:
    try:
        question = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is not JSON", remedy='Send {"query": "..."}') from error
    if not isinstance(question, dict) or not isinstance(question.get("query"), str):
        raise RequestError("the body is no GraphQL question", remedy='Send one object, {"query": "..."}')
    if not isinstance(question.get("variables"), dict | None):
        raise RequestError("the variables are no object", item="variables")
    name = question.get("operationName")
    # An empty one is what some clients send for none.
    if name and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise RequestError("the name of the operation is none", item="operationName")
    return {"query": question["query"], "variables": question.get("variables"), "operationName": name or None}


def _read(text: str) -> Any:
    try:
        return read_question(text)
    except RequestError as error:
        raise GraphQLError("", original_error=error) from error


def _text(given: Row, name: str) -> str:
    """Return a text argument, empty where it is null; halves of surrogate pairs, which no text has, become "?"."""
    return (given.get(name) or "").encode("utf-8", "replace").decode("utf-8")


def _identifier(given: Row, name: str) -> str:
    """Return an identifier, empty where it is null or could not be one: nothing has an empty one."""
    return _as_identifier(given.get(name))


def _as_identifier(value: Any) -> str:
    return value if isinstance(value, str) and _text({"": value}, "") == value else ""


def _identifiers(given: Row, name: str) -> list[str]:
    """Return the identifiers of a JSON list; null in it, an image without a report, names none."""
    refusal = RequestError(
        "is no JSON list of report ids", item=name, remedy='Send a list as a string, such as ["s1", "s2"]'
    )
    try:
        values = json.loads(given.get(name) or "[]")
    except (ValueError, RecursionError) as error:
        raise refusal from error
    if not isinstance(values, list) or not all(isinstance(value, str | None) for value in values):
        raise refusal
    if len(values) > MOST_REPORTS:
        raise RequestError(f"names more than {MOST_REPORTS:,} reports", item=name, remedy="Ask in parts")
    return [_as_identifier(value) for value in values if value is not None]


def _count(given: Row, name: str, *, default: int, least: int, most: int | None) -> int:
    value = given.get(name)
    number = default if value is None else int(value)
    if number < least or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"{least} to {most:,}"
        raise RequestError(f"has to be {limits}", item=name)
    return number


# What is told of an error


def _error_json(error: GraphQLError, debug: bool = False) -> dict[str, Any]:  # noqa: ARG001 - as ariadne calls it
    row: dict[str, Any] = {"message": "", "locations": [], "path": error.path}
    row["locations"] = [{"line": place.line, "column": place.column} for place in error.locations or ()]
    row = {name: value for name, value in row.items() if value or name == "message"}
    cause: BaseException | None = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if isinstance(cause, MedSearchError) and not isinstance(cause, LibraryError):
        # An item that is not of the request may be a path.
        named = f"{cause.item} " if isinstance(cause, RequestError) and cause.item else ""
        told = f"{named}{cause.message}"
        row["message"] = f"{told}. {cause.remedy}" if cause.remedy else told
        row["extensions"] = {"kind": kind_of(type(cause))}
    elif isinstance(cause, GraphQLError) and error.path is None:
        row["message"] = _plain_message(error)
        row["extensions"] = {"kind": "query"}
    else:
        assert isinstance(cause, Exception)
        tell_where(cause)
        row["message"] = INTERNAL.body["error"]["message"]
        row["extensions"] = {"kind": "internal"}
    return row


def _plain_message(error: GraphQLError) -> str:
    """Return what graphql-core says, unless it would repeat a value that was given."""
    if isinstance(error, GraphQLSyntaxError):
        if "Parsing aborted" in error.message:
            return "the question is too long or nested too deeply. Ask in parts"
        return "the question cannot be read from this place on"
    for node in error.nodes or ():
        if isinstance(node, VariableDefinitionNode):
            return f"the value of ${node.variable.name.value} is not of the type that it is declared with"
        if isinstance(node, ValueNode):
            return "this value is not of the type that is wanted here"
    return error.message
