"""The browser interface takes its records from the description of the interface, and from nowhere else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UI = Path(__file__).parents[2] / "ui"
RECORDS = UI / "src" / "api" / "records.ts"


def test_every_record_of_the_interface_is_described() -> None:
    text = re.sub(r"/\*.*?\*/", "", RECORDS.read_text("utf-8"), flags=re.DOTALL)
    named = dict(re.findall(r"^export type (\w+) = Schemas\['(\w+)'\];$", text, flags=re.MULTILINE))
    assert len(named) == len(re.findall(r"^export ", text, flags=re.MULTILINE)) > 20
    assert all(name == schema for name, schema in named.items())
    assert named.keys() <= json.loads((UI / "openapi.json").read_text("utf-8"))["components"]["schemas"].keys()


def test_the_types_are_those_of_the_description() -> None:
    npm = shutil.which("npm")
    if npm is None or not (UI / "node_modules" / "openapi-typescript").is_dir():
        pytest.skip("the interface's tools are not installed; `make ui` installs them where Node is")
    done = subprocess.run(
        [npm, "--offline", "--no-update-notifier", "run", "types:check"],
        cwd=UI,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run `make types`: {done.stdout}{done.stderr}"
