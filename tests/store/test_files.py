"""Files by folder, path and content, as an ingest of a few folders asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from medsearch_desktop.store.database import Database, stored_path
from medsearch_desktop.store.files import Files

PATHS = [
    "/a/b",
    "/a/b/1.dcm",
    "/a/b/2.dcm",
    "/a/b/c/3.dcm",
    "/a/b.zip//4.dcm",
    "/a/bc/5.dcm",
    "/a/é/6.dcm",
    os.fsdecode(b"/a/b/\xff.dcm"),
    os.fsdecode(b"/a/\xfe/7.dcm"),
    "/z/8.dcm",
]


def content(number: int) -> str:
    return sha256(bytes([number])).hexdigest()


def put(database: Database, path: str, digest: str, *, state: str = "indexed") -> None:
    database.write("DELETE FROM files WHERE path = $path", {"path": stored_path(path)})
    database.write(
        "INSERT INTO files VALUES ($path, '/a', 10, 20, $digest, 'dicom', $state, 30, $held)",
        {"path": stored_path(path), "digest": digest, "state": state, "held": stored_path("/a/é/6.dcm")},
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "library.duckdb")
    for number, path in enumerate(PATHS):
        put(database, path, content(number // 2))
    yield database
    database.close()


@pytest.mark.parametrize(
    ("roots", "expected"),
    [
        (["/a/b"], {"/a/b", "/a/b/1.dcm", "/a/b/2.dcm", "/a/b/c/3.dcm", os.fsdecode(b"/a/b/\xff.dcm")}),
        (["/a/b.zip"], {"/a/b.zip//4.dcm"}),
        (["/a/b/1.dcm", "/a/é"], {"/a/b/1.dcm", "/a/é/6.dcm"}),
        ([os.fsdecode(b"/a/\xfe")], {os.fsdecode(b"/a/\xfe/7.dcm")}),
        (["/"], set(PATHS)),
        (["/a", "/z"], set(PATHS)),
        (["/b"], set()),
        ([], set()),
    ],
)
def test_what_lies_at_and_below_folders_is_found(database: Database, roots: list[str], expected: set[str]) -> None:
    rows = list(Files(database).below(roots))
    found = [row[0] for row in rows]
    assert expected <= set(found)
    assert len(found) == len(set(found))
    plain = [path for path in found if path.isprintable()]
    # Beside it only names that are no UTF-8, which are spelt otherwise there.
    assert set(plain) <= expected
    assert plain == sorted(plain)
    assert all(row[1:4] == ("/a", 10, 20) and row[5:] == ("dicom", "indexed", 30, "/a/é/6.dcm") for row in rows)


def test_a_multitude_of_roots_is_taken_with_what_is_around_them(database: Database) -> None:
    roots = [f"/a/b/{number}.dcm" for number in range(2000)]
    found = {row[0] for row in Files(database).below(roots)}
    assert {"/a/b/1.dcm", "/a/b/2.dcm"} <= found
    assert "/z/8.dcm" not in found


def test_one_file_is_found_by_its_path(database: Database) -> None:
    files = Files(database)
    for number, path in enumerate(PATHS):
        row = files.at(path)
        assert row is not None
        assert (row[0], row[4]) == (path, content(number // 2))
    assert files.at("/a") is None


def test_files_are_found_by_their_content_also_after_they_were_written_over(database: Database) -> None:
    files = Files(database)

    def paths(digest: str) -> set[str]:
        return {row[0] for row in files.holding(digest)}

    assert paths(content(0)) == {"/a/b", "/a/b/1.dcm"}
    assert paths(content(200)) == paths("") == set()
    # Its row has another place from now on, and the place another content.
    put(database, "/a/b", content(0), state="duplicate")
    put(database, "/a/b/1.dcm", content(9))
    assert paths(content(0)) == {"/a/b"}
    assert [row[6] for row in files.holding(content(0))] == ["duplicate"]
    database.write("DELETE FROM files")
    database.checkpoint()
    assert paths(content(0)) == set()


def test_a_content_that_is_no_digest_and_one_that_begins_alike_are_told_apart(database: Database) -> None:
    twin = content(0)[:16] + "0" * 48
    put(database, "/a/twin", twin)
    for odd in ("not a digest", "ABC", content(0).upper()):
        put(database, f"/a/{odd}", odd)
    files = Files(database)
    assert {row[0] for row in files.holding(twin)} == {"/a/twin"}
    assert {row[0] for row in files.holding(content(0))} == {"/a/b", "/a/b/1.dcm"}
    for odd in ("not a digest", "ABC", content(0).upper()):
        assert [row[0] for row in files.holding(odd)] == [f"/a/{odd}"]
