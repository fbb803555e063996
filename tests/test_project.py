"""Promises of the project about itself: start-up time's cause, hooks, licence, the wheel's contents."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "numpy",
    "pydicom",
    "onnxruntime",
    "duckdb",
    "tantivy",
    "hnswlib",
    "spacy",
    "PIL",
    "rich",
    "torch",
    "onnx",
    "cryptography",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "psutil",
    "ariadne",
    "graphql",
    "webview",
    "PySide6",
)


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import medsearch_desktop",
        "from medsearch_desktop.serve.cli import _parser; _parser().format_help()",
    ],
)
def test_nothing_heavy_is_loaded_to_say_hello(code: str) -> None:
    assert loaded_after(code).isdisjoint(HEAVY)


def test_every_hook_matches_a_file_of_the_project() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert any(name.endswith(".py") for name in tracked), "types_or: [python] would match nothing"
    for pattern in re.findall(r"^\s+files: (.*)$", text, flags=re.MULTILINE):
        assert any(re.search(pattern, name) for name in tracked), f"no file matches {pattern}"


def test_hooks_run_tools_that_are_installed() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    tools = set(re.findall(r"entry: \.venv/bin/(\w+)", text))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["dev"]
    assert tools
    for tool in tools:
        assert any(line.startswith(tool) for line in declared)


def test_no_copyleft_decoder_is_asked_for() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    needed = re.findall(r'^\s*"([A-Za-z0-9_.-]+)', text, flags=re.MULTILINE)
    assert {"pylibjpeg-libjpeg", "PyQt6", "pywebview[qt]"}.isdisjoint(needed)


def test_no_file_is_a_burden_to_read() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "medsearch_desktop").rglob("*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > 700
    }
    assert not long
