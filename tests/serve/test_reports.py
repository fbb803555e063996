"""`medsearch reports` and `medsearch correct`."""

from __future__ import annotations

import json
from pathlib import Path

import messages_made as made
import pytest

from medsearch_desktop.serve.cli import main

TEXT = "FINDINGS: Small left effusion. No nodule."


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_reports_and_corrections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "r1.txt").write_text(TEXT, "utf-8")
    at = ("--library", str(tmp_path / "library"))
    assert ask(capsys, "ingest", str(tmp_path / "source"), *at)[0] == 0

    status, out, _ = ask(capsys, "reports", "show", "r1", "--json", *at)
    shown = json.loads(out)
    entity = shown["entities"][0]
    assert (status, shown["text"], entity["severity"], entity["laterality"]) == (0, TEXT, "mild", "left")
    assert TEXT[entity["sentence_start"] : entity["sentence_end"]] == "Small left effusion."
    assert entity["rule"] == "signs/pleural effusion"

    span = f"{entity['start']}:{entity['end']}"
    status, out, _ = ask(capsys, "correct", "r1", span, "--assertion", "absent", "--code", "none", "--json", *at)
    assert (status, json.loads(out)["icd10cm"]) == (0, "")
    assert "corrections/" in ask(capsys, "reports", "show", "r1", *at)[1]
    file = tmp_path / "corrections.json"
    assert ask(capsys, "correct", "--export", str(file), *at)[0] == 0
    assert len(json.loads(file.read_text("utf-8"))["corrections"]) == 1
    assert json.loads(ask(capsys, "correct", "--import", str(file), "--json", *at)[1]) == {"imported": 0}
    assert "'effusion': absent, no code" in ask(capsys, "correct", "--list", *at)[1]
    assert ask(capsys, "correct", "r1", span, "--undo", *at)[1].startswith("Undone: r1")

    status, out, _ = ask(capsys, "reports", "reprocess", "--all", "--dry-run", "--json", *at)
    assert (status, json.loads(out)["changed"], json.loads(out)["read"]) == (0, 0, 1)

    status, _, err = ask(capsys, "correct", "r1", "0:1", "--assertion", "absent", *at)
    assert status == 1
    assert "no mention stands at 0:1" in err
    assert ask(capsys, "correct", "r1", span, *at)[0] == 2
    assert ask(capsys, "correct", *at)[0] == 2
    status, _, err = ask(capsys, "correct", "--import", str(tmp_path / "none.json"), *at)
    assert (status, "none.json" in err) == (1, True)
    with pytest.raises(SystemExit, match="2"):
        main(["correct", "r1", "9:3", "--undo", *at])


def test_versions_of_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "1.hl7").write_bytes(made.hl7("IMPRESSION: Effusion.", changed="20240315100000"))
    (source / "2.hl7").write_bytes(made.hl7(status="X", changed="20240315110000"))
    (source / "r1.txt").write_text(TEXT, "utf-8")
    at = ("--library", str(tmp_path / "library"))
    assert ask(capsys, "ingest", str(source), *at)[0] == 0
    status, out, _ = ask(capsys, "reports", "show", "A00001", "--versions", "--json", *at)
    rows = json.loads(out)
    assert (status, [(row["status"], row["is_current"]) for row in rows]) == (
        0,
        [("final", False), ("cancelled", False)],
    )
    assert "cancelled" in ask(capsys, "reports", "show", "A00001", "--versions", *at)[1]
    status, _, err = ask(capsys, "reports", "show", "A00001", *at)
    assert (status, "A00001" in err) == (1, True)
    assert ask(capsys, "reports", "show", "r1", "--versions", *at)[1].startswith("It came as mere text")
    assert ask(capsys, "reports", "show", "none", "--versions", *at)[0] == 1


def test_extract_of_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.hl7"
    file.write_bytes(made.hl7("IMPRESSION: Left effusion.") + made.hl7(filler="2") + made.hl7("No nodule.", filler="3"))
    status, out, err = ask(capsys, "extract", str(file), "--jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (status, [row["report_id"] for row in rows]) == (0, ["A00001", "3"])
    assert (rows[0]["status"], rows[0]["sections"]) == ("final", {"IMPRESSION": "Left effusion."})
    assert "message 2: holds no text of a report" in err
    (tmp_path / "r.pdf").write_bytes(made.pdf("IMPRESSION: Left effusion."))
    status, out, _ = ask(capsys, "extract", str(tmp_path / "r.pdf"), "--json")
    assert json.loads(out)["findings"]["present"] == ["Effusion"]
    (tmp_path / "r").write_bytes(made.saved(made.sr()))
    assert "pleural effusion" in ask(capsys, "extract", str(tmp_path / "r"))[1]
    (tmp_path / "lines.jsonl").write_text('{"report_id": "1", "text": "No nodule."}\n', "utf-8")
    assert json.loads(ask(capsys, "extract", str(tmp_path / "lines.jsonl"), "--jsonl")[1])["report_id"] == "1"
    assert ask(capsys, "extract", str(tmp_path / "none.hl7"), "--jsonl")[0] == 1
