"""A licence holder's own UMLS Metathesaurus as a base of concepts: read from RRF files, kept in one SQLite file.

Files are read line by line and nothing is held of them but what one batch needs, so that memory stays
bounded at any size of release. The base is made in a folder beside its place and renamed when it is whole.
Columns are those of the UMLS Reference Manual, chapter 3 (Rich Release Format).
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import platformdirs

from medsearch_desktop.config import APP_NAME
from medsearch_desktop.errors import TerminologyError
from medsearch_desktop.report.gist import gist_digest, gist_of_name
from medsearch_desktop.report.terminology import load_shipped

FORMAT = 1
FILE = "umls.sqlite"
# Semantic types that a report of an image speaks of, as MRSTY.RRF names them: disorders and findings, anatomy,
# procedures, devices.
RADIOLOGY_TYPES = (
    "Acquired Abnormality",
    "Anatomical Abnormality",
    "Anatomical Structure",
    "Body Location or Region",
    "Body Part, Organ, or Organ Component",
    "Body Space or Junction",
    "Body System",
    "Cell or Molecular Dysfunction",
    "Congenital Abnormality",
    "Diagnostic Procedure",
    "Disease or Syndrome",
    "Finding",
    "Health Care Activity",
    "Injury or Poisoning",
    "Medical Device",
    "Mental or Behavioral Dysfunction",
    "Neoplastic Process",
    "Pathologic Function",
    "Sign or Symptom",
    "Therapeutic or Preventive Procedure",
    "Tissue",
)
_COLUMNS = {"MRCONSO.RRF": 18, "MRSTY.RRF": 6, "MRDEF.RRF": 8}
_BATCH = 10_000
_REPORT_EVERY = 100_000
_MAX_LINE = 1_000_000
_CACHE_KIB = 32_768
_LEAVINGS = ".import-"

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made: the counts, and how many codes were left out since the loaded release has not got them."""

    path: Path
    release: str
    concepts: int
    names: int
    codes: int
    unknown_codes: int
    definitions: int
    size: int


def umls_path() -> Path:
    """Return the place of the user's UMLS base, which need not exist."""
    return Path(platformdirs.user_data_dir(APP_NAME, appauthor=False)) / "terminology" / "umls" / FILE


def import_umls(
    meta: Path,
    *,
    types: Sequence[str] = RADIOLOGY_TYPES,
    progress: Progress = lambda _stage, _lines: None,
    path: Path | None = None,
) -> Imported:
    """Make a base of the RRF files in the folder `meta`, plain or .gz, and put it in the place of the one before.

    English names that are not suppressed, of concepts of the semantic types `types`; ICD-10-CM codes by the
    atoms of UMLS (SAB ICD10CM). MRDEF.RRF may be missing. `progress` is told the file and the lines read.

    Raises TerminologyError, naming file and line, when something is missing, cut short or malformed, or
    cannot be written; the base in use is then as it was.
    """
    target = umls_path() if path is None else path
    files = {name: _find(meta, name) for name in _COLUMNS}
    for name in ("MRCONSO.RRF", "MRSTY.RRF"):
        if files[name] is None:
            raise TerminologyError(
                f"has neither {name} nor {name}.gz", item=str(meta), remedy="Give the META folder of a UMLS release"
            )
    try:
        with _staging(target.parent.parent) as staging:
            made = _Import(staging / FILE, types, progress)
            with contextlib.closing(made):
                made.read(files)
                counts = made.finish(_release(meta))
            _put(staging, target.parent)
    except (OSError, sqlite3.Error) as error:
        raise TerminologyError(
            f"the base cannot be written ({getattr(error, 'strerror', None) or error}); the one in use stays",
            item=str(target.parent),
            remedy="Check its permissions and the free space",
        ) from error
    return Imported(target, size=target.stat().st_size, **counts)


