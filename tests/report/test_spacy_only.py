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
        "text = b'FINDINGS: No evidence of hepatic encephalopathy.'\n"
        "report = Workbench(load_config({})).report(text, name='r.txt')\n"
        "print(report.entities[-1].icd10cm, 'spacy' in sys.modules)\n"
        "import torch\n"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["K76.82 True", "loaded"]


def test_a_torch_that_was_there_before_stays(monkeypatch) -> None:
    there = sys.modules.get("torch", sys)
    monkeypatch.setitem(sys.modules, "torch", there)
    assert import_spacy().__name__ == "spacy"
    assert sys.modules["torch"] is there


def test_its_command_line_comes_when_it_is_asked_for() -> None:
    code = (
        "import sys\n"
        "from medsearch_desktop.report.spacy_only import import_spacy\n"
        "spacy = import_spacy()\n"
        "print([name for name in ('spacy.cli', 'spacy.cli.info', 'requests') if name in sys.modules])\n"
        "print('spacy_version' in spacy.info(silent=True))\n"
        "from spacy.cli import download\n"
        "print(download.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True", "spacy.cli.download"]
