"""What the word at the end of a question may become: fields, their values, codes, findings of the library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medsearch_desktop.records import Bucket, Facet
from medsearch_desktop.search.filters import BY_NAME, CHOICES, FILTERS, Kind

_LAST = re.compile(r'-?(?:(?P<field>\w+):)?(?P<word>"[^"]*|[^\s()":]*)$')
_SIGNS = re.compile(r"[^\w.#-]")


@dataclass(frozen=True, slots=True)
class Completion:
    """One proposal: put `text` in place of the question's characters from `start` to its end.

    `kind` is "field", "value", "code" or "finding", `help` what a person reads beside it, `count` the
    documents of the library that have it (0 where that is not counted).
    """

    kind: str
    text: str
    start: int
    help: str
    count: int = 0


def complete(question: str, facets: Mapping[str, Sequence[Facet | Bucket]], *, k: int) -> tuple[Completion, ...]:
    """Return up to `k` completions of the end of `question`, the most frequent of each kind first.

    `facets` are those of the whole library, as `search.aggregate.facets` counts them.
    """
    match = _LAST.search(question)
    if match is None:
        return ()
    field, word = match["field"], match["word"].lstrip('"').casefold()
    found: Iterator[Completion]
    if field is None:
        found = _words(word, facets, match.start("word"))
    else:
        found = _values(field.lower(), word, facets, match.start("word"))
    return tuple(completion for _, completion in zip(range(k), found, strict=False))


def _words(word: str, facets: Mapping[str, Sequence[Facet | Bucket]], start: int) -> Iterator[Completion]:
    for row in FILTERS:
        if any(name.startswith(word) for name in (row.key, *row.aliases)):
            yield Completion("field", f"{row.key}:", start, row.help)
    if not word:
        return
    for finding in _stated(facets, "finding"):
        name = _finding(finding)
        if name.casefold().startswith(word):
            yield Completion("finding", f"present:{_quoted(name)}", start, name, finding.present)
    for code in _stated(facets, "icd10cm"):
        if code.code.casefold().startswith(word) or word in code.title.casefold():
            yield Completion("code", f"icd:{code.code}", start, code.title, _mentions(code))


def _values(field: str, word: str, facets: Mapping[str, Sequence[Facet | Bucket]], start: int) -> Iterator[Completion]:
    row = BY_NAME.get(field)
    if row is None:
        return
    if row.kind is Kind.STATE:
        for finding in _stated(facets, "finding"):
            if word in (name := _finding(finding)).casefold():
                yield Completion("finding", _quoted(name), start, name, _mentions(finding))
    if row.kind in (Kind.STATE, Kind.CODE):
        for code in _stated(facets, "icd10cm"):
            if code.code.casefold().startswith(word) or (word and word in code.title.casefold()):
                yield Completion("code", code.code, start, code.title, _mentions(code))
    if row.kind is Kind.CHOICE:
        for name, (_, reads) in CHOICES.items():
            if name.startswith(word):
                yield Completion("value", name, start, reads)
    for bucket in facets.get(row.key, ()):
        if isinstance(bucket, Bucket) and bucket.value.casefold().startswith(word):
            yield Completion("value", _quoted(bucket.value), start, bucket.value, bucket.count)


def _stated(facets: Mapping[str, Sequence[Facet | Bucket]], name: str) -> list[Facet]:
    return [facet for facet in facets.get(name, ()) if isinstance(facet, Facet)]


def _finding(facet: Facet) -> str:
    return facet.code.replace("_", " ")


def _mentions(facet: Facet) -> int:
    return facet.present + facet.absent + facet.uncertain


def _quoted(text: str) -> str:
    plain = text.replace('"', " ")
    return f'"{plain}"' if _SIGNS.search(plain) else plain
