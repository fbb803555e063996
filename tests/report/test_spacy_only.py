"""What reads reports leaves PyTorch alone, where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from medsearch_desktop.report.spacy_only import import_spacy


def test_torch_is_not_loaded_with_spacy_and_can_be_had_afterwards(tmp_path: Path) -> None:
    """A package of that name stands first in the path and says so when it is loaded; the report needs spaCy."""
    (tmp_path / "torch.py").write_text("print('loaded')\n")
    code = (
        "import sys\n"
        "from medsearch_desktop.config import load_config\n"
        "from medsearch_desktop.workbench import Workbench\n"
        "report = Workbench(load_config({})).report(b'FINDINGS: No neurosarcoidosis.', name='r.txt')\n"
        "print([entity.text for entity in report.entities], 'spacy' in sys.modules)\n"
        "import torch\n"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['neurosarcoidosis'] True", "loaded"]


def test_a_torch_that_was_there_before_stays(monkeypatch) -> None:
    there = sys.modules.get("torch", sys)
    monkeypatch.setitem(sys.modules, "torch", there)
    assert import_spacy().__name__ == "spacy"
    assert sys.modules["torch"] is there
