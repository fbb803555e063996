"""Ctrl-C while the database is at work: told as what it is, and nothing half is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Interrupted again and again while it writes; most of the time it is DuckDB that is at work then.
PROGRAM = """
import os, random, signal, sys, threading
from pathlib import Path
from medsearch_desktop.store.database import Database
database, dice, told, step = Database(Path(sys.argv[1])), random.Random(1), 0, 0
for _ in range(30):
    try:
        threading.Timer(dice.uniform(0.0, 0.1), os.kill, (os.getpid(), signal.SIGINT)).start()
        while True:
            step += 1
            with database.transaction():
                for half in (0, 1):
                    place = {"first": 2000 * step + 1000 * half}
                    database.write(
                        "INSERT INTO labels SELECT 'study', ($first + range)::VARCHAR, 'x' FROM range(1000)", place
                    )
    except KeyboardInterrupt:
        told += 1
    ((rows,),) = database.read("SELECT count(*) FROM labels")
    assert rows % 2000 == 0, rows
print(told)
database.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C is no signal that a test can send to one process")
def test_an_interrupt_is_one_and_takes_its_transaction_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "library.duckdb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "30\n"), done.stderr
