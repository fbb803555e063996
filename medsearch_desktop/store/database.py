"""The one connection to DuckDB: opening, migrating, transactions, rows in and out.

The only file that imports duckdb. One process owns the file; within it, writes go through
`transaction()` one at a time, and reads run on a cursor of their own in every thread.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import duckdb
import numpy as np

from medsearch_desktop.disk import rename_new, sync_folder, writing_to
from medsearch_desktop.errors import LibraryError, LibraryFormatError, LibraryLockedError, ReportError
from medsearch_desktop.store.gate import Gate
from medsearch_desktop.store.refusals import refusal

BYTES_PATH = "bytes:"
# What takes more than two seconds would draw one on stdout, which holds answers and nothing else.
_NO_BAR = "SET enable_progress_bar = false"
# What a row takes in the file, where that is much.
_ROW_BYTES = {"vectors": 3600, "reports": 1500}

Column = Sequence[Any] | np.ndarray[Any, Any]


def stored_path(path: str) -> str:
    """Return `path` as the database can hold it: bytes that are not UTF-8 percent-encoded."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return BYTES_PATH + quote_from_bytes(os.fsencode(path))
    return path


def disk_path(stored: str) -> str:
    """Return the path that `stored_path` was given."""
    if stored.startswith(BYTES_PATH):
        return os.fsdecode(unquote_to_bytes(stored[len(BYTES_PATH) :]))
    return stored


