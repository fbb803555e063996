"""Looking a library over finds each kind of damage, and repairing it leaves a sound one."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from pathlib import Path

import pytest
from makers import write_department
from messages_made import hl7

from medsearch_desktop.errors import LibraryError
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.store.audit import RELATIONS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    source = write_department(folder / "source", studies=6, size=64)
    shutil.copy(min(source.rglob("image1.dcm")), source / "copy.dcm")
    (source / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    old = 1_700_000_000
    for path in source.rglob("*"):
        os.utime(path, (old, old))
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
        library.label("study", library.search("").hits[0].study_uid, "teaching")
    return folder


@pytest.fixture
def library(made: Path, tmp_path: Path):
    # Its files stay where they are; the library is this test's own.
    shutil.copytree(made / "library", tmp_path / "library")
    with open_library(tmp_path / "library") as opened:
        yield opened


def mended(library: Library, source: Path) -> None:
    """What is wrong now is set right by repairing and one ingest, and what cannot be made again is still there."""
    library.health.repair(files=True)
    library.ingest([source])
    after = library.health.verify(files=True)
    assert after.ok, after.as_json()
    totals = library.totals()
    assert (totals.images, totals.vectors, totals.reports, totals.studies) == (12, 12, 6, 6)
    assert library._database.read("SELECT label FROM labels") == [("teaching",)]
    assert library.search("label:teaching").total == 1


def test_a_sound_library_is_said_to_be_sound(library: Library) -> None:
    report = library.health.verify(files=True)
    assert report.ok, report.as_json()
    # The copy and the broken file are files, too.
    assert report.checked["files"] == 20
    assert report.checked["vectors compared"] == 12
    assert report.checked["documents compared"] == 6
    assert report.notes == []
    summary = library.health.repair(files=True)
    assert (dict(summary.mended), summary.requeued, summary.rebuilt) == ({}, 0, [])


DAMAGE = {
    "image-without-file": "DELETE FROM files WHERE path LIKE '%s50000001/image2.dcm'",
    "report-without-file": "DELETE FROM files WHERE path LIKE '%s50000001.txt'",
    "image-without-study": "DELETE FROM series WHERE study_uid LIKE '%1.1'",
    "file-without-records": "DELETE FROM reports WHERE path LIKE '%s50000002.txt'",
    "file-without-reason": "DELETE FROM failures",
    "duplicate-of-nothing": "UPDATE files SET held_by = '/nowhere' WHERE state = 'duplicate'",
    "reason-without-file": "INSERT INTO failures VALUES ('/nowhere', 'because')",
    "vector-twice": "INSERT INTO vectors SELECT * FROM vectors LIMIT 1",
    "vector-unsound": "UPDATE vectors SET vector = list_transform(range(1024), lambda x: 2)::FLOAT[1024]"
    " WHERE image_no = (SELECT min(image_no) FROM images)",
    "vector-without-image": "INSERT INTO vectors SELECT 999, model_id, vector FROM vectors LIMIT 1",
    "unembedded-without-image": "INSERT INTO unembedded VALUES (999, 'm', 'because')",
    "region-without-image": "INSERT INTO regions VALUES (999, 'network', 'x'::BLOB)",
    "slice-without-image": "INSERT INTO slices VALUES (999, '9.9.9', '', NULL, true)",
    "side-without-image": "INSERT INTO sides VALUES (999, 'L')",
    "mean-without-slices": "INSERT INTO series_vectors SELECT '9.9.9', model_id, '', vector FROM vectors LIMIT 1",
    "version-without-file": "INSERT INTO report_versions VALUES (9, 'r', '/nowhere', 0, 'final', '', '', '', '', '{}')",
    "entity-without-report": "UPDATE entities SET report_no = 999 WHERE report_no ="
    " (SELECT report_no FROM reports WHERE path LIKE '%s50000002.txt') AND ordinal = 0",
    "study-without-content": "INSERT INTO studies VALUES (999, '9.9', 'p', '', NULL, '', '', NULL, '')",
    "report-without-version": "UPDATE reports SET version_no = 999 WHERE path LIKE '%s50000002.txt'",
    "version-without-name": "INSERT INTO report_versions VALUES (9, 'r', (SELECT min(path) FROM files), 0, 'final',"
    """ '', '', '', '', '{"names": ["a", "b"]}')""",
    "study-without-patient": "DELETE FROM patients",
    "ledger-empty": "DELETE FROM changes",
    "series-without-image": "INSERT INTO series VALUES ('9.9.9', '9.9', '', NULL, '', '', '', '')",
}


def test_each_rule_has_its_damage() -> None:
    assert {relation.name for relation in RELATIONS} == set(DAMAGE)


@pytest.mark.parametrize("name", DAMAGE)
def test_records_that_do_not_fit_are_found_and_mended(library: Library, made: Path, name: str) -> None:
    library._database.write(DAMAGE[name])
    report = library.health.verify()
    assert not report.ok
    assert report.kinds[name] >= 1, report.as_json()
    assert all(fault.item and fault.remedy for fault in report.faults)
    if name == "entity-without-report":
        # Nothing says that one of a report's mentions is missing but the text index: it is read again on purpose.
        library._intake.doubt([str(path) for path in (made / "source").rglob("s50000002.txt")])
    mended(library, made / "source")


def test_indexes_that_disagree_are_found_and_made_anew(library: Library, made: Path) -> None:
    last = library.catalogue.last_change()
    document = next(iter(library.catalogue.documents()))
    library.fulltext.update([{**document, "card": b"{}"}], watermark=last)
    numbers = library.catalogue.images_where("true", {})
    vectors = library.vectors.vectors_of(numbers)
    library.vectors.reset()
    library.vectors.update(numbers[1:], vectors[:-1], removed=numbers[:0], watermark=last)
    report = library.health.verify()
    assert report.kinds["text-index"] == 1
    # One is missing, eleven have their neighbour's.
    assert report.kinds["image-index"] == 12
    assert set(library.health.repair().rebuilt) == {"text index", "image index"}
    mended(library, made / "source")


def test_an_index_of_another_time_is_seen(library: Library) -> None:
    none = library.catalogue.images_where("false", {})
    ahead = library.catalogue.last_change() + 5
    library.vectors.update(none, library.vectors.vectors_of(none), removed=none, watermark=ahead)
    report = library.health.verify()
    assert dict(report.kinds) == {"watermark": 1}
    library.health.repair()
    assert library.health.verify().ok


@pytest.fixture
def own(tmp_path: Path):
    """A library whose files a test may change."""
    source = write_department(tmp_path / "source", studies=3, size=64)
    for path in source.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        yield library, source


def test_files_are_held_against_their_records(own: tuple[Library, Path]) -> None:
    library, source = own
    films = sorted(source.rglob("*.dcm"))
    films[0].unlink()
    films[1].write_bytes(films[1].read_bytes() + b"\0\0")
    before = films[2].stat()
    content = bytearray(films[2].read_bytes())
    content[-1] ^= 1
    films[2].write_bytes(content)
    os.utime(films[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert dict(library.health.verify().kinds) == {"file-gone": 1, "file-changed": 1}
    report = library.health.verify(files=True)
    assert {(fault.kind, fault.item) for fault in report.faults} == {
        ("file-gone", str(films[0])),
        ("file-changed", str(films[1])),
        ("file-altered", str(films[2])),
    }
    assert library.health.repair(files=True).requeued == 1
    library.ingest([source])
    assert library.health.verify(files=True).ok


def test_members_of_archives_are_looked_for_in_their_archive(tmp_path: Path) -> None:
    source = write_department(tmp_path / "drawn", studies=2, size=64)
    packed = tmp_path / "packed" / "studies.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(source.rglob("*.*")):
            archive.write(path, path.relative_to(source))
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([packed.parent])
        assert library.totals().images == 4
        report = library.health.verify(files=True)
        assert report.ok, report.as_json()
        packed.unlink()
        packed.with_name("another.txt").write_text("No effusion.")
        assert set(library.health.verify().kinds) == {"file-gone"}


def test_an_earlier_version_of_a_report_is_no_fault(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "first.hl7").write_bytes(hl7("No effusion.", status="P", changed="20240315100000"))
    (source / "second.hl7").write_bytes(hl7("Large effusion.", status="F"))
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        assert library.totals().reports == 1
        report = library.health.verify(files=True)
        assert report.ok, report.as_json()


def test_a_folder_that_is_away_is_no_fault(own: tuple[Library, Path]) -> None:
    library, source = own
    source.rename(source.with_name("away"))
    report = library.health.verify(files=True)
    assert report.ok
    assert report.notes == [f"the folder {source} is away: what was indexed below it was not looked at"]
    # A drive that is not mounted leaves an empty folder.
    source.mkdir()
    assert library.health.verify().ok


def test_missing_thumbnails_are_said_and_no_fault(library: Library) -> None:
    shutil.rmtree(library.path / "thumbnails")
    report = library.health.verify()
    assert report.ok
    assert report.notes == ["12 of 12 thumbnails are missing; each is drawn anew when it is shown"]


def test_it_can_be_stopped(library: Library) -> None:
    stop = threading.Event()
    report = library.health.verify(on_progress=lambda *_: stop.set(), stop=stop)
    assert report.stopped
    assert not report.ok
    assert "files" not in report.checked


def test_nothing_is_looked_over_while_an_ingest_is_under_way(library: Library, made: Path) -> None:
    refused = []

    def ask(_: object) -> None:
        if not refused:
            with pytest.raises(LibraryError, match="an ingest is under way"):
                library.health.verify()
            refused.append(True)

    library.ingest([made / "source"], on_event=ask)
    assert refused
