"""Joining reports in a large library: asked of the few images that may matter, it comes to what all of them say."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from makers import write_department

from medsearch_desktop import filing, ingest
from medsearch_desktop.filing import ReportNames, link_reports
from medsearch_desktop.library import open_library
from medsearch_desktop.records import Report
from medsearch_desktop.source.joining import ImageRow, ReportKeys, StudyDirectory, message_keys, report_keys
from medsearch_desktop.source.seeking import NAME_SEPARATORS, sought
from medsearch_desktop.statements import Statement
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.database import Database, stored_path
from medsearch_desktop.store.intake import Intake
from medsearch_desktop.store.joins import Joins

ACCESSIONS = ["", "A123", " a123 ", "B456\0", "STRASSE1", "straße1", "0042"]
STUDY_IDS = ["", "1", "50414267", "s50414267", "S50414267 ", "k-7", "KÄSE9"]
PATIENTS = ["", "P1", "p10000032", "10000032", "MÜLLER7", "müller7"]
DATES = ["", "2024-01-31", "2024-02-01"]
FOLDERS = [
    "/data",
    "/data/p10000032/s50414267",
    "/data/p10000032/s50414268",
    "/data/P1",
    "/data/P1/st/se/deep",
    "/data/cd.zip/",
    "/data/cd.zip//IM",
    "/data/Ärzte",
    os.fsdecode(b"/data/\xff"),
]
NAMES = [
    "IM1",
    "CXR12_IM-0001-3001.dcm",
    "cxr12.dcm",
    "A123.png",
    "s50414267.dcm",
    "film",
    "1.2.3.4.55",
    "Röntgen7-1.dcm",
]
REPORTS = ["report", "CXR12", "cxr12_report", "A123-final", "s50414267", "IM1", "note", "RÖNTGEN7", "0042 text", "film"]
TEXTS = [
    "FINDINGS: clear.",
    "Accession: A123",
    "Accession No. STRASSE1",
    "Accession: B456",
    "Study UID: 1.2.3.4.2",
    "Study ID: 50414267",
    "MRN: müller7  Study ID: 1",
    "Patient ID: P1. Study ID: k-7",
]
_IMAGE = "INSERT INTO images SELECT $no, $no::VARCHAR, '', $uid, '', $path, 0, 1, NULL, '', '', '', '', 1, 1, 8, '', ''"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "library.duckdb")
    yield database
    database.close()


def fill(database: Database, rng: random.Random, images: int) -> list[ImageRow]:
    """Write studies with images in folders of their own and of others; return what a directory takes of them."""
    rows = []
    studies = [
        (f"1.2.3.4.{no}", rng.choice(PATIENTS), rng.choice(ACCESSIONS), rng.choice(STUDY_IDS), rng.choice(DATES))
        for no in range(1, 12)
    ]
    for no, (uid, patient, accession, study_id, day) in enumerate(studies):
        database.write(
            "INSERT INTO studies VALUES ($no, $uid, $patient, '', NULL, $accession, $id, nullif($day, '')::DATE, '')",
            {"no": no, "uid": uid, "patient": patient, "accession": accession, "id": study_id, "day": day},
        )
    for no in range(images):
        uid, patient, accession, study_id, day = rng.choice(studies)
        path = f"{rng.choice(FOLDERS)}/{rng.choice(NAMES)}"
        database.write(
            _IMAGE,
            {"no": no, "uid": uid, "path": stored_path(path)},
        )
        rows.append(ImageRow(uid, accession, study_id, patient, path, day))
    return rows


def put_report(database: Database, no: int, path: str, report_id: str, text: str = "") -> None:
    database.write(
        "INSERT INTO reports (report_no, report_id, path, encoding, text, sections, pipeline_version)"
        " VALUES ($no, $id, $path, 'utf-8', $text, [], '')",
        {"no": no, "id": report_id, "path": stored_path(path), "text": text},
    )


@pytest.mark.parametrize("seed", range(8))
def test_what_may_matter_decides_as_all_does(database: Database, seed: int) -> None:
    rng = random.Random(seed)
    rows = fill(database, rng, images=rng.choice([3, 12, 40]))
    paths = [f"{rng.choice(FOLDERS)}/{rng.choice(REPORTS)}.txt" for _ in range(30)]
    for no, path in enumerate(paths):
        put_report(database, no, path, str(no))
    keys: list[ReportKeys] = [report_keys(path, "/data", rng.choice(TEXTS)) for path in paths]
    keys += [
        message_keys(Statement(accession_numbers=("a123",), patient_ids=(rng.choice(PATIENTS),))),
        message_keys(Statement(patient_ids=(rng.choice(PATIENTS),), study_date=rng.choice(DATES))),
    ]
    whole = StudyDirectory(rows, paths)
    joins = Joins(database)
    found = set()
    # One by one, and all at once.
    for some in [*([each] for each in keys), keys]:
        wanted = sought(some)
        places = joins.study_places(**asdict(wanted), separators=NAME_SEPARATORS)
        part = StudyDirectory((ImageRow(*place) for place in places), joins.reports_in(wanted.folders))
        for each in some:
            assert part.find(each) == whole.find(each), each
            found.add(whole.find(each))
    # It is no test where nothing is ever found.
    assert len(found) > 1


def test_what_cannot_matter_is_left_out(database: Database) -> None:
    for no in range(100):
        database.write(
            "INSERT INTO studies VALUES ($no, $uid, $no::VARCHAR, '', NULL, $no::VARCHAR, '', '2024-01-31', '')",
            {"no": no, "uid": f"1.2.3.4.{no}"},
        )
        database.write(
            _IMAGE,
            {"no": no, "uid": f"1.2.3.4.{no}", "path": f"/data/{no}/{no}-film.dcm"},
        )
    for path, text, expected in (
        ("/texts/note.txt", "FINDINGS: clear.", []),
        ("/texts/note.txt", "Accession: 42", ["/data/42/42-film.dcm"]),
        ("/data/7/note.txt", "FINDINGS: clear.", ["/data/7/7-film.dcm"]),
        ("/texts/note.txt", "Study UID: 1.2.3.4.5", ["/data/5/5-film.dcm"]),
    ):
        wanted = sought([report_keys(path, "/texts", text)])
        places = Joins(database).study_places(**asdict(wanted), separators=NAME_SEPARATORS)
        assert [place[4] for place in places] == expected


def test_reports_are_joined_some_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filing, "_JOINED_AT_ONCE", 2)
    expected = {}
    for no in range(5):
        uid, path = f"1.2.3.4.{no}", f"/texts/{no}.txt"
        database.write(
            "INSERT INTO studies VALUES ($no, $uid, '', '', NULL, 'A' || $no, '', NULL, '')", {"no": no, "uid": uid}
        )
        database.write(_IMAGE, {"no": no, "uid": uid, "path": f"/data/{no}.dcm"})
        database.write(
            "INSERT INTO files VALUES ($path, '/texts', 1, 1, '', 'report', 'indexed', 1, '')", {"path": path}
        )
        # The third says nothing that leads anywhere.
        put_report(database, no, path, f"r{no}", "FINDINGS: clear." if no == 2 else f"Accession: A{no}")
        expected[f"r{no}"] = None if no == 2 else uid
    assert link_reports(Catalogue(database), Intake(database), Joins(database)) == 4
    assert dict(database.read("SELECT report_id, study_uid FROM reports")) == expected
    assert link_reports(Catalogue(database), Intake(database), Joins(database)) == 0


@pytest.mark.parametrize("many", [False, True])
def test_names_are_those_of_the_library_looked_up_singly_or_all_at_once(database: Database, many: bool) -> None:
    held = {f"/data/{no}.txt": f"old{no}" for no in range(200)}
    for no, (path, report_id) in enumerate(held.items()):
        put_report(database, no, path, report_id)
    names = ReportNames(Catalogue(database), Intake(database), Joins(database))
    report = Report("", "FINDINGS: clear.")
    for no in range(200) if many else range(3):
        assert names.name(report, f"/data/{no}.txt") == f"old{no}"
    # Taken by another file, and then by a file of this ingest.
    first = names.name(report, "/other/old150.txt")
    assert first.startswith("old150-")
    assert names.name(report, "/more/old150.txt") not in (first, "old150")
    assert names.name(report, "/other/new.txt") == "new"
    assert names.name(report, "/more/new.txt").startswith("new-")
    names.move("/data/190.txt", "/moved/190.txt")
    assert names.name(report, "/moved/190.txt") == "old190"
    assert names.name(report, "/data/190.txt") == "190"


def test_an_ingest_that_ended_before_it_joined_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_department(tmp_path / "source", studies=2)
    with open_library(tmp_path / "library", create=True) as library:

        def killed(*_: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(ingest, "link_reports", killed)
        with pytest.raises(KeyboardInterrupt):
            library.ingest([source])
        monkeypatch.undo()
        unlinked = "SELECT count(*) FROM reports WHERE study_uid IS NULL"
        assert library._database.read(unlinked) == [(2,)]
        # Nothing is new, and yet there is something left to do; then no more.
        assert library.ingest([source]).unchanged == 6
        assert library._database.read(unlinked) == [(0,)]
        monkeypatch.setattr(ingest, "link_reports", killed)
        assert library.ingest([source]).unchanged == 6
