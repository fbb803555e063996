"""Building queries of the full-text index; a `Query` is opaque to everyone outside this folder."""

from __future__ import annotations

from collections.abc import Sequence

import tantivy
from tantivy import Occur
from tantivy import Query as Query

from medsearch_desktop.store.fulltext.fields import schema


def everything() -> Query:
    """Match every document."""
    return Query.const_score_query(Query.all_query(), 0.0)


def words(field: str, tokens: Sequence[str]) -> Query:
    """Match the stemmed tokens next to each other in a text field; at least one is given."""
    if len(tokens) == 1:
        return Query.term_query(schema(), field, tokens[0], "freq")
    return Query.phrase_query(schema(), field, list(tokens))


def beginning(field: str, tokens: Sequence[str]) -> Query:
    """Match the plain tokens next to each other in a text field, the last as a beginning."""
    pattern = f"{_escaped(tokens[-1])}.*"
    if len(tokens) == 1:
        return Query.regex_query(schema(), f"{field}_plain", pattern)
    patterns: list[str | tuple[int, str]] = [*(_escaped(token) for token in tokens[:-1]), pattern]
    return Query.regex_phrase_query(schema(), f"{field}_plain", patterns)


def keyword(field: str, key: str) -> Query:
    """Match one exact key of a keyword field."""
    return Query.const_score_query(Query.term_query(schema(), field, key, "basic"), 0.0)


def keyword_beginning(field: str, start: str) -> Query:
    """Match the keys of a keyword field that begin with `start`."""
    return Query.const_score_query(Query.regex_query(schema(), field, f"{_escaped(start)}.*"), 0.0)


def between(
    field: str, low: float | None, high: float | None, *, include_low: bool = True, include_high: bool = True
) -> Query:
    """Match the numbers of "age" or "day" in a range, of which at least one end is given."""
    kind = tantivy.FieldType.Float if field == "age" else tantivy.FieldType.Integer
    found = Query.range_query(
        schema(),
        field,
        kind,
        low,
        high,
        include_lower=include_low or low is None,
        include_upper=include_high or high is None,
    )
    return Query.const_score_query(found, 0.0)


def all_of(queries: Sequence[Query], *, but_not: Sequence[Query] = ()) -> Query:
    """Match what all of `queries`, and none of `but_not`, match; scores add up."""
    required = [(Occur.Must, query) for query in queries] or [(Occur.Must, everything())]
    if len(required) == 1 and not but_not:
        return required[0][1]
    return Query.boolean_query([*required, *((Occur.MustNot, query) for query in but_not)])


def any_of(queries: Sequence[Query]) -> Query:
    """Match what at least one of `queries` matches; scores add up."""
    return queries[0] if len(queries) == 1 else Query.boolean_query([(Occur.Should, query) for query in queries])


def at_least(count: int, queries: Sequence[Query]) -> Query:
    """Match what at least `count` of `queries` match; scores add up."""
    return Query.boolean_query([(Occur.Should, query) for query in queries], minimum_number_should_match=count)


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in r"\.+*?()|[]{}^$#&-~" else character for character in text)
