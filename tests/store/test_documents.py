"""Documents for the text index come in blocks that fit into the memory that the database may take."""

from __future__ import annotations

from pathlib import Path

from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.database import Database

REPORTS, MENTIONS = 1500, 40


def test_short_reports_with_many_mentions_fit_into_the_memory(tmp_path: Path) -> None:
    database = Database(tmp_path / "library.duckdb")
    database.write(
        "INSERT INTO reports (report_no, report_id, path, encoding, text, sections, pipeline_version) SELECT"
        " i, 'r' || i, '/a/r' || i, 'utf-8', repeat('No effusion. ', $mentions), [], '1' FROM range($reports) t(i)",
        {"reports": REPORTS, "mentions": MENTIONS},
    )
    given = {
        "report_no": "i",
        "ordinal": "j",
        "text": "'effusion'",
        "start": "13 * j + 3",
        '"end"': "13 * j + 11",
        "alternatives": "'[]'",
        "attributes": "'[]'",
    }
    values = ", ".join(f"{value} AS {name}" for name, value in given.items())
    rest = ", ".join(
        f"{'0' if kind.startswith(('INT', 'BIG', 'FLOAT')) else 'false' if kind == 'BOOLEAN' else repr('words ' * 8)}"
        f' AS "{name}"'
        for name, kind, *_ in database.read("DESCRIBE entities")
        if name not in {key.strip('"') for key in given}
    )
    database.write(
        f"INSERT INTO entities BY NAME SELECT {values}, {rest} FROM range($reports) a(i), range($mentions) b(j)",
        {"reports": REPORTS, "mentions": MENTIONS},
    )
    seen = [len(document["entities"]) for document in Catalogue(database).documents()]
    assert seen == [1] * REPORTS
    database.close()