class _Import:
    """One import on its way: the database that it fills."""

    def __init__(self, path: Path, types: Sequence[str], progress: Progress) -> None:
        self._types = types
        self._progress = progress
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.executescript(
            "CREATE TABLE wanted (cui TEXT PRIMARY KEY) WITHOUT ROWID;"
            "CREATE TABLE name (cui TEXT, text TEXT, key TEXT, preferred INTEGER);"
            "CREATE TABLE code (cui TEXT, icd10cm TEXT, rank INTEGER, PRIMARY KEY (cui, icd10cm)) WITHOUT ROWID;"
            "CREATE TABLE definition (cui TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID;"
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;"
        )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def read(self, files: dict[str, Path | None]) -> None:
        """Fill the tables: semantic types, then names and codes, then definitions."""
        styles, atoms, definitions = files["MRSTY.RRF"], files["MRCONSO.RRF"], files["MRDEF.RRF"]
        assert styles is not None
        assert atoms is not None
        wanted = set(self._types)
        self._fill(
            "INSERT OR IGNORE INTO wanted VALUES (?)",
            ((row[0],) for row in self._rows(styles, "MRSTY.RRF") if row[3] in wanted),
        )
        if not self._count("wanted"):
            raise TerminologyError(
                "no concept is of the chosen semantic types", item=str(styles), remedy="Check the names given by --type"
            )
        self._read_atoms(atoms)
        if definitions is not None:
            self._fill(
                "INSERT OR IGNORE INTO definition SELECT ?, ? WHERE EXISTS (SELECT 1 FROM wanted WHERE cui = ?)",
                ((r[0], r[5], r[0]) for r in self._rows(definitions, "MRDEF.RRF") if r[6] not in ("O", "Y", "E")),
            )

    def _read_atoms(self, file: Path) -> None:
        """Read MRCONSO: 0 CUI, 1 LAT, 2 TS, 6 ISPREF, 11 SAB, 12 TTY, 13 CODE, 14 STR, 16 SUPPRESS."""
        names: list[tuple[Any, ...]] = []
        codes: list[tuple[Any, ...]] = []
        for row in self._rows(file, "MRCONSO.RRF"):
            if row[1] != "ENG" or row[16] in ("O", "Y", "E"):
                continue
            cui, text = row[0], row[14]
            preferred = row[2] == "P" and row[6] == "Y"
            names.append((cui, text, gist_of_name(text).key, preferred, cui))
            if row[11] == "ICD10CM" and row[13]:
                codes.append((cui, row[13], 0 if row[12] in ("PT", "HT") else 1, cui))
            if len(names) >= _BATCH:
                self._flush(names, codes)
        self._flush(names, codes)

    def _flush(self, names: list[tuple[Any, ...]], codes: list[tuple[Any, ...]]) -> None:
        exists = "WHERE EXISTS (SELECT 1 FROM wanted WHERE cui = ?)"
        self._database.executemany(f"INSERT INTO name SELECT ?, ?, ?, ? {exists}", names)
        self._database.executemany(f"INSERT OR IGNORE INTO code SELECT ?, ?, ? {exists}", codes)
        self._database.commit()
        names.clear()
        codes.clear()

    def finish(self, release: str) -> dict[str, Any]:
        """Drop what is double or not of the loaded release, make the indexes, and return the counts."""
        self._progress("indexes", 0)
        base = load_shipped()
        run = self._database.execute
        run("DELETE FROM name WHERE key = ''")
        run("CREATE TABLE kept AS SELECT cui, text, key, MAX(preferred) AS preferred FROM name GROUP BY cui, key")
        run("DROP TABLE name")
        run("CREATE INDEX kept_key ON kept (key)")
        run("CREATE INDEX kept_cui ON kept (cui)")
        unknown = [row for row in run("SELECT DISTINCT icd10cm FROM code") if not base.has_code(row[0])]
        self._database.executemany("DELETE FROM code WHERE icd10cm = ?", unknown)
        counts = {
            "concepts": self._one("SELECT COUNT(DISTINCT cui) FROM kept"),
            "names": self._count("kept"),
            "codes": self._one("SELECT COUNT(DISTINCT icd10cm) FROM code"),
            "definitions": self._count("definition"),
        }
        self._word_table()
        run("DROP TABLE wanted")
        about = {"format": FORMAT, "release": release, "reading": gist_digest(), "types": "; ".join(self._types)}
        about |= {**counts, "icd10cm": base.release, "imported": datetime.now(UTC).isoformat(timespec="seconds")}
        self._database.executemany("INSERT INTO meta VALUES (?, ?)", [(k, str(v)) for k, v in about.items()])
        self._database.commit()
        return {"release": release, "unknown_codes": len(unknown), **counts}

    def _word_table(self) -> None:
        """Make the table of which names hold a word, and of how many there are of each."""
        run = self._database.execute
        run("CREATE TABLE word (word TEXT, name INTEGER)")
        last = 0
        while True:
            rows = run("SELECT rowid, key FROM kept WHERE rowid > ? ORDER BY rowid LIMIT ?", (last, _BATCH)).fetchall()
            if not rows:
                break
            last = rows[-1][0]
            pairs = ((word, row) for row, key in rows for word in key.split())
            self._database.executemany("INSERT INTO word VALUES (?, ?)", pairs)
            self._database.commit()
            self._progress("words", last)
        run("CREATE INDEX word_name ON word (word, name)")
        run("CREATE TABLE frequency AS SELECT word, COUNT(*) AS names FROM word GROUP BY word")
        run("CREATE UNIQUE INDEX frequency_word ON frequency (word)")

    def _fill(self, statement: str, rows: Iterator[tuple[Any, ...]]) -> None:
        batch: list[tuple[Any, ...]] = []
        for row in rows:
            batch.append(row)
            if len(batch) >= _BATCH:
                self._database.executemany(statement, batch)
                self._database.commit()
                batch.clear()
        self._database.executemany(statement, batch)
        self._database.commit()

    def _rows(self, file: Path, name: str) -> Iterator[list[str]]:
        for number, row in enumerate(read_rrf(file, columns=_COLUMNS[name]), start=1):
            if number % _REPORT_EVERY == 0:
                self._progress(file.name, number)
            yield row

    def _count(self, table: str) -> int:
        return self._one(f"SELECT COUNT(*) FROM {table}")  # noqa: S608 a name of this file

    def _one(self, statement: str) -> int:
        return int(self._database.execute(statement).fetchone()[0])


