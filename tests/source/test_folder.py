"""The walk, over real trees: links, loops, locked folders, odd names, special files, overlapping roots."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from medsearch_desktop.records import FileKind, SourceFile
from medsearch_desktop.source.folder import absolute_root, walk, walk_all

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


@pytest.fixture
def short_root() -> Iterator[Path]:
    """A folder with a short path that every user may enter, unlike pytest's own."""
    root = Path(tempfile.mkdtemp(prefix="w"))
    root.chmod(0o755)
    yield root
    # Python 3.11's own rmtree recurses, and gives up on the deepest trees made here.
    subprocess.run(["rm", "-rf", str(root)], check=True)


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def listed(*roots: Path | str) -> tuple[list[str], list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    files = list(walk_all(roots, on_problem=lambda path, reason: problems.append((path, reason))))
    return [file.path for file in files], problems


def names(root: Path) -> list[str]:
    paths, problems = listed(root)
    assert problems == []
    return [str(Path(path).relative_to(root)) for path in paths]


def test_files_come_with_size_and_time_and_in_order(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "b/10.dcm", "a/z/1", "a/y", "c", "B/x"):
        put(tmp_path / name, name.encode())
    files = list(walk(tmp_path, on_problem=lambda path, reason: pytest.fail(reason)))
    assert [os.path.relpath(file.path, tmp_path) for file in files] == [
        "c",
        "B/x",
        "a/y",
        "a/z/1",
        "b/10.dcm",
        "b/2.dcm",
    ]
    status = (tmp_path / "a/z/1").stat()
    assert files[3] == SourceFile(
        path=str(tmp_path / "a/z/1"), root=str(tmp_path), size=5, mtime_ns=status.st_mtime_ns, kind=FileKind.OTHER
    )


def test_hidden_and_system_files_are_left_out(tmp_path: Path) -> None:
    for name in (
        ".DS_Store",
        "._a.dcm",
        "Thumbs.db",
        "desktop.ini",
        "~$report.txt",
        ".hidden/a.dcm",
        "__MACOSX/a.dcm",
        "$RECYCLE.BIN/a.dcm",
        "@eaDir/a.dcm",
        "kept/a.dcm",
    ):
        put(tmp_path / name)
    assert names(tmp_path) == ["kept/a.dcm"]


def test_a_library_is_left_out_and_its_namesake_is_not(tmp_path: Path) -> None:
    put(tmp_path / "library" / "library.json")
    put(tmp_path / "library" / "library.duckdb")
    put(tmp_path / "library" / "thumbnails" / "a.png")
    put(tmp_path / "books" / "library.json")
    put(tmp_path / "books" / "a.dcm")
    assert names(tmp_path) == ["books/a.dcm", "books/library.json"]
    paths, problems = listed(tmp_path / "library")
    assert paths == []
    assert problems == [(str(tmp_path / "library"), "is a library of this program, not a folder of studies")]


def test_a_root_may_be_a_file_or_missing(tmp_path: Path) -> None:
    file = put(tmp_path / "a.dcm")
    assert listed(file) == ([str(file)], [])
    paths, problems = listed(tmp_path / "gone", file)
    assert paths == [str(file)]
    assert [path for path, _ in problems] == [str(tmp_path / "gone")]
    assert "No such file" in problems[0][1]


@needs_links
def test_links_that_lead_back_end(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1")
    put(tmp_path / "b" / "2")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(".", target_is_directory=True)
    (tmp_path / "b" / "across").symlink_to("../a", target_is_directory=True)
    assert names(tmp_path) == ["a/1", "b/2"]


@needs_links
def test_a_folder_outside_is_entered_once_and_what_it_links_to_as_well(tmp_path: Path) -> None:
    root, outside, further = tmp_path / "root", tmp_path / "outside", tmp_path / "further"
    put(root / "z" / "1")
    put(outside / "2")
    put(further / "3")
    (outside / "on").symlink_to(further, target_is_directory=True)
    (further / "back").symlink_to(root, target_is_directory=True)
    (root / "a").symlink_to(outside, target_is_directory=True)
    (root / "b").symlink_to(outside, target_is_directory=True)
    assert names(root) == ["z/1", "a/2", "a/on/3"]


@needs_links
def test_a_linked_file_is_met_once_and_under_its_real_path(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root / "z" / "real.dcm")
    outside = put(tmp_path / "outside" / "far.dcm")
    (root / "a.dcm").symlink_to("z/real.dcm")
    (root / "b.dcm").symlink_to(outside)
    (root / "c.dcm").symlink_to(outside)
    assert names(root) == ["z/real.dcm", "b.dcm"]
    (root / "later").symlink_to(outside.parent, target_is_directory=True)
    assert names(root) == ["z/real.dcm", "later/far.dcm"]


@needs_links
def test_broken_links_are_told(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    paths, problems = listed(tmp_path)
    assert paths == []
    assert dict(problems)[str(tmp_path / "nowhere")] == "is a link to something that is not there"
    assert "levels of symbolic links" in dict(problems)[str(tmp_path / "ring")]


@needs_links
def test_overlapping_roots_give_each_file_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    files = [str(put(root / name)) for name in ("1", "a/2", "a/b/3")]
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)
    for roots in (
        [root, root / "a"],
        [root / "a", root],
        [root, root],
        [f"{root}/", root / "a" / ".."],
        [root / "a" / "b" / "3", root],
        [root, tmp_path / "alias"],
        [root / "a", root / "a" / "b", root],
    ):
        paths, problems = listed(*roots)
        assert sorted(paths) == sorted(files), roots
        assert problems == []


@needs_links
def test_a_root_is_listed_as_itself_though_another_links_to_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    put(first / "1")
    put(second / "2")
    (first / "link").symlink_to(second, target_is_directory=True)
    assert listed(first, second)[0] == [str(first / "1"), str(second / "2")]


def test_a_hidden_root_is_walked_when_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "1")
    hidden = put(tmp_path / ".spool" / "2")
    assert listed(tmp_path, tmp_path / ".spool")[0] == [str(tmp_path / "1"), str(hidden)]


@needs_links
def test_a_root_is_absolute_and_keeps_its_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "real" / "deep" / "1")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert absolute_root("link/") == str(tmp_path / "link")
    assert absolute_root("./real/../real") == str(tmp_path / "real")
    assert absolute_root("gone/../also") == str(tmp_path / "also")
    assert absolute_root(Path("link/..")) == str((tmp_path / "real").resolve()), ".. is the parent of the target"
    assert [file.root for file in walk("link", on_problem=lambda path, reason: pytest.fail(reason))] == [
        str(tmp_path / "link")
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not Unicode")
def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/R\xf6ntgen"
    Path(os.fsdecode(folder)).mkdir()
    raw = folder + b"/M\xfcller \xff.dcm"
    Path(os.fsdecode(raw)).write_bytes(b"abc")
    paths, problems = listed(tmp_path)
    assert problems == []
    assert [os.fsencode(path) for path in paths] == [raw]
    assert Path(paths[0]).read_bytes() == b"abc"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes and sockets in the file system")
@pytest.mark.timeout(120)
def test_pipes_sockets_and_devices_are_never_opened(short_root: Path) -> None:
    os.mkfifo(short_root / "pipe.dcm")
    os.mkfifo(short_root / "DICOMDIR")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short_root / "socket.dcm"))
        (short_root / "null.dcm").symlink_to("/dev/null")
        put(short_root / "a.dcm")
        assert names(short_root) == ["a.dcm"]
        paths, problems = listed(short_root / "pipe.dcm")
        assert paths == []
        assert problems == [(str(short_root / "pipe.dcm"), "is neither a folder nor a file")]


