"""An ingest of a part of a large library: what lies elsewhere is known, and nothing grows with what there is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from makers import Film, dataset, write_department
from volumes_made import body, slice_dataset

from medsearch_desktop.library import Library, open_library


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True) as opened:
        yield opened


def count(library: Library, table: str) -> int:
    return int(library._database.read(f"SELECT count(*) FROM {table}")[0][0])


def empty(library: Library, table: str, name: str) -> int:
    return count(library, f"{table} WHERE {name} NOT IN (SELECT {name} FROM images)")


def test_copies_and_moves_are_known_where_another_folder_is_ingested(library: Library, tmp_path: Path) -> None:
    first = write_department(tmp_path / "first", studies=4)
    library.ingest([first])
    numbers = library.catalogue.images_where("true", {}).tolist()
    second = tmp_path / "second"
    shutil.copytree(first / "files" / "p00000001", second / "copied")
    (first / "files" / "p00000002").rename(second / "moved")
    summary = library.ingest([second])
    # Reports of the same words count as their own where their folders have other names.
    assert (summary.duplicates + summary.indexed, summary.updated, summary.images) == (6, 6, 0)
    assert library.catalogue.images_where("true", {}).tolist() == numbers
    assert library._database.read("SELECT count(*) FROM images WHERE path LIKE '%/second/moved/%'") == [(4,)]
    assert library._database.read("SELECT count(*) FROM reports WHERE study_uid IS NULL") == [(0,)]
    # The first one again: nothing is missing that went to the second, and what is a copy there inherits.
    shutil.rmtree(first / "files" / "p00000001")
    summary = library.ingest([first])
    assert (summary.removed, library.totals().images) == (6, 8)
    assert library._database.read("SELECT count(*) FROM images WHERE path LIKE '%/second/copied/%'") == [(4,)]


def test_what_a_change_leaves_empty_goes_with_it(library: Library, tmp_path: Path) -> None:
    department = write_department(tmp_path / "source", studies=4)
    library.ingest([department], metadata_only=True)
    home = department / "files" / "p00000001" / "s50000001"
    # Both films are of another study, series and patient from now on; the report stays without its study.
    for number, film in enumerate(sorted(home.iterdir())):
        dataset(Film(patient=77, study=77, image=number + 1, size=96)).save_as(film, enforce_file_format=True)
    home.with_suffix(".txt").unlink()
    library.ingest([home.parent], metadata_only=True)
    assert empty(library, "studies", "study_uid") == empty(library, "series", "series_uid") == 0
    assert [count(library, table) for table in ("studies", "patients", "images", "reports")] == [4, 3, 8, 3]
    assert library.fulltext.document_count == library.catalogue.document_count()
    shutil.rmtree(department / "files")
    (department / "files").mkdir()
    (department / "note.txt").write_text("FINDINGS: clear.")
    library.ingest([department], metadata_only=True)
    assert [count(library, table) for table in ("studies", "series", "patients", "images")] == [0, 0, 0, 0]


_MEASURE = """
import json, sys
from medsearch_desktop.library import open_library
with open_library(sys.argv[1], create=True, threads=2) as library:
    summary = library.ingest([sys.argv[2]])
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"indexed": summary.indexed, "embedded": summary.caught_up, "peak_kb": peak}))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads its own peak of memory from Linux")  # noqa: PTH110
def test_memory_does_not_grow_with_the_slices_of_a_series(tmp_path: Path) -> None:
    """90 more slices of 2 MB each would show if they were kept."""
    ds = slice_dataset(1, 0, 150)
    pixels = body(1, 0.5, 1024) + 1024
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelData = pixels.astype("<u2").tobytes()
    for place in range(150):
        one = slice_dataset(1, place, 150)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        ds.InstanceNumber, ds.ImagePositionPatient = one.InstanceNumber, one.ImagePositionPatient
        folder = tmp_path / ("few" if place < 30 else "many")
        folder.mkdir(exist_ok=True)
        ds.save_as(folder / f"{place}.dcm", enforce_file_format=True)
    peaks = {}
    for name, slices in (("few", 30), ("many", 120)):
        command = [sys.executable, "-c", _MEASURE, str(tmp_path / f"library-{name}"), str(tmp_path / name)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(done.stdout)
        assert (told["indexed"], told["embedded"]) == (slices, 12)
        peaks[name] = told["peak_kb"] / 1024
    # 90 slices more are 180 MB.
    assert peaks["many"] - peaks["few"] < 60, peaks
