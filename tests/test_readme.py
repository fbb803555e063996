"""README keeps its word: its commands run, its questions parse, its tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from medsearch_desktop.config import SETTINGS
from medsearch_desktop.demo.build import build_demo_source
from medsearch_desktop.search.query import parse
from medsearch_desktop.serve.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("medsearch ")]
QUESTIONS = [
    question
    for row in re.findall(r"^\| (`.*?`) \|", TEXT, flags=re.MULTILINE)
    for question in re.findall(r"`([^`]+)`", row)
    if not question.startswith("MEDSEARCH_") and "…" not in question
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    build_demo_source(folder / "source", studies=12, size=256)
    assert main(["ingest", "--library", str(folder / "demo-library"), str(folder / "source")]) == 0
    return folder


def test_there_are_commands_to_try() -> None:
    assert len(COMMANDS) >= 13
    assert len(QUESTIONS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_readme_runs(
    home: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("MEDSEARCH_LIBRARY", str(home / "own"))
    film = min((home / "source" / "synthetic").rglob("*.dcm"))
    report = min((home / "source" / "synthetic").rglob("*.txt"))
    main(["ingest", str(home / "source" / "synthetic" / film.relative_to(home / "source" / "synthetic").parts[0])])
    words = shlex.split(command, comments=True)[1:]
    names = {"FILM": str(film), "REPORT": str(report), "FOLDER": str(home / "source")}
    words = ["0,0,100,100" if word.startswith("100,200") else names.get(word, word) for word in words]
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_of_readme_parses(question: str) -> None:
    parse(question)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_readme_runs(
    home: Path, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_in_readme(setting) -> None:
    default = setting.default if setting.default != "" else ""
    assert f"| {setting.name} | `{setting.variable}` | {default} | {setting.help} |" in TEXT


def test_every_target_that_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"`make (\w+)`", TEXT)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_its_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_a_long_question_parses() -> None:
    parse("effusion AND NOT pneumothorax modality:CR view:PA age:>60 date:2024-01..2024-06")
