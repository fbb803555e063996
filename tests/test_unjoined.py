"""Reports that no study was found for are looked at again for cause, and come to where a look at all would put them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medsearch_desktop.filing import link_reports
from medsearch_desktop.records import FileKind, Image, LinkRule, Report, SourceFile
from medsearch_desktop.source.seeking import keys_of_report
from medsearch_desktop.statements import ReportStatus, Statement
from medsearch_desktop.store.audit import RELATIONS, Audit
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.intake import INDEXED, Intake, Outcome
from medsearch_desktop.store.joins import Joins

FOLDERS = [
    "/data/a",
    "/data/a/deep/er",
    "/data/b",
    "/data/p10000032/s50414267",
    "/data/p10000032",
    "/texts",
    "/data/\udcff",
]
NAMES = ["CXR1_IM-0001.dcm", "CXR2-3.dcm", "image1.dcm", "Straße9.dcm", "50414267.dcm", "\udcffx1.dcm"]
REPORTS = ["CXR1", "CXR2", "report", "s50414267", "A123", "STRASSE9", "note", "k-7"]
TEXTS = [
    "FINDINGS: clear.",
    "Accession: A123",
    "Accession: Ä9",
    "Study UID: 1.2.3.4.2",
    "Study UID: 1.2.3.4.3. Accession: B77",
    "Patient ID: P1. Study ID: k-7",
    "Study ID: 50414267",
]
ACCESSIONS = ["", "A123", "a123 ", "Ä9", "B77"]
STUDY_IDS = ["", "k-7", "50414267", "s50414267"]
PATIENTS = ["P1", "p10000032", "", "Ü 4"]
DATES = ["", "2024-01-31", "2024-02-01"]


class Side:
    """One of two libraries that are fed alike."""

    def __init__(self, file: Path, *, looks_at_all: bool) -> None:
        self.database = Database(file)
        self.intake, self.joins = Intake(self.database), Joins(self.database)
        self._looks_at_all = looks_at_all

    def link(self) -> None:
        if self._looks_at_all:
            self.joins.unjoined.forget()
        link_reports(Catalogue(self.database), self.intake, self.joins)

    def joined(self) -> dict[str, tuple[str | None, str | None]]:
        rows = self.database.read("SELECT report_id, study_uid, link_rule FROM reports")
        return {report_id: (study_uid, rule) for report_id, study_uid, rule in rows}


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    both = Side(tmp_path / "a.duckdb", looks_at_all=False), Side(tmp_path / "b.duckdb", looks_at_all=True)
    yield both
    for side in both:
        side.database.close()


def film(path: str, number: int, uid: str, rng: random.Random) -> Outcome:
    image = Image(
        image_id=str(number),
        sop_instance_uid=str(number),
        study_uid=uid,
        series_uid=f"{uid}.1",
        patient_id=rng.choice(PATIENTS),
        accession_number=rng.choice(["", ACCESSIONS[int(uid[-1]) % len(ACCESSIONS)]]),
        study_id=rng.choice(["", STUDY_IDS[int(uid[-1]) % len(STUDY_IDS)]]),
        study_date=DATES[int(uid[-1]) % len(DATES)] or None,
    )
    return Outcome(file_of(path, FileKind.DICOM), INDEXED, 1, images=(image,), vectors=(None,))


def file_of(path: str, kind: FileKind) -> SourceFile:
    return SourceFile(path, "/data" if path.startswith("/data") else "/texts", 1, 1, kind, "x")


def text(path: str, number: int, rng: random.Random) -> Outcome:
    stated = None
    if rng.random() < 0.4:
        stated = Statement(
            names=(f"n{rng.randrange(6)}",),
            number=str(number),
            status=rng.choice([ReportStatus.FINAL, ReportStatus.PRELIMINARY, ReportStatus.CANCELLED]),
            effective=f"2024-01-{rng.randrange(10, 30)}",
            accession_numbers=tuple(filter(None, [rng.choice(ACCESSIONS).strip().casefold()])),
            patient_ids=(rng.choice(PATIENTS),),
            study_date=rng.choice(DATES),
        )
    report = Report(f"r{number}", rng.choice(TEXTS), stated=stated)
    return Outcome(file_of(path, FileKind.REPORT), INDEXED, 1, reports=(report,))


@pytest.mark.parametrize("seed", range(3))
def test_what_comes_and_goes_joins_as_a_look_at_all_would(sides: tuple[Side, Side], seed: int) -> None:
    rng, number, held, seen = random.Random(seed), itertools.count(), list[str](), set[object]()
    for _ in range(25):
        batch: list[Outcome] = []
        moved = rng.choice(held) if held and rng.random() < 0.3 else ""
        for _ in range(rng.choice([0, 1, 1, 3])):
            folder = rng.choice(FOLDERS)
            if rng.random() < 0.5:
                path = f"{folder}/{rng.choice(REPORTS)}.txt"
                batch.append(text(path, next(number), rng))
            else:
                path = f"{folder}/{rng.choice(NAMES)}"
                batch.append(film(path, next(number), f"1.2.3.4.{rng.randrange(6)}", rng))
        batch = list({o.file.path: o for o in batch if o.file.path != moved}.values())
        if moved:
            there = f"{rng.choice(FOLDERS)}/moved-{next(number)}{moved[moved.rindex('.') :]}"
            kind = FileKind.REPORT if there.endswith(".txt") else FileKind.DICOM
            batch.append(Outcome(file_of(there, kind), INDEXED, 1, moved_from=moved))
            held.remove(moved)
        gone = [path for path in held if rng.random() < 0.08]
        held = [path for path in held if path not in gone]
        held += [o.file.path for o in batch if o.file.path not in held]
        for side in sides:
            side.intake.write(batch, model_id="m", pipeline_version="p")
            side.intake.remove(gone)
            # Some ingests end before they join.
        if rng.random() < 0.8:
            for side in sides:
                side.link()
            a, b = (side.joined() for side in sides)
            assert a == b
            seen |= set(b.values())
    # It is no test where nothing is ever found, or everything.
    assert (None, None) in seen
    assert len({rule for _, rule in seen}) > 3


def put(side: Side, *outcomes: Outcome) -> None:
    side.intake.write(list(outcomes), model_id="m", pipeline_version="p")


def test_only_what_something_new_may_decide_is_looked_at(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    side, rng = sides[0], random.Random(0)
    reports = [
        Outcome(
            file_of(f"/texts/{n}/x{n}.txt", FileKind.REPORT), INDEXED, 1, reports=(Report(f"r{n}", f"Accession: L{n}"),)
        )
        for n in range(50)
    ]
    put(side, *reports)
    side.link()
    looked: list[int] = []
    real = Catalogue.reports_to_join
    monkeypatch.setattr(Catalogue, "reports_to_join", lambda self, nos: looked.extend(nos.tolist()) or real(self, nos))
    put(side, film("/data/a/f.dcm", 1, "1.2.3.4.1", rng))
    side.link()
    assert looked == []
    image = film("/data/b/g.dcm", 2, "1.2.3.4.2", rng)
    put(side, replace(image, images=(replace(image.images[0], accession_number="l7"),)))
    side.link()
    assert len(looked) == 1
    assert side.joined()["r7"] == ("1.2.3.4.2", LinkRule.ACCESSION_NUMBER)
    assert side.database.read("SELECT count(DISTINCT report_no) FROM sought") == [(49,)]


def test_an_image_that_moves_beside_its_report_is_joined_at_once(sides: tuple[Side, Side]) -> None:
    side, rng = sides[0], random.Random(0)
    put(
        side,
        Outcome(file_of("/texts/q/note.txt", FileKind.REPORT), INDEXED, 1, reports=(Report("r", "FINDINGS: clear."),)),
    )
    put(side, film("/data/a/f.dcm", 1, "1.2.3.4.1", rng))
    side.link()
    assert side.joined()["r"] == (None, None)
    put(side, Outcome(file_of("/texts/q/f.dcm", FileKind.DICOM), INDEXED, 1, moved_from="/data/a/f.dcm"))
    assert not side.joins.are_current()
    side.link()
    assert side.joined()["r"] == ("1.2.3.4.1", LinkRule.FOLDER)


def test_a_library_of_before_and_one_that_was_repaired_look_at_all(sides: tuple[Side, Side]) -> None:
    side, rng = sides[0], random.Random(0)
    put(
        side,
        Outcome(file_of("/texts/q/note.txt", FileKind.REPORT), INDEXED, 1, reports=(Report("r", "FINDINGS: clear."),)),
    )
    put(
        side,
        Outcome(file_of("/texts/q/other.txt", FileKind.REPORT), INDEXED, 1, reports=(Report("s", "FINDINGS: clear."),)),
    )
    put(side, film("/texts/q/f.dcm", 1, "1.2.3.4.1", rng))
    side.link()
    assert side.joined()["r"] == (None, None)
    # Somebody's hand: nobody noted that the report is alone in its folder now.
    side.database.write("DELETE FROM files WHERE path = '/texts/q/other.txt'")
    audit = Audit(side.database)
    assert sum(audit.mend(relation) for relation in RELATIONS) == 1
    assert not side.joins.are_current()
    side.link()
    assert side.joined() == {"r": ("1.2.3.4.1", LinkRule.FOLDER)}


def test_more_than_can_be_gone_through_is_a_look_at_all(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    side, rng = sides[0], random.Random(0)
    put(side, *(text(f"/texts/{n}.txt", n, rng) for n in range(9)))
    side.link()
    monkeypatch.setattr("medsearch_desktop.store.unjoined._MOST_ROWS", 2)
    put(side, *(film(f"/data/a/{n}.dcm", n, "1.2.3.4.1", rng) for n in range(3)))
    assert side.joins.unjoined.came_and_went() is None
    monkeypatch.undo()
    assert len(side.joins.unjoined.came_and_went() or ()) == 3


def test_keys_of_names_that_no_alphabet_holds_are_numbers() -> None:
    from medsearch_desktop.source.joining import report_keys

    assert keys_of_report(report_keys("/data/\udcff/\udcfe.txt", "/data", "")) != keys_of_report(
        report_keys("/data/\udcff/\udcfd.txt", "/data", "")
    )


def test_a_report_that_is_withdrawn_leaves_the_other_alone_in_its_folder(sides: tuple[Side, Side]) -> None:
    side, rng = sides[0], random.Random(0)

    def message(path: str, status: ReportStatus, effective: str) -> Outcome:
        stated = Statement(names=("n1",), status=status, effective=effective)
        return Outcome(
            file_of(path, FileKind.REPORT), INDEXED, 1, reports=(Report("m", "FINDINGS: m.", stated=stated),)
        )

    note = Report("r", "FINDINGS: clear.")
    put(side, Outcome(file_of("/texts/q/note.txt", FileKind.REPORT), INDEXED, 1, reports=(note,)))
    put(side, message("/texts/q/m.hl7", ReportStatus.FINAL, "2024-01-01"))
    put(side, film("/texts/q/f.dcm", 1, "1.2.3.4.1", rng))
    side.link()
    assert side.joined() == {"r": (None, None), "m": (None, None)}
    put(side, message("/data/a/c.hl7", ReportStatus.CANCELLED, "2024-01-02"))
    side.link()
    assert side.joined() == {"r": ("1.2.3.4.1", LinkRule.FOLDER)}
    # Nothing is kept of what is not looked for any more.
    assert side.database.read("SELECT * FROM sought") == side.database.read("SELECT * FROM stirred") == []
