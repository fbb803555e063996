"""Opening, migrating, transactions and translated errors of the real database."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from contextlib import closing
from importlib import resources
from pathlib import Path

import duckdb
import numpy as np
import pytest

from medsearch_desktop.errors import LibraryError, LibraryFormatError, LibraryLockedError, StorageFullError
from medsearch_desktop.store import database as database_module
from medsearch_desktop.store.database import Database, _as_ours, disk_path, stored_path


@pytest.fixture
def database(tmp_path: Path):
    opened = Database(tmp_path / "library.duckdb")
    yield opened
    opened.close()


def test_a_new_database_is_private_and_migrated(database: Database) -> None:
    assert database.file.stat().st_mode & 0o077 == 0
    schema = resources.files("medsearch_desktop.store").joinpath("schema.sql").read_text("utf-8")
    last = max(map(int, re.findall(r"^-- migration (\d+)$", schema, re.MULTILINE)))
    assert database.read("SELECT max(number) FROM migrations") == [(last,)]
    assert database.read("SELECT count(*) FROM images") == [(0,)]


def test_opening_again_keeps_rows_and_migrates_once(tmp_path: Path) -> None:
    file = tmp_path / "library.duckdb"
    first = Database(file)
    first.write("INSERT INTO roots VALUES ('/a', true, 5)")
    first.close()
    second = Database(file)
    assert second.read("SELECT * FROM roots") == [("/a", True, 5)]
    second.close()


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    def interrupted() -> None:
        with database.transaction():
            database.write("INSERT INTO roots VALUES ('/a', true, 5)")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert database.read("SELECT * FROM roots") == []


def test_columns_arrive_with_their_types_and_nulls(database: Database) -> None:
    database.insert(
        "studies",
        {
            "study_no": [1, 2],
            "study_uid": ["1.2", "1.3"],
            "patient_id": ["p", "é"],
            "patient_sex": ["", "F"],
            "patient_age": [None, 61.5],
            "accession_number": ["", "A"],
            "study_id": ["", ""],
            "study_date": [None, "2024-02-29"],
            "study_description": ["", "thorax"],
        },
    )
    rows = database.read("SELECT patient_id, patient_age, study_date::VARCHAR FROM studies ORDER BY study_no")
    assert rows == [("p", None, None), ("é", 61.5, "2024-02-29")]


def test_vectors_come_back_bit_for_bit(database: Database) -> None:
    vectors = np.random.default_rng(3).standard_normal((5, 1024)).astype(np.float32)
    database.insert_vectors(np.arange(5), vectors, model_id="m")
    back = database.read_arrays("SELECT image_no, vector FROM vectors ORDER BY image_no")
    assert np.array_equal(np.stack(list(back["vector"])), vectors)


def test_a_chunked_read_sees_every_row_once(database: Database) -> None:
    database.insert("changes", {"seq": np.arange(5000), "kind": ["image"] * 5000, "no": np.arange(5000)})
    seen = [no for rows in database.read_chunks("SELECT no FROM changes", rows=300) for (no,) in rows]
    assert sorted(seen) == list(range(5000))


def test_a_second_process_is_told_who_has_it(database: Database, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from medsearch_desktop.store.database import Database\n"
        "from medsearch_desktop.errors import LibraryLockedError\n"
        "try: Database(Path(sys.argv[1]))\n"
        "except LibraryLockedError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, database.file], capture_output=True, text=True, check=True)
    assert f"process {os.getpid()}" in done.stdout
    assert "Close it there" in done.stdout


def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "library.duckdb"
    first = Database(file)
    first.write("INSERT INTO migrations VALUES (999)")
    first.close()
    with pytest.raises(LibraryFormatError, match="migration 999"):
        Database(file)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "library.duckdb"
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(LibraryFormatError, match="Restore it from a backup"):
        Database(file)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (duckdb.IOException('Could not set lock on file "x": held in python (PID 12)'), LibraryLockedError),
        (duckdb.IOException('Could not write file "x": No space left on device'), StorageFullError),
        (duckdb.IOException("Could not read from file"), LibraryFormatError),
        (duckdb.IOException('Cannot open file "x.wal": Input/output error'), LibraryError),
        (duckdb.IOException('Cannot open file "x": Permission denied'), LibraryError),
        (
            duckdb.Error("Corrupt database file: computed checksum 1 does not match stored checksum 2"),
            LibraryFormatError,
        ),
        (duckdb.ParserException("syntax error"), LibraryError),
    ],
)
def test_every_error_of_the_database_becomes_ours(error: duckdb.Error, kind: type[LibraryError]) -> None:
    assert type(_as_ours(error, Path("/somewhere/library.duckdb"))) is kind


def test_what_a_compaction_can_mend_is_told_apart() -> None:
    file = Path("/somewhere/library.duckdb")
    bad_block = _as_ours(duckdb.Error("Corrupt database file: computed checksum 1 does not match"), file)
    assert "`medsearch compact` mends it. Restore it from a backup" in bad_block.remedy
    assert "compact" not in _as_ours(duckdb.IOException("it is not a valid DuckDB database file!"), file).remedy


def test_an_error_of_a_statement_is_translated(database: Database) -> None:
    with pytest.raises(LibraryError):
        database.read("SELECT nothing FROM nowhere")


@pytest.mark.parametrize("name", [b"/a/plain", "/a/ü".encode(), b"/a/\xff\xfe%41", b"/a/100%"])
def test_names_of_any_bytes_survive_the_database(name: bytes) -> None:
    path = os.fsdecode(name)
    stored = stored_path(path)
    stored.encode("utf-8")
    assert disk_path(stored) == path


def test_nothing_draws_a_bar_on_stdout(database: Database) -> None:
    question = "SELECT current_setting('enable_progress_bar')"
    assert database.write(question) == [(False,)]
    assert database.read(question) == [(False,)]
    assert list(database.read_chunks(question)) == [[(False,)]]


@pytest.mark.parametrize("clears", [False, True])
def test_a_new_database_never_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clears: bool
) -> None:
    file = tmp_path / "library.duckdb"
    real = database_module.rename_new

    def late(part: Path, target: Path) -> bool:
        with duckdb.connect(str(target)) as quicker:
            quicker.execute("CREATE TABLE theirs (number INTEGER)")
        if clears:
            part.unlink()
        return real(part, target)

    with monkeypatch.context() as patched:
        patched.setattr(database_module, "rename_new", late)
        with closing(Database(file)) as database:
            assert database.read("SELECT count(*) FROM theirs") == [(0,)]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_new_database_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    file = tmp_path / "library.duckdb"
    Database(file).close()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    Database(file).close()


def test_what_a_beginning_left_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "library.duckdb"
    for name in ("library.duckdb.new-0", "library.duckdb.new-0.wal"):
        (tmp_path / name).write_bytes(b"half")
    Database(file).close()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
