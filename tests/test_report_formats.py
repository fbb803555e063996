"""Reports of every format through an ingest: read, joined to their study, found, listed where they cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import messages_made as made
import pytest
from makers import Film, dataset, uid

from medsearch_desktop.errors import ConfigError
from medsearch_desktop.library import Library, open_library

TEXT = "FINDINGS: Large left pleural effusion. No pneumothorax.\nIMPRESSION: Left pleural effusion."


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with the film of the study that the reports of these tests are of."""
    folder = tmp_path / "source" / "films"
    folder.mkdir(parents=True)
    dataset(Film()).save_as(folder / "film.dcm", enforce_file_format=True)
    dataset(Film(patient=2, study=2)).save_as(folder / "other.dcm", enforce_file_format=True)
    return folder.parent


FILES = {
    "report.sr": made.saved(made.sr()),
    "report.dcm": made.saved(made.sr(sop_class=made.BASIC_TEXT_SR)),
    "report.hl7": made.hl7(*TEXT.split("\n")),
    "no-suffix": made.hl7(*TEXT.split("\n")),
    "framed.txt": b"\x0b" + made.hl7(*TEXT.split("\n")) + b"\x1c\r",
    "report.json": made.as_bytes(made.diagnostic_report(TEXT)),
    "report.csv": f'report_id,accession_number,findings\nr1,A00001,"{TEXT}"\n'.encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_report_is_read_found_and_joined_to_its_study(library: Library, source: Path, name: str) -> None:
    (source / "reports").mkdir()
    (source / "reports" / name).write_bytes(FILES[name])
    for path in source.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    summary = library.ingest([source], metadata_only=True)
    assert (summary.failures, summary.reports) == ((), 1)
    (hit,) = library.search('"pleural effusion" present:effusion absent:pneumothorax impression:effusion').hits
    assert hit.study_uid == uid(1, 1)
    assert library.ingest([source], metadata_only=True).unchanged == 3


def test_a_pdf_is_read_and_joined_by_what_it_says_of_itself(library: Library, source: Path) -> None:
    (source / "report.pdf").write_bytes(made.pdf("Accession: A00001", *TEXT.split("\n")))
    assert library.ingest([source], metadata_only=True).failures == ()
    (hit,) = library.search("present:effusion").hits
    assert (hit.report_id, hit.study_uid) == ("report", uid(1, 1))


def test_a_scanned_pdf_is_listed_as_needing_text_recognition(library: Library, source: Path) -> None:
    (source / "scan.pdf").write_bytes(made.scanned_pdf())
    (failure,) = library.ingest([source], metadata_only=True).failures
    assert failure.path.endswith("scan.pdf")
    assert "no text layer" in failure.reason
    assert "OCR" in failure.reason


def test_an_sr_gives_its_study_a_row_with_and_without_pixels_being_read(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / "sr").write_bytes(made.saved(made.sr(study=uid(7, 7))))
    pdf = made.header(uid=uid(7, 7, 2), study=uid(7, 7), sop_class=made.ENCAPSULATED_PDF, modality="DOC")
    pdf.MIMETypeOfEncapsulatedDocument = "application/pdf"
    pdf.EncapsulatedDocument = made.pdf("IMPRESSION: Zebra sign.") + b"\0"
    (folder / "pdf").write_bytes(made.saved(pdf))
    summary = library.ingest([folder])
    assert (summary.failures, summary.images, summary.reports) == ((), 2, 2)
    study = library.holdings.study(uid(7, 7))
    assert {image.modality for image in study.images} == {"SR", "DOC"}
    assert len(study.report_ids) == 2
    assert [hit.study_uid for hit in library.search("zebra").hits] == [uid(7, 7)]
    assert library.ingest([folder]).unchanged == 2


def test_an_sr_without_text_is_listed_and_its_study_known(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / "sr").write_bytes(made.saved(made.sr(made.content("CONTAINER", "121070", "Findings"))))
    summary = library.ingest([folder])
    assert (summary.failed, summary.images, summary.reports) == (1, 1, 0)
    assert "text of a report" in summary.failures[0].reason


def test_a_batch_gives_every_report_and_lists_what_cannot_be_read(library: Library, source: Path) -> None:
    messages = [made.hl7(f"IMPRESSION: Effusion number{n}.", filler=f"A{n:05d}") for n in range(1, 101)]
    messages[7] = made.hl7(filler="A00008")
    (source / "batch.hl7").write_bytes(b"FHS|^~\\&|RIS\rBHS|^~\\&|RIS\r" + b"".join(messages) + b"BTS|100\rFTS|1\r")
    summary = library.ingest([source], metadata_only=True)
    assert summary.reports == 99
    assert [failure.reason for failure in summary.failures] == [
        "message 8: holds no text of a report. Send the text in OBX segments"
    ]
    assert library.totals().reports == 99
    assert [hit.report_id for hit in library.search("number100").hits] == ["A00100"]
    # Read though there were too many to be read at once.
    assert library.search("present:effusion").total == 99


def test_rows_are_joined_by_their_columns_alone(library: Library, source: Path) -> None:
    rows = [
        "study_id,subject_id,StudyDate,findings",
        "50000002,P0002,,Nodule one.",
        "50000001,x,,Nodule of another patient.",
        ",P0001,2024-03-15,Nodule two.",
        ",,,Nodule three.",
    ]
    (source / "films" / "report.csv").write_text("\n".join(rows), "utf-8")
    library.ingest([source], metadata_only=True)
    found = {hit.report_id: hit.study_uid for hit in library.search("nodule").hits}
    assert found == {"50000002": uid(2, 2), "50000001": None, "report-3": uid(1, 1), "report-4": None}


def test_a_parquet_table(library: Library, source: Path) -> None:
    file = source / "reports [2024].parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 'r' || i AS note_id, 'A00001' AS accession, 'IMPRESSION: Pleural effusion ' || i AS report,"
            f" i AS other FROM range(200) t(i)) TO '{file}' (FORMAT parquet)"
        )
    summary = library.ingest([source], metadata_only=True)
    assert (summary.failures, summary.reports) == ((), 200)
    assert library.search("present:effusion").total == 200
    assert {hit.study_uid for hit in library.search("effusion", k=200).hits} == {uid(1, 1)}


