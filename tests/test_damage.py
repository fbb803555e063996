"""Damage that nobody meant: a database with a bad block or without its file, and what is said of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from faults.mounts import mounted, needs_mount
from makers import write_department
from servers import served

from medsearch_desktop.errors import LibraryError, LibraryFormatError
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.serve.owner import find_owner
from medsearch_desktop.store.backup import restore, write_backup
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.marker import DATABASE

# What DuckDB reads and checks as one; the file begins with three heads of 4,096 bytes.
_HEADS, _BLOCK = 3 * 4096, 262_144


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    source = write_department(folder / "source", studies=3, size=64)
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
        # Enough that it lies in blocks of its own, which nothing else has a part of.
        words = " || ".join(f"md5((no * 9 + {n})::VARCHAR)" for n in range(9))
        library._database.write(f"INSERT INTO labels SELECT 'study', 'gone', {words} FROM range(4000) t(no)")
        library._database.checkpoint()
    return folder


@pytest.fixture
def damaged(made: Path, tmp_path: Path) -> Path:
    """A library of which one byte in a block that only labels are in is another."""
    library = tmp_path / "library"
    shutil.copytree(made / "library", library)
    with open_library(library) as opened:
        tables = [name for (name,) in opened._database.read("SELECT table_name FROM duckdb_tables()")]
        blocks = {
            name: {no for (no,) in opened._database.read(f"SELECT block_id FROM pragma_storage_info('{name}')")}
            for name in tables
        }
    others = set().union(*(held for name, held in blocks.items() if name != "labels"))
    block = max(no for no in blocks["labels"] if no is not None and no not in others)
    with (library / DATABASE).open("rb+") as file:
        file.seek(_HEADS + block * _BLOCK + 1000)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    return library


def test_a_bad_block_is_found_whatever_it_holds(damaged: Path) -> None:
    with open_library(damaged) as library:
        # It answers as before.
        assert library.search("").total == 3
        report = library.health.verify()
    assert not report.ok
    assert dict(report.kinds) == {"database": 1}
    (fault,) = report.faults
    assert fault.item == "table labels"
    assert "backup" in fault.remedy


def test_what_cannot_be_copied_is_said_of_the_library_not_of_its_copy(damaged: Path, tmp_path: Path) -> None:
    with open_library(damaged) as library, pytest.raises(LibraryFormatError, match="cannot be read") as raised:
        library.health.backup(tmp_path / "backup")
    assert raised.value.item == str(damaged / DATABASE)
    assert "Restore it from a backup" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["library"]


def test_a_library_whose_database_is_gone_is_not_taken_for_a_new_one(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "library", tmp_path / "library")
    database = tmp_path / "library" / DATABASE
    database.unlink()
    for create in (False, True):
        with pytest.raises(LibraryFormatError, match="is gone"):
            open_library(tmp_path / "library", create=create)
        assert not database.exists()
        assert any((tmp_path / "library" / "indexes").iterdir())
    # Put back, it is as it was.
    shutil.copy(made / "library" / DATABASE, database)
    with open_library(tmp_path / "library") as library:
        assert library.search("").total == 3


def test_a_library_that_was_never_more_than_begun_is_begun_again(tmp_path: Path) -> None:
    with open_library(tmp_path / "library", create=True):
        pass
    for path in (tmp_path / "library").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    (tmp_path / "library" / DATABASE).unlink()
    with open_library(tmp_path / "library") as library:
        assert isinstance(library, Library)


CHILD = """
import os, sys
from pathlib import Path
from medsearch_desktop.store import backup
from medsearch_desktop.store.database import Database
if sys.argv[1] == "backup":
    # Killed when the copy is there and not yet checked.
    backup._check_rows = lambda *_: os._exit(9)
    library = Path(sys.argv[2])
    backup.write_backup(Database(library / "library.duckdb"), library, Path(sys.argv[3]))
else:
    backup.restore(Path(sys.argv[3]), Path(sys.argv[2]))
