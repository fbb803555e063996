"""A file that ends the program ends it twice, and no more: it is left out, listed, and tried again when asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from contents import contents
from makers import write_department

from medsearch_desktop.library import open_library
from medsearch_desktop.quarantine import IN_HAND, REASON, SUSPECTS, Quarantine

# The program as it is, but for a decoder that crashes with one file as a codec written in C does.
CHILD = """
import os, signal, sys
from medsearch_desktop import ingest
from medsearch_desktop.serve.cli import main
decode = ingest.decode
def crash(source, **more):
    if more["name"].endswith("bomb.dcm"):
        os.kill(os.getpid(), int(sys.argv[1]))
    return decode(source, **more)
ingest.decode = crash
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


@dataclass(frozen=True)
class Named:
    path: str


def test_who_was_beside_it_is_cleared_and_names_may_be_anything(tmp_path: Path) -> None:
    names = [Named("/a/plain.dcm"), Named("/a/b\udcff\udcfe.dcm"), Named("/a/" + "x" * 9000), Named("/a/é\n.dcm")]
    first = Quarantine(tmp_path)
    running = first.look_ahead(lambda item: item.path, names, refuse=lambda item, why: "", threads=2, ahead=2)
    next(running)
    # As if the process had ended here with two of them in hand.
    for slot, item in enumerate((names[1], names[3])):
        name = item.path.encode("utf-8", "surrogateescape") if slot else b"bytes:/a/b%FF%FE.dcm"
        first._put(slot, len(name).to_bytes(4, "little") + name)
    left = (tmp_path / IN_HAND).read_bytes()
    running.close()
    (tmp_path / IN_HAND).write_bytes(left)
    order = []
    second = Quarantine(tmp_path)
    list(second.look_ahead(lambda item: order.append(item), names, refuse=lambda item, why: None, threads=2, ahead=4))
    assert order[:2] == [names[1], names[3]]
    assert set(order) == set(names)
    assert list(tmp_path.iterdir()) == []


def test_damaged_books_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / IN_HAND).write_bytes(b"\xff" * 20_000)
    (tmp_path / SUSPECTS).write_text("[1, 2")
    made = Quarantine(tmp_path).look_ahead(
        lambda item: item.path, [Named("/a")], refuse=lambda item, why: why, threads=1, ahead=1
    )
    assert list(made) == ["/a"]
