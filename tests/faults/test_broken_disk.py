"""A disk that answers EIO, is full, or takes half: a real `medsearch ingest` on it, and what is there afterwards.

`make test` has each kind of file fail once; MEDSEARCH_FAULTS=200, as `make faults` sets it, at many of its calls.
MEDSEARCH_FAULTS_SEED chooses others.
"""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from contents import contents
from faults.broken_disk import Breaking, Rule, needs_breaking
from faults.large import large_film
from makers import write_department

from medsearch_desktop.library import Library, open_library

ROUNDS = max(1, int(os.environ.get("MEDSEARCH_FAULTS", "12")) // 25)
SEED = int(os.environ.get("MEDSEARCH_FAULTS_SEED", "6"))
STUDIES = 2

pytestmark = [needs_breaking, pytest.mark.slow]


@dataclass(frozen=True)
class Case:
    """Calls on some files of the library, and how many of them an ingest makes at least, first and last."""

    calls: str
    part: str
    error: int
    most: int
    # One call alone, or all from there on.
    times: int = 0

    def __str__(self) -> str:
        name = errno.errorcode.get(self.error, "half")
        return f"{name}-{self.calls}-{self.part.strip('/')}-{self.times or 'on'}"


CASES = (
    Case("write", "/library/library.duckdb", errno.EIO, 40),
    Case("write", "/library/library.duckdb", errno.EIO, 40, times=1),
    Case("fsync", "/library/library.duckdb", errno.EIO, 10, times=1),
    Case("write", "/library/library.duckdb", errno.ENOSPC, 40),
    Case("write", "/library/library.duckdb", 0, 40),
    Case("write", "/indexes/", errno.EIO, 40),
    Case("fsync", "/indexes/", errno.EIO, 20),
    Case("open,write", "/indexes/", errno.ENOSPC, 40),
    Case("write", "/indexes/", 0, 40),
    Case("open,write", "/thumbnails/", errno.EIO, 6),
    Case("write", "/thumbnails/", errno.ENOSPC, 2, times=1),
    Case("open,write,fsync", "/library/", errno.EIO, 60),
    Case("open,write,fsync", "/library/", errno.ENOSPC, 60, times=1),
)
# One ingest is several seconds: these in the short run, all of them in the full one.
SHORT = (0, 2, 5, 9)


def rules() -> Iterator[tuple[Case, int]]:
    rng = random.Random(SEED)
    for number, case in enumerate(CASES):
        if ROUNDS > 1 or number in SHORT:
            firsts = set(rng.sample(range(1, case.most + 1), min(ROUNDS, case.most)))
            # The very first one is the beginning of an empty database.
            for first in sorted(firsts | {1} if number == 0 else firsts):
                yield case, first


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[tuple]]]:
    """A folder of studies, and what a library of them holds that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    source = write_department(folder / "source", studies=STUDIES, size=64)
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
        return source, contents(library)


def ingest(breaking: Breaking, library: Path, source: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medsearch_desktop", "ingest", "--json", "--library", str(library), str(source)]
    return subprocess.run([*command, *more], capture_output=True, text=True, env=breaking.environ, check=False)


@pytest.mark.parametrize(("case", "first"), list(rules()), ids=str)
def test_a_disk_that_fails_costs_nothing_that_was_there(
    tmp_path: Path, department: tuple[Path, dict[str, list[tuple]]], case: Case, first: int
) -> None:
    source, expected = department
    path = tmp_path / "library"
    breaking = Breaking(tmp_path, Rule(case.calls, case.part, case.error, first, case.times))
    done = ingest(breaking, path, source)
    assert breaking["failed"], f"only {breaking['seen']} such calls: {done.stderr}"
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.returncode == 1, done.stderr
        # One line that says what and what to do, whatever went wrong inside.
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("medsearch: ")]
        assert str(path) in line
        assert "backup" not in line
    with open_library(path, create=True) as library:
        report = library.health.verify()
        assert report.ok, report.as_json()
        if done.returncode:
            library.ingest([source])
        # Who says that it is done has it all.
        assert library.failures() == []
        assert contents(library) == expected
        report = library.health.verify(files=True)
        assert report.ok, report.as_json()


def test_a_source_that_cannot_be_read_is_listed_and_read_the_next_time(
    tmp_path: Path, department: tuple[Path, dict[str, list[tuple]]]
) -> None:
    source, expected = department
    path = tmp_path / "library"
    # The first files are read, and then the drive gives nothing any more.
    breaking = Breaking(tmp_path, Rule("open,read", f"{source}/files/p", errno.EIO, 16))
    # One after the other: of several at once none might be whole.
    done = ingest(breaking, path, source, "--threads", "1")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert 0 < summary["failed"] < 3 * STUDIES
    assert all("Input/output error" in failure["reason"] for failure in summary["failures"])
    with open_library(path) as library:
        assert len(library.failures()) == summary["failed"]
        assert library.health.verify().ok
        library.ingest([source])
        assert library.failures() == []
        assert contents(library) == expected


def image_ids(library: Library) -> list[str]:
    return [image_id for (image_id,) in library._database.read("SELECT image_id FROM images ORDER BY image_id")]


@pytest.mark.parametrize(("more", "first"), [((), 3), (("--metadata-only",), 2)], ids=["pixels", "header"])
def test_a_large_file_whose_disk_fails_while_it_is_decoded_keeps_its_records(
    tmp_path: Path, more: tuple[str, ...], first: int
) -> None:
    """Its head was read, and without `--metadata-only` its digest made, when it is opened for the last time."""
    source, path = tmp_path / "source", tmp_path / "library"
    source.mkdir()
    film = large_film(source / "large.dcm", 6000)
    metadata_only = bool(more)
    with open_library(path, create=True) as library:
        library.ingest([source], metadata_only=metadata_only)
        held = image_ids(library)
        assert len(held) == 1
    with film.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\1\0")
    breaking = Breaking(tmp_path, Rule("open", str(film), errno.EIO, first))
    done = ingest(breaking, path, source, *more)
    assert breaking["failed"]
    assert done.returncode == 0, done.stderr
    (failure,) = json.loads(done.stdout)["failures"]
    assert "Input/output error" in failure["reason"]
    with open_library(path) as library:
        assert image_ids(library) == held
        summary = library.ingest([source], metadata_only=metadata_only)
        assert (summary.updated, summary.failed) == (1, 0)
        assert image_ids(library) == held
        assert library.failures() == []
        assert library.health.verify().ok
