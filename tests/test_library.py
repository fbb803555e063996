"""A library as its callers see it: opening, asking, labels, and what may go wrong with its folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from makers import uid, write_department

from medsearch_desktop.errors import (
    LibraryError,
    LibraryFormatError,
    LibraryNotFoundError,
    NotFoundError,
    QueryError,
    StorageFullError,
)
from medsearch_desktop.library import FORMAT, MARKER, Library, open_library
from medsearch_desktop.records import Facet


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library-home")
    write_department(folder / "source", studies=12)
    with open_library(folder / "library", create=True) as library:
        library.ingest([folder / "source"])
    return folder


@pytest.fixture
def library(home: Path):
    with open_library(home / "library") as opened:
        yield opened


def test_there_has_to_be_a_library(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFoundError, match="medsearch ingest FOLDER"):
        open_library(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(LibraryError, match="not empty"):
        open_library(tmp_path, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_library_of_a_newer_format_is_refused_and_untouched(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "library", tmp_path / "newer")
    marker = tmp_path / "newer" / MARKER
    marker.write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(LibraryFormatError, match=f"format {FORMAT + 1}"):
        open_library(tmp_path / "newer")
    assert json.loads(marker.read_text()) == {"format": FORMAT + 1}


def test_its_folder_is_private(library: Library) -> None:
    # The write-ahead log comes and goes with the mode that the database gives it, inside a private folder.
    for path in [library.path, *(p for p in library.path.rglob("*") if p.suffix != ".wal")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_boolean_words_and_fields(library: Library) -> None:
    everything = library.search("", k=50)
    assert everything.total == len(everything.hits) == 12
    effusion = {hit.report_id for hit in library.search("effusion", k=50).hits}
    tension = {hit.report_id for hit in library.search("pneumothorax", k=50).hits}
    both = {hit.report_id for hit in library.search("effusion AND pneumothorax", k=50).hits}
    either = {hit.report_id for hit in library.search("effusion OR pneumothorax", k=50).hits}
    only = {hit.report_id for hit in library.search("effusion AND NOT pneumothorax", k=50).hits}
    assert (both, either, only) == (effusion & tension, effusion | tension, effusion - tension)
    assert both
    assert only


def test_states_are_four(library: Library) -> None:
    total = library.search("", k=1).total
    counts = [library.search(f'{state}:"pleural effusion"', k=1).total for state in ("present", "absent", "uncertain")]
    assert counts == [3, 3, 3]
    (effusion,) = [row for row in library.facets()["icd10cm"] if isinstance(row, Facet) and row.code == "J90"]
    assert (effusion.present, effusion.absent, effusion.uncertain) == tuple(counts)
    assert effusion.not_mentioned == total - sum(counts)


def test_a_snippet_marks_what_was_asked_for(library: Library) -> None:
    for hit in library.search("effusions", k=20).hits:
        assert hit.highlights
        assert {hit.snippet[start:end].lower() for start, end in hit.highlights} == {"effusion"}


def test_similar_leaves_the_image_itself_out_and_filters_image_by_image(library: Library) -> None:
    query = uid(1, 1, 1)
    everything = library.similar(query, k=100)
    assert len(everything.hits) == 23
    scores = [hit.score for hit in everything.hits]
    assert scores == sorted(scores, reverse=True)
    lateral = library.similar(query, k=100, where="view:LL absent:effusion")
    wanted = [hit for hit in everything.hits if hit.view_position == "LL"]
    reports = {hit.report_id for hit in library.search("absent:effusion", k=50).hits}
    assert [hit.image_id for hit in lateral.hits] == [hit.image_id for hit in wanted if hit.report_id in reports]


def test_nothing_close_is_said(library: Library, tmp_path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert library.similar(tmp_path / "noise.png").nothing_close
    own = library.catalogue.image(uid(1, 1, 1))
    assert own is not None
    assert not library.similar(own.path).nothing_close


def test_nothing_is_imported_to_ask(library: Library, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (64, 64), 90).save(tmp_path / "film.png")
    before = library.totals()
    library.similar(tmp_path / "film.png")
    assert library.totals() == before


def test_a_region_is_another_question(library: Library) -> None:
    whole = library.similar(uid(1, 1, 1), k=30)
    region = library.similar(uid(1, 1, 1), k=30, roi=(0, 0, 32, 32))
    assert [hit.score for hit in whole.hits] != [hit.score for hit in region.hits]


def test_mixed_questions_page_through_every_match(library: Library) -> None:
    query = f"like:{uid(1, 1, 1)} effusion"
    whole = library.search(query, k=100)
    pages = [
        hit.report_id for offset in range(0, whole.total, 4) for hit in library.search(query, k=4, offset=offset).hits
    ]
    assert pages == [hit.report_id for hit in whole.hits]
    assert len(pages) == len(set(pages)) == whole.total == library.search("effusion").total


def test_labels_are_found_and_kept(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "library", tmp_path / "labelled")
    with open_library(tmp_path / "labelled") as library:
        library.label("study", uid(1, 1), "teaching")
        library.label("image", uid(2, 3, 1), "teaching")
        library.label("report", "s50000005", "odd case")
        assert {hit.report_id for hit in library.search("label:teaching").hits} == {"s50000001", "s50000003"}
        assert library.search('label:"odd case"').total == 1
        with pytest.raises(NotFoundError, match="no such study"):
            library.label("study", "1.2.3", "x")
    with open_library(tmp_path / "labelled") as library:
        assert library.search("label:teaching").total == 2


def test_a_thumbnail_is_drawn_again(library: Library) -> None:
    image_id = uid(1, 1, 1)
    before = library.thumbnail(image_id)
    library.thumbnails.path(image_id).write_bytes(b"")
    assert library.thumbnail(image_id) == before
    with pytest.raises(NotFoundError):
        library.thumbnail("none")


@pytest.mark.parametrize("query", ["(a", "a AND", "field:x", '"open', "age:x", "date:2024-13", "like:a like:b"])
def test_a_question_that_cannot_be_read_points_at_the_character(library: Library, query: str) -> None:
    with pytest.raises(QueryError) as caught:
        library.search(query)
    assert 0 <= caught.value.position <= len(query)
    assert str(caught.value).splitlines()[-1].strip() == "^"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root; run the tests in a container as root")
@pytest.mark.parametrize("size", ["600k", "1500k", "2m"])
def test_a_full_disk_loses_nothing(tmp_path: Path, size: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this container may not mount; run the tests where mount works")
    source = write_department(tmp_path / "source", studies=80)
    committed = [0]
    try:
        with pytest.raises(StorageFullError, match="Make room"), open_library(disk / "library", create=True) as library:
            library.ingest([source], on_event=lambda event: committed.append(event.images))
        # Still full, and what was committed can be read there and then.
        code = (
            "import sys; from medsearch_desktop.library import open_library\n"
            "with open_library(sys.argv[1]) as library: print(library.totals().images)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, disk / "library"], capture_output=True, text=True, check=False
        )
        shutil.copytree(disk / "library", tmp_path / "library")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == committed[-1]
    with open_library(tmp_path / "library") as library:
        assert library.totals().images == committed[-1]
        library.ingest([source])
        assert library.totals().images == library.vectors.count == 160
        assert library.fulltext.document_count == 80


def test_the_ten_line_tour_of_python(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=2)
    code = f"""
from medsearch_desktop import open_library
with open_library({str(tmp_path / "own")!r}, create=True) as library:
    print(library.ingest([{str(source)!r}]).images)
    print(library.search("chest", k=1).total)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "1"]


def test_an_index_that_lags_behind_leaves_out_what_is_gone(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=6)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        # As on a full disk: the database has learnt of the removal, the index could not.
        library._intake.remove([str(min(source.rglob("image2.dcm")))])
        hits = library.similar(uid(1, 1, 1), k=50).hits
        assert uid(1, 1, 2) not in {hit.image_id for hit in hits}
        assert len(hits) == 10


def test_an_index_whose_filling_was_cut_off_is_filled_from_the_start(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=4)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        library.vectors.reset()
        numbers, vectors = next(library.catalogue.vectors(library.model.model_id))
        library.vectors.update(numbers[:4], vectors[:4], removed=numbers[:0], watermark=0)
        library._intake.remove([str(min(source.rglob("image2.dcm")))])
    with open_library(tmp_path / "library") as library:
        assert library.vectors.count == library.totals().vectors == 7
