"""kill -9 at random points of everything that writes: nothing lost, nothing twice, and `verify` agrees.

`make test` kills 12 times; MEDSEARCH_FAULTS=200, as `make faults` sets it, as often as it says. MEDSEARCH_FAULTS_SEED
chooses other points.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from contents import contents
from makers import write_department

from medsearch_desktop.library import Library, open_library
from medsearch_desktop.quarantine import REASON

KILLS = int(os.environ.get("MEDSEARCH_FAULTS", "12"))
SEED = int(os.environ.get("MEDSEARCH_FAULTS_SEED", "6"))
FIRST = 16


def run(*arguments: str | Path, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "medsearch_desktop", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "MEDSEARCH_BATCH_SIZE": "2", **(environ or {})},
    )


def change_something(source: Path, library: Path, rng: random.Random, step: int) -> None:
    """New studies, a changed report, a moved and a removed folder, a copy; now and then a lost or old index."""
    write_department(source / "more", studies=4, first=100 + 4 * step, size=64)
    changed = rng.choice(sorted(source.rglob("s*.txt")))
    changed.write_text(changed.read_text("utf-8") + f"ADDENDUM: step {step}, nodule.\n", "utf-8")
    folders = sorted(path for path in source.rglob("s5*") if path.is_dir())
    rng.choice(folders).rename(source / f"moved-{step}")
    folders = [folder for folder in folders if folder.exists()]
    gone = rng.choice(folders)
    shutil.rmtree(gone)
    gone.with_suffix(".txt").unlink(missing_ok=True)
    film = rng.choice(sorted(source.rglob("*.dcm")))
    shutil.copy(film, source / f"copy-{step}.dcm")
    if rng.random() < 0.25:
        shutil.rmtree(library / "indexes", ignore_errors=True)


def command(library: Path, source: Path, rng: random.Random) -> tuple[str, list[str | Path]]:
    """What is killed this time: mostly an ingest, also reading all reports again, a repair and a compaction."""
    what = rng.choices(["ingest", "reprocess", "repair", "compact"], [8, 2, 1, 1])[0]
    words: dict[str, list[str | Path]] = {
        "ingest": ["ingest", source],
        "reprocess": ["reports", "reprocess", "--all"],
        "repair": ["repair", "--files"],
        "compact": ["compact"],
    }
    return what, [*words[what], "--library", library]


def check(library: Library) -> None:
    """Whatever moment it died at: what is there fits together, but for files that were changed since."""
    report = library.health.verify()
    wrong = {kind for kind in report.kinds if kind not in ("file-gone", "file-changed")}
    assert not wrong, report.as_json()
    read = library._database.read
    for table, key in (("images", "image_id"), ("vectors", "image_no, model_id"), ("reports", "report_id")):
        assert read(f"SELECT {key} FROM {table} GROUP BY {key} HAVING count(*) > 1") == [], table


@pytest.mark.slow
@pytest.mark.timeout(600 + 120 * KILLS)
def test_kills_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    source, path = write_department(tmp_path / "source", studies=FIRST, size=64), tmp_path / "library"
    began = time.monotonic()
    assert run("ingest", "--library", path, source).wait() == 0
    whole = time.monotonic() - began
    # How long each takes when nothing happens to it, as far as that was seen.
    took: dict[str, float] = {}
    kills: Counter[str] = Counter()
    step = 0
    while kills.total() < KILLS:
        assert step < 4 * KILLS, f"it ends before it can be killed: {kills}"
        change_something(source, path, rng, step)
        what, words = command(path, source, rng)
        process, began = run(*words), time.monotonic()
        try:
            process.wait(rng.uniform(0.15, 1.0) * took.get(what, whole))
            # It was done before: the machine is less busy now than when that was measured, or this is soon done.
            took[what] = time.monotonic() - began
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills[what] += 1
        step += 1
        if step % 4 == 0 or kills.total() == KILLS:
            # Not each time: some kills are to meet what the one before has left.
            with open_library(path) as library:
                check(library)
    with open_library(path) as library:
        library.ingest([source])
        if any(failure.reason == REASON for failure in library.failures()):
            # A kill -9 looks like a codec that crashes: a file that was in hand both times is listed, and not lost.
            library.retry_failures()
        report = library.health.verify(files=True)
        assert report.ok, report.as_json()
        check(library)
        survived = contents(library)
        assert not [left for left in path.iterdir() if left.suffix in (".part", ".compact")]
    with open_library(tmp_path / "fresh", create=True) as library:
        library.ingest([source])
        expected = contents(library)
    # Of a film and its copies either may have been met first.
    copies = {name: [row[:1] + row[2:] for row in held["images"]] for name, held in (("s", survived), ("e", expected))}
    assert copies["s"] == copies["e"]
    for name in survived:
        if name == "files":
            assert [row[:2] for row in survived[name]] == [row[:2] for row in expected[name]]
        elif name != "images":
            assert survived[name] == expected[name], name


@pytest.mark.slow
def test_an_ingest_that_stood_still_goes_on(tmp_path: Path) -> None:
    """SIGSTOP, as a laptop that sleeps: MEDSEARCH_FAULTS=200 makes it the minute, 12 the seconds."""
    source, path = write_department(tmp_path / "source", studies=FIRST, size=64), tmp_path / "library"
    process = run("ingest", "--library", path, source)
    rng = random.Random(SEED)
    for _ in range(3):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(20 if KILLS >= 100 else 1)
            os.killpg(process.pid, signal.SIGCONT)
            time.sleep(rng.uniform(0.2, 1.5))
    assert process.wait(300) == 0
    with open_library(path) as library:
        assert library.totals().images == 2 * FIRST
        assert library.totals().reports == FIRST
        assert library.health.verify(files=True).ok
