"""`medsearch model use|drop|calibrate` and what they change in answers: JSON, words for people, errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from makers import register_model, uid, write_department

from medsearch_desktop.image.models import find_model
from medsearch_desktop.serve.cli import main

OWN = "own-64"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model-use")
    source = write_department(folder / "source", studies=24, size=64)
    assert main(["ingest", "--library", str(folder / "library"), str(source)]) == 0
    return folder


@pytest.fixture
def library(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of this test's own, and a second model registered."""
    shutil.copytree(made / "library", tmp_path / "library")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    register_model(tmp_path / "data", OWN)
    monkeypatch.setenv("MEDSEARCH_LIBRARY", str(tmp_path / "library"))
    return tmp_path / "library"


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0):
    capsys.readouterr()
    assert main([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main([*arguments]) == 0
    return capsys.readouterr().out


def test_use_and_drop(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = find_model().model_id
    answer = ask(capsys, "model", "use", OWN)
    assert list(answer) == [
        "model_id",
        "before",
        "in_use",
        "images",
        "kept",
        "offline",
        "failed",
        "seconds",
        "failures",
    ]
    assert (answer["model_id"], answer["before"], answer["in_use"], answer["images"]) == (OWN, shipped, True, 48)
    assert ask(capsys, "similar", uid(1, 1, 1))["model_id"] == OWN
    assert ask(capsys, "similar", uid(1, 1, 1), "--model", shipped)["model_id"] == shipped
    assert "going back is instant" in say(capsys, "model", "use", shipped)
    assert "still is" in say(capsys, "model", "use", shipped)
    assert ask(capsys, "model", "drop", OWN) == {"model_id": OWN, "vectors": 48}
    ask(capsys, "model", "use", OWN)
    assert "48 vectors" in say(capsys, "model", "drop", shipped)


def test_calibrate_and_what_answers_say_then(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = ask(capsys, "similar", uid(1, 1, 1))
    assert (before["expected"], before["chance"], before["notes"]) == (None, None, [])
    assert {hit["expected"] for hit in before["hits"]} == {None}
    assert "expected" not in say(capsys, "similar", uid(1, 1, 1))

    curve = ask(capsys, "model", "calibrate")
    assert curve["model_id"] == find_model().model_id
    assert (curve["queries"], sum(curve["pairs"]), curve["images"]) == (48, 480, 48)
    assert len(curve["scores"]) == len(curve["precision"]) == len(curve["errors"]) == len(curve["pairs"])
    assert 0 < curve["chance"] < 1
    assert 0 <= curve["calibration_error"] < 0.3
    assert {"measured", "pipeline_version", "reliability"} <= set(curve)
    table = say(capsys, "model", "calibrate")
    assert "Calibration error" in table
    assert "{" not in table

    after = ask(capsys, "similar", uid(1, 1, 1), "-k", "5")
    shares = [hit["expected"] for hit in after["hits"]]
    assert shares == sorted(shares, reverse=True)
    assert after["expected"] == pytest.approx(sum(shares) / 5)
    assert after["chance"] == curve["chance"]
    # These films show nothing of what their reports say: the nearest is no better than any.
    words = say(capsys, "similar", uid(1, 1, 1))
    assert f"share a finding (chance {100 * curve['chance']:.0f} %)" in words
    assert after["nothing_close"] == ("Nothing close here" in words)

    region = ask(capsys, "similar", uid(1, 1, 1), "--roi", "0,0,32,32")
    assert (region["expected"], region["chance"]) == (None, None)
    assert {hit["expected"] for hit in region["hits"]} == {None}


def test_a_curve_that_is_out_of_date_is_told(library: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def meter() -> dict[str, str]:
        checks = ask(capsys, "doctor")["checks"]
        return next(check for check in checks if check["name"] == "match meter")

    assert (meter()["state"], meter()["seen"]) == ("ok", "not measured")
    ask(capsys, "model", "calibrate")
    assert meter()["state"] == "ok"
    ask(capsys, "ingest", str(write_department(tmp_path / "more", studies=7, first=100, size=64)))
    assert meter()["state"] == "warning"
    (note,) = ask(capsys, "similar", uid(1, 1, 1))["notes"]
    assert "measured on 48 images, the library has 62" in note
    assert "medsearch model calibrate" in note
    ask(capsys, "model", "use", OWN)
    answer = ask(capsys, "similar", uid(1, 1, 1))
    assert answer["expected"] is None
    assert find_model().model_id in answer["notes"][0]
    ask(capsys, "model", "calibrate")
    assert ask(capsys, "similar", uid(1, 1, 1))["notes"] == []
    # Each model has its own.
    ask(capsys, "model", "use", find_model().model_id)
    assert "measured on 48" in ask(capsys, "similar", uid(1, 1, 1))["notes"][0]


def test_doctor_tells_of_the_librarys_own_model(
    library: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def own() -> list[dict[str, str]]:
        answer = ask(capsys, "doctor")
        assert answer["ok"]
        return [check for check in answer["checks"] if check["name"] == "own model"]

    (only,) = own()
    assert (only["state"], only["seen"]) == ("ok", f"{find_model().model_id} is in use, 48 images have its vector")
    ask(capsys, "model", "use", OWN)
    shutil.rmtree(tmp_path / "data")
    missing, vectors = own()
    assert (missing["state"], vectors["state"]) == ("warning", "ok")
    assert "what is stored can be asked" in missing["seen"]
    assert "medsearch model use ID" in missing["remedy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["use", "no-such-model"], "Registered are: densenet121-cxr1-128, own-64"),
        (["drop", "densenet121-cxr1-128"], "it is in use. Change to another first: `medsearch model use ID`"),
        (["drop", "no-such-model"], "the library has nothing of this model"),
    ],
)
def test_errors_name_the_remedy(
    library: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(["model", *arguments, "--json"]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_too_few_reports_to_calibrate_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, library = write_department(tmp_path / "source", studies=2), str(tmp_path / "library")
    ask(capsys, "ingest", "--library", library, str(source))
    assert main(["model", "calibrate", "--library", library]) == 1
    assert "needs 30 images with a report" in capsys.readouterr().err


def test_model_alone_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["model"])
    assert stop.value.code == 2
