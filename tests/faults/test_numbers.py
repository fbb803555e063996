"""What `make faults` asks for reaches the tests, which keep all other settings out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def collected(**environ: str) -> int:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/faults/test_broken_disk.py"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MEDSEARCH_FAULTS")}
    done = subprocess.run(
        command, cwd=ROOT, env={**bare, **environ}, capture_output=True, text=True, check=True, timeout=300
    )
    found = re.search(r"^(\d+) tests? collected", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return int(found[1])


def test_the_number_of_faults_reaches_the_tests() -> None:
    assert collected(MEDSEARCH_FAULTS="200") > collected(MEDSEARCH_FAULTS="50") > collected()
