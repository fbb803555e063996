"""Disks that fill up, sectors that cannot be read, drives that go away in the middle, clocks that jump."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from faults.mounts import mounted, needs_mount
from held import Held
from makers import Film, dataset, write_department
from running import command

from medsearch_desktop import ingest as ingesting
from medsearch_desktop.errors import StorageFullError
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import IngestEvent
from medsearch_desktop.source import sniff

STUDIES = 40


def counts(library: Library) -> tuple[int, int, int]:
    totals = library.totals()
    return totals.images, totals.vectors, totals.reports


def fill(library: Library, source: Path) -> None:
    for step in range(20):
        write_department(source / f"more{step}", studies=20, first=100 + 20 * step, size=64)
        library.ingest([source])


@needs_mount
@pytest.mark.slow
def test_a_library_on_a_full_disk_is_readable_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    source, disk = write_department(tmp_path / "source", studies=40, size=64), tmp_path / "disk"
    with mounted(disk, size="6m"):
        with open_library(disk / "library", create=True) as library:
            with pytest.raises(StorageFullError, match="no space is left"):
                fill(library, source)
            had = counts(library)
        assert had[0] > 0
        with open_library(disk / "library") as library:
            assert counts(library)[0] >= had[0]
            assert library.search("effusion").total > 0
            report = library.health.verify()
            # What the indexes could not take is said; the records are whole.
            assert set(report.kinds) <= {"watermark", "text-index", "image-index"}, report.as_json()
            with pytest.raises(StorageFullError):
                library.health.backup(disk / "backup")
            assert [path.name for path in disk.iterdir()] == ["library"]
            # What is shown needs no room, not even a picture that is drawn anew.
            ((image_id,),) = library._database.read("SELECT min(image_id) FROM images")
            library.thumbnails.path(image_id).unlink(missing_ok=True)
            with suppress(OSError), (disk / "brim").open("wb", buffering=0) as brim:
                while brim.write(bytes(4096)):
                    pass
            assert library.thumbnail(image_id)
            assert library.thumbnails.read(image_id) is None
            (disk / "brim").unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        with open_library(disk / "library") as library:
            library.ingest([source])
            films = len(list(source.rglob("*.dcm")))
            assert counts(library) == (films, films, films // 2)
            report = library.health.verify(files=True)
            assert report.ok, report.as_json()


@needs_mount
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_a_drive_that_goes_away_in_the_middle_takes_nothing_along(
    tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It tells of files as they are committed, which a fast machine does once, at the end.
    monkeypatch.setattr(ingesting, "FILES_PER_COMMIT", 8)
    kept = write_department(tmp_path / "kept", studies=STUDIES, size=32)
    if known:
        # In doubt, so that each file is read again although it is known.
        future = time.time() + 86_400
        for path in kept.rglob("*.*"):
            os.utime(path, (future, future))
    drive = tmp_path / "drive"
    drive.mkdir()
    with open_library(tmp_path / "library", create=True, threads=1, batch_size=1) as library:
        if known:
            subprocess.run(["mount", "--bind", kept, drive], check=True)
            library.ingest([drive])
            subprocess.run(["umount", drive], check=True)
        subprocess.run(["mount", "--bind", kept, drive], check=True)
        away = threading.Event()

        def pull(event: IngestEvent) -> None:
            if event.stage == "file" and event.settled >= 8 and not away.is_set():
                away.set()
                subprocess.run(["umount", "-l", drive], check=True)

        try:
            summary = library.ingest([drive], on_event=pull)
        finally:
            subprocess.run(["umount", "-l", drive], check=False, capture_output=True)
        assert away.is_set()
        assert summary.removed == 0
        assert summary.failed > 0
        if known:
            assert counts(library) == (2 * STUDIES, 2 * STUDIES, STUDIES)
        offline = library.ingest([drive])
        assert offline.offline == (str(drive),)
        assert offline.removed == 0
        subprocess.run(["mount", "--bind", kept, drive], check=True)
        try:
            # Without being asked to: what could not be read then is read now.
            library.ingest([drive])
            assert counts(library) == (2 * STUDIES, 2 * STUDIES, STUDIES)
            assert library.failures() == []
            assert library.health.verify(files=True).ok
        finally:
            subprocess.run(["umount", "-l", drive], check=False)


@needs_mount
@pytest.mark.slow
def test_a_watched_drive_that_goes_away_in_the_middle_is_taken_in_when_it_is_back(tmp_path: Path) -> None:
    kept = write_department(tmp_path / "kept", studies=STUDIES // 2, size=32)
    drive, path, held = tmp_path / "drive", tmp_path / "library", Held(tmp_path, "s50000005/image1")
    drive.mkdir()
    subprocess.run(["mount", "--bind", kept, drive], check=True)
    try:
        with command("watch", str(drive), "--library", str(path), "--still", "0.5", begin=held.line) as running:
            # It reads, and is not through.
            held.until_reached(running.process)
            subprocess.run(["umount", "-l", drive], check=True)
            held.go_on()
            running.until(lambda lines: any(line["event"] == "batch" and line["offline"] for line in lines))
            subprocess.run(["mount", "--bind", kept, drive], check=True)
            films = 3 * (STUDIES // 2)
            running.until(lambda lines: sum(line.get("indexed", 0) + line.get("updated", 0) for line in lines) >= films)
            assert running.end() == 0
            assert not any(line.get("removed") for line in running.lines)
        with open_library(path) as library:
            assert counts(library) == (STUDIES, STUDIES, STUDIES // 2)
            assert library.failures() == []
            assert library.health.verify(files=True).ok
    finally:
        subprocess.run(["umount", "-l", drive], check=False, capture_output=True)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_sector_that_cannot_be_read_takes_no_record_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A device that fails is not at hand: the error comes from the one place where source files are opened."""
    source = write_department(tmp_path / "source", studies=2, size=64)
    old, new = min(source.rglob("image1.dcm")), source / "new.dcm"
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        held = "SELECT image_id FROM images WHERE path = $path"
        before = library._database.read(held, {"path": str(old)})
        assert before
        dataset(Film(study=9)).save_as(new, enforce_file_format=True)
        os.utime(old)
        whole = sniff.open_regular

        def fails(path: str):
            if path in (str(old), str(new)):
                raise OSError(code, os.strerror(code))
            return whole(path)

        with monkeypatch.context() as broken:
            for module in ("work", "conveyor", "source.sniff"):
                broken.setattr(f"medsearch_desktop.{module}.open_regular", fails)
            summary = library.ingest([source])
        assert {failure.path for failure in summary.failures} == {str(old), str(new)}
        assert library._database.read(held, {"path": str(old)}) == before
        assert counts(library) == (4, 4, 2)
        # Read once more without being asked to.
        library.ingest([source])
        assert counts(library) == (5, 5, 2)
        assert library.failures() == []


