"""A library of an earlier release opens, keeps what it had and takes what is new."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path

import duckdb
import pytest

from medsearch_desktop.records import AttributeKind
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.lists import NewEntry, SavedSearch, SavedSearches, TeachingLists
from medsearch_desktop.store.reports import Reports
from medsearch_desktop.store.standing import Standing

TEXT = "FINDINGS: Small left effusion."


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database as the first two migrations left it, with one report."""
    file = tmp_path / "library.duckdb"
    sql = resources.files("medsearch_desktop.store").joinpath("schema.sql").read_text("utf-8")
    parts = re.split(r"^-- migration \d+$", sql, flags=re.MULTILINE)
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            "CREATE TABLE migrations (number INTEGER PRIMARY KEY); INSERT INTO migrations VALUES (1), (2)"
        )
        connection.execute(parts[1])
        connection.execute(parts[2])
        connection.execute(
            "INSERT INTO reports VALUES (1, 'r', NULL, NULL, '/a/r.txt', 'utf-8', $text,"
            " [{'name': 'FINDINGS', 'start': 10, 'end': 30}], 'rules-1-000000000000')",
            {"text": TEXT},
        )
        connection.execute(
            "INSERT INTO entities VALUES (1, 0, 'effusion', 21, 29, 'FINDINGS', 'Diagnosis', 'present', 'Effusion', '',"
            " 'J90', 'Pleural effusion', 1, '[]', '', -1, -1)"
        )
    return file


def test_entities_of_before_are_still_there(old: Path) -> None:
    database = Database(old)
    stored = Reports(database).get("r")
    assert stored is not None
    (entity,) = stored.report.entities
    assert (entity.text, entity.icd10cm, entity.attributes, entity.rule, entity.sentence_start) == (
        "effusion",
        "J90",
        (),
        "",
        -1,
    )
    assert stored.report.language == "en"
    database.close()


def test_lists_can_be_kept_in_a_library_of_before(old: Path) -> None:
    database = Database(old)
    searches, lists = SavedSearches(database), TeachingLists(database)
    assert (searches.all(), lists.all()) == ([], [])
    searches.put(SavedSearch("q", "effusion", "score", "", "2026-01-01"))
    lists.create("basics", note="", at="2026-01-01", entries=[NewEntry("study", "1.2", "0" * 64, "n")])
    database.close()
    database = Database(old)
    assert [each.question for each in SavedSearches(database).all()] == ["effusion"]
    assert [(each.note, each.missing) for each in TeachingLists(database).entries("basics")] == [("n", True)]
    database.close()


def test_reading_again_fills_what_is_new(old: Path) -> None:
    database = Database(old)
    reports = Reports(database)
    (number,) = reports.numbers(not_of="new")
    reports.rewrite([(number, ReportReader().read(TEXT, report_id="r"))], pipeline_version="new")
    assert reports.numbers(not_of="new") == []
    database.close()
    database = Database(old)
    stored = Reports(database).get("r")
    assert stored is not None
    assert stored.report.entities[0].said(AttributeKind.SEVERITY) == ("mild",)
    assert stored.pipeline_version == "new"
    database.close()


def test_what_was_passed_over_before_is_looked_at_again(old: Path) -> None:
    rows = (("/a/r.hl7", "other", "ignored"), ("/a/sr", "dicom", "failed"), ("/a/r.txt", "report", "indexed"))
    with duckdb.connect(str(old)) as connection:
        for path, kind, state in rows:
            connection.execute(
                "INSERT INTO files VALUES ($p, '/a', 1, 7, 'x', $k, $s, 9, '')", {"p": path, "k": kind, "s": state}
            )
    database = Database(old)
    assert database.read("SELECT path, mtime_ns, sha256 FROM files ORDER BY path") == [
        ("/a/r.hl7", -1, ""),
        ("/a/r.txt", 7, "x"),
        ("/a/sr", -1, ""),
    ]
    assert database.read("SELECT version_no, position, stated FROM reports") == [(None, 0, "")]
    database.close()


CHILD = """
import os, signal, sys, threading
from contextlib import contextmanager
from pathlib import Path
from medsearch_desktop.store.database import Database
point = sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
whole, copy = Database.transaction, Database.copy_to
@contextmanager
def transaction(self):
    with whole(self):
        yield
        if point == "before the commit":
            die()
    if point == "after the commit":
        die()
def copy_to(self, target):
    if point == "in the middle of the copy":
        threading.Timer(0.02, die).start()
        while True:
            target.unlink(missing_ok=True)
            copy(self, target)
    found = copy(self, target)
    if point == "before the copy has its name":
        die()
    return found
Database.transaction, Database.copy_to = transaction, copy_to
Database(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "point",
    ["in the middle of the copy", "before the copy has its name", "before the commit", "after the commit"],
)
def test_a_kill_at_any_point_of_it_loses_nothing(old: Path, point: str) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, str(old), point], check=False)
    assert child.returncode == -signal.SIGKILL
    for _ in range(2):
        database = Database(old)
        stored = Reports(database).get("r")
        assert stored is not None
        assert stored.report.text == TEXT
        assert stored.report.language == "en"
        assert database.read("SELECT count(*) FROM corrections") == [(0,)]
        database.close()
    # Opened once more after it was brought up to date, it is alone again.
    assert [path.name for path in old.parent.iterdir()] == [old.name]


def test_what_was_before_is_kept_until_the_library_was_opened_once(old: Path) -> None:
    Database(old).close()
    kept = old.with_name("library.duckdb.before-3")
    assert kept.stat().st_mode & 0o077 == 0
    with duckdb.connect(str(kept), read_only=True) as before:
        assert before.execute("SELECT max(number) FROM migrations").fetchall() == [(2,)]
        assert before.execute("SELECT text FROM reports").fetchall() == [(TEXT,)]
    Database(old).close()
    assert not kept.exists()


def test_what_an_owner_does_by_itself_is_kept_in_a_library_of_before(old: Path) -> None:
    database = Database(old)
    standing = Standing(database)
    assert (standing.watched(), standing.reception()) == ([], {})
    for path in ("/b", "/a", "/b", "/sc\udce4ns"):
        standing.watch(path)
    standing.unwatch("/a")
    standing.keep_reception({"on": True, "port": 1})
    standing.keep_reception({"on": False, "port": 2})
    database.close()
    again = Database(old)
    assert set(Standing(again).watched()) == {"/b", "/sc\udce4ns"}
    assert Standing(again).reception() == {"on": False, "port": 2}
    again.close()
