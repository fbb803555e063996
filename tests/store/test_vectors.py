"""Nearest vectors: exactness, filters, removal, crashes and damage, on real files and a real graph."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from medsearch_desktop.store.vectors import VectorIndex

NONE = np.empty(0, np.int64)
DIM = 64


def unit(count: int, *, seed: int) -> np.ndarray:
    # Clustered, as embeddings of films are: a uniform cloud is harder than anything real.
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIM))
    vectors = centres[rng.integers(0, 20, count)] + 0.5 * rng.standard_normal((count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def open_index(folder: Path, *, exact_below: int = 100_000, model_id: str = "m") -> VectorIndex:
    return VectorIndex(folder, model_id=model_id, dim=DIM, exact_below=exact_below, breadth=200, threads=1)


def brute(numbers: np.ndarray, vectors: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    order = np.lexsort((numbers, -(vectors @ query)))
    return numbers[order][:k].tolist()


def test_an_empty_index_answers_nothing(tmp_path: Path) -> None:
    numbers, scores = open_index(tmp_path).search(unit(1, seed=0)[0], 5)
    assert numbers.size == scores.size == 0


def test_exact_search_is_brute_force(tmp_path: Path) -> None:
    vectors, numbers = unit(500, seed=1), np.arange(500) * 3
    index = open_index(tmp_path)
    index.update(numbers, vectors, removed=NONE, watermark=7)
    for query in unit(20, seed=2):
        found, scores = index.search(query, 10)
        assert found.tolist() == brute(numbers, vectors, query, 10)
        assert np.all(np.diff(scores) <= 0)


def test_scores_do_not_depend_on_how_they_were_found(tmp_path: Path) -> None:
    vectors, numbers = unit(3000, seed=1), np.arange(3000)
    whole, graph = open_index(tmp_path / "whole"), open_index(tmp_path / "graph", exact_below=500)
    for index in (whole, graph):
        index.update(numbers, vectors, removed=NONE, watermark=1)
    graph.extend_graph()
    for query in unit(20, seed=2):
        found, scores = whole.search(query, 10)
        right = (vectors[found].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        assert np.array_equal(scores, right.astype(np.float32))
        for allowed in (found, numbers[::2], numbers):
            again = dict(zip(*(part.tolist() for part in whole.search(query, 10, allowed=allowed)), strict=True))
            assert all(again.get(number, score) == score for number, score in zip(found, scores, strict=True))
        near = dict(zip(*(part.tolist() for part in graph.search(query, 10)), strict=True))
        shared = near.keys() & set(found.tolist())
        assert len(shared) >= 8
        assert all(near[number] == score for number, score in zip(found, scores, strict=True) if number in shared)


def test_it_survives_closing(tmp_path: Path) -> None:
    vectors = unit(50, seed=1)
    open_index(tmp_path).update(np.arange(50), vectors, removed=NONE, watermark=9)
    again = open_index(tmp_path)
    assert (again.watermark, again.count) == (9, 50)
    assert again.search(vectors[17], 1)[0].tolist() == [17]


def test_the_same_update_twice_changes_nothing(tmp_path: Path) -> None:
    index, vectors = open_index(tmp_path), unit(50, seed=1)
    index.update(np.arange(50), vectors, removed=NONE, watermark=1)
    index.update(np.arange(40, 60), np.concatenate([vectors[40:], unit(10, seed=5)]), removed=NONE, watermark=2)
    assert index.count == 60


def test_numbers_may_come_in_any_order(tmp_path: Path) -> None:
    vectors = unit(3000, seed=1)
    numbers = np.random.default_rng(3).permutation(3000) * 2
    index = open_index(tmp_path, exact_below=500)
    for start in range(0, 3000, 1000):
        part = slice(start, start + 1000)
        index.update(numbers[part], vectors[part], removed=NONE, watermark=1)
        index.extend_graph()
    assert (index.count, index.graph_count) == (3000, 3000)
    assert np.array_equal(index.vectors_of(numbers[::7]), vectors[::7])
    assert index.lacks(np.array([1, 0, 6001, 5998, 7])).tolist() == [1, 6001, 7]
    with pytest.raises(KeyError):
        index.vectors_of(np.array([1]))
    allowed = np.array([5, 1998, 40, 800, 9999])
    again = open_index(tmp_path, exact_below=500)
    for query in unit(10, seed=6):
        assert again.search(query, 1)[0].tolist() == brute(numbers, vectors, query, 1)
        expected = [no for no in brute(numbers, vectors, query, 3000) if no in allowed]
        assert again.search(query, 10, allowed=allowed)[0].tolist() == expected


def test_questions_are_answered_while_it_grows(tmp_path: Path) -> None:
    vectors = unit(4000, seed=1)
    index = open_index(tmp_path, exact_below=200)
    index.update(np.arange(500), vectors[:500], removed=NONE, watermark=1)
    done = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        while not done.is_set():
            for number in (3, 77, 499):
                found = index.search(vectors[number], 5)[0].tolist()
                if found[0] != number or len(set(found)) != 5:
                    wrong.append((number, found))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for start in range(500, 4000, 500):
            index.update(np.arange(start, start + 500), vectors[start : start + 500], removed=NONE, watermark=1)
            index.extend_graph()
    finally:
        done.set()
        asking.join()
    assert wrong == []
    assert index.graph_count == 4000


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.99])
def test_a_filter_never_costs_recall(tmp_path: Path, share: float) -> None:
    count = 4000
    vectors, numbers = unit(count, seed=1), np.arange(count)
    index = open_index(tmp_path, exact_below=500)
    index.update(numbers, vectors, removed=NONE, watermark=1)
    index.extend_graph()
    allowed = np.sort(np.random.default_rng(4).choice(numbers, max(1, int(share * count)), replace=False))
    for query in unit(10, seed=6):
        found, _ = index.search(query, 10, allowed=allowed)
        assert found.tolist() == brute(allowed, vectors[allowed], query, 10)


def test_the_graph_finds_what_exact_search_finds(tmp_path: Path) -> None:
    vectors = unit(6000, seed=1)
    index = open_index(tmp_path, exact_below=1000)
    index.update(np.arange(6000), vectors, removed=NONE, watermark=1)
    index.extend_graph()
    assert index.graph_count == 6000
    hits = sum(
        len(set(index.search(query, 10)[0].tolist()) & set(index.exact(query, 10)[0].tolist()))
        for query in unit(100, seed=8)
    )
    assert hits / 1000 >= 0.99


def test_what_the_graph_lacks_is_found_all_the_same(tmp_path: Path) -> None:
    index = open_index(tmp_path, exact_below=1000)
    index.update(np.arange(2000), unit(2000, seed=1), removed=NONE, watermark=1)
    index.extend_graph()
    late = unit(30, seed=99)
    index.update(np.arange(5000, 5030), late, removed=NONE, watermark=2)
    index.extend_graph()
    assert index.graph_count == 2000
    for number, vector in zip(range(5000, 5030), late, strict=True):
        assert index.search(vector, 1)[0].tolist() == [number]


def test_removed_images_are_never_found(tmp_path: Path) -> None:
    vectors = unit(3000, seed=1)
    index = open_index(tmp_path, exact_below=500)
    index.update(np.arange(3000), vectors, removed=NONE, watermark=1)
    index.extend_graph()
    gone = np.arange(0, 300)
    index.update(NONE, vectors[:0], removed=gone, watermark=2)
    for query in vectors[:50]:
        found, _ = index.search(query, 20)
        assert len(found) == 20
        assert not set(found.tolist()) & set(gone.tolist())
    assert index.count == 2700


def test_many_removals_make_the_files_small_again(tmp_path: Path) -> None:
    vectors = unit(1000, seed=1)
    index = open_index(tmp_path)
    index.update(np.arange(1000), vectors, removed=NONE, watermark=1)
    before = (tmp_path / "vectors.f32").stat().st_size
    index.update(NONE, vectors[:0], removed=np.arange(600), watermark=2)
    assert (tmp_path / "vectors.f32").stat().st_size < before / 2
    assert (index.count, index.watermark) == (400, 2)
    assert index.search(vectors[700], 1)[0].tolist() == [700]


def test_bytes_that_were_never_vouched_for_are_ignored(tmp_path: Path) -> None:
    vectors = unit(50, seed=1)
    open_index(tmp_path).update(np.arange(50), vectors, removed=NONE, watermark=1)
    for name in ("vectors.f32", "numbers.i64"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"half a row")
    index = open_index(tmp_path)
    index.update(np.arange(50, 60), unit(10, seed=3), removed=NONE, watermark=2)
    assert index.search(unit(10, seed=3)[4], 1)[0].tolist() == [54]


@pytest.mark.parametrize("damage", ["missing", "short", "junk", "model", "format"])
def test_damage_empties_the_index_and_asks_to_be_filled(tmp_path: Path, damage: str) -> None:
    open_index(tmp_path).update(np.arange(50), unit(50, seed=1), removed=NONE, watermark=5)
    sidecar = tmp_path / "index.json"
    if damage == "missing":
        (tmp_path / "vectors.f32").unlink()
    elif damage == "short":
        (tmp_path / "vectors.f32").write_bytes(b"12")
    elif damage == "junk":
        sidecar.write_text("{")
    elif damage == "format":
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "format": 99}))
    index = open_index(tmp_path, model_id="other" if damage == "model" else "m")
    assert (index.watermark, index.count) == (0, 0)


def test_an_altered_graph_is_never_loaded(tmp_path: Path) -> None:
    vectors = unit(2000, seed=1)
    index = open_index(tmp_path, exact_below=500)
    index.update(np.arange(2000), vectors, removed=NONE, watermark=1)
    index.extend_graph()
    (graph,) = tmp_path.glob("graph-*.hnsw")
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 0xFF
    graph.write_bytes(content)
    again = open_index(tmp_path, exact_below=500)
    assert again.search(vectors[3], 1)[0].tolist() == [3]
    assert again.graph_count == 0
    again.extend_graph()
    assert open_index(tmp_path, exact_below=500).graph_count == 2000


def test_isolation_is_what_almost_every_image_does_better_than(tmp_path: Path) -> None:
    vectors = unit(2000, seed=1)
    index = open_index(tmp_path)
    index.update(np.arange(2000), vectors, removed=NONE, watermark=1)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    better = (cosines.max(axis=1) > index.isolation()).mean()
    assert 0.93 < better < 1
    assert open_index(tmp_path).isolation() == index.isolation()
    stranger = np.random.default_rng(5).standard_normal(DIM).astype(np.float32)
    assert index.exact(stranger / np.linalg.norm(stranger), 1)[1][0] < index.isolation()


def test_its_files_are_private(tmp_path: Path) -> None:
    index = open_index(tmp_path, exact_below=10)
    index.update(np.arange(50), unit(50, seed=1), removed=NONE, watermark=1)
    index.extend_graph()
    files = {file.name.partition("-")[0]: file for file in tmp_path.iterdir()}
    assert files.keys() == {"index.json", "vectors.f32", "numbers.i64", "graph", "directions"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in files.values())
