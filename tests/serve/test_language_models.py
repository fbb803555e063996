"""`medsearch model` with a spaCy pipeline, from its archive to what `extract` then finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipelines_made import NAME, VERSION, make_pipeline, pack_pipeline

from medsearch_desktop.report.ner import NAME as OWN
from medsearch_desktop.serve.cli import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("made") / "pipeline")


def ask(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> Any:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_language_model_comes_takes_part_and_goes(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = pack_pipeline(made, tmp_path)
    done = ask(capsys, "model", "import", archive, "--licence", "CC BY-SA 4.0")
    assert (done["model_id"], done["kind"], done["version"]) == (NAME, "language", VERSION)
    assert done["licence"] == "CC BY-SA 4.0"
    assert {"text": "hepatic encephalopathy", "label": "DISEASE"} in done["found"]
    listed = ask(capsys, "model", "list")
    assert [(row["model_id"], row["kind"]) for row in listed][1:] == [(NAME, "language")]
    assert ask(capsys, "model", "verify", NAME) == [{"model_id": NAME, "ok": True, "problem": ""}]
    assert main(["model", "list"]) == 0
    out = capsys.readouterr().out
    assert f"{NAME}   language; imported" in out
    assert "CC BY-SA 4.0" in out
    report = tmp_path / "report.txt"
    report.write_text("FINDINGS: There is no known hepatic encephalopathy. No effusion.", "utf-8")
    rules = {entity["text"]: entity for entity in ask(capsys, "extract", report)["entities"]}
    # Both recognisers know it; of mentions of just the same words the user's model has the say.
    assert rules["hepatic encephalopathy"]["rule"].startswith(f"ner/{NAME}")
    assert rules["hepatic encephalopathy"]["icd10cm"] == "K76.82"
    assert rules["hepatic encephalopathy"]["assertion"] == "absent"
    assert main(["model", "import", str(archive)]) == 1
    assert "registered already" in capsys.readouterr().err
    assert ask(capsys, "model", "remove", NAME) == {"model_id": NAME, "removed": True}
    entities = ask(capsys, "extract", report)["entities"]
    rules = {entity["text"]: entity["rule"] for entity in entities}
    assert rules["hepatic encephalopathy"].startswith(f"ner/{OWN}")


def test_an_altered_model_stops_what_would_use_it(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = ask(capsys, "model", "import", made)
    (Path(done["path"]) / "ner" / "model").write_bytes(b"x")
    report = tmp_path / "report.txt"
    report.write_text("FINDINGS: No effusion.", "utf-8")
    assert main(["extract", str(report)]) == 1
    assert "is not the file that its manifest describes. Import the model again" in capsys.readouterr().err
    (verdict,) = ask(capsys, "model", "verify", NAME, status=1)
    assert (verdict["ok"], verdict["model_id"]) == (False, NAME)


def test_options_of_image_models_are_refused(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--size", "224"), ("--normalise", "imagenet"), ("--trust", "ab")):
        assert main(["model", "import", str(made), option, value]) == 1
        assert f"is a language model. Leave {option} out" in capsys.readouterr().err


def test_our_own_stays_and_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "model", "verify", OWN) == [{"model_id": OWN, "ok": True, "problem": ""}]
    assert main(["model", "remove", OWN]) == 1
    assert "set recognisers to never" in capsys.readouterr().err


def test_extract_without_recognisers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.txt"
    report.write_text("FINDINGS: Hepatic encephalopathy, no pneumonia.", "utf-8")
    monkeypatch.setenv("MEDSEARCH_RECOGNISERS", "never")
    found = ask(capsys, "extract", report)["entities"]
    assert "pneumonia" in {entity["text"] for entity in found}
    assert not [entity for entity in found if "ner/" in entity["rule"]]
    monkeypatch.setenv("MEDSEARCH_RECOGNISERS", "sometimes")
    assert main(["extract", str(report)]) == 1
    assert "must be one of extract, always, never" in capsys.readouterr().err
