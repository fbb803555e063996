"""The table of known files: what was put in comes out, by path and by content, at a fraction of the memory."""

from __future__ import annotations

import random
import tracemalloc
from hashlib import sha256

import pytest

from medsearch_desktop.source.known import Contents, Elsewhere, FileTable, Holders, PathSet, Row


def row(path: str, content: str, *, state: str = "indexed") -> Row:
    return path, "/a", len(path), -1, content, "dicom", state, 2**62, "/other" if state == "duplicate" else ""


NAMES = ["/a/b.dcm", "/a/b/c.dcm", "/a/b-c.dcm", "/a/é.dcm", "/a/\udcff\udc80.dcm", "/a/\U0001f9b4", "/a/日本", "/a/\n"]


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_dictionary_that_it_stands_for(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"{name}{number}" for name in NAMES for number in range(20)]
    rng.shuffle(names)
    contents = ["", "not a digest", "ABC", *(sha256(bytes([n])).hexdigest() for n in range(20))]
    # Two that agree in what they are found by.
    contents.append(contents[-1][:16] + "0" * 48)
    rows = [row(name, rng.choice(contents), state=rng.choice(["indexed", "duplicate", "metadata"])) for name in names]
    table = FileTable(rows)
    expected = {each[0]: each for each in rows}
    view = table.view(lambda *columns: columns)
    assert list(view) == sorted(expected)
    assert dict(view) == expected
    assert len(view) == len(expected)
    for name in [*names, "/a", "", "/z", "/a/b.dcm"]:
        assert (name in view) == (name in expected)
        assert view.get(name) == expected.get(name)
    assert table.paths[3:5] == sorted(expected)[3:5]
    held = Contents(table, but="metadata")
    for content in contents[1:]:
        holders = Holders(table).of(content)
        assert sorted(holders) == sorted(each[0] for each in rows if each[4] == content)
        duplicates = [expected[path][6] == "duplicate" for path in holders]
        assert duplicates == sorted(duplicates)
        assert (content in held) == any(each[4] == content and each[6] != "metadata" for each in rows)
    assert Holders(table).of("") == []
    assert "" not in held


def test_an_empty_one_knows_nothing() -> None:
    table = FileTable([])
    assert (len(table), list(table.paths), table.find("/a"), table.holders("x")) == (0, [], -1, [])


def test_lists_of_holders_last_and_sets_take_what_is_not_known() -> None:
    table = FileTable([row("/a/1", "x")])
    holders, paths = Holders(table), PathSet(table)
    holders.of("x").append("/a/2")
    holders.of("y").append("/a/3")
    assert holders.of("x") == ["/a/1", "/a/2"]
    assert holders.of("y") == ["/a/3"]
    paths.add("/a/1")
    paths.add("/a/9")
    assert ("/a/1" in paths, "/a/9" in paths, "/a/2" in paths) == (True, True, False)


def test_what_a_table_leaves_out_is_looked_up_where_it_is_kept() -> None:
    asked: list[str] = []
    rows = [row("/a/1", "x"), row("/a/2", "x", state="duplicate"), row("/b/1", "x", state="metadata"), row("/b/2", "y")]
    everything = {each[0]: each for each in rows}

    def at(path: str) -> Row | None:
        asked.append(path)
        return everything.get(path)

    def holding(sha256: str) -> list[Row]:
        return [each for each in everything.values() if each[4] == sha256]

    # One more than it has to hold: it is known here, and not to be had twice.
    table = FileTable([*rows[:2], rows[3]], elsewhere=Elsewhere(("/a",), at, holding))
    view = table.view(lambda *columns: columns)
    for path in ("/a/1", "/b/2", "/b/1", "/b/1"):
        assert view.get(path) == everything[path]
    assert "/b/3" not in view
    # What is not there is not looked for elsewhere where it would be here; and nothing is asked twice.
    assert "/a/3" not in view
    assert asked == ["/b/1", "/b/3"]
    assert list(view) == ["/a/1", "/a/2", "/b/2"]
    holders = Holders(table)
    assert holders.of("x") == ["/a/1", "/b/1", "/a/2"]
    assert holders.of("y") == ["/b/2"]
    assert "y" in Contents(table, but="metadata")
    paths = PathSet(table)
    paths.add("/a/2")
    paths.add("/b/1")
    assert "/b/1" in paths
    assert list(paths.missing()) == ["/a/1", "/b/2"]


@pytest.mark.parametrize(("roots", "path"), [(("/",), "/x"), (("/a",), "/a"), (("/a", "/c"), "/c/d")])
def test_what_lies_at_and_below_its_roots_is_nowhere_else(roots: tuple[str, ...], path: str) -> None:
    elsewhere = Elsewhere(roots, lambda _: None, lambda _: ())
    assert not elsewhere.is_of(path)
    assert elsewhere.is_of("/ab") == (roots != ("/",))


def test_a_file_takes_at_most_250_bytes() -> None:
    made = (
        row(f"/archive/hospital/2023/{n // 1000:06}/s{n // 4:08}/IM{n:08}.dcm", sha256(str(n).encode()).hexdigest())
        for n in range(20_000)
    )
    tracemalloc.start()
    table = FileTable(made)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 20_000
    assert held / len(table) < 250
