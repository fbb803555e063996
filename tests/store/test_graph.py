"""The graph over short codes: what it may miss, what it costs, how it grows, and what becomes of damage."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest

from medsearch_desktop.errors import LibraryError
from medsearch_desktop.store import segments
from medsearch_desktop.store import vectors as store_vectors
from medsearch_desktop.store.directions import MOST, SHARE, Directions
from medsearch_desktop.store.graph import Graph
from medsearch_desktop.store.vectors import VectorIndex

NONE = np.empty(0, np.int64)
DIM = 256


def drawn(count: int, *, seed: int, dim: int = DIM, kind: int = 0) -> np.ndarray:
    """Vectors whose variance falls off along directions of their own for each `kind`."""
    axes = np.linalg.qr(np.random.default_rng(kind).standard_normal((dim, dim)))[0]
    spread = (1 + np.arange(dim) / 8.0) ** -1.5
    vectors = np.random.default_rng([seed, kind]).standard_normal((count, dim)) * spread @ axes.T
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(folder: Path, vectors: np.ndarray, *, exact_below: int = 100, breadth: int = 100) -> VectorIndex:
    index = open_index(folder, exact_below=exact_below, breadth=breadth)
    index.update(np.arange(len(vectors)), vectors, removed=NONE, watermark=1)
    index.extend_graph()
    return index


def open_index(folder: Path, *, exact_below: int = 100, breadth: int = 100) -> VectorIndex:
    dim = DIM
    return VectorIndex(folder, model_id="m", dim=dim, exact_below=exact_below, breadth=breadth, threads=1)


def directions_in(folder: Path) -> bytes:
    (file,) = folder.glob("directions-*.f32")
    return file.read_bytes()


def recall(index: VectorIndex, queries: np.ndarray, *, k: int = 10, allowed: np.ndarray | None = None) -> float:
    hits = 0
    for query in queries:
        true = index.exact(query, index.count)[0]
        if allowed is not None:
            true = true[np.isin(true, allowed)]
        hits += len(np.intersect1d(index.search(query, k, allowed=allowed)[0], true[:k]))
    return hits / (k * len(queries))


def test_directions_hold_what_they_promise() -> None:
    vectors = drawn(2000, seed=1)
    directions = Directions.learn(vectors)
    codes = directions.codes(vectors)
    assert codes.shape == (2000, directions.width)
    assert directions.width % 16 == 0
    assert directions.width <= MOST + 1
    kept = np.square(codes[:, :-1]).sum() / np.square(vectors - vectors.mean(axis=0)).sum()
    assert SHARE <= kept <= 1
    assert directions.lost == pytest.approx(np.square(codes[:, -1]).mean(), rel=1e-3)
    # What a code leaves out is told by its length: codes are never further apart than their vectors, and rarely nearer.
    for left, right in ((0, 1), (5, 900), (17, 18)):
        apart = np.linalg.norm(vectors[left] - vectors[right])
        assert 0.9 * apart <= np.linalg.norm(codes[left] - codes[right]) <= apart + 1e-5


def test_what_directions_leave_out_leads_nowhere() -> None:
    # Half of the variance lies beyond the directions, where two vectors are at right angles.
    axes = np.linalg.qr(np.random.default_rng(3).standard_normal((1024, 1024)))[0]
    spread = np.where(np.arange(1024) < 40, 1.0, 0.2)
    rng = np.random.default_rng(4)
    length = rng.uniform(0.5, 2, (3000, 1))
    drawn = np.concatenate([rng.standard_normal((3000, 40)), length * rng.standard_normal((3000, 984))], axis=1)
    vectors = (drawn * spread @ axes.T).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = Directions.learn(vectors[:2900])
    codes, found = directions.codes(vectors[:2900]), {"probe": 0, "code": 0}
    for query in vectors[2900:]:
        true = np.argsort(vectors[:2900] @ query)[-10:]
        for name, asked in (("probe", directions.probe(query)), ("code", directions.codes(query[None])[0])):
            near = np.argsort(np.square(codes - asked).sum(axis=1))[:40]
            found[name] += len(np.intersect1d(true, near))
    assert found["probe"] > 1.2 * found["code"]


@pytest.mark.parametrize("dim", [8, 40, 300])
def test_directions_of_a_cloud_without_any(dim: int) -> None:
    cloud = np.random.default_rng(2).standard_normal((500, dim)).astype(np.float32)
    directions = Directions.learn(cloud)
    assert directions.axes.shape == (min(dim, MOST), dim)
    assert directions.fit(cloud)


def test_directions_of_vectors_that_are_all_the_same(tmp_path: Path) -> None:
    same = np.repeat(drawn(1, seed=3), 700, axis=0)
    index = filled(tmp_path, same)
    assert index.graph_count == 700
    numbers, scores = index.search(same[0], 20)
    assert len(numbers) == 20
    assert scores == pytest.approx(np.ones(20))


def test_candidates_are_compared_in_full(tmp_path: Path) -> None:
    vectors = drawn(4000, seed=1)
    index = filled(tmp_path, vectors)
    queries = drawn(60, seed=9)
    assert recall(index, queries) >= 0.995
    numbers, scores = index.search(queries[0], 10)
    right = (vectors[numbers].astype(np.float64) * queries[0].astype(np.float64)).sum(axis=1)
    assert np.array_equal(scores, right.astype(np.float32))


def test_a_filter_that_many_pass_is_asked_of_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_vectors, "EXACT_AMONG", 300)
    index = filled(tmp_path, drawn(4000, seed=1))
    asked: list[int] = []
    near = Graph.near
    monkeypatch.setattr(Graph, "near", lambda self, code, count: (asked.append(count), near(self, code, count))[1])
    queries = drawn(20, seed=9)
    half, few = np.arange(0, 4000, 2), np.arange(0, 4000, 20)
    assert recall(index, queries, allowed=half) >= 0.99
    assert asked
    assert all(count == 200 for count in asked)
    asked.clear()
    assert recall(index, queries, allowed=few) == 1
    assert asked == []
    # What is new is not in the graph yet, and is filtered like the rest.
    index.update(np.arange(4000, 4050), queries[:1].repeat(50, axis=0), removed=NONE, watermark=2)
    found, _ = index.search(queries[0], 30, allowed=np.concatenate([half, np.arange(4000, 4020)]))
    assert set(found[:20].tolist()) == set(range(4000, 4020))
    assert np.all(found[20:] % 2 == 0)


def test_where_nothing_near_passes_search_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_vectors, "EXACT_AMONG", 300)
    monkeypatch.setattr(segments, "MOST_CANDIDATES", 500)
    ours, others = drawn(3000, seed=1), drawn(3000, seed=1, kind=5)
    index = filled(tmp_path, np.concatenate([ours, others]))
    allowed = np.arange(3000, 6000)
    assert recall(index, ours[:10], allowed=allowed) == 1


def test_images_that_are_gone_do_not_crowd_out_the_others(tmp_path: Path) -> None:
    vectors = drawn(3000, seed=1)
    index = filled(tmp_path, vectors, breadth=20)
    query = vectors[0]
    nearest = index.exact(query, 400)[0]
    index.update(NONE, vectors[:0], removed=nearest[:380], watermark=2)
    assert index.search(query, 10)[0].tolist() == nearest[380:390].tolist()
    assert index.exact(query, 10)[0].tolist() == nearest[380:390].tolist()


def test_all_vectors_are_read_once_for_several_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_vectors, "BLOCK", 64)
    vectors = drawn(1000, seed=1)
    # The same vector in several blocks: the order among what ties is by number.
    vectors[[3, 500, 999]] = vectors[70]
    index = open_index(tmp_path)
    index.update(np.arange(1000)[::-1].copy(), vectors, removed=np.array([5]), watermark=1)
    queries = np.concatenate([vectors[[70, 12]], drawn(5, seed=4)])
    for query, (numbers, scores) in zip(queries, index.exact_each(queries, 7), strict=True):
        cosines = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        own = 999 - np.arange(1000)
        cosines[own == 5] = -2
        order = np.lexsort((own, -cosines))[:7]
        assert numbers.tolist() == own[order].tolist()
        assert np.array_equal(scores, cosines[order])
    assert index.exact_each(queries, 7)[0][0][:4].tolist() == [0, 499, 929, 996]


def test_vectors_of_another_kind_make_the_graph_anew(tmp_path: Path) -> None:
    index = filled(tmp_path, drawn(2000, seed=1))
    first = directions_in(tmp_path)
    index.update(np.arange(2000, 4000), drawn(2000, seed=2), removed=NONE, watermark=2)
    index.extend_graph()
    assert directions_in(tmp_path) == first
    index.update(np.arange(4000, 6000), drawn(2000, seed=1, kind=7), removed=NONE, watermark=3)
    index.extend_graph()
    assert directions_in(tmp_path) != first
    assert index.graph_count == 6000
    assert recall(index, drawn(20, seed=8, kind=7)) >= 0.99
    assert recall(index, drawn(20, seed=8)) >= 0.99


def test_a_graph_that_is_cut_off_goes_on_from_its_last_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_vectors, "ROUND", 1000)
    monkeypatch.setattr(store_vectors, "BLOCK", 256)
    vectors = drawn(3500, seed=1)
    index = open_index(tmp_path)
    index.update(np.arange(3500), vectors, removed=NONE, watermark=1)
    added: list[int] = []
    add = Graph.add

    def interrupted(self: Graph, codes: np.ndarray, *, threads: int) -> None:
        added.append(len(codes))
        if sum(added) > 2300:
            raise KeyboardInterrupt
        add(self, codes, threads=threads)

    monkeypatch.setattr(Graph, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.extend_graph()
    assert index.graph_count == 2000
    monkeypatch.setattr(Graph, "add", add)
    again = open_index(tmp_path)
    assert again.graph_count == 2000
    assert again.search(vectors[3400], 1)[0].tolist() == [3400]
    again.extend_graph()
    assert again.graph_count == 3500
    assert recall(again, drawn(20, seed=9)) >= 0.99
    assert len(list(tmp_path.glob("graph-*"))) == len(list(tmp_path.glob("directions-*"))) == 1


@pytest.mark.parametrize("name", ["graph", "directions"])
@pytest.mark.parametrize("damage", ["altered", "short", "missing", "another"])
def test_a_damaged_graph_is_forgotten(tmp_path: Path, name: str, damage: str) -> None:
    vectors = drawn(1500, seed=1)
    filled(tmp_path / "one", vectors)
    filled(tmp_path / "two", drawn(1500, seed=2, kind=3))
    (file,) = (tmp_path / "one").glob(f"{name}-*")
    content = bytearray(file.read_bytes())
    if damage == "altered":
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    elif damage == "short":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "missing":
        file.unlink()
    else:
        shutil.copy(next((tmp_path / "two").glob(f"{name}-*")), file)
    index = open_index(tmp_path / "one")
    assert index.search(vectors[3], 1)[0].tolist() == [3]
    assert index.graph_count == 0
    index.extend_graph()
    assert open_index(tmp_path / "one").graph_count == 1500


def test_a_graph_for_which_there_is_no_room_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = drawn(2000, seed=1)
    index = filled(tmp_path, vectors[:1000])

    def full(self: Graph, file: Path) -> int:
        file.write_bytes(b"some of it")
        raise OSError(errno.EIO, "no room")

    monkeypatch.setattr(Graph, "save", full)
    index.update(np.arange(1000, 2000), vectors[1000:], removed=NONE, watermark=2)
    with pytest.raises(LibraryError):
        index.extend_graph()
    monkeypatch.undo()
    again = open_index(tmp_path)
    assert again.graph_count == 1000
    assert again.search(vectors[1700], 1)[0].tolist() == [1700]
    again.extend_graph()
    assert again.graph_count == 2000
    assert len(list(tmp_path.glob("graph-*"))) == 1


def test_an_update_does_not_make_it_load_the_graph_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = drawn(1000, seed=1)
    filled(tmp_path, vectors)
    loaded: list[Path] = []
    load = Graph.load.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Graph], file: Path, *, width: int, crc32: int) -> Graph | None:
        loaded.append(file)
        return load(cls, file, width=width, crc32=crc32)

    monkeypatch.setattr(Graph, "load", classmethod(counted))
    index = open_index(tmp_path)
    for number in range(1000, 1010):
        index.update(np.array([number]), drawn(1, seed=number), removed=np.array([number - 900]), watermark=number)
        index.search(vectors[0], 5)
    assert len(loaded) == 1


def test_writing_anew_keeps_no_more_than_a_block_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_vectors, "BLOCK", 100)
    vectors = drawn(1000, seed=1)
    index = filled(tmp_path, vectors)
    largest: list[int] = []
    append = store_vectors.append

    def watched(file: Path, values: np.ndarray, *, at: int) -> None:
        largest.append(len(values))
        append(file, values, at=at)

    monkeypatch.setattr(store_vectors, "append", watched)
    index.update(NONE, vectors[:0], removed=np.arange(0, 1000, 3), watermark=2)
    assert max(largest) <= 100
    kept = np.setdiff1d(np.arange(1000), np.arange(0, 1000, 3))
    assert np.array_equal(index.vectors_of(kept), vectors[kept])
    assert (index.count, index.graph_count, index.watermark) == (len(kept), 0, 2)
    again = open_index(tmp_path)
    assert (again.count, again.watermark) == (len(kept), 2)
    again.extend_graph()
    assert recall(again, vectors[:20]) >= 0.99
    assert not list(tmp_path.glob("*.part"))


def test_only_the_last_of_many_graphs_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_vectors, "SEGMENT", 1000)
    monkeypatch.setattr(store_vectors, "ROUND", 400)
    monkeypatch.setattr(store_vectors, "EXACT_AMONG", 300)
    vectors = drawn(3700, seed=1)
    index = filled(tmp_path, vectors[:2600])
    assert index.graph_count == 2600
    assert len(list(tmp_path.glob("graph-*"))) == 3
    before = {file.name: file.read_bytes() for file in tmp_path.glob("graph-*")}
    index.update(np.arange(2600, 3700), vectors[2600:], removed=np.arange(0, 200), watermark=2)
    index.extend_graph()
    after = {file.name: file.read_bytes() for file in tmp_path.glob("graph-*")}
    assert len(after) == 4
    assert len(before.items() & after.items()) == 2
    for one in (index, open_index(tmp_path)):
        assert one.graph_count == 3700
        assert recall(one, drawn(30, seed=9)) >= 0.99
        assert recall(one, drawn(30, seed=9), allowed=np.arange(100, 3700, 2)) >= 0.99
        # Of one graph nothing passes, of another few.
        assert recall(one, drawn(30, seed=9), allowed=np.arange(1950, 3700)) >= 0.99


def test_a_damaged_graph_takes_those_after_it_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_vectors, "SEGMENT", 1000)
    vectors = drawn(3000, seed=1)
    filled(tmp_path, vectors)
    second = sorted(tmp_path.glob("graph-*"))[1]
    second.write_bytes(second.read_bytes()[:-7])
    index = open_index(tmp_path)
    assert index.search(vectors[2900], 1)[0].tolist() == [2900]
    assert index.graph_count == 1000
    assert open_index(tmp_path).graph_count == 1000
    index.extend_graph()
    assert index.graph_count == 3000
    assert recall(index, drawn(20, seed=9)) >= 0.99
    assert len(list(tmp_path.glob("graph-*"))) == len(list(tmp_path.glob("directions-*"))) == 3


def test_new_kinds_in_small_numbers_do_not_make_many_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_vectors, "SEGMENT", 4000)
    index = open_index(tmp_path)
    for kind in range(6):
        first = 300 * kind
        index.update(np.arange(first, first + 300), drawn(300, seed=1, kind=kind), removed=NONE, watermark=kind + 1)
        index.extend_graph()
    assert index.graph_count == 1800
    assert len(list(tmp_path.glob("graph-*"))) <= 3
    assert recall(index, np.concatenate([drawn(5, seed=3, kind=kind) for kind in range(6)])) >= 0.98
