from __future__ import annotations

from medsearch_desktop.records import Category
from medsearch_desktop.report.assertion import Mention
from medsearch_desktop.report.lexicon import Term
from medsearch_desktop.report.merge import Candidate, Source, merge


def mention(start: int, end: int, name: str = "x", category: Category = Category.DIAGNOSIS) -> Mention:
    return Mention(start, end, Term(name, (name,), category, (), "", "", ""))


def candidate(start: int, end: int, source: Source = Source.OWN) -> Candidate:
    return Candidate(mention(start, end, source.name), source)


def kept(*others: Candidate, lexicon: tuple[Mention, ...] = ()) -> list[tuple[int, int, str]]:
    return [(each.start, each.end, each.term.name) for each in merge(lexicon, others)]


def test_nothing_overlaps_what_the_lexicon_found() -> None:
    lexicon = (mention(2, 4),)
    others = (candidate(0, 3), candidate(2, 4), candidate(0, 9, Source.IMPORTED), candidate(4, 5), candidate(0, 2))
    assert kept(*others, lexicon=lexicon) == [(0, 2, "OWN"), (4, 5, "OWN")]


def test_a_place_may_stand_inside_but_is_not_found_twice() -> None:
    place = (mention(1, 2, category=Category.ANATOMY),)
    assert kept(candidate(1, 3), lexicon=place) == [(1, 3, "OWN")]
    assert kept(candidate(1, 2), lexicon=place) == []


def test_the_longest_counts_whoever_found_it() -> None:
    assert kept(candidate(0, 2, Source.IMPORTED), candidate(0, 3)) == [(0, 3, "OWN")]
    assert kept(candidate(0, 1, Source.ABBREVIATION), candidate(0, 2, Source.IMPORTED)) == [(0, 2, "IMPORTED")]


def test_of_equally_long_ones_the_source_decides() -> None:
    sources = (Source.OWN, Source.IMPORTED, Source.ABBREVIATION)
    for ranked in (sources, sources[::-1]):
        assert kept(*(candidate(3, 5, source) for source in ranked)) == [(3, 5, "ABBREVIATION")]
    assert kept(candidate(1, 3, Source.OWN), candidate(2, 4, Source.IMPORTED)) == [(2, 4, "IMPORTED")]
    assert kept(candidate(2, 4), candidate(1, 3)) == [(1, 3, "OWN")]


def test_the_same_span_twice_is_one() -> None:
    assert kept(candidate(0, 2), candidate(0, 2), candidate(5, 6)) == [(0, 2, "OWN"), (5, 6, "OWN")]