AS_ANOTHER_USER = """
import json, os, sys
from medsearch_desktop.source.folder import walk
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
problems = []
files = [file.path for file in walk(sys.argv[1], on_problem=lambda path, reason: problems.append([path, reason]))]
print(json.dumps([files, problems]))
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX permissions")
def test_locked_folders_are_told_and_passed(short_root: Path) -> None:
    put(short_root / "a" / "1")
    put(short_root / "locked" / "2")
    put(short_root / "unlisted" / "deep" / "3")
    put(short_root / "blind" / "4")
    put(short_root / "z" / "5").chmod(0)
    for name, mode in (("locked", 0), ("unlisted", 0o711), ("blind", 0o744)):
        (short_root / name).chmod(mode)
    if os.getuid() != 0:
        for name, mode in (("locked", 0), ("unlisted", 0o311), ("blind", 0o644)):
            (short_root / name).chmod(mode)
    try:
        done = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER_USER, str(short_root)], check=True, capture_output=True, text=True
        )
    finally:
        for name in ("locked", "unlisted", "blind"):
            (short_root / name).chmod(0o755)
    files, problems = json.loads(done.stdout)
    # A file that cannot be opened can be listed; whoever opens it tells.
    assert files == [str(short_root / "a/1"), str(short_root / "z/5")]
    told = dict(problems)
    assert set(told) == {str(short_root / name) for name in ("locked", "unlisted", "blind/4")}
    assert all("Permission denied" in reason for reason in told.values())


def test_what_vanishes_on_the_way_is_no_problem(tmp_path: Path) -> None:
    for name in ("a/1", "b/2", "c/3"):
        put(tmp_path / name)
    problems: list[str] = []
    walking = walk(tmp_path, on_problem=lambda path, reason: problems.append(path))
    assert next(walking).path == str(tmp_path / "a/1")
    shutil.rmtree(tmp_path / "b")
    assert [file.path for file in walking] == [str(tmp_path / "c/3")]
    assert problems == []


def test_a_tree_deeper_than_the_stack(short_root: Path) -> None:
    here = os.open(short_root, os.O_RDONLY)
    depth = 1500
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("leaf.dcm", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    finally:
        os.close(here)
    assert depth > sys.getrecursionlimit()
    paths, problems = listed(short_root)
    assert problems == []
    assert paths == [str(short_root) + "/d" * depth + "/leaf.dcm"]


def test_a_path_longer_than_the_system_takes_is_told(short_root: Path) -> None:
    start = Path.cwd()
    try:
        os.chdir(short_root)
        for _ in range(25):
            Path("n" * 200).mkdir()
            os.chdir("n" * 200)
    finally:
        os.chdir(start)
    paths, problems = listed(short_root)
    assert paths == []
    assert len(problems) == 1
    assert "too long" in problems[0][1]


def test_fifty_thousand_files(tmp_path: Path) -> None:
    for study in range(100):
        folder = tmp_path / f"p{study % 10}" / f"s{study}"
        folder.mkdir(parents=True)
        for number in range(500):
            os.close(os.open(folder / f"{number}.dcm", os.O_WRONLY | os.O_CREAT, 0o600))
    paths, problems = listed(tmp_path)
    assert problems == []
    assert len(paths) == len(set(paths)) == 50_000
    assert paths == listed(tmp_path)[0]
