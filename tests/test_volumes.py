"""Volumes through a library: key slices, their mean, questions by series, and series that come in pieces."""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from makers import Film, dataset, register_model, uid, write_department
from servers import local_server
from volumes_made import enhanced_dataset, series_uid, slice_dataset, slice_uid, write_series

from medsearch_desktop.errors import MedSearchError, NotFoundError
from medsearch_desktop.image.keyslices import key_slices
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import Place


def keys(library: Library, series: int) -> list[str]:
    rows = library._database.read(
        "SELECT image_id FROM vectors JOIN images USING (image_no) WHERE series_uid = $uid ORDER BY image_id",
        {"uid": series_uid(series)},
    )
    return [image_id for (image_id,) in rows]


def places_of(ids: list[str]) -> list[int]:
    return sorted(int(image_id.rpartition(".")[2]) - 1 for image_id in ids)


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True, key_slices=5) as opened:
        yield opened


def test_a_series_has_a_few_vectors_and_all_its_records(tmp_path: Path, library: Library) -> None:
    write_series(tmp_path / "in", 1, 23)
    summary = library.ingest([tmp_path / "in"])
    assert (summary.indexed, summary.images, summary.failed, summary.caught_up) == (23, 23, 0, 5)
    assert places_of(keys(library, 1)) == [2, 6, 11, 16, 20]
    assert library.vectors.count == 5
    assert library.waiting_images() == 0
    assert library.ingest([tmp_path / "in"]).caught_up == 0


def test_thumbnails_are_of_key_slices_and_the_others_are_drawn_on_demand(tmp_path: Path, library: Library) -> None:
    write_series(tmp_path / "in", 1, 9)
    library.ingest([tmp_path / "in"])
    written = [place for place in range(9) if library.thumbnails.read(slice_uid(1, place))]
    assert written == places_of(keys(library, 1))
    (other,) = list(set(range(1, 9)) - set(written))[:1]
    assert (library.thumbnail(slice_uid(1, other)) or b"")[:4] == b"RIFF"


@pytest.mark.parametrize("seed", range(2))
def test_pieces_in_any_order_come_to_what_the_whole_does(tmp_path: Path, library: Library, seed: int) -> None:
    places = list(range(23))
    random.Random(seed).shuffle(places)
    for start in range(0, 23, 8):
        write_series(tmp_path / "in", 1, 23, places=places[start : start + 8])
        library.ingest([tmp_path / "in"])
        assert library.vectors.count == len(keys(library, 1)) == 5
    assert places_of(keys(library, 1)) == [2, 6, 11, 16, 20]
    write_series(tmp_path / "at once", 1, 23)
    with open_library(tmp_path / "other", create=True, key_slices=5) as other:
        other.ingest([tmp_path / "at once"])
        means = [held.volumes._stacks.mean(series_uid(1), held.model_id) for held in (library, other)]
    assert np.array_equal(*means)


def test_a_slice_that_is_chosen_again_is_found_again(tmp_path: Path, library: Library) -> None:
    # The index keeps the row of a vector that went: it has to come back.
    write_series(tmp_path / "in", 1, 23)
    library.ingest([tmp_path / "in"])
    extra = write_series(tmp_path / "in", 1, 40, places=list(range(23, 40)))
    library.ingest([tmp_path / "in"])
    assert places_of(keys(library, 1)) == [4, 12, 20, 28, 36]
    for path in extra:
        path.unlink()
    library.ingest([tmp_path / "in"])
    assert places_of(keys(library, 1)) == [2, 6, 11, 16, 20]
    assert library.vectors.count == 5
    for place in (2, 6, 11, 16, 20):
        (hit,) = library.similar(tmp_path / "in" / f"{place * 37 % 101:03d}-1-{place}.dcm", k=1).hits
        assert (hit.image_id, hit.series_uid) == (slice_uid(1, place), series_uid(1))
        assert hit.score > 0.9999


def test_a_series_is_asked_for_and_found(tmp_path: Path, library: Library) -> None:
    for series in (1, 2, 3, 4):
        write_series(tmp_path / "in" / str(series), series, 12)
    for place in range(12):
        twin = slice_dataset(1, place, 12, SeriesInstanceUID=series_uid(9), SOPInstanceUID=slice_uid(9, place))
        twin.save_as(tmp_path / "in" / f"twin{place}.dcm", enforce_file_format=True)
    write_department(tmp_path / "in" / "films", studies=3)
    library.ingest([tmp_path / "in"])
    answer = library.similar(series_uid(1), k=3)
    assert answer.hits[0].series_uid == series_uid(9)
    assert answer.hits[0].score > 0.999
    assert answer.hits[0].image_id in keys(library, 9)
    assert len({hit.series_uid for hit in answer.hits}) == 3
    assert series_uid(1) not in {hit.series_uid for hit in answer.hits}
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)
    only = library.similar(series_uid(1), k=3, where="patient:P0003")
    assert [hit.series_uid for hit in only.hits] == [series_uid(3)]


