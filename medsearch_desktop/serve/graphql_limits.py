"""What a GraphQL question may cost: its size before it is looked at any closer, and the records of its answer.

Looking whether a question fits the schema takes time with the square of its fields, so it is measured
first. The schema itself ends after three levels; the limits below bound what aliases, fragments and
introspection make of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphql import DocumentNode, FieldNode, FragmentDefinitionNode, FragmentSpreadNode, OperationDefinitionNode, parse
from graphql.language import SelectionSetNode

from medsearch_desktop.errors import RequestError

MOST_TOKENS = 5000
# A client's introspection takes 230 fields with its fragments written out, and 18 levels.
MOST_FIELDS = 500
MOST_DEPTH = 24
MOST_QUESTIONS = 20
# Reports and images of one answer.
MOST_RECORDS = 10_000


@dataclass(slots=True)
class Budget:
    """The records that are left to one answer."""

    left: int = MOST_RECORDS

    def spend(self, records: int) -> None:
        """Count records that are about to be answered with. Raises RequestError when the answer gets too large."""
        self.left -= records
        if self.left < 0:
            raise RequestError(
                f"the answer would hold more than {MOST_RECORDS:,} reports and images",
                remedy="Ask for fewer at a time",
            )


def read_question(text: str) -> DocumentNode:
    """Return the document of a GraphQL question within the limits. Raises GraphQLError, RequestError."""
    try:
        document = parse(text, max_tokens=MOST_TOKENS)
        _measure_all(document)
    except RecursionError as error:
        raise _too_large("has more than {} levels", MOST_DEPTH) from error
    return document


def _measure_all(document: DocumentNode) -> None:
    definitions = document.definitions
    fragments = {each.name.value: each for each in definitions if isinstance(each, FragmentDefinitionNode)}
    measure = _Measure(fragments)
    sizes = [measure.of(each.selection_set) for each in definitions if isinstance(each, OperationDefinitionNode)]
    # Those that no operation uses are looked at too.
    depths = [size.depth for size in (*sizes, *map(measure.of_fragment, fragments))]
    for number, most, what in (
        (max(sum(size.fields for size in sizes), measure.written), MOST_FIELDS, "has more than {} fields"),
        (max(depths, default=0), MOST_DEPTH, "has more than {} levels"),
        (max((size.questions for size in sizes), default=0), MOST_QUESTIONS, "asks more than {} things at once"),
    ):
        if number > most:
            raise _too_large(what, most)


@dataclass(frozen=True, slots=True)
class _Size:
    """All fields with fragments written out, those of the first level, and how deep they lie."""

    fields: int = 0
    questions: int = 0
    depth: int = 0


@dataclass(slots=True)
class _Measure:
    """Measures selections; `written` counts the fields as they stand there, each fragment's once."""

    fragments: dict[str, FragmentDefinitionNode]
    known: dict[str, _Size] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    written: int = 0

    def of(self, selections: SelectionSetNode) -> _Size:
        """Return the size of what is selected; each fragment is measured once, however often it stands there."""
        fields = questions = depth = 0
        for each in selections.selections:
            if isinstance(each, FieldNode):
                self.written += 1
                inner = self.of(each.selection_set) if each.selection_set else _Size()
                size = _Size(1 + inner.fields, 1, inner.depth)
            elif isinstance(each, FragmentSpreadNode):
                size = self.of_fragment(each.name.value)
            else:
                size = self.of(_selections(each))
            fields, questions = fields + size.fields, questions + size.questions
            # A fragment is a level too: it may hold nothing but another.
            depth = max(depth, 1 + size.depth)
        return _Size(fields, questions, depth)

    def of_fragment(self, name: str) -> _Size:
        """Return the size of a fragment; one that is not there is the schema's to refuse."""
        if name in self.open:
            raise RequestError("a fragment of the question holds itself")
        if name not in self.known:
            if (fragment := self.fragments.get(name)) is None:
                return _Size()
            self.open.add(name)
            self.known[name] = self.of(fragment.selection_set)
            self.open.remove(name)
        return self.known[name]


def _selections(node: Any) -> SelectionSetNode:
    selections: SelectionSetNode = node.selection_set
    return selections


def _too_large(what: str, most: int) -> RequestError:
    return RequestError(f"the question {what.format(most)}", remedy="Ask in parts")