def read_rrf(file: Path, *, columns: int) -> Iterator[list[str]]:
    """Yield the cells of each line of an RRF file, plain or .gz; every line ends in a bar and a line break.

    Raises TerminologyError, naming the file and the line, for another number of columns, a line that is cut
    short, bytes that are not UTF-8, a damaged archive or a file that cannot be read.
    """
    number = 0
    try:
        with _open(file) as stream:
            while line := stream.readline(_MAX_LINE):
                number += 1
                if not line.endswith(b"\n"):
                    raise _bad(file, number, "is cut short: it has no end")
                cells = line.rstrip(b"\r\n").decode("utf-8").split("|")
                if cells.pop() or len(cells) != columns:
                    raise _bad(file, number, f"has {len(cells)} columns and a rest, not {columns} that each end in '|'")
                yield cells
    except UnicodeDecodeError as error:
        raise _bad(file, number, "is not UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _bad(file, number + 1, f"cannot be unpacked ({error})") from error
    except OSError as error:
        raise TerminologyError(f"cannot be read ({error.strerror or error})", item=str(file)) from error


def _bad(file: Path, number: int, problem: str) -> TerminologyError:
    return TerminologyError(problem, item=f"{file}, line {number}", remedy="Copy or unpack the release anew")


def _open(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


def _find(meta: Path, name: str) -> Path | None:
    return next((meta / found for found in (name, f"{name}.gz") if (meta / found).is_file()), None)


def _release(meta: Path) -> str:
    """Return the release that the folder's own release.dat names, or the folder's name."""
    try:
        for line in (meta / "release.dat").read_text("utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "umls.release.name":
                return f"UMLS {value.strip()}"
    except (OSError, UnicodeDecodeError):
        pass
    folder = meta.absolute()
    return f"UMLS {folder.parent.name if folder.name.upper() == 'META' else folder.name}"


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    # Its name tells which process is at work in it, so that what a killed one left is known as such.
    import psutil

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in folder.glob(f"{_LEAVINGS}*"):
        owner = left.name.removeprefix(_LEAVINGS).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f"{_LEAVINGS}{os.getpid()}-", dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(staging: Path, home: Path) -> None:
    """Put the finished file in its place; whoever has the old one open goes on reading it."""
    made = staging / FILE
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    home.mkdir(exist_ok=True, mode=0o700)
    made.chmod(0o600)
    made.replace(home / FILE)