def test_a_volume_is_one_answer(tmp_path: Path, library: Library) -> None:
    for series in (1, 2, 3):
        write_series(tmp_path / "in" / str(series), series, 12)
    write_department(tmp_path / "in" / "films", studies=2)
    library.ingest([tmp_path / "in"])
    hits = library.similar(slice_uid(1, 5), k=10).hits
    named = [hit.series_uid for hit in hits if hit.series_uid]
    assert sorted(named) == [series_uid(2), series_uid(3)]
    assert len(hits) == 2 + 4
    assert all(hit.series_uid == "" for hit in library.similar(uid(1, 1, 1), k=1).hits)


def test_a_series_of_films_is_asked_for_by_the_mean_of_its_films(tmp_path: Path, library: Library) -> None:
    write_department(tmp_path / "in", studies=4)
    library.ingest([tmp_path / "in"])
    answer = library.similar(uid(1, 1, 0), k=10)
    assert len(answer.hits) == 6
    assert not {uid(1, 1, 1), uid(1, 1, 2)} & {hit.image_id for hit in answer.hits}


def test_what_is_no_series_is_told(tmp_path: Path, library: Library) -> None:
    write_series(tmp_path / "in", 1, 3)
    library.ingest([tmp_path / "in"], metadata_only=True)
    with pytest.raises(NotFoundError, match="neither an image"):
        library.similar("1.2.3")
    with pytest.raises(NotFoundError, match="no image of this series has a vector"):
        library.similar(series_uid(1))
    with pytest.raises(MedSearchError, match="no region"):
        library.similar(series_uid(1), roi=(0, 0, 5, 5))


def test_headers_first_and_pixels_later(tmp_path: Path, library: Library) -> None:
    write_series(tmp_path / "in", 1, 23)
    library.ingest([tmp_path / "in"], metadata_only=True)
    assert library.vectors.count == 0
    library.ingest([tmp_path / "in"])
    assert places_of(keys(library, 1)) == [2, 6, 11, 16, 20]


def test_a_key_slice_that_cannot_be_decoded_makes_room_and_is_listed(tmp_path: Path, library: Library) -> None:
    write_series(tmp_path / "in", 1, 23)
    # Whole by its lengths, so that only decoding tells.
    broken = slice_dataset(1, 11, 23)
    broken.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"
    from pydicom.encaps import encapsulate

    broken.PixelData = encapsulate([b"\xff\xd8" + bytes(100) + b"\xff\xd9"])
    broken["PixelData"].is_undefined_length = True
    path = tmp_path / "in" / f"{11 * 37 % 101:03d}-1-11.dcm"
    broken.save_as(path, enforce_file_format=True)
    summary = library.ingest([tmp_path / "in"])
    assert [failure.path for failure in summary.failures] == [str(path)]
    assert [failure.path for failure in library.failures()] == [str(path)]
    chosen = places_of(keys(library, 1))
    assert len(chosen) == 5
    assert 11 not in chosen
    assert library.waiting_images() == 0
    again = library.ingest([tmp_path / "in"])
    assert (again.unchanged, again.caught_up) == (23, 0)


def test_a_slice_that_is_cut_off_is_no_key_slice_and_is_listed(tmp_path: Path, library: Library) -> None:
    paths = write_series(tmp_path / "in", 1, 5)
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    summary = library.ingest([tmp_path / "in"])
    assert (summary.failed, summary.indexed) == (1, 4)
    assert places_of(keys(library, 1)) == [0, 1, 3, 4]


def test_what_an_ingest_was_cut_off_from_the_next_makes_up_for(
    tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "in", 1, 23)
    stop = threading.Event()
    library.ingest([tmp_path / "in"], on_event=lambda event: stop.set() if event.stage == "vector" else None, stop=stop)
    assert len(keys(library, 1)) < 5
    library.ingest([tmp_path / "in"])
    assert places_of(keys(library, 1)) == [2, 6, 11, 16, 20]
    assert library.volumes._stacks.mean(series_uid(1), library.model_id) is not None


def test_a_removed_series_leaves_nothing(tmp_path: Path, library: Library) -> None:
    write_series(tmp_path / "in", 1, 7)
    library.ingest([tmp_path / "in"])
    assert library.volumes._stacks.mean(series_uid(1), library.model_id) is not None
    assert library.forget_source(str(tmp_path / "in")) == 7
    counts = [
        library._database.read(f"SELECT count(*) FROM {table}") for table in ("slices", "stacks", "series_vectors")
    ]
    assert counts == [[(0,)]] * 3
    assert library.vectors.count == 0


