"""How many reports say what: counts of codes and of mentions, by the database, without reading a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.records import Assertion, Category
from medsearch_desktop.store.database import Database

# White space as Python's `split` knows it; RE2's \s is ASCII's alone.
_BLANKS = r"[\s\x0b\x1c-\x1f\x{85}\p{Z}]+"
_TITLES = """
SELECT title, count(DISTINCT report_no) AS reports FROM entities
WHERE {where} AND icd10cm != '' GROUP BY title ORDER BY reports DESC, title LIMIT $k
"""
# A report counts once, by its first spelling; what differs in capitals and white space only is one value.
_MENTIONS = """
WITH said AS (
    SELECT report_no, "start", "end", trim(regexp_replace(text, $blanks, ' ', 'g')) AS written
    FROM entities WHERE {where} AND NOT inferred
),
once AS (
    SELECT report_no, lower(written) AS folded, first(written ORDER BY "start", "end") AS written
    FROM said GROUP BY report_no, folded
),
spelt AS (SELECT folded, written, count(*) AS reports FROM once GROUP BY folded, written)
SELECT first(written ORDER BY spelt.reports DESC, written), sum(spelt.reports)::BIGINT AS total
FROM spelt GROUP BY folded ORDER BY total DESC, folded LIMIT $k
"""


class Tallies:
    """Counts what the reports of a library say; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def titles(
        self,
        assertions: Sequence[Assertion],
        categories: Sequence[Category],
        *,
        among: NDArray[np.int64] | None = None,
        k: int = 10,
    ) -> list[tuple[str, int]]:
        """Return (title, reports) of the `k` ICD-10-CM titles that most reports have, the fullest first.

        Mentions of these assertions and categories count, in all reports or in those of the numbers `among`.
        """
        return self._count(_TITLES, assertions, categories, among=among, k=k)

    def mentions(
        self,
        assertions: Sequence[Assertion],
        categories: Sequence[Category],
        *,
        among: NDArray[np.int64] | None = None,
        k: int = 10,
    ) -> list[tuple[str, int]]:
        """Return likewise (mention in its commonest spelling, reports), without findings that were concluded."""
        return self._count(_MENTIONS, assertions, categories, among=among, k=k, blanks=_BLANKS)

    def _count(
        self,
        sql: str,
        assertions: Sequence[Assertion],
        categories: Sequence[Category],
        *,
        among: NDArray[np.int64] | None,
        **parameters: Any,
    ) -> list[tuple[str, int]]:
        where = "assertion IN (SELECT unnest($assertions)) AND category IN (SELECT unnest($categories))"
        if among is not None:
            where += " AND report_no IN (SELECT no FROM numbers)"
        names = {
            "assertions": [each.value for each in assertions],
            "categories": [each.value for each in categories],
        }
        rows = self._database.read(sql.format(where=where), {**names, **parameters}, numbers=among)
        return [(value, count) for value, count in rows]
