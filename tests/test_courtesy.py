"""An ingest gives way to others and says in its log what it did, and no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from makers import write_department

from medsearch_desktop.config import load_config
from medsearch_desktop.courtesy import Courtesy, OtherProcesses
from medsearch_desktop.library import open_library
from medsearch_desktop.log import FILE, Log


def test_without_the_settings_nothing_stands_in_between() -> None:
    def make(item: int) -> int:
        return item

    assert Courtesy(load_config(), threading.Event()).through(make) is make


def test_it_pauses_while_others_are_busy_and_goes_on_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsearch_desktop.courtesy._SECONDS_BETWEEN_LOOKS", 0.04)
    looks = iter([80.0, 80.0, 80.0, 20.0, 20.0])
    seen = []

    def busy() -> float:
        seen.append(next(looks))
        return seen[-1]

    courtesy = Courtesy(load_config({"yield_above": 50}), threading.Event(), busy=busy)
    assert courtesy.through(lambda item: item + 1)(1) == 2
    assert seen == [80.0, 80.0, 80.0, 20.0]


def test_a_pause_ends_when_the_ingest_is_stopped_or_has_waited_long(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    courtesy = Courtesy(load_config({"yield_above": 1}), stop, busy=lambda: 100.0)
    # Nothing but being stopped ends it.
    monkeypatch.setattr("medsearch_desktop.courtesy._LONGEST_PAUSE", float("inf"))
    threading.Timer(0.1, stop.set).start()
    courtesy.through(lambda item: item)(1)
    assert stop.is_set()
    monkeypatch.setattr("medsearch_desktop.courtesy._LONGEST_PAUSE", 0.1)
    Courtesy(load_config({"yield_above": 1}), threading.Event(), busy=lambda: 100.0).through(lambda item: item)(1)


def test_others_are_told_from_this_process() -> None:
    others = OtherProcesses()
    assert others() >= 0
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        try:
            if os.name != "nt" and os.getpriority(os.PRIO_PROCESS, spinning.pid) > 0:
                # What runs at a lower priority does not count.
                try:
                    os.setpriority(os.PRIO_PROCESS, spinning.pid, 0)
                except OSError:
                    pytest.skip("these tests run at a lower priority, and so would the other: run them without `nice`")
            # Whatever else is going on here, this one uses a part of a core once it has begun.
            most, end = 0.0, time.monotonic() + 60
            while most <= 20 / (os.cpu_count() or 1) and time.monotonic() < end:
                time.sleep(1.0)
                most = max(most, others())
            assert 20 / (os.cpu_count() or 1) < most <= 100
        finally:
            spinning.kill()


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="threads have no priority of their own on this system")
def test_only_the_threads_of_the_ingest_have_a_lower_priority() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    lower = min(own + 3, 19)
    found = []
    make = Courtesy(load_config({"niceness": lower}), threading.Event()).through(
        lambda item: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    )
    thread = threading.Thread(target=make, args=(1,))
    thread.start()
    thread.join()
    assert found == [lower]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_the_log_holds_words_and_numbers_of_ours_alone(tmp_path: Path) -> None:
    source = write_department(tmp_path / "Smith^John", studies=1, size=64)
    (source / "Smith^John.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])

        def breaks(_: object) -> None:
            raise RuntimeError("Smith^John")

        with pytest.raises(RuntimeError):
            library.ingest([source], on_event=breaks)
    file = tmp_path / "library" / FILE
    text = file.read_text("utf-8")
    assert file.stat().st_mode & 0o077 == 0
    assert "ingest began paths=1" in text
    assert "ingest ended discovered=4 indexed=3" in text
    assert "ingest broke off: RuntimeError" in text
    assert "Smith" not in text
    assert all(re.fullmatch(r"[-\d]+ [\d:,]+ \d+ [\w :=.+-]+", line) for line in text.splitlines())


def test_the_log_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsearch_desktop.log._BYTES", 2000)
    log = Log(tmp_path)
    for step in range(500):
        log.note("ingest ended", step=step, path="/not/a/number")
    log.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    assert all(path.stat().st_size <= 2000 for path in files)
    assert "step=499" in (tmp_path / FILE).read_text("utf-8")
    assert "/not" not in (tmp_path / FILE).read_text("utf-8")
