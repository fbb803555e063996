"""The files of striking points as a cache: made of the table whenever they are not what they should be."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medsearch_desktop.errors import StorageFullError
from medsearch_desktop.store import points as points_of
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.points import OFFSET, POINTS, VALUES, PointFiles
from medsearch_desktop.store.regions import RegionStore

REGION = "regions1"


def made(count: int, seed: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 1024, (count, POINTS)).astype(np.uint16)
    return places, rng.integers(-127, 128, (count, POINTS, VALUES)).astype(np.int8)


def write_rows(database: Database, numbers: list[int], places: NDArray[np.uint16], vectors: NDArray[np.int8]) -> None:
    for number, place, vector in zip(numbers, places, vectors, strict=True):
        database.write(
            "INSERT INTO regions VALUES ($no, $region, $points)",
            {"no": number, "region": REGION, "points": place.astype("<u2").tobytes() + vector.tobytes()},
        )


def changed(database: Database) -> None:
    database.write("INSERT INTO changes SELECT nextval('change_seq'), 'image', 1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "library.duckdb")
    yield opened
    opened.close()


def opened(database: Database, tmp_path: Path) -> RegionStore:
    return RegionStore(database, REGION, folder=tmp_path / "points")


def sums(store: RegionStore) -> dict[int, float]:
    numbers, values = store.compare(lambda part: part.sum(axis=(1, 2)).astype(np.float32), threads=2)
    return dict(zip(numbers.tolist(), values.tolist(), strict=True))


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    places, vectors = made(5)
    files = PointFiles(tmp_path / "f", region_id=REGION)
    files.append(np.array([4, 9]), places[:2], vectors[:2], watermark=3)
    files.append(np.array([1, 7, 2]), places[2:], vectors[2:], watermark=5)
    again = PointFiles(tmp_path / "f", region_id=REGION)
    assert (again.numbers.tolist(), again.watermark) == ([4, 9, 1, 7, 2], 5)
    assert (again.vectors(1, 4).astype(int) - OFFSET == vectors[1:4]).all()
    own_places, own_vectors = again.rows([3, 0])
    assert (own_places == places[[3, 0]]).all()
    assert (own_vectors == vectors[[3, 0]]).all()
    assert again.rows([])[1].shape == (0, POINTS, VALUES)
    if sys.platform != "win32":
        assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "f").iterdir()} == {0o600}


def test_what_a_cut_off_write_has_left_is_written_over(tmp_path: Path) -> None:
    places, vectors = made(3)
    PointFiles(tmp_path, region_id=REGION).append(np.array([1]), places[:1], vectors[:1], watermark=1)
    for name in ("vectors.u8", "places.u16", "numbers.i64"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"cut off")
    files = PointFiles(tmp_path, region_id=REGION)
    files.append(np.array([2, 3]), places[1:], vectors[1:], watermark=2)
    again = PointFiles(tmp_path, region_id=REGION)
    assert again.numbers.tolist() == [1, 2, 3]
    assert (again.rows([0, 1, 2])[1] == vectors).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "vectors.u8").unlink(),
        lambda folder: (folder / "places.u16").write_bytes(b"short"),
        lambda folder: (folder / "index.json").write_text("{"),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: (folder / "index.json").write_text(json.dumps({"format": 99, "region_id": REGION, "rows": 2})),
        lambda folder: (folder / "index.json").write_text(json.dumps({"format": 1, "region_id": "other", "rows": 2})),
    ],
)
def test_damaged_files_are_made_anew(database: Database, tmp_path: Path, damage: object) -> None:
    write_rows(database, [3, 8], *made(2))
    expected = sums(opened(database, tmp_path))
    assert set(expected) == {3, 8}
    assert callable(damage)
    damage(tmp_path / "points")
    assert len(PointFiles(tmp_path / "points", region_id=REGION).numbers) == 0
    assert sums(opened(database, tmp_path)) == expected


def test_a_file_that_is_cut_short_while_it_is_open_is_made_anew(database: Database, tmp_path: Path) -> None:
    write_rows(database, [3, 8], *made(2))
    store = opened(database, tmp_path)
    expected = sums(store)
    with (tmp_path / "points" / "vectors.u8").open("r+b") as file:
        file.truncate(POINTS * VALUES + 7)
    assert sums(store) == expected
    (tmp_path / "points" / "places.u16").unlink()
    assert store.of([8]).numbers.tolist() == [8]


def test_it_learns_what_came_and_forgets_what_went(database: Database, tmp_path: Path) -> None:
    places, vectors = made(12)
    write_rows(database, list(range(10)), places[:10], vectors[:10])
    store = opened(database, tmp_path)
    assert set(sums(store)) == set(range(10))
    # Without a change that the library has noted nothing is read again.
    database.write("DELETE FROM regions WHERE image_no = 4")
    write_rows(database, [20], places[10:11], vectors[10:11])
    changed(database)
    assert set(sums(store)) == {*range(10), 20} - {4}
    assert store.of([4, 20, 99]).numbers.tolist() == [20]
    assert len(store.catch_up().numbers) == 11
    # When many are gone the files are made anew without them.
    database.write("DELETE FROM regions WHERE image_no < 4")
    changed(database)
    assert set(sums(store)) == {5, 6, 7, 8, 9, 20}
    assert len(store.catch_up().numbers) == 6
    assert set(sums(opened(database, tmp_path))) == {5, 6, 7, 8, 9, 20}


def test_files_of_a_later_state_of_the_database_are_dropped(database: Database, tmp_path: Path) -> None:
    places, vectors = made(2)
    PointFiles(tmp_path / "points", region_id=REGION).append(np.array([5]), places[:1], vectors[:1], watermark=40)
    # Another image has that number in the database that was put back.
    write_rows(database, [5], places[1:], vectors[1:])
    assert (opened(database, tmp_path).of([5]).vectors == vectors[1:]).all()


def test_after_a_full_disk_the_rows_are_put_in_later(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(database, [3, 8], *made(2))
    store = opened(database, tmp_path)

    def full(file: Path, content: bytes, *, at: int) -> None:
        append(file, content[:5] if file.suffix == ".u16" else content, at=at)
        if file.suffix == ".u16":
            raise OSError(28, "No space left on device")

    append = points_of.append
    with monkeypatch.context() as patched:
        patched.setattr(points_of, "append", full)
        with pytest.raises(StorageFullError):
            sums(store)
    assert set(sums(store)) == {3, 8}