def test_another_model_has_means_of_its_own(tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    register_model(tmp_path / "data", "own")
    for series in (1, 2):
        write_series(tmp_path / "in" / str(series), series, 12)
    library.ingest([tmp_path / "in"])
    done = library.use_model("own").join()
    assert (done.images, done.in_use) == (10, True)
    assert [hit.series_uid for hit in library.similar(series_uid(1)).hits] == [series_uid(2)]


def test_an_enhanced_instance_is_a_volume_in_one_file(tmp_path: Path, library: Library) -> None:
    (tmp_path / "in").mkdir()
    enhanced_dataset(1, 30).save_as(tmp_path / "in" / "all.dcm", enforce_file_format=True)
    write_series(tmp_path / "in", 2, 30)
    summary = library.ingest([tmp_path / "in"])
    assert (summary.failed, summary.caught_up) == (0, 10)
    frames = [int(image_id.rpartition("#")[2]) - 1 for image_id in keys(library, 1)]
    assert len(frames) == 5
    assert np.ptp(frames) > 20
    assert [hit.series_uid for hit in library.similar(series_uid(2)).hits] == [series_uid(1)]
    assert (library.thumbnail(keys(library, 1)[0]) or b"")[:4] == b"RIFF"


def test_the_number_of_key_slices_may_change(tmp_path: Path, library: Library) -> None:
    write_series(tmp_path / "in", 1, 23)
    library.ingest([tmp_path / "in"])
    library.close()
    with open_library(tmp_path / "library", key_slices=3) as fewer:
        fewer.ingest([tmp_path / "in"])
        assert len(keys(fewer, 1)) == fewer.vectors.count == 3


def test_the_choice_does_not_depend_on_the_order_of_slices() -> None:
    slices = [
        (Place(turned, float(z)), (number, 0, f"{turned}{z}{number}"))
        for number, (turned, z) in enumerate(
            itertools.product(
                ("a", "b"),
                (0, 5, 10, 15),
            )
        )
        for _ in range(1)
    ]
    wanted = {slices[i][1] for i in key_slices([p for p, _ in slices], [n for _, n in slices], 4)}
    for seed in range(5):
        mixed = random.Random(seed).sample(slices, len(slices))
        assert {mixed[i][1] for i in key_slices([p for p, _ in mixed], [n for _, n in mixed], 4)} == wanted


def test_phases_at_one_place_count_once() -> None:
    # Ten places with twelve phases each, phase by phase: a stride of ten would always hit the same place.
    places = [Place("t", float(z)) for _ in range(12) for z in range(10)]
    numbers = [(number, 0, "") for number in range(120)]
    chosen = key_slices(places, numbers, 5)
    assert len({places[index].position for index in chosen}) == 5


def test_without_places_the_instance_number_decides() -> None:
    places = [Place("t", float(z)) for z in range(9)] + [Place()]
    numbers = [(9 - z, 0, "") for z in range(9)] + [(10, 0, "")]
    assert [numbers[index][0] for index in key_slices(places, numbers, 2)] == [3, 6]


def test_each_mammogram_of_a_series_has_its_own_side(tmp_path: Path, library: Library) -> None:
    (tmp_path / "in").mkdir()
    for number, side in enumerate("LRLR", start=1):
        film = dataset(Film(image=number, modality="MG", view="CC"))
        film.ImageLaterality = side
        film.save_as(tmp_path / "in" / f"{number}.dcm", enforce_file_format=True)
    library.ingest([tmp_path / "in"])
    rights = library.similar(uid(1, 1, 1), where="laterality:R").hits
    assert sorted(hit.image_id for hit in rights) == [uid(1, 1, 2), uid(1, 1, 4)]
    assert library.search("laterality:R").total == library.search("side:L").total == 1
    study = library.holdings.study(uid(1, 1))
    assert [image.laterality for image in study.images] == ["L", "R", "L", "R"]


def test_a_series_is_asked_for_through_the_interface(tmp_path: Path, library: Library) -> None:
    for series in (1, 2):
        write_series(tmp_path / "in" / str(series), series, 6)
    library.ingest([tmp_path / "in"])
    with local_server(library) as server:
        answer = server.client.get("/api/similar", params={"image": series_uid(1)})
        assert [hit["series_uid"] for hit in answer.json()["hits"]] == [series_uid(2)]
        # What is neither image nor series is no path either.
        assert server.client.get("/api/similar", params={"image": str(tmp_path)}).status_code == 404
