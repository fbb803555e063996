"""Rows of tables that are versions of one report: told by their identifier, and ranked by status and time."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsearch_desktop.library import open_library
from medsearch_desktop.report.rows import read_table
from medsearch_desktop.statements import ReportStatus, Statement, Written


def stated(table: str) -> list[Statement]:
    rows = read_table(table.encode(), name="t.csv", max_characters=1000)
    return [row.stated for row in rows if isinstance(row, Written) and row.stated is not None]


def test_rows_of_one_report_share_a_name() -> None:
    first, second, other = stated(
        "report_id,patient_id,status,report_time,text\n"
        "R1,P1,P,2024-03-15 10:00:00,Alpha.\nr1,P1,final,2024-03-15T11:00:00,Beta.\nR1,P2,final,,Gamma.\n"
    )
    assert first.names == second.names != other.names
    assert (first.status, first.effective) == (ReportStatus.PRELIMINARY, "2024-03-15T10:00:00")
    assert (second.number, second.effective) == ("r1", "2024-03-15T11:00:00")


@pytest.mark.parametrize(
    "header",
    [
        # Whose report it is, which counts, or which report it is: each is needed.
        "report_id,status,text",
        "report_id,patient_id,text",
        "id,patient_id,status,text",
        "study_id,patient_id,status,text",
    ],
)
def test_rows_without_enough_to_tell_are_reports_of_their_own(header: str) -> None:
    row = ",".join("Text." if name == "text" else "1" for name in header.split(","))
    assert [each.names for each in stated(f"{header}\n{row}\n{row}\n")] == [(), ()]


def test_a_row_of_a_cancellation_needs_no_text() -> None:
    table = "report_id,patient_id,status,text\nR1,P1,cancelled,\nR2,P1,final,\n,P1,cancelled,\n"
    found = list(read_table(table.encode(), name="t.csv", max_characters=1000))
    assert [type(each).__name__ for each in found] == ["Written", "ReportError", "ReportError"]


def test_the_last_row_counts_wherever_it_stands(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    head = "report_id,patient_id,status,report_time,text\n"
    (source / "a.csv").write_text(
        head + "R1,P1,corrected,2024-03-15 12:00:00,IMPRESSION: Gamma effusion.\n"
        "R1,P1,final,2024-03-15 11:00:00,IMPRESSION: Alpha effusion.\n"
        "R2,P1,final,2024-03-15 11:00:00,IMPRESSION: Delta effusion.\n"
    )
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        assert [library.search(word).total for word in ("gamma", "alpha", "delta")] == [1, 0, 1]
        assert [version.is_current for version in library.report_versions("R1")] == [False, True]
        # From another file, later; and the report is no more.
        (source / "b.csv").write_text(head + "R1,P1,cancelled,2024-03-16 09:00:00,\n")
        library.ingest([source])
        assert [library.search(word).total for word in ("gamma", "alpha", "delta")] == [0, 0, 1]
        (source / "b.csv").unlink()
        library.ingest([source])
        assert library.search("gamma").total == 1
        # Without its row of the correction the one before counts again.
        (source / "a.csv").write_text(head + "R1,P1,final,2024-03-15 11:00:00,IMPRESSION: Alpha effusion.\n")
        library.ingest([source])
        assert [library.search(word).total for word in ("gamma", "alpha", "delta")] == [0, 1, 0]