def test_a_clock_that_jumps_hides_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_department(tmp_path / "source", studies=2, size=64)
    report = min(source.rglob("s*.txt"))
    now = time.time_ns()
    real = time.time_ns
    with open_library(tmp_path / "library", create=True) as library:
        for step, (clock, stamp) in enumerate(
            [
                (0, now),
                # The clock is put back by a day, and what is written then is older than what was read.
                (-86_400_000_000_000, now - 86_400_000_000_000),
                # A file from a machine that lives in the future, changed twice within one time stamp.
                (0, now + 10**17),
                (0, now + 10**17),
                (86_400_000_000_000, now + 86_400_000_000_000),
            ]
        ):
            monkeypatch.setattr(ingesting.time, "time_ns", lambda clock=clock: real() + clock)
            report.write_text(f"FINDINGS: Nodule number {step}.\n", "utf-8")
            os.utime(report, ns=(stamp, stamp))
            library.ingest([source])
            assert library._database.read("SELECT text FROM reports WHERE path = $p", {"p": str(report)}) == [
                (f"FINDINGS: Nodule number {step}.\n",)
            ]
            again = library.ingest([source])
            assert (again.indexed, again.updated, again.removed, again.failed) == (0, 0, 0, 0)
            assert counts(library) == (4, 4, 2)
            assert library.health.verify(files=True).ok


def test_a_library_whose_database_was_put_back_forgets_what_its_indexes_know(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=2, size=64)
    path, database = tmp_path / "library", tmp_path / "library" / "library.duckdb"
    with open_library(path, create=True) as library:
        library.ingest([source])
    shutil.copy(database, tmp_path / "old.duckdb")
    write_department(source, studies=2, first=50, size=64)
    with open_library(path) as library:
        library.ingest([source])
        assert counts(library) == (8, 8, 4)
    shutil.copy(tmp_path / "old.duckdb", database)
    with open_library(path) as library:
        assert library.vectors.count == 4
        assert library.fulltext.document_count == 2
        assert library.health.verify().ok
        library.ingest([source])
        assert counts(library) == (8, 8, 4)
        assert library.health.verify(files=True).ok