"""


def child(what: str, library: Path, target: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, what, str(library), str(target)], stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def library(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "library", tmp_path / "library")
    return tmp_path / "library"


def test_dated_backups_that_were_cut_off_leave_nothing_for_good(library: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    for _ in range(2):
        with child("backup", library, backups) as process:
            assert process.wait() == 9
    # The second has cleared away what the first left.
    (left,) = backups.iterdir()
    assert left.name.endswith(".part")
    # Of another machine, which may be at it, and of somebody else.
    pid, rest = left.name.rpartition(".part")[0].rpartition(".")[2].split("-")
    elsewhere = left.with_name(left.name.replace(rest, "00000000" + rest[8:]))
    elsewhere.mkdir()
    (backups / "mine.part").touch()
    with open_library(library) as opened:
        made = opened.health.backup(backups)
    assert {path.name for path in backups.iterdir()} == {Path(made.path).name, elsewhere.name, "mine.part"}
    assert pid.isdigit()


def test_of_two_that_restore_to_one_folder_one_does(library: Path, tmp_path: Path) -> None:
    with open_library(library) as opened:
        opened.health.backup(tmp_path / "backup")
    for _ in range(3):
        place = tmp_path / "restored"
        both = [child("restore", place, tmp_path / "backup") for _ in range(2)]
        said = [process.communicate()[1] for process in both]
        assert sorted(process.returncode for process in both) == [0, 1], said
        assert any("LibraryError" in each or "LibraryLockedError" in each for each in said), said
        with open_library(place) as opened:
            assert opened.search("").total == 3
        assert not list(place.glob("*.part"))
        shutil.rmtree(place)


def test_a_restore_that_an_earlier_release_began_is_begun_again(library: Path, tmp_path: Path) -> None:
    with open_library(library) as opened:
        opened.health.backup(tmp_path / "backup")
    place = tmp_path / "restored"
    place.mkdir()
    (place / f"{DATABASE}.part").write_bytes(b"half")
    restore(tmp_path / "backup", place)
    assert sorted(path.name for path in place.iterdir()) == [DATABASE, "library.json"]


def test_a_log_for_which_there_is_no_room_ends_nothing(library: Path) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("needs /dev/full, which Linux has")
    (library / "medsearch.log").unlink()
    (library / "medsearch.log").symlink_to(full)
    with open_library(library) as opened:
        opened.log.note("began")


def test_a_folder_in_which_no_library_can_be_is_said_to_be_one(tmp_path: Path) -> None:
    for name, said in (("n" * 300, "name too long"), (os.fsdecode(b"lib\xff"), "UTF-8")):
        for create in (False, True):
            with pytest.raises(LibraryError, match=f"(?i){said}"):
                open_library(tmp_path / name, create=create)
    with pytest.raises(LibraryError, match=r"(?i)name too long"):
        write_backup(None, tmp_path / "library", tmp_path / ("n" * 300))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_of_the_library_has_to_be_is_named(library: Path) -> None:
    shutil.rmtree(library / "thumbnails")
    (library / "thumbnails").touch()
    with pytest.raises(LibraryError, match="File exists"):
        open_library(library)


def test_an_owner_that_no_process_can_be_is_nobody(library: Path) -> None:
    for pid in ("-1", "1" + "0" * 30):
        told = library / "owner.json"
        told.write_text(f'{{"url": "http://127.0.0.1:1", "token": "t", "pid": {pid}, "began": 0}}')
        told.chmod(0o600)
        assert find_owner(library) is None


def test_a_statement_that_is_refused_in_the_midst_of_rows_is_told_of_as_it_is(tmp_path: Path) -> None:
    database = Database(tmp_path / DATABASE)
    row = {"path": ["/a"], "reason": ["because"]}
    database.insert("failures", row)
    with pytest.raises(LibraryError, match=r"(?i)duplicate key"), database.transaction():
        database.insert("failures", row)
    database.close()


@needs_mount
def test_a_server_begins_on_a_full_disk_and_can_be_read(library: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", size="40m"):
        place = tmp_path / "disk" / "library"
        shutil.copytree(library, place)
        with suppress(OSError), (tmp_path / "disk" / "brim").open("wb", buffering=0) as brim:
            while brim.write(bytes(4096)):
                pass
        with served(place) as server:
            assert not (place / "owner.json").exists()
            with server.client() as client:
                assert client.get("/api/search", params={"q": "", "k": 2}).json()["total"] == 3