class Database:
    """The tables of a library.

    `file` is created when it is missing, and brought up to date unless `migrate` is false: what it was before is kept
    beside it until it was opened once more. `memory_mib` bounds DuckDB's own buffers.
    Raises LibraryLockedError when another process owns it, LibraryFormatError when it is of a
    newer release or damaged, StorageFullError when there is no room.
    """

    def __init__(self, file: Path, *, threads: int = 2, memory_mib: int = 512, migrate: bool = True) -> None:
        self.file = file
        self._write_lock = threading.RLock()
        self._local = threading.local()
        self._types: dict[str, dict[str, str]] = {}
        self._opening = threading.Lock()
        self._gate = Gate()
        self._launch = 0
        self._away = False
        self._settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": str(threads),
            "memory_limit": f"{memory_mib}MiB",
            # An air-gapped workstation has nowhere to fetch an extension from.
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "preserve_insertion_order": "false",
        }
        if not file.exists():
            self._create()
        self._connect()
        file.chmod(0o600)
        try:
            if migrate:
                self._migrate()
        except BaseException:
            self._connection.close()
            raise

    def _create(self) -> None:
        """Make an empty database under another name, which takes its own when it is whole: there is never half of one.

        DuckDB writes the head of a new file in three goes, between which a disk may fail or the program be killed.
        """
        part = self.file.with_name(f"{self.file.name}.new-{uuid.uuid4().hex}")
        try:
            with _translated(self.file):
                duckdb.connect(str(part), config=self._settings).close()
            with writing_to(self.file.parent):
                # Another process that was quicker has its file already, and clears away what others began.
                with suppress(FileNotFoundError), part.open("rb+") as handle:
                    os.fsync(handle.fileno())
                rename_new(part, self.file)
                sync_folder(self.file.parent)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _connect(self) -> None:
        with _translated(self.file):
            self._connection = duckdb.connect(str(self.file), config=self._settings)
            self._connection.execute(_NO_BAR)
        self._launch += 1
        self._away = False

    def close(self) -> None:
        """Fold the write-ahead log into the file and let it go."""
        with self._write_lock, _translated(self.file):
            self._connection.close()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Hold the file as it is, and tell of errors as ours."""
        with self._gate.passing(), _translated(self.file):
            if self._away:
                with self._opening:
                    if self._away:
                        self._connect()
            yield

    @contextmanager
    def without_writes(self) -> Iterator[None]:
        """Keep the tables as they are until the end of the block; they are read meanwhile, and writers wait."""
        with self._write_lock:
            yield

    def replace_by(self, copy: Path, *, seconds: float = 2.0) -> bool:
        """Let another file, which holds the same, take the place of this one, and go on with that.

        For inside `without_writes`. Whoever reads waits for a moment. Returns False, and nothing was done, where
        a read went on for `seconds`. Raises StorageFullError, LibraryError.
        """
        with self._gate.shut(seconds=seconds) as alone:
            if not alone:
                return False
            with writing_to(self.file.parent):
                if os.name == "nt":
                    # An open file cannot be replaced there.
                    self._connection.close()
                try:
                    copy.replace(self.file)
                    sync_folder(self.file.parent)
                finally:
                    # While the old one was open, nobody else could have the library.
                    self._connection.close()
                    self._away = True
                    # Somebody who was quicker at this very moment is waited for, here and then by every read.
                    for pause in (0.1, 0.5, 1, 2, 4, 0):
                        with suppress(LibraryLockedError):
                            self._connect()
                            break
                        time.sleep(pause)
        return True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all that is written inside, or nothing of it."""
        with self._write_lock, self._using():
            try:
                self._connection.begin()
                yield
                self._connection.commit()
            except BaseException:
                self._rollback()
                raise

    def _rollback(self) -> None:
        try:
            self._connection.rollback()
        except duckdb.Error:
            # After a fatal error (a full disk) there is no transaction left; the first error is the one to tell.
            return

    def write(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on the writing connection and return its rows."""
        with self._write_lock, self._using():
            return self._connection.execute(sql, parameters or {}).fetchall()

    def read(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        numbers: np.ndarray[Any, Any] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Return all rows of a query, as of the last commit.

        `numbers` stands in the query as a table of that name with the one column `no`: 15,000 of
        them cost 10 ms as a list parameter and nothing as an array.
        """
        with self._using(), self._with_numbers(numbers) as cursor:
            return cursor.execute(sql, parameters or {}).fetchall()

    def read_arrays(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        numbers: np.ndarray[Any, Any] | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return a query's columns as numpy arrays by name; `numbers` as in `read`."""
        with self._using(), self._with_numbers(numbers) as cursor:
            return cursor.execute(sql, parameters or {}).fetchnumpy()

    @contextmanager
    def _with_numbers(self, numbers: np.ndarray[Any, Any] | None) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._cursor()
        if numbers is None:
            yield cursor
            return
        cursor.register("numbers", {"no": np.ascontiguousarray(numbers, dtype=np.int64)})
        try:
            yield cursor
        finally:
            cursor.unregister("numbers")

    def read_chunks(
        self, sql: str, parameters: Mapping[str, Any] | None = None, *, rows: int = 2048
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield a query's rows in lists, so that a large answer never stands in memory whole."""
        with self._using():
            cursor = self._new_cursor()
            try:
                cursor.execute(sql, parameters or {})
                while chunk := cursor.fetchmany(rows):
                    yield chunk
            finally:
                cursor.close()

    def insert(self, table: str, columns: Mapping[str, Column], *, conflict: str = "") -> None:
        """Append rows given by columns of equal length; `conflict` is an ON CONFLICT clause.

        Columns travel as numpy object arrays: row-wise parameters cost 1 ms a row, these 4 us.
        """
        count = len(next(iter(columns.values())))
        if not count:
            return
        batch = {name: _object_array(values) for name, values in columns.items()}
        names = ", ".join(f'"{name}"' for name in columns)
        with self._write_lock, self._using():
            # In the lock: the writing connection is one, and threads must not cross on it.
            types = self._column_types(table)
            values = ", ".join(f'"{name}"::{types[name]}' for name in columns)
            self._connection.register("batch_columns", batch)
            try:
                self._connection.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM batch_columns {conflict}")
            finally:
                # After an error this is refused, too; the first is the one to tell.
                with suppress(duckdb.Error):
                    self._connection.unregister("batch_columns")

    def insert_vectors(self, image_nos: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any], *, model_id: str) -> None:
        """Append one vector an image; `vectors` is float32 of shape (n, 1024)."""
        count, dim = vectors.shape
        if not count:
            return
        # One array a row: as one long column, to be cut by the database, they take twice the time.
        rows = np.empty(count, dtype=object)
        rows[:] = list(np.ascontiguousarray(vectors, dtype=np.float32))
        with self._write_lock, self._using():
            self._connection.register("batch_vectors", {"image_no": image_nos.astype(np.int64), "vector": rows})
            try:
                self._connection.execute(
                    f"INSERT INTO vectors SELECT image_no, $model_id, vector::FLOAT[{dim}] FROM batch_vectors"
                    " ORDER BY image_no",
                    {"model_id": model_id},
                )
            finally:
                # After an error this is refused, too; the first is the one to tell.
                with suppress(duckdb.Error):
                    self._connection.unregister("batch_vectors")

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the database file."""
        with self._write_lock, self._using():
            self._connection.execute("CHECKPOINT")

    def copy_to(self, target: Path) -> dict[str, int]:
        """Write all tables, as of one moment, to a database in a new file; return how many rows each has.

        Reading and writing go on meanwhile. The copy holds no room of rows that are gone. Whoever calls syncs it.
        Raises StorageFullError, LibraryError; the file is then of no use.
        """
        alias = f"copy_{uuid.uuid4().hex}"
        place = str(target).replace("'", "''")
        # Beside the other statements, so that it sees one state of the tables whatever is committed meanwhile.
        with self._gate.passing(), _translated(target, source=self.file), closing(self._new_cursor()) as cursor:
            ((own,),) = cursor.execute("SELECT current_database()").fetchall()
            cursor.execute(f"ATTACH '{place}' AS {alias}")
            try:
                target.chmod(0o600)
                cursor.begin()
                try:
                    tables = cursor.execute(
                        "SELECT table_name FROM duckdb_tables() WHERE database_name = $own ORDER BY 1", {"own": own}
                    ).fetchall()
                    counts = {
                        table: int(cursor.execute(f'SELECT count(*) FROM "{table}"').fetchall()[0][0])
                        for (table,) in tables
                    }
                    cursor.execute(f'COPY FROM DATABASE "{own}" TO {alias}')
                    cursor.commit()
                except BaseException:
                    with suppress(duckdb.Error):
                        cursor.rollback()
                    raise
                # A transaction of another connection holds on to all that is attached when it begins: between two of
                # them, and not before, the log can be folded in.
                with self._write_lock:
                    cursor.execute(f"FORCE CHECKPOINT {alias}")
            finally:
                with self._write_lock, suppress(duckdb.Error):
                    cursor.execute(f"DETACH {alias}")
        log = target.with_name(f"{target.name}.wal")
        if log.exists():
            raise LibraryError("the copy could not be completed", item=str(target))
        return counts

    def reclaimable(self) -> int:
        """Return about how many bytes the file would lose if it were written anew: free blocks, and rows that are gone.

        DuckDB gives a block of rows free once all of them are gone, and counts those that are gone until then.
        """
        _, _, block, _, _, free, *_ = self.read("PRAGMA database_size")[0]
        room = int(free) * int(block)
        for table, held in self.read(
            "SELECT table_name, estimated_size FROM duckdb_tables() WHERE database_name = current_database()"
        ):
            ((alive,),) = self.read(f'SELECT count(*) FROM "{table}"')
            room += max(0, held - alive) * _ROW_BYTES.get(table, 200)
        return room

    def _column_types(self, table: str) -> dict[str, str]:
        # Asked once: after the migrations they stay, and each insertion would wait 1 ms for them.
        if table not in self._types:
            rows = self._connection.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = $table", {"table": table}
            ).fetchall()
            self._types[table] = dict(rows)
        return self._types[table]

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        held: tuple[int, duckdb.DuckDBPyConnection] | None = getattr(self._local, "cursor", None)
        if held is None or held[0] != self._launch:
            # Those of a connection that was let go are shut.
            held = self._local.cursor = (self._launch, self._new_cursor())
        return held[1]

    def _new_cursor(self) -> duckdb.DuckDBPyConnection:
        with self._opening:
            cursor = self._connection.cursor()
        cursor.execute(_NO_BAR)
        return cursor

    def _migrate(self) -> None:
        migrations = _migrations()
        with _translated(self.file):
            self._connection.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY)")
            done = {number for (number,) in self._connection.execute("SELECT number FROM migrations").fetchall()}
        if newer := done - set(migrations):
            raise LibraryFormatError(
                f"the database has migration {max(newer)}, this release knows {max(migrations)}",
                item=str(self.file),
                remedy="Install the release that wrote it, or a later one",
            )
        pending = sorted(set(migrations) - done)
        if pending and done:
            self._keep(self.file.with_name(f"{self.file.name}.before-{pending[0]}"))
        for number in pending:
            with self.transaction():
                self._connection.execute(migrations[number])
                self._connection.execute("INSERT INTO migrations VALUES ($number)", {"number": number})
        if not pending:
            # It was opened after the last change of its tables: what was before that has served its time.
            for kept in self.file.parent.glob(f"{self.file.name}.before-*"):
                kept.unlink(missing_ok=True)
        for left in (
            *self.file.parent.glob(f"{self.file.name}.compact*"),
            *self.file.parent.glob(f"{self.file.name}.new-*"),
        ):
            # Of a compaction or a beginning that was cut off.
            left.unlink(missing_ok=True)

    def _keep(self, kept: Path) -> None:
        """Write what the tables are before they are changed to a file beside them, once."""
        if kept.exists():
            return
        part = kept.with_name(f"{kept.name}.part")
        with writing_to(self.file.parent):
            part.unlink(missing_ok=True)
            self.copy_to(part)
            with part.open("rb+") as handle:
                os.fsync(handle.fileno())
            part.replace(kept)
            sync_folder(self.file.parent)


class Parquet:
    """One Parquet file, read without a library: the names of its columns, and its rows as they are asked for.

    Raises ReportError, here and on the way, when it is no sound Parquet file or takes more than `memory_mib`.
    """

    def __init__(self, path: str, *, memory_mib: int = 256) -> None:
        self._path = path
        self._source = f"read_parquet('{_quoted_pattern(path)}')"
        with self._translated():
            self._connection = duckdb.connect(
                ":memory:",
                config={
                    "threads": "1",
                    "memory_limit": f"{memory_mib}MiB",
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "allow_community_extensions": "false",
                },
            )
            try:
                described = self._connection.execute(f"DESCRIBE SELECT * FROM {self._source}").fetchall()
            except duckdb.Error:
                self._connection.close()
                raise
        self.columns = [str(row[0]) for row in described]

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of these columns, row by row in the order of the file; for one use."""
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        with self._translated():
            try:
                self._connection.execute(f"SELECT {names} FROM {self._source}")
                while chunk := self._connection.fetchmany(256):
                    yield from chunk
            finally:
                self._connection.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            kind = type(error).__name__
            raise ReportError(
                f"is a Parquet file that cannot be read ({kind})", item=self._path, remedy="Export it again"
            ) from error


def _quoted_pattern(path: str) -> str:
    # In a path that it reads from DuckDB takes these for a pattern.
    return re.sub(r"([*?\[])", r"[\1]", path).replace("'", "''")


def _migrations() -> dict[int, str]:
    text = resources.files("medsearch_desktop.store").joinpath("schema.sql").read_text("utf-8")
    parts = re.split(r"^-- migration (\d+)$", text, flags=re.MULTILINE)[1:]
    return {int(number): sql for number, sql in zip(parts[::2], parts[1::2], strict=True)}


def _object_array(values: Column) -> np.ndarray[Any, Any]:
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@contextmanager
def _translated(file: Path, *, source: Path | None = None) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        ours = _as_ours(error, file)
        if source is not None and isinstance(ours, LibraryFormatError):
            # What cannot be read is what is copied, not the copy.
            ours = _as_ours(error, source)
        raise ours from error
    except RuntimeError as error:
        # DuckDB looks for signals while it works, and throws away the KeyboardInterrupt that comes of Ctrl-C.
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


def _as_ours(error: duckdb.Error, file: Path) -> LibraryError:
    kinds = (duckdb.IOException, duckdb.SerializationException, duckdb.FatalException)
    return refusal(str(error), file, unreadable=isinstance(error, kinds))
