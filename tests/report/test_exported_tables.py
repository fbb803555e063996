"""Tables as databases and spreadsheets really write them: no row takes the text of another, or passes for final."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from medsearch_desktop.config import load_config
from medsearch_desktop.errors import ReportError
from medsearch_desktop.feeds import read_reports
from medsearch_desktop.records import FileKind, SourceFile
from medsearch_desktop.report.documents import Found, Limits, is_document, read_documents
from medsearch_desktop.statements import ReportStatus, Statement, Written

LIMITS = Limits(report=2000, file=1_000_000)


def read(table: str | bytes, name: str = "t.csv") -> list[Found]:
    data = table.encode() if isinstance(table, str) else table
    assert is_document(data, name, LIMITS)
    return list(read_documents(data, name=name, limits=LIMITS))


def told(table: str | bytes, name: str = "t.csv") -> list[str]:
    return [f"! {each.message}" if isinstance(each, ReportError) else each.text for each in read(table, name)]


def stated(table: str) -> list[Statement]:
    found = [each.stated for each in read(table) if isinstance(each, Written)]
    return [each for each in found if each is not None]


def test_a_text_with_the_separator_in_it_is_not_cut_short() -> None:
    rows = (
        "Accession,Report Text,Date\nA1,No pneumothorax, no effusion,2024-01-02\nA2,Clear.,2024-01-02\nA3,Clear,,,,\n"
    )
    assert told(rows) == ["! has 4 cells for 3 columns", "Clear.", "Clear"]


@pytest.mark.parametrize("last", ['A3,"Clear.",2024-01-02\n', ""])
def test_a_quotation_mark_that_is_not_closed_gives_nobody_the_report_of_others(last: str) -> None:
    rows = f'Accession,Report Text,Date\nA1,"No effusion,2024-01-02\nA2,Large effusion.,2024-01-02\n{last}'
    assert told(rows) == ["! has a quotation mark that is not closed, or a cell too long"]
    after = "A4,Healed.,2024-01-02\n" if last else ""
    assert told(rows + after)[1:] == (["Healed."] if last else [])


def test_quotation_marks_as_databases_escape_them_and_spaces_before_them() -> None:
    assert told('id,text,x\n1,"Said \\"no, none\\" today.",2\n') == ['Said "no, none" today.']
    assert told('id, text, x\n1, "Said ""no, none"" today.", ""\n') == ['Said "no, none" today.']


@pytest.mark.parametrize(
    "head",
    ["sep=;\nid;text\n", '"sep=;"\r\nid;text\r\n', "\n\nid;text\n", '"id";"Report\nText"\n', "id;text\r"],
)
def test_what_spreadsheets_put_before_the_names_and_within(head: str) -> None:
    table = f"{head}1;No effusion, none.\n"
    assert told(table) == ["No effusion, none."]
    assert told(table.encode("utf-16")) == ["No effusion, none."]


def test_a_table_of_more_columns_than_are_looked_at() -> None:
    names = ",".join(["id", "text", *(f"x{n}" for n in range(2500))])
    assert is_document(names.encode()[:4096] + b"\n", "t.csv", LIMITS)
    table = f"{names}\n1,Clear.{',y' * 2500}\n".encode()
    assert [each.text for each in read_documents(table, name="t.csv", limits=LIMITS)] == ["Clear."]


def test_a_table_that_is_called_a_text_is_no_report_of_many_patients() -> None:
    table = "Accession\tReport Text\nA1\tNo effusion.\nA2\tEffusion.\n"
    assert told(table, "t.txt") == ["No effusion.", "Effusion."]
    # Words that a report may begin with, and names without anybody's number.
    for text in ("Accession, Findings\nNone, none.\n", "Findings\tImpression\nClear.\tNormal.\n", "Findings: clear.\n"):
        assert not is_document(text.encode(), "t.txt", LIMITS)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("CANCELED Cancelled Deleted Voided Entered-in-error X", ReportStatus.CANCELLED),
        ("Prelim PRELIMINARY Draft Unsigned In_Progress Dictated P", ReportStatus.PRELIMINARY),
        ("Addended Addendum Amended Revised CORRECTED C", ReportStatus.CORRECTED),
        ("Final Signed F Verified anything", ReportStatus.FINAL),
    ],
)
def test_statuses_by_the_words_of_systems(words: str, status: ReportStatus) -> None:
    rows = "".join(f"{n},P1,Text.,{word}\n" for n, word in enumerate(words.split()))
    assert {each.status for each in stated("Report ID,MRN,Report Text,Status\n" + rows)} == {status}


def test_nothing_is_nobody_s_number() -> None:
    rows = stated("Report ID,MRN,Accession,Report Text,Status\nNULL,nan,<NA>,Text.,NULL\n7.0,12345.0,A.0,Text.,F\n")
    assert [(each.names, each.patient_ids, each.accession_numbers) for each in rows] == [
        ((), (), ()),
        (("row\x1f7\x1f12345",), ("12345",), ("A.0",)),
    ]


def test_cells_lose_their_form() -> None:
    rows = 'id,findings,impression\n1,"<p>Nodule &lt; 5 mm.</p><br>","{\\rtf1\\ansi Normal \u2013 caf\\\'e9.\\par}"\n'
    assert told(rows) == ["FINDINGS: Nodule < 5 mm.\n\nIMPRESSION: Normal – café."]
    assert told('id,text\n1,"{\\rtf1 \\u9999999 x}"\n2,Clear.\n') == [
        "! is an RTF document that cannot be read",
        "Clear.",
    ]


def test_columns_of_parquet_of_any_type(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT * FROM (VALUES"
            " (12345::DOUBLE, 'NaN'::DOUBLE, 'Text one.'::BLOB, ['a', 'b'], DATE '2024-03-15', 'prelim'),"
            " (7, 8, 'Text two.'::BLOB, [], NULL, 'final')"
            ") t(report_id, mrn, report_text, findings, study_date, status))"
            f" TO '{path}' (FORMAT PARQUET, COMPRESSION ZSTD)"
        )
    size = path.stat().st_size
    file = SourceFile(str(path), str(tmp_path), size, 0, FileKind.REPORT)
    one, two = read_reports(None, file, config=load_config()).reports
    assert (one.text, two.text) == ("Text one.\n\nFINDINGS:\na\nb", "Text two.")
    assert one.stated is not None
    assert two.stated is not None
    assert (one.stated.number, one.stated.patient_ids, one.stated.study_date) == ("12345", (), "2024-03-15")
    # Versions, as those of any table that tells whose and how far along.
    assert (two.stated.names, two.stated.status) == (("row\x1f7\x1f8",), ReportStatus.FINAL)
