"""Reading ahead: in order, bounded, and errors where their result would have been."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from medsearch_desktop.conveyor import look_ahead, read_whole, reason_of
from medsearch_desktop.errors import DecodeError, SourceError


def test_results_come_in_order_whoever_is_first() -> None:
    def slow_when_even(number: int) -> int:
        time.sleep(0.02 if number % 2 == 0 else 0)
        return number * number

    assert list(look_ahead(slow_when_even, range(20), threads=4, ahead=6)) == [n * n for n in range(20)]
    assert list(look_ahead(slow_when_even, [], threads=4, ahead=6)) == []


def test_no_more_is_made_ahead_than_was_allowed() -> None:
    made: list[int] = []
    lock = threading.Lock()

    def make(number: int) -> int:
        with lock:
            made.append(number)
        return number

    for place, number in enumerate(look_ahead(make, range(50), threads=3, ahead=5)):
        assert number == place
        with lock:
            assert max(made) <= place + 5


def test_an_error_comes_in_its_place_and_ends_the_rest() -> None:
    started: list[int] = []

    def make(number: int) -> int:
        started.append(number)
        if number == 3:
            raise DecodeError("broken", item="film")
        return number

    results = look_ahead(make, range(1000), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DecodeError):
        next(results)
    assert len(started) < 20


def test_a_file_that_is_not_there_and_one_too_large_to_hold(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_whole(str(tmp_path / "none"), size=10)
    (tmp_path / "film").write_bytes(b"bytes")
    assert read_whole(str(tmp_path / "film"), size=5) == b"bytes"
    assert read_whole(str(tmp_path / "film"), size=1 << 40) is None


def test_a_reason_leaves_the_path_out() -> None:
    assert reason_of(DecodeError("is broken", item="/secret/path", remedy="Mend it")) == "is broken. Mend it"
    assert reason_of(OSError(5, "Input/output error", "/secret/path")) == "cannot be read (Input/output error)"
