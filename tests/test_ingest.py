"""The conveyor: what a library knows after folders were ingested, changed, moved, broken and ingested again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from makers import Film, dataset, uid, write_department

from medsearch_desktop import work
from medsearch_desktop.errors import SourceError
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import IngestSummary


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True) as opened:
        yield opened


@pytest.fixture
def department(tmp_path: Path) -> Path:
    return write_department(tmp_path / "source", studies=6)


def total(summary: IngestSummary) -> int:
    return summary.indexed + summary.unchanged + summary.updated + summary.duplicates + summary.failed + summary.ignored


def consistent(library: Library) -> None:
    """Every index agrees with the database, and nothing is there twice."""
    totals = library.totals()
    assert library.vectors.count == totals.vectors
    assert library.fulltext.document_count == library.catalogue.document_count()
    ids = [row.image_id for row in library.catalogue.images(library.catalogue.images_where("true", {})).values()]
    assert len(ids) == len(set(ids)) == totals.images


def test_a_department_is_indexed_whole(library: Library, department: Path) -> None:
    summary = library.ingest([department])
    assert (summary.discovered, summary.indexed, summary.failed) == (18, 18, 0)
    assert (summary.images, summary.reports) == (12, 6)
    totals = library.totals()
    assert (totals.images, totals.vectors, totals.reports, totals.studies, totals.patients) == (12, 12, 6, 6, 3)
    consistent(library)


def test_every_report_is_joined_by_its_study_id(library: Library, department: Path) -> None:
    library.ingest([department])
    rows = library._database.read("SELECT report_id, study_uid, link_rule FROM reports ORDER BY report_id")
    assert rows == [(f"s{50_000_000 + n}", uid(1 + (n - 1) // 2, n), "StudyID") for n in range(1, 7)]


def test_again_is_all_unchanged(library: Library, department: Path) -> None:
    for path in department.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    library.ingest([department])
    again = library.ingest([department])
    assert (again.discovered, again.unchanged, again.images) == (18, 18, 0)


def test_files_as_new_as_the_ingest_are_read_but_not_embedded_again(library: Library, department: Path) -> None:
    library.ingest([department])
    before = library.catalogue.last_change()
    again = library.ingest([department])
    assert again.unchanged == 18
    assert library.catalogue.last_change() == before


def test_a_changed_file_replaces_its_records(library: Library, department: Path) -> None:
    library.ingest([department])
    report = min(department.rglob("s50000001.txt"))
    report.write_text("IMPRESSION: Tension pneumothorax, zebra.", "utf-8")
    again = library.ingest([department])
    assert (again.updated, again.unchanged) == (1, 17)
    answer = library.search("zebra")
    assert [hit.report_id for hit in answer.hits] == ["s50000001"]
    assert answer.hits[0].study_uid == uid(1, 1)
    consistent(library)


def test_a_same_sized_change_with_the_old_time_is_seen(library: Library, department: Path) -> None:
    library.ingest([department])
    report = min(department.rglob("s50000001.txt"))
    status = report.stat()
    text = report.read_text("utf-8")
    report.write_text(text.replace("clear", "zebra"), "utf-8")
    os.utime(report, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert library.ingest([department]).updated == 1
    assert library.search("zebra").total == 1


def test_a_removed_file_takes_its_records_along(library: Library, department: Path) -> None:
    library.ingest([department])
    shutil.rmtree(department / "files" / "p00000001")
    summary = library.ingest([department])
    assert summary.removed == 6
    totals = library.totals()
    assert (totals.images, totals.reports, totals.studies, totals.patients) == (8, 4, 4, 2)
    assert library.search("patient:P0001").total == 0
    consistent(library)


def test_moved_files_are_neither_embedded_again_nor_lost(library: Library, department: Path) -> None:
    library.ingest([department])
    images = {image_id for (image_id,) in library._database.read("SELECT image_id FROM images")}
    numbers = library.catalogue.images_where("true", {}).tolist()
    (department / "files").rename(department / "renamed")
    summary = library.ingest([department])
    assert (summary.updated, summary.removed, summary.images) == (18, 0, 0)
    assert {image_id for (image_id,) in library._database.read("SELECT image_id FROM images")} == images
    assert library.catalogue.images_where("true", {}).tolist() == numbers
    assert all("renamed" in path for (path,) in library._database.read("SELECT path FROM images"))
    assert library._database.read("SELECT count(*) FROM reports WHERE study_uid IS NULL") == [(0,)]
    consistent(library)


def test_a_root_that_is_away_keeps_its_records(library: Library, department: Path) -> None:
    library.ingest([department])
    department.rename(department.with_name("unplugged"))
    summary = library.ingest([department])
    assert summary.offline == (str(department),)
    assert summary.removed == 0
    assert library.totals().images == 12
    department.with_name("unplugged").rename(department)
    assert library.ingest([department]).unchanged == 18


def test_a_root_that_never_was_is_an_error(library: Library, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        library.ingest([tmp_path / "nowhere"])


def test_copies_are_counted_and_inherit(library: Library, department: Path, tmp_path: Path) -> None:
    shutil.copytree(department / "files" / "p00000001", department / "zz-copy")
    summary = library.ingest([department])
    assert summary.duplicates >= 4
    assert library.totals().images == 12
    shutil.rmtree(department / "files" / "p00000001")
    library.ingest([department])
    assert library.totals().images == 12
    assert library._database.read("SELECT count(*) FROM images WHERE path LIKE '%zz-copy%'") == [(4,)]
    consistent(library)


def test_two_contents_under_one_uid_are_a_listed_failure(
    library: Library, department: Path, write_film: Callable[[Path, Film], Path]
) -> None:
    film = dataset(Film(patient=1, study=1, image=1, size=80))
    film.StudyInstanceUID = uid(9, 9, 9)
    film.save_as(department / "other.dcm", enforce_file_format=True)
    summary = library.ingest([department])
    assert summary.failed == 1
    assert "another image with its SOPInstanceUID is in" in summary.failures[0].reason
    assert library.totals().images == 12
    # The one that lost takes the place as soon as it is free.
    holder = Path(library.catalogue.image(uid(1, 1, 1)).path)
    loser = Path(summary.failures[0].path)
    holder.unlink()
    library.ingest([department])
    assert library.catalogue.image(uid(1, 1, 1)).path == str(loser)
    assert library.failures() == []
    consistent(library)


def test_one_image_in_two_encodings_is_a_duplicate(library: Library, department: Path) -> None:
    film = dataset(Film(patient=1, study=1, image=1))
    film.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    film.save_as(department / "compressed.dcm", enforce_file_format=True)
    summary = library.ingest([department])
    assert (summary.duplicates, summary.failed, library.totals().images) == (1, 0, 12)
    assert library.ingest([department]).images == 0
    Path(library.catalogue.image(uid(1, 1, 1)).path).unlink()
    library.ingest([department])
    assert library.totals().images == 12
    consistent(library)


def test_normal_reports_of_the_same_words_are_reports_of_their_own(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.txt").write_text("IMPRESSION: Normal chest.", "utf-8")
    summary = library.ingest([folder])
    assert (summary.reports, summary.duplicates) == (3, 0)
    assert {hit.report_id for hit in library.search("normal").hits} == {"a", "b", "c"}


def test_a_report_that_came_first_is_joined_when_its_images_come(library: Library, department: Path) -> None:
    films = list(department.rglob("*.dcm"))
    away = department.parent / "away"
    for film in films:
        target = away / film.relative_to(department)
        target.parent.mkdir(parents=True, exist_ok=True)
        film.rename(target)
    library.ingest([department])
    assert library._database.read("SELECT count(*) FROM reports WHERE study_uid IS NULL") == [(6,)]
    for film in films:
        (away / film.relative_to(department)).rename(film)
    library.ingest([department])
    assert library._database.read("SELECT count(*) FROM reports WHERE study_uid IS NULL") == [(0,)]
    assert library.search("effusion view:PA").total > 0
    consistent(library)


def test_junk_and_broken_files_are_counted_with_reasons(library: Library, department: Path) -> None:
    film = min(department.rglob("image1.dcm"))
    (department / "cut.dcm").write_bytes(film.read_bytes()[:-4000])
    (department / "empty.dcm").write_bytes(b"")
    (department / "junk.dcm").write_bytes(os.urandom(5000))
    (department / "table.csv").write_text("a,b\n1,2\n")
    summary = library.ingest([department])
    assert summary.ignored == 1
    assert summary.failed == 3
    assert total(summary) == summary.discovered == 22
    reasons = {Path(failure.path).name: failure.reason for failure in library.failures()}
    assert set(reasons) == {"cut.dcm", "empty.dcm", "junk.dcm"}
    assert all(reasons.values())
    again = library.ingest([department])
    assert (again.failed, again.unchanged, again.ignored) == (0, 21, 1)


def test_failures_are_tried_again_on_request(library: Library, department: Path) -> None:
    film = min(department.rglob("image1.dcm"))
    content = film.read_bytes()
    film.write_bytes(content[:-4000])
    assert library.ingest([department]).failed == 1
    assert library.retry_failures().failed == 1
    assert library.totals().images == 12
    film.write_bytes(content)
    summary = library.retry_failures()
    assert (summary.updated, summary.failed) == (1, 0)
    assert library.failures() == []
    assert [path for path, _, _ in library.catalogue.roots()] == [str(department)]
    consistent(library)


def test_what_still_fails_stays_listed(library: Library, department: Path) -> None:
    (department / "junk.dcm").write_bytes(b"junk")
    report = min(department.rglob("*.txt"))
    report.write_bytes(b"")
    library.ingest([department])
    before = library.failures()
    assert len(before) == 2
    library.retry_failures()
    assert library.failures() == before
    report.write_text("IMPRESSION: Zebra.", "utf-8")
    library.retry_failures()
    assert len(library.failures()) == 1
    assert library.search("zebra").hits[0].study_uid == uid(1, 1)


@pytest.mark.parametrize(("part", "metadata_only"), [("decode", False), ("read_tags", True), ("read_reports", False)])
def test_a_fault_of_the_program_costs_one_file(
    library: Library, department: Path, monkeypatch: pytest.MonkeyPatch, part: str, metadata_only: bool
) -> None:
    pattern = "*.txt" if part == "read_reports" else "image1.dcm"
    odd = str(min(department.rglob(pattern)))
    real = getattr(work, part)

    def at_fault(*args: Any, **options: Any) -> Any:
        if odd in (options.get("name"), getattr(args[-1], "path", None)):
            raise ZeroDivisionError("Test^Patient")
        return real(*args, **options)

    with monkeypatch.context() as wrong:
        wrong.setattr(work, part, at_fault)
        summary = library.ingest([department], metadata_only=metadata_only)
    assert (summary.failed, summary.indexed) == (1, 17)
    ((path, reason),) = [(failure.path, failure.reason) for failure in library.failures()]
    assert path == odd
    assert "a fault of this program (ZeroDivisionError at work.py:" in reason
    assert "Patient" not in reason
    assert library.retry_failures().failed == 0
    assert library.failures() == []


def test_headers_then_a_move_then_pixels(library: Library, department: Path) -> None:
    library.ingest([department], metadata_only=True)
    (department / "files").rename(department / "renamed")
    library.ingest([department])
    assert library.totals().images == library.totals().vectors == 12
    assert library.failures() == []
    consistent(library)


def test_headers_first_pixels_later(library: Library, department: Path) -> None:
    for path in department.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    first = library.ingest([department], metadata_only=True)
    assert (first.images, library.totals().vectors) == (12, 0)
    assert library.search("modality:CR view:LL").total == 6
    assert library.ingest([department], metadata_only=True).images == 0
    second = library.ingest([department])
    assert second.images == 12
    assert library.totals().vectors == 12
    consistent(library)


def test_an_interrupted_ingest_goes_on(library: Library, department: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It tells of files as they are committed, which a fast machine does once, at the end.
    monkeypatch.setattr("medsearch_desktop.ingest.FILES_PER_COMMIT", 4)
    seen = []

    def stop(event):
        seen.append(event)
        if event.stage == "file" and event.settled >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.ingest([department], on_event=stop)
    done = library.totals()
    summary = library.ingest([department])
    assert library.totals().images == 12
    assert summary.images == 12 - done.images
    consistent(library)


def test_hostile_names_are_indexed_and_found(library: Library, tmp_path: Path, write_film) -> None:
    folder = os.fsencode(tmp_path / "source")
    names = [b"\xff\xfe.dcm", b"a b'\"; DROP TABLE images; --.dcm", b"-rf.dcm", "ü\u202e.dcm".encode()]
    for number, name in enumerate(names, start=1):
        write_film(Path(os.fsdecode(folder + b"/" + name)), Film(patient=number, study=number))
    summary = library.ingest([os.fsdecode(folder)])
    assert (summary.indexed, summary.failed) == (4, 0)
    assert library.ingest([os.fsdecode(folder)]).unchanged == 4
    hits = library.similar(uid(1, 1, 1), k=3).hits
    assert len(hits) == 3


def test_a_raster_film_without_a_header_is_found(library: Library, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "source" / "p10000032" / "s50414267"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.new("L", (64, 64), 40 + number).save(folder / f"film{number}.png")
    summary = library.ingest([tmp_path / "source"])
    assert summary.images == 2
    assert library.totals().studies == 1


def test_an_empty_folder_is_no_error(library: Library, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    summary = library.ingest([tmp_path / "source"])
    assert summary.discovered == 0


def test_source_files_are_never_touched(library: Library, department: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in department.rglob("*") if path.is_file()}
    library.ingest([department])
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in department.rglob("*") if path.is_file()}
    assert before == after


def test_a_film_renamed_over_another_replaces_it(library: Library, department: Path) -> None:
    library.ingest([department])
    first, second = sorted(department.rglob("image*.dcm"))[:2]
    (numbers,) = library._database.read("SELECT image_no FROM images WHERE path = $path", {"path": str(second)})
    second.replace(first)
    library.ingest([department])
    rows = library._database.read("SELECT path, image_no FROM images WHERE study_uid = $uid", {"uid": uid(1, 1)})
    assert rows == [(str(first), *numbers)]
    assert library.catalogue.image(uid(1, 1, 1)) is None
    consistent(library)


def test_two_films_that_change_places_are_both_kept(library: Library, department: Path) -> None:
    library.ingest([department])
    first, second = sorted(department.rglob("image*.dcm"))[:2]
    aside = department.parent / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    library.ingest([department])
    places = {image_id: library.catalogue.image(image_id).path for image_id in (uid(1, 1, 1), uid(1, 1, 2))}
    assert places == {uid(1, 1, 1): str(second), uid(1, 1, 2): str(first)}
    consistent(library)


def test_a_broken_film_is_known_again_when_the_sound_one_goes(library: Library, department: Path) -> None:
    film = min(department.rglob("image1.dcm"))
    broken = department / "broken.dcm"
    broken.write_bytes(film.read_bytes()[:-4000])
    sound = department.parent / "sound.dcm"
    film.rename(sound)
    library.ingest([department])
    assert library.catalogue.image(uid(1, 1, 1)).path == str(broken)
    sound.rename(film)
    library.ingest([department])
    assert library.catalogue.image(uid(1, 1, 1)).path == str(film)
    film.unlink()
    library.ingest([department])
    image = library.catalogue.image(uid(1, 1, 1))
    assert image is not None
    assert image.path == str(broken)
    assert image.pixel_error
