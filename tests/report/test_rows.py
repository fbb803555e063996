"""Tables of reports: which column is what, rows to texts, odd tables."""

from __future__ import annotations

import pytest

from medsearch_desktop.errors import ConfigError, ReportError
from medsearch_desktop.report.documents import Limits, is_document, read_documents
from medsearch_desktop.statements import Written


def read(
    text: str | bytes, *, columns: str = "", name: str = "t.csv", report: int = 1000
) -> list[Written | ReportError]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(read_documents(data, name=name, limits=Limits(report=report, file=100_000, columns=columns)))


def texts(*arguments: str, **options: str) -> list[str]:
    return [each.text for each in read(*arguments, **options) if isinstance(each, Written)]


@pytest.mark.parametrize(
    ("header", "row", "text"),
    [
        ("note_id,subject_id,charttime,text", 'N-1,P1,2024-03-15,"FINDINGS: Effusion."', "FINDINGS: Effusion."),
        ("uid,MeSH,Problems,image,indication,comparison,findings,impression", "1,x,y,z,Cough,,Fluid.,Effusion.",
         "INDICATION: Cough\n\nFINDINGS: Fluid.\n\nIMPRESSION: Effusion."),
        ("Accession Number;Report Text", "A1;Effusion.", "Effusion."),
        ("ACCESSION\tREPORT", "A1\tEffusion.", "Effusion."),
        ("report,impression", "Fluid. Effusion.,Effusion.", "Fluid. Effusion."),
    ],
)  # fmt: skip
def test_columns_by_the_names_that_exports_give_them(header: str, row: str, text: str) -> None:
    assert texts(f"{header}\n{row}\n") == [text]


def test_columns_that_the_setting_names() -> None:
    table = "Auftrag,Befundtext,Größe\n7,Effusion.,x\n"
    assert not is_document(table.encode(), "t.csv", Limits(1000, 1000))
    (found,) = read(table, columns="text=Befundtext, accession=Auftrag, patient_id=größe")
    assert isinstance(found, Written)
    assert found.stated is not None
    assert (found.stated.accession_numbers, found.stated.patient_ids) == (("7",), ("x",))
    for wrong in ("nonsense", "text", "colour=x", "text="):
        with pytest.raises(ConfigError, match="report_columns"):
            read(table, columns=wrong)


def test_what_is_stated() -> None:
    header = "report_id,study_instance_uid,accession,study_id,patient_id,date,status,text"
    (found,) = read(f"{header}\nr1,1.2.3,A1,77,P1,2024-03-15T10:00,P,X.\n")
    assert isinstance(found, Written)
    stated = found.stated
    assert stated is not None
    assert (stated.number, stated.study_uids, stated.accession_numbers) == ("r1", ("1.2.3",), ("A1",))
    assert (stated.study_ids, stated.patient_ids, stated.study_date) == (("77",), ("P1",), "2024-03-15")
    assert (stated.status, stated.names) == ("preliminary", ("row\x1fr1\x1fp1",))


def test_line_breaks_quotes_encodings_and_empty_rows() -> None:
    table = 'id,text\r\n1,"Line one.\r\nLine ""two""."\r\n,,\r\n2,Oedème.\r\n'
    assert texts(table) == ['Line one.\nLine "two".', "Oedème."]
    assert texts("﻿" + table) == ['Line one.\nLine "two".', "Oedème."]
    (_, found) = read(table.encode("cp1252"))
    assert isinstance(found, Written)
    assert (found.text, found.encoding) == ("Oedème.", "cp1252")


def test_rows_without_text_or_with_too_much_are_told_and_the_others_kept() -> None:
    found = read("id,text\n1,\n2," + "x" * 1001 + "\n3,Effusion.\n4\n")
    assert [str(each).split(". ")[0] if isinstance(each, ReportError) else each.text for each in found] == [
        "t.csv, row 1: has no text of a report",
        "t.csv, row 2: holds more than 1000 characters of text",
        "Effusion.",
        "t.csv, row 4: has no text of a report",
    ]
    assert found[2].stated.position == 0


def test_a_cell_larger_than_csv_takes() -> None:
    found = list(
        read_documents(b"id,text\n1," + b"x" * 200_000 + b"\n2,Y.\n", name="t.csv", limits=Limits(300_000, 1_000_000))
    )
    assert [len(each.text) for each in found if isinstance(each, Written)] == [200_000, 2]


@pytest.mark.parametrize("data", [b"a,b\n1,2\n", b"path,view\n", b"findings", b'"unclosed', b"\xff\xfe\0\0", b",,,,\n"])
def test_other_tables_are_none(data: bytes) -> None:
    assert is_document(data, "t.csv", Limits(1000, 1000)) == (data == b"findings")
    assert not is_document(data, "t.dat", Limits(1000, 1000))