def test_names_and_contents_that_promise_what_they_do_not_hold_are_listed(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "a.hl7").write_bytes(b"hello")
    (folder / "b.pdf").write_bytes(b"hello")
    (folder / "c.parquet").write_bytes(b"PAR1 and no more")
    (folder / "d.json").write_bytes(b'{"resourceType": "Bundle", "entry": [')
    (folder / "e.hl7").write_bytes(b"MSH|")
    for name, data in {
        "package.json": b'{"name": "x"}',
        "films.csv": b"path,view\na,PA\n",
        "README.pdf": made.pdf("x"),
    }.items():
        (folder / name).write_bytes(data)
    summary = library.ingest([folder])
    assert (summary.failed, summary.ignored) == (5, 3)
    assert all(failure.reason.count(". ") <= 1 and failure.reason for failure in summary.failures)


def test_an_ingest_that_was_cut_off_before_many_were_read_goes_on(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "feed"
    folder.mkdir()
    rows = "\n".join(f"r{n},FINDINGS: Pleural effusion {n}." for n in range(300))
    (folder / "t.csv").write_text(f"report_id,text\n{rows}\n", "utf-8")
    with monkeypatch.context() as cut:
        cut.setattr(library._review, "read_new", lambda stop: 0)
        assert library.ingest([folder]).reports == 300
    assert (library.search("effusion").total, library.search("present:effusion").total) == (300, 0)
    library.ingest([folder])
    assert library.search("present:effusion").total == 300


def test_a_message_dropped_beside_images_is_not_joined_to_them_by_its_place(library: Library, source: Path) -> None:
    (source / "films" / "other.dcm").unlink()
    (source / "films" / "report.hl7").write_bytes(made.hl7(TEXT.replace("\n", "~"), filler="Z9", patient="P9"))
    library.ingest([source], metadata_only=True)
    (hit,) = library.search("present:effusion").hits
    assert (hit.report_id, hit.study_uid) == ("Z9", None)


def test_a_wrong_setting_stops_the_ingest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n", "utf-8")
    with (
        open_library(tmp_path / "library", create=True, report_columns="nonsense") as library,
        pytest.raises(ConfigError, match="report_columns"),
    ):
        library.ingest([tmp_path / "t.csv"])


def test_report_ids_that_two_tables_give_are_told_apart(library: Library, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text(f"report_id,text\n1,Nodule of {name}.\n1,Nodule again.\n", "utf-8")
    library.ingest([tmp_path / "a", tmp_path / "b"])
    ids = [hit.report_id for hit in library.search("nodule").hits]
    assert len(set(ids)) == 4
    for name in ("a", "b"):
        (tmp_path / name / "t.csv").write_text(f"report_id,text\n1,Nodule of {name}.\n1,Nodule anew.\n", "utf-8")
    library.ingest([tmp_path / "a", tmp_path / "b"])
    assert {hit.report_id for hit in library.search("nodule").hits} == set(ids)


def test_a_file_of_more_than_the_limit_is_listed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\n" + "Effusion.\n" * 200, "utf-8")
    with open_library(tmp_path / "library", create=True, max_feed_bytes=1000) as library:
        (failure,) = library.ingest([tmp_path / "t.csv"]).failures
    assert "max_feed_bytes" in failure.reason
