"""Counts of what reports say, over made-up mentions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medsearch_desktop.records import Assertion, Category, Entity, Report
from medsearch_desktop.report.parity import PARITY_FIELDS, parity_fields, parity_sources
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.reports import insert_entities
from medsearch_desktop.store.tallies import Tallies

PRESENT, SIGN = (Assertion.PRESENT,), (Category.SIGN,)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "library.duckdb")
    yield opened
    opened.close()


def said(text: str, start: int = 0, *, title: str = "", inferred: bool = False, **told: object) -> Entity:
    told = {"category": Category.SIGN, "assertion": Assertion.PRESENT, **told}
    code = "R91.8" if title else ""
    return Entity(
        text=text, start=start, end=start + len(text), section="FINDINGS", icd10cm=code, title=title,
        inferred=inferred, **told,
    )  # fmt: skip


def keep(database: Database, *reports: list[Entity]) -> Tallies:
    made = [(number, Report(f"r{number}", "", entities=tuple(each))) for number, each in enumerate(reports)]
    with database.transaction():
        insert_entities(database, made)
    return Tallies(database)


def test_a_report_counts_once_in_its_first_spelling(database: Database) -> None:
    tallies = keep(
        database,
        [said("Opacity", 9), said("opacity", 40), said("NODULE", 60)],
        [said("opacity"), said("nodule")],
        [said("opacity"), said("left\u00a0 base\nopacity")],
        [said("left base  Opacity"), said("lungs", inferred=True)],
    )
    assert tallies.mentions(PRESENT, SIGN) == [("opacity", 3), ("left base Opacity", 2), ("NODULE", 2)]
    assert tallies.titles(PRESENT, SIGN) == []


def test_the_fullest_come_first_and_no_more_than_asked_for(database: Database) -> None:
    tallies = keep(database, *([said("x", title=f"T{number:02}") for number in range(top)] for top in range(1, 15)))
    assert tallies.titles(PRESENT, SIGN) == [(f"T{number:02}", 14 - number) for number in range(10)]
    assert len(tallies.titles(PRESENT, SIGN, k=3)) == 3
    among = np.array([13, 0, 99])
    assert tallies.titles(PRESENT, SIGN, among=among, k=2) == [("T00", 2), ("T01", 1)]
    assert tallies.mentions(PRESENT, SIGN, among=among) == [("x", 2)]
    assert tallies.titles(PRESENT, SIGN, among=np.empty(0, np.int64)) == []


@pytest.mark.parametrize("field", PARITY_FIELDS)
def test_a_count_is_that_of_the_fields_of_each_report(database: Database, field: str) -> None:
    rng = np.random.default_rng(3)
    reports = []
    for _ in range(40):
        words = rng.integers(0, 6, 12)
        reports.append(
            [
                said(
                    f"word {word}", 10 * place, title=f"title {word % 4}" if word else "",
                    category=list(Category)[rng.integers(0, 3)], assertion=list(Assertion)[rng.integers(0, 4)],
                    inferred=bool(rng.integers(0, 2)),
                )
                for place, word in enumerate(words)
            ]
        )  # fmt: skip
    tallies = keep(database, *reports)
    expected: dict[str, int] = {}
    for entities in reports:
        for value in parity_fields(entities)[field]:
            expected[value] = expected.get(value, 0) + 1
    assertions, categories, codes = parity_sources(field)
    found = (tallies.titles if codes else tallies.mentions)(assertions, categories)
    assert found == sorted(expected.items(), key=lambda bucket: (-bucket[1], bucket[0]))
    assert found
