"""A process that reads one report loads what this report needs, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("spacy", "thinc", "pydicom", "duckdb", "onnxruntime", "PIL", "asyncio", "rich", "psutil", "pypdf", "torch")
# What a report makes of the modules: after the command has run, which of them are there.
CODE = f"""
import sys
from medsearch_desktop.serve.cli import main
status = main(["extract", sys.argv[1], "--json"])
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(status)
"""


def extract(folder: Path, text: str, **environ: str) -> tuple[dict, str]:
    file = folder / "report.txt"
    file.write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(file)],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr.splitlines()[-1]


@pytest.mark.parametrize("setting", ["extract", "never"])
def test_a_report_of_known_words_needs_no_spacy(tmp_path: Path, setting: str) -> None:
    text = "FINDINGS: Small left pleural effusion, new opacity in the right lower lobe. No pneumothorax."
    told, loaded = extract(tmp_path, text, MEDSEARCH_RECOGNISERS=setting)
    assert loaded == "[]"
    said = {(entity["text"], entity["assertion"], entity["icd10cm"]) for entity in told["entities"]}
    assert {("pleural effusion", "present", "J90"), ("pneumothorax", "absent", "J93.9")} <= said


def test_an_unknown_disease_loads_it(tmp_path: Path) -> None:
    told, loaded = extract(
        tmp_path, "FINDINGS: No evidence of hepatic encephalopathy.", MEDSEARCH_RECOGNISERS="extract"
    )
    assert loaded == "['spacy', 'thinc']"
    assert "K76.82" in [entity["icd10cm"] for entity in told["entities"]]
