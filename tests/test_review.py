"""Corrections and reading again, in a real library."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medsearch_desktop.errors import NotFoundError, ReportError
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import Assertion

TEXT = "FINDINGS: Small left effusion. No nodule."
SPAN = (21, 29)
REPORTS = 6
KILLED = """
import os, signal, sys
from medsearch_desktop import reread
from medsearch_desktop.library import open_library
reread.REPORTS_PER_COMMIT = 2
with open_library(sys.argv[1]) as library:
    library.reprocess(on_report=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(REPORTS):
        (folder / f"r{number}.txt").write_text(f"{TEXT} Case {number}.", "utf-8")
    return folder


@pytest.fixture
def path(tmp_path: Path, source: Path) -> Path:
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
    return tmp_path / "library"


def outdate(library: Library) -> None:
    """Leave the library as an earlier release might have: another pipeline, one mention judged otherwise."""
    library._database.write("UPDATE reports SET pipeline_version = 'rules-0'")
    library._database.write("UPDATE entities SET assertion = 'present' WHERE text = 'nodule'")
    library._database.write(
        "INSERT INTO changes SELECT nextval('change_seq'), 'document', report_no * 2 FROM reports ORDER BY report_no"
    )
    library.refresh()


def test_a_correction_is_found_at_once_and_survives(path: Path, source: Path) -> None:
    with open_library(path) as library:
        kept = library.correct("r0", SPAN, assertion=Assertion.ABSENT, code="J91.0", note="CT", author="me")
        assert (kept.before["assertion"], kept.author, kept.note) == ("present", "me", "CT")
        assert [hit.report_id for hit in library.search("absent:J91.0").hits] == ["r0"]
        # The file is written anew with the same words in the same place.
        (source / "r0.txt").write_text(f"{TEXT} Again.", "utf-8")
        library.ingest([source])
        assert [hit.report_id for hit in library.search("absent:J91.0").hits] == ["r0"]
        library.reprocess(everything=True)
        assert [hit.report_id for hit in library.search("absent:J91.0").hits] == ["r0"]
        assert library.report("r0").report.entities[0].rule == f"corrections/{kept.correction_id}"
        exported = json.dumps(library.export_corrections())
        library.undo_correction("r0", SPAN, author="you")
        assert library.search("absent:J91.0").total == 0
        assert library.search("present:J90").total == REPORTS
        (ledger,) = library.corrections()
        assert (ledger.undone_by, ledger.icd10cm) == ("you", "J91.0")
        assert library.import_corrections(exported) == 0
        assert library.search("absent:J91.0").total == 0


def test_corrections_travel_to_another_library(path: Path, source: Path, tmp_path: Path) -> None:
    with open_library(path) as library:
        library.correct("r1", SPAN, assertion=Assertion.UNCERTAIN)
        exported = json.dumps(library.export_corrections())
        for wrong in ("", "{}", '{"format": "other", "corrections": []}'):
            with pytest.raises(ReportError, match="no export of corrections"):
                library.import_corrections(wrong, name="x.json")
    with open_library(tmp_path / "other", create=True) as other:
        assert other.import_corrections(exported) == 1
        # Its report comes later.
        other.ingest([source])
        assert [hit.report_id for hit in other.search("uncertain:effusion").hits] == ["r1"]


def test_what_is_not_there_is_named_with_the_remedy(path: Path) -> None:
    with open_library(path) as library:
        for ask, message in (
            (lambda: library.report("r99"), "r99: the library has no such report"),
            (lambda: library.correct("r0", (0, 3), code="J90"), "no mention stands at 0:3.*reports show r0"),
            (lambda: library.correct("r0", SPAN, code="Q99.99"), "Q99.99.*medsearch code"),
            (lambda: library.undo_correction("r0", SPAN), "nothing is corrected at 21:29"),
        ):
            with pytest.raises(NotFoundError, match=message):
                ask()
        assert library.corrections() == []


def test_a_dry_run_changes_nothing_and_a_killed_run_goes_on(path: Path) -> None:
    with open_library(path) as library:
        outdate(library)
        rows = library._database.read("SELECT * FROM entities ORDER BY ALL")
        dry = library.reprocess(dry_run=True)
        assert (dry.read, dry.current, dry.changed, dry.added) == (REPORTS, 0, REPORTS, 0)
        assert dry.fields == {"assertion": REPORTS}
        (change,) = dry.reports[0][1]
        assert (change.text, change.fields) == ("nodule", {"assertion": ("present", "absent")})
        assert library._database.read("SELECT * FROM entities ORDER BY ALL") == rows
    died = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    with open_library(path) as library:
        # What was committed is found though the process never came to teach the index.
        assert library.search("absent:nodule").total == 2
        rest = library.reprocess()
        assert (rest.read, rest.current) == (REPORTS - 2, 2)
        assert library.search("absent:nodule").total == REPORTS
        assert library.reprocess().read == 0
