"""Damaged and hostile DICOM through a whole ingest, in a process of its own that must not die, wait or grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.mutations import mutated, sound_files

TESTS = Path(__file__).parents[1]
# MUTATED_FILES=1000 is the full run.
COUNT = int(os.environ.get("MUTATED_FILES", "150"))
MOST_SECONDS = 10.0
MOST_MIB = 1536


@pytest.mark.slow
def test_no_mutated_file_ends_holds_up_or_bloats_an_ingest(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, (what, data) in enumerate(mutated(COUNT, seed=1)):
        (source / f"{number:04d}-{what}.dcm").write_bytes(data)
    # Told from one another, so that none hides behind another as its duplicate.
    for number, data in enumerate(sound_files()):
        (source / f"sound-{number}.dcm").write_bytes(data)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))}
    done = subprocess.run(
        [sys.executable, str(TESTS / "fuzz" / "ingest_watched.py"), str(tmp_path / "library"), str(source)],
        capture_output=True, text=True, env=environment, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    files = sorted(path.name for path in source.iterdir())
    assert told["discovered"] == len(files)
    assert {Path(path).name for path in told["states"]} == set(files)
    reasons = {Path(failure["path"]).name: failure["reason"] for failure in told["failures"]}
    assert all(len(reason) > 10 for reason in reasons.values())
    for path, state in told["states"].items():
        # Whatever is not shown says why; the rest is an image, or one of those that say the same of themselves.
        assert state in ("indexed", "duplicate", "ignored") or Path(path).name in reasons
    assert told["failed"] > COUNT / 3
    assert told["longest"] < MOST_SECONDS, told["where"]
    assert told["mib"] < MOST_MIB
