"""Asking by region in a real library: a drawn nodule finds nodules; what is missing, gone or interrupted."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import duckdb
import numpy as np
import pytest
from makers import uid, write_department
from PIL import Image as Raster

from medsearch_desktop.demo.build import build_demo_source
from medsearch_desktop.demo.truth import DemoTruth
from medsearch_desktop.errors import MedSearchError, NotFoundError
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import VisualAnswer
from medsearch_desktop.regions import UNMARKED
from medsearch_desktop.serve.cli import main
from medsearch_desktop.serve.wire import record, similar_json
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.regions import RegionStore

WHOLE_ONLY = "was compared with whole images"
ROI = (10, 10, 40, 40)
NODULE = ("Nodule", "large")


def inside(box: tuple[int, int, int, int], size: int) -> tuple[int, int, int, int]:
    left, top = max(0, box[0]), max(0, box[1])
    return left, top, min(size, box[0] + box[2]) - left, min(size, box[1] + box[3]) - top


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Library, DemoTruth]]:
    folder = tmp_path_factory.mktemp("demo")
    truth = build_demo_source(folder / "source", studies=40, size=512, seed=5)
    with open_library(folder / "library", create=True) as library:
        library.ingest([folder / "source" / "synthetic"])
        library.index_regions()
        yield library, truth


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Library]:
    write_department(tmp_path / "source", studies=4)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([tmp_path / "source"])
        yield library


def test_a_drawn_nodule_finds_nodules_and_shows_where(demo: tuple[Library, DemoTruth]) -> None:
    library, truth = demo
    patients = {study.study_uid: study.patient_id for study in truth.studies}
    films = {film.sop_instance_uid: film for film in truth.films if film.view == "PA"}
    by_region, by_whole, covered = [], [], 0
    for film in films.values():
        for nodule in (finding for finding in film.findings if finding.name == "Nodule" and finding.size != "small"):
            for answers, roi in ((by_region, nodule.box), (by_whole, None)):
                hits = library.similar(film.sop_instance_uid, k=200, roi=roi, where="view:PA").hits
                others = [hit for hit in hits if patients[films[hit.image_id].study_uid] != patients[film.study_uid]][
                    :5
                ]
                shown = [[f for f in films[hit.image_id].findings if f.name == "Nodule"] for hit in others]
                answers += [bool(each) for each in shown]
                for hit, each in zip(others, shown, strict=True):
                    if roi is not None:
                        assert hit.region is not None
                        assert hit.size == (512, 512)
                        x, y = hit.region[0] + hit.region[2] / 2, hit.region[1] + hit.region[3] / 2
                        covered += any(
                            box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]
                            for box in (finding.box for finding in each)
                        )
    assert len(by_region) >= 15
    assert np.mean(by_region) > 1.5 * np.mean(by_whole)
    assert covered > 0.3 * sum(by_region)


def test_scores_descend_and_a_filter_only_leaves_out(demo: tuple[Library, DemoTruth]) -> None:
    library, truth = demo
    film = next(film for film in truth.films if film.view == "PA")
    everything = library.similar(film.sop_instance_uid, k=500, roi=(100, 100, 60, 60))
    assert not everything.notes
    assert len(everything.hits) == library.totals().images - 1
    assert film.sop_instance_uid not in {hit.image_id for hit in everything.hits}
    scores = [hit.score for hit in everything.hits]
    assert scores == sorted(scores, reverse=True)
    lateral = library.similar(film.sop_instance_uid, k=500, roi=(100, 100, 60, 60), where="view:LL")
    expected = [(hit.image_id, hit.region) for hit in everything.hits if hit.view_position == "LL"]
    assert [(hit.image_id, hit.region) for hit in lateral.hits] == expected
    assert expected


def test_the_file_of_a_film_finds_it_and_the_same_place_in_it(demo: tuple[Library, DemoTruth]) -> None:
    library, truth = demo
    film, nodule = next(
        (film, finding)
        for film in truth.films
        for finding in film.findings
        if (film.view, finding.name, finding.size) == ("PA", "Nodule", "large")
    )
    row = library.catalogue.image(film.sop_instance_uid)
    assert row is not None
    best = library.similar(row.path, k=1, roi=nodule.box).hits[0]
    assert best.image_id == film.sop_instance_uid
    assert best.region == pytest.approx(nodule.box, abs=32)


def test_an_answer_travels_as_json(demo: tuple[Library, DemoTruth]) -> None:
    library, truth = demo
    answer = library.similar(truth.films[0].sop_instance_uid, k=3, roi=(0, 0, 30, 30))
    assert record(VisualAnswer, json.loads(json.dumps(similar_json(answer)))) == answer


def test_before_anything_is_indexed_the_region_alone_is_compared_and_that_is_said(small: Library) -> None:
    answer = small.similar(uid(1, 1, 1), k=4, roi=ROI)
    assert any(WHOLE_ONLY in note and "`medsearch regions`" in note for note in answer.notes)
    assert {hit.region for hit in answer.hits} == {None}
    small.index_regions()
    answer = small.similar(uid(1, 1, 1), k=4, roi=ROI)
    assert set(answer.notes) <= {UNMARKED}
    assert None not in {hit.region for hit in answer.hits}


def test_indexing_goes_on_where_it_was_and_leaves_no_thumbnail_behind(small: Library) -> None:
    images = small.totals().images
    assert small.index_regions(stop=lambda: True).stopped
    first = small.catalogue.image(uid(1, 1, 1))
    assert first is not None
    small.thumbnails.path(first.image_id).write_bytes(b"damaged")
    second = small.catalogue.image(uid(1, 2, 1))
    assert second is not None
    small.thumbnails.path(second.image_id).unlink()
    # A missing thumbnail is drawn anew; a damaged one is skipped, told in the answer, and tried again.
    summary = small.index_regions()
    assert (summary.images, summary.skipped, summary.stopped) == (images - 1, 1, False)
    notes = small.similar(second.image_id, k=2, roi=ROI).notes
    assert [note for note in notes if note.startswith(f"1 of {images} images")]
    small.thumbnails.path(first.image_id).unlink()
    assert small.index_regions().images == 1
    assert small.index_regions().images == 0


def test_source_files_need_not_be_there(small: Library, tmp_path: Path) -> None:
    (tmp_path / "source").rename(tmp_path / "away")
    summary = small.index_regions()
    assert (summary.images, summary.skipped) == (small.totals().images, 0)
    assert small.similar(uid(1, 1, 1), k=3, roi=ROI).hits[0].region is not None


def test_points_go_with_their_image(small: Library, tmp_path: Path) -> None:
    small.index_regions()
    images = small.totals().images
    gone = small.catalogue.image(uid(1, 1, 1))
    assert gone is not None
    Path(gone.path).unlink()
    small.ingest([tmp_path / "source"])
    answer = small.similar(uid(1, 2, 1), k=100, roi=ROI)
    assert uid(1, 1, 1) not in {hit.image_id for hit in answer.hits}
    assert len(answer.hits) == images - 2
    assert set(answer.notes) <= {UNMARKED}


def test_bad_regions_and_images_are_refused_as_before(small: Library, tmp_path: Path) -> None:
    small.index_regions()
    film = small.catalogue.image(uid(1, 1, 1))
    assert film is not None
    for image in (film.image_id, film.path):
        for roi in ((0, 0, 0, 5), (-1, 0, 5, 5), (90, 90, 10, 10), (0, 0, 97, 1)):
            with pytest.raises(MedSearchError, match="is not inside the 96 x 96 image"):
                small.similar(image, roi=roi)
    with pytest.raises(NotFoundError):
        small.similar("nothing", roi=ROI)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(MedSearchError):
        small.similar(tmp_path / "text.png", roi=ROI)
    assert len(small.similar("upload", roi=ROI, k=3, data=Path(film.path).read_bytes()).hits) == 3


def test_threads_may_index_and_ask_at_once(small: Library, tmp_path: Path) -> None:
    images = small.totals().images
    done: list[int] = []
    threads = [threading.Thread(target=lambda: done.append(small.index_regions().images)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert small.similar(uid(1, 1, 1), k=2, roi=ROI).hits
    for thread in threads:
        thread.join()
    assert sum(done) == images
    assert len(small.similar(uid(1, 1, 1), k=100, roi=ROI).hits) == images - 1


def test_the_command_indexes_and_a_headers_only_library_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, library = write_department(tmp_path / "source", studies=2), str(tmp_path / "library")
    assert main(["ingest", str(source), "--library", library, "--metadata-only"]) == 0
    capsys.readouterr()
    assert main(["regions", "--library", library, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 0
    assert main(["ingest", str(source), "--library", library]) == 0
    assert main(["regions", "--library", library]) == 0
    assert "4 images can be found by region from now on" in capsys.readouterr().out
    assert main(["similar", uid(1, 1, 1), "--library", library, "--roi", "10,10,40,40", "-k", "1"]) == 0
    assert re.search(r"deviations, at \d+,\d+,40,40", capsys.readouterr().out)
    assert main(["similar", uid(1, 1, 1), "--library", library, "--roi", "10,10,40,40", "-k", "1", "--json"]) == 0
    (hit,) = json.loads(capsys.readouterr().out)["hits"]
    assert hit["region"][2:] == [40, 40]
    assert hit["size"] == [96, 96]


def test_a_library_of_before_opens_and_points_of_a_wrong_length_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "library.duckdb"
    sql = resources.files("medsearch_desktop.store").joinpath("schema.sql").read_text("utf-8")
    parts = re.split(r"^-- migration \d+$", sql, flags=re.MULTILINE)
    before = next(number for number, part in enumerate(parts) if "CREATE TABLE regions" in part)
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY)")
        for number in range(1, before):
            connection.execute(parts[number])
            connection.execute("INSERT INTO migrations VALUES ($n)", {"n": number})
    database = Database(file)
    store = RegionStore(database, "regions1", folder=tmp_path / "points")
    assert (store.count(), store.count_lacking(), len(store.catch_up().numbers)) == (0, 0, 0)
    database.write("INSERT INTO regions VALUES (1, 'regions1', 'short'::BLOB), (2, 'other', 'short'::BLOB)")
    store = RegionStore(database, "regions1", folder=tmp_path / "points")
    assert (store.count(), len(store.catch_up().numbers), len(store.of([1, 2]).numbers)) == (1, 0, 0)
    # Points of an image that is gone meanwhile are not kept.
    assert store.add([7], np.zeros((1, 64), np.uint16), np.zeros((1, 64, 128), np.int8)) == 0
    database.close()


def test_a_foreign_picture_is_told_and_a_film_of_the_library_is_not(
    demo: tuple[Library, DemoTruth], tmp_path: Path
) -> None:
    library, truth = demo
    rng = np.random.default_rng(6)
    for name, pixels in (
        ("noise", rng.integers(0, 256, (300, 300))),
        ("stripes", np.tile(np.arange(300) // 15 % 2 * 200, (300, 1))),
        ("flat", np.full((300, 300), 90)),
    ):
        Raster.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{name}.png")
        assert library.similar(tmp_path / f"{name}.png", roi=(100, 100, 60, 60)).nothing_close
    marks = [(film, mark) for film in truth.films for mark in film.findings if (mark.name, mark.size) != NODULE][:20]
    told = [library.similar(film.sop_instance_uid, roi=inside(mark.box, 512)).nothing_close for film, mark in marks]
    assert sum(told) <= 2


def test_a_region_of_nothing_in_particular_is_told_and_a_large_nodule_is_not(demo: tuple[Library, DemoTruth]) -> None:
    library, truth = demo
    nodules = [(film, mark) for film in truth.films for mark in film.findings if (mark.name, mark.size) == NODULE]
    assert len(nodules) >= 3
    for film, mark in nodules:
        assert UNMARKED not in library.similar(film.sop_instance_uid, roi=inside(mark.box, 512), k=1).notes
    film = next(film for film in truth.films if film.view == "PA" and not film.findings)
    corners = [library.similar(film.sop_instance_uid, roi=(x, 490, 20, 20), k=1).notes for x in (0, 240, 490)]
    assert any(UNMARKED in notes for notes in corners)


def test_files_of_points_are_a_cache(small: Library, tmp_path: Path) -> None:
    small.index_regions()
    expected = small.similar(uid(1, 1, 1), k=10, roi=ROI)
    folder = tmp_path / "library" / "indexes" / "regions"
    shutil.rmtree(folder)
    assert small.similar(uid(1, 1, 1), k=10, roi=ROI) == expected
    small.close()
    (folder / "vectors.u8").write_bytes(b"damaged")
    with open_library(tmp_path / "library") as library:
        assert library.similar(uid(1, 1, 1), k=10, roi=ROI) == expected
