"""A file that ends the program ends it twice, and no more: it is left out, listed, and tried again when asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contents import contents
from makers import write_department

from medsearch_desktop.library import open_library
from medsearch_desktop.quarantine import IN_HAND, REASON, SUSPECTS, Quarantine
from medsearch_desktop.store.database import stored_path

# The program as it is, but for a decoder that crashes with one file as a codec written in C does.
CHILD = """
import signal, sys
from medsearch_desktop import work
from medsearch_desktop.serve.cli import main
decode = work.decode
def crash(source, **more):
    if more["name"].endswith("bomb.dcm"):
        # In this very thread: a signal to the process may find another one, and this one go on for a while.
        signal.raise_signal(int(sys.argv[1]))
    return decode(source, **more)
work.decode = crash
sys.exit(main(sys.argv[2:]))
"""


def ingest(library: Path, source: Path, *, crash: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(crash), "ingest", "--json", "--library", str(library), str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crash", "age"), [(signal.SIGSEGV, 0), (signal.SIGKILL, 3600)], ids=["codec-just-written", "out-of-memory-old"]
)
def test_a_file_that_ends_the_program_is_left_out_after_two_tries(tmp_path: Path, crash: int, age: int) -> None:
    source, path = write_department(tmp_path / "source", studies=3, size=64), tmp_path / "library"
    bomb = min(source.rglob("image1.dcm")).rename(source / "bomb.dcm")
    written = time.time() - age
    os.utime(bomb, (written, written))
    for _ in range(2):
        assert ingest(path, source, crash=crash).returncode == -crash
    third = ingest(path, source, crash=crash)
    assert third.returncode == 0, third.stderr
    summary = json.loads(third.stdout)
    assert (summary["failed"], summary["failures"]) == (1, [{"path": str(bomb), "reason": REASON}])
    assert not [name for name in (IN_HAND, SUSPECTS) if (path / name).exists()]
    # Nor does it the next time: nobody reads what is known to end the program.
    fourth = ingest(path, source, crash=crash)
    assert fourth.returncode == 0
    with open_library(path) as library:
        assert [(failure.path, failure.reason) for failure in library.failures()] == [(str(bomb), REASON)]
        assert library.health.verify().ok
        # A release that can read it has it read again.
        assert library.retry_failures().failed == 0
        assert library.failures() == []
        survived = contents(library)
    with open_library(tmp_path / "fresh", create=True) as library:
        library.ingest([source])
        assert contents(library) == survived


def through(quarantine: Quarantine, make, names: list[str], *, threads: int = 2):
    return quarantine.look_ahead(
        make, iter(names), path_of=str, refuse=lambda name, why: why, threads=threads, ahead=2 * threads
    )


def left_behind(folder: Path, names: list[str]) -> None:
    """As if the process had ended with these in hand."""
    book = Quarantine(folder)
    running = through(book, lambda name: name, ["first"], threads=len(names))
    next(running)
    for slot, name in enumerate(names):
        stored = stored_path(name).encode()
        book._put(slot, len(stored).to_bytes(4, "little") + stored)
    left = (folder / IN_HAND).read_bytes()
    running.close()
    (folder / IN_HAND).write_bytes(left)


def test_who_was_beside_it_is_cleared_and_names_may_be_anything(tmp_path: Path) -> None:
    names = ["/a/plain.dcm", "/a/b\udcff\udcfe.dcm", "/a/" + "x" * 9000, "/a/é\n.dcm", "/a/last.dcm"]
    left_behind(tmp_path, [names[1], names[3]])
    at_once: set[str] = set()
    beside: dict[str, set[str]] = {}

    def make(name: str) -> str:
        at_once.add(name)
        time.sleep(0.02)
        beside[name] = set(at_once)
        at_once.discard(name)
        return name

    assert list(through(Quarantine(tmp_path), make, names)) == names
    assert beside[names[1]] == {names[1]}
    assert beside[names[3]] == {names[3]}
    assert list(tmp_path.iterdir()) == []
    # Two deaths, and it is left out; the others are not.
    left_behind(tmp_path, [names[0]])
    running = through(Quarantine(tmp_path), lambda name: name, names[1:])
    next(running)
    running.close()
    left_behind_again = json.loads((tmp_path / SUSPECTS).read_text())
    assert left_behind_again == {names[0]: 1}
    left_behind(tmp_path, [names[0]])
    assert list(through(Quarantine(tmp_path), lambda name: name, names)) == [REASON, *names[1:]]


def test_damaged_books_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / IN_HAND).write_bytes(b"\xff" * 20_000)
    (tmp_path / SUSPECTS).write_text("[1, 2")
    assert list(through(Quarantine(tmp_path), lambda name: name, ["/a"])) == ["/a"]
