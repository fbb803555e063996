"""A database file that is written anew while others read and write it; and the gate that lets it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from medsearch_desktop.errors import LibraryLockedError
from medsearch_desktop.store.compaction import compact_open
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.gate import Gate


def test_whoever_is_inside_is_waited_for_and_nobody_comes_in_meanwhile() -> None:
    gate, inside, told = Gate(), threading.Event(), []
    leave = threading.Event()

    def stay() -> None:
        with gate.passing(), gate.passing():
            inside.set()
            leave.wait(30)
        told.append("left")

    def come() -> None:
        with gate.passing():
            told.append("came")

    first = threading.Thread(target=stay)
    first.start()
    inside.wait(30)
    with gate.shut(seconds=0.05) as alone:
        assert not alone
    leave.set()
    with gate.shut(seconds=30) as alone:
        assert alone
        second = threading.Thread(target=come)
        second.start()
        with gate.passing():
            # Its own thread passes.
            time.sleep(0.1)
        assert told == ["left"]
    second.join(30)
    first.join(30)
    assert told == ["left", "came"]


def fill(database: Database, count: int) -> None:
    numbers = np.arange(1, count + 1)
    vectors = np.random.default_rng(0).standard_normal((count, 1024)).astype(np.float32)
    for start in range(0, count, 2000):
        database.insert_vectors(numbers[start : start + 2000], vectors[start : start + 2000], model_id="m")


def test_questions_are_answered_and_writers_wait_while_the_file_is_written_anew(tmp_path: Path) -> None:
    database = Database(tmp_path / "library.duckdb")
    fill(database, 4000)
    database.checkpoint()
    database.write("DELETE FROM vectors WHERE image_no % 4 <> 0")
    stop, errors, answers = threading.Event(), [], [0]

    def ask() -> None:
        while not stop.is_set():
            try:
                rows = database.read("SELECT count(*), min(image_no) FROM vectors")
                chunks = sum(len(chunk) for chunk in database.read_chunks("SELECT image_no FROM vectors", rows=100))
                if (rows, chunks) != ([(1000, 4)], 1000):
                    errors.append((rows, chunks))
            except Exception as error:  # noqa: BLE001 - any at all is what must not be
                errors.append(error)
            answers[0] += 1

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                with database.transaction():
                    database.write("INSERT INTO watched VALUES ($path)", {"path": str(number)})
            except Exception as error:  # noqa: BLE001 - likewise
                errors.append(error)
        answers.append(number)

    threads = [threading.Thread(target=ask) for _ in range(2)] + [threading.Thread(target=write)]
    for each in threads:
        each.start()
    try:
        before = database.file.stat().st_size
        # Without a pause between the questions, which is when there is hardly a moment for it.
        done, end = [], time.monotonic() + 120
        while sum(not each.reason for each in done) < 2 and time.monotonic() < end:
            done.append(compact_open(database, always=True))
    finally:
        stop.set()
        for each in threads:
            each.join(60)
    assert errors == []
    assert answers[0] > 0
    # On a busy machine it may not find that moment at once, and says so.
    assert {each.reason for each in done} <= {"", "questions left no moment for it"}
    assert sum(not each.reason for each in done) == 2
    assert database.file.stat().st_size < before / 2
    # What was written before, between and after is there.
    assert database.read("SELECT count(*) FROM watched") == [(answers[1],)]
    database.close()
    again = Database(tmp_path / "library.duckdb")
    assert again.read("SELECT count(*) FROM watched") == [(answers[1],)]
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["library.duckdb"]


def test_one_long_answer_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    database = Database(tmp_path / "library.duckdb")
    fill(database, 300)
    chunks = database.read_chunks("SELECT image_no FROM vectors", rows=10)
    next(chunks)
    done = compact_open(database, always=True)
    assert done.reason == "questions left no moment for it"
    assert sum(len(chunk) for chunk in chunks) == 290
    assert compact_open(database, always=True).reason == ""
    database.close()


def test_whoever_was_quicker_at_that_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "library.duckdb")
    fill(database, 300)
    connect, refused = Database._connect, []

    def locked(self: Database) -> None:
        if len(refused) < 2 and self is database:
            refused.append(1)
            raise LibraryLockedError("the library is in use by another process", item=str(tmp_path))
        connect(self)

    monkeypatch.setattr(Database, "_connect", locked)
    assert compact_open(database, always=True).reason == ""
    assert len(refused) == 2
    assert database.read("SELECT count(*) FROM vectors") == [(300,)]
    database.close()
