"""`medsearch label|saved|teaching`: alone and through the process that owns the library, with the same answers."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from makers import uid, write_department
from servers import served

from medsearch_desktop.errors import ListError
from medsearch_desktop.library import open_library
from medsearch_desktop.packing import pack, unpack
from medsearch_desktop.serve.cli import main

STUDY, IMAGE = uid(1, 1), uid(1, 2, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    with open_library(folder / "library", create=True) as library:
        library.ingest([write_department(folder / "source", studies=4)])
    return folder


@pytest.fixture(params=["alone", "owned"])
def library(request: pytest.FixtureRequest, made: Path, tmp_path: Path) -> Iterator[Path]:
    """A library of its own for one test, with or without a server that owns it."""
    copy = tmp_path / "library"
    shutil.copytree(made / "library", copy)
    if request.param == "alone":
        yield copy
        return
    with served(copy):
        yield copy


class Told:
    """Runs commands on one library."""

    def __init__(self, library: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._library, self._capsys = library, capsys

    def __call__(self, *arguments: str | Path, status: int = 0) -> Any:
        """Run a command with --json and return what it printed; of a failed one what it said."""
        out, err = self.text(*arguments, "--json", status=status)
        return json.loads(out) if status == 0 else err

    def text(self, *arguments: str | Path, status: int = 0) -> tuple[str, str]:
        self._capsys.readouterr()
        assert main([*map(str, arguments), "--library", str(self._library)]) == status
        captured = self._capsys.readouterr()
        return captured.out, captured.err


@pytest.fixture
def told(library: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(library, capsys)


def test_everything_that_is_kept(told: Told, tmp_path: Path) -> None:
    # One test, as each begins a server.
    assert told("label", "add", "image", IMAGE, " follow  up ")["label"] == "follow up"
    assert told("label", "add", "series", uid(1, 1, 0), "follow up")["target_kind"] == "series"
    assert told("label", "list") == [{"label": "follow up", "count": 2}]
    assert [each["target_kind"] for each in told("label", "list", "follow up")] == ["image", "series"]
    assert told("search", 'label:"follow up"')["total"] == 2
    assert told("label", "remove", "image", IMAGE, "follow up")["target_id"] == IMAGE
    assert told("search", 'label:"follow up"')["total"] == 1
    assert "no such label" in told("label", "remove", "image", IMAGE, "follow up", status=1)
    assert "blanks" in told("label", "add", "image", IMAGE, "  ", status=1)

    assert told("saved", "list") == []
    kept = told("saved", "add", "Effusions", "present:effusion", "--sort", "oldest", "--note", "mine")
    assert told("saved", "list") == [kept]
    assert "already" in told("saved", "add", "effusions", "x", status=1)
    assert "^" in told("saved", "add", "bad", "(x", status=1)
    assert told("saved", "run", "EFFUSIONS", "-k", "3") == told(
        "search", "present:effusion", "--sort", "oldest", "-k", "3"
    )
    assert told.text("saved", "run", "Effusions")[0] == told.text("search", kept["question"], "--sort", "oldest")[0]
    assert told("saved", "remove", "effusions") == {"removed": "effusions"}
    assert "no saved search" in told("saved", "run", "Effusions", status=1)

    assert told("teaching", "list") == []
    told("teaching", "add", "Basics", "study", STUDY, "--note", "left base")
    told("teaching", "add", "basics", "image", IMAGE)
    told("teaching", "add", "basics", "study", uid(2, 4))
    opened = told("teaching", "list", "Basics")
    assert [each["target_id"] for each in opened["entries"]] == [STUDY, IMAGE, uid(2, 4)]
    assert told("teaching", "list") == [opened["about"]]
    assert "no such study" in told("teaching", "add", "Basics", "study", "1.2", status=1)
    assert "4 is none" in told("teaching", "remove", "Basics", "4", status=1)
    assert told("teaching", "remove", "Basics", "2")["removed"] == opened["entries"][1]["entry_id"]
    assert "left base" in told.text("teaching", "list", "Basics")[0]

    folder, packed = tmp_path / "out", tmp_path / "out.ZIP"
    assert told("teaching", "export", "Basics", "-o", folder)["entries"] == 2
    out, err = told.text("teaching", "export", "Basics", "-o", packed, "--with-reports")
    assert "2 entries" in out
    assert "may hold names" in err
    document = json.loads((folder / "list.json").read_text())
    assert [row["note"] for row in document["entries"]] == ["left base", ""]
    assert "Large left" not in (folder / "index.html").read_text()
    with zipfile.ZipFile(packed) as archive:
        assert b"Large left" in archive.read("Basics/index.html")
        assert archive.read("Basics/pictures/0001-01.png") == (folder / "pictures" / "0001-01.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library", "out", "out.ZIP"]
    assert "something already" in told("teaching", "export", "Basics", "-o", folder, status=1)
    assert "no teaching list" in told("teaching", "export", "None", "-o", tmp_path / "none", status=1)
    assert not (tmp_path / "none").exists()
    assert "already" in told("teaching", "import", folder / "list.json", status=1)
    assert told("teaching", "import", folder / "list.json", "--name", "Again")["missing"] == 0
    assert "out.ZIP" in told("teaching", "import", packed, status=1)
    assert told("teaching", "remove", "again", "--whole") == {"removed": "again"}
    assert [each["name"] for each in told("teaching", "list")] == ["Basics"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["label"],
        ["label", "add", "patient", "1", "x"],
        ["saved", "add", "name"],
        ["saved", "add", "name", "x", "--sort", "size"],
        ["teaching", "remove", "Basics"],
        ["teaching", "remove", "Basics", "0"],
        ["teaching", "remove", "Basics", "1", "--whole"],
        ["teaching", "export", "Basics"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_only_a_sound_archive_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    pack(tmp_path / "in", tmp_path / "good.zip", name="list")
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "good.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "a"
    for name in ("list/../../evil.txt", "evil.txt"):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, "evil")
        with pytest.raises(ListError):
            unpack(tmp_path / "bad.zip", tmp_path / "out")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "good.zip").read_bytes()[:-20])
    with pytest.raises(ListError, match="no whole ZIP"):
        unpack(tmp_path / "cut.zip", tmp_path / "out")
    assert not list(tmp_path.rglob("evil.txt"))
