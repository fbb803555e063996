"""The CLI contract, command by command: JSON on stdout and nothing else, exit codes, errors with a remedy."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from makers import uid, write_department

from medsearch_desktop.serve.cli import main


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source of eight studies and a library that knows it."""
    folder = tmp_path_factory.mktemp("cli")
    write_department(folder / "source", studies=8)
    assert main(["ingest", "--library", str(folder / "library"), str(folder / "source")]) == 0
    return folder


def ask(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0):
    """Run a command with --json and return what it printed."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_ingest_counts_files(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(capsys, "ingest", "--library", home / "library", home / "source")
    assert list(answer)[:11] == [
        "discovered",
        "indexed",
        "unchanged",
        "updated",
        "removed",
        "duplicates",
        "failed",
        "images",
        "reports",
        "seconds",
        "failures",
    ]
    assert (answer["discovered"], answer["unchanged"], answer["failures"]) == (24, 24, [])


def test_search_answers_with_hits_and_facets(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = "effusion AND NOT cardiomegaly modality:CR view:PA age:>30 date:2024-01..2024-12"
    answer = ask(capsys, "search", "--library", home / "library", query)
    assert answer["total"] == len(answer["hits"]) > 0
    hit = answer["hits"][0]
    assert {"report_id", "study_uid", "image_ids", "score", "snippet", "entities"} <= set(hit)
    assert len(hit["image_ids"]) == 2
    assert {"text", "start", "end", "assertion", "icd10cm", "title", "score", "alternatives"} <= set(hit["entities"][0])
    for row in answer["facets"]["icd10cm"]:
        assert row["present"] + row["absent"] + row["uncertain"] + row["not_mentioned"] == answer["total"]


def test_paging_is_stable_and_complete(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = ask(capsys, "search", "--library", home / "library", "study", "-k", "100")
    pages = []
    for offset in range(0, everything["total"], 3):
        page = ask(capsys, "search", "--library", home / "library", "study", "-k", "3", "--offset", str(offset))
        assert page["total"] == everything["total"] == 8
        pages += [hit["report_id"] for hit in page["hits"]]
    assert pages == [hit["report_id"] for hit in everything["hits"]]


@pytest.mark.parametrize(("sort", "key"), [("date", "study_date"), ("oldest", "study_date"), ("patient", "patient_id")])
def test_sorting(home: Path, capsys: pytest.CaptureFixture[str], sort: str, key: str) -> None:
    hits = ask(capsys, "search", "--library", home / "library", "study", "--sort", sort)["hits"]
    values = [hit[key] for hit in hits]
    assert values == sorted(values, reverse=sort == "date")


def test_similar_by_id_by_file_and_by_region(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_id = uid(1, 1, 1)
    answer = ask(capsys, "similar", "--library", home / "library", image_id, "-k", "3")
    assert set(answer) >= {"query", "model_id", "hits"}
    assert len(answer["hits"]) == 3
    assert image_id not in {hit["image_id"] for hit in answer["hits"]}
    film = min((home / "source").rglob("image1.dcm"))
    by_file = ask(capsys, "similar", "--library", home / "library", film, "-k", "1")["hits"][0]
    assert by_file["image_id"] == image_id
    assert by_file["score"] == pytest.approx(1, abs=1e-5)
    region = ask(capsys, "similar", "--library", home / "library", image_id, "--roi", "10,10,40,40", "-k", "2")
    assert len(region["hits"]) == 2


def test_similar_among_images_that_match(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = "view:LL present:pneumothorax"
    answer = ask(capsys, "similar", "--library", home / "library", uid(1, 1, 1), "--where", where)
    assert {hit["view_position"] for hit in answer["hits"]} == {"LL"}
    assert {hit["report_id"] for hit in answer["hits"]} == {"s50000002", "s50000006"}


def test_words_and_an_image_in_one_question(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(capsys, "search", "--library", home / "library", f"effusion like:{uid(1, 1, 1)}")
    assert answer["total"] == len(answer["hits"])
    for hit in answer["hits"]:
        assert {share["signal"] for share in hit["shares"]} == {"text", "image"}
        assert sum(share["share"] for share in hit["shares"]) == pytest.approx(1)


def test_facets_add_up(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(capsys, "facets", "--library", home / "library")
    codes = {row["code"]: row for row in answer["icd10cm"]}
    effusion = codes["J90"]
    assert set(effusion) == {"code", "title", "present", "absent", "uncertain", "not_mentioned"}
    assert (effusion["present"], effusion["absent"], effusion["uncertain"]) == (2, 2, 2)
    assert effusion["not_mentioned"] == 2


def test_extract_reads_a_report(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    report = home / "source" / "report.txt"
    report.write_bytes(
        "FINDINGS: No pleural effusion. Possible pneumonia.\nIMPRESSION: Épanchement? No.".encode("latin-1")
    )
    answer = ask(capsys, "extract", report)
    report.unlink()
    assert answer["report_id"] == "report"
    assert set(answer["sections"]) == {"FINDINGS", "IMPRESSION"}
    assert "Effusion" in answer["findings"]["absent"]
    assert "Pneumonia" in answer["findings"]["uncertain"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"There is a pneumothorax."), "utf-8"))
    assert ask(capsys, "extract", "-")["findings"]["present"] == ["Pneumothorax"]


def test_extract_by_lines(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [{"report_id": f"r{n}", "text": "No effusion." if n % 2 else "Effusion."} for n in range(5)]
    file = tmp_path / "reports.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert main(["extract", str(file), "--jsonl"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["report_id"] for answer in answers] == [row["report_id"] for row in rows]
    assert [bool(answer["findings"]["present"]) for answer in answers] == [True, False, True, False, True]
    file.write_text('{"report_id": 1}\n', "utf-8")
    assert main(["extract", str(file), "--jsonl"]) == 1
    assert "line 1" in capsys.readouterr().err


def test_code_finds_codes_and_refuses_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    effusion, nonsense = ask(capsys, "code", "pleural effusions", "zebra crossing")
    assert {"phrase", "cui", "icd10cm", "title", "score", "alternatives"} <= set(effusion)
    assert effusion["icd10cm"] == "J90"
    assert not nonsense["icd10cm"]


def test_embed_writes_vectors(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    films = sorted((home / "source").rglob("*.dcm"))[:3]
    output = tmp_path / "out.npz"
    answer = ask(capsys, "embed", *films, "-o", output)
    stored = np.load(output)
    assert stored["vectors"].shape == (3, 1024)
    assert stored["vectors"].dtype == np.float32
    assert stored["paths"].tolist() == [str(film) for film in films]
    assert str(stored["model_id"]) == answer["model_id"]
    assert np.allclose(np.linalg.norm(stored["vectors"], axis=1), 1, atol=1e-5)


def test_failures_are_listed_and_retried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, library = write_department(tmp_path / "source", studies=1), tmp_path / "library"
    bad = source / "bad.dcm"
    bad.write_bytes(b"junk")
    assert ask(capsys, "ingest", "--library", library, source)["failed"] == 1
    (row,) = ask(capsys, "failures", "--library", library)
    assert row["path"] == str(bad)
    assert row["reason"]
    bad.unlink()
    ask(capsys, "ingest", "--library", library, source)
    assert ask(capsys, "failures", "--library", library, "--retry") == []


def test_doctor_finds_everything_in_order(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(capsys, "doctor", "--library", home / "library")
    assert answer["ok"], [check for check in answer["checks"] if check["state"] != "ok"]
    assert {
        "decoder",
        "model",
        "engine",
        "language",
        "library",
        "image index",
        "text index",
        "permissions",
        "network",
    } <= {check["name"] for check in answer["checks"]}


def test_doctor_tells_which_engine_is_used_how_fast_it_is_and_whether_it_agrees(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ask(capsys, "doctor", "--library", home / "library")
    first, *others, last = (check["seen"] for check in answer["checks"] if check["name"] == "engine")
    assert re.fullmatch(
        r"onnxruntime in float32: [\d.]+ images/s one at a time, [\d.]+ in batches; the reference", first
    )
    assert all(re.fullmatch(r"openvino in \w+: .*; cosine to the reference [\d.]+", line) for line in others)
    assert last == "onnxruntime in float32 is used, by the setting 'onnxruntime'"


def test_doctor_says_what_is_wrong(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_department(tmp_path / "source", studies=1)
    ask(capsys, "ingest", "--library", tmp_path / "library", tmp_path / "source")
    (tmp_path / "library").chmod(0o755)
    answer = ask(capsys, "doctor", "--library", tmp_path / "library")
    assert any(check["name"] == "permissions" and check["state"] == "warning" for check in answer["checks"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "effusion"],
        ["similar", uid(1, 1, 1)],
        ["facets"],
        ["extract", "FILM"],
        ["code", "effusion"],
        ["doctor"],
    ],
)
def test_every_answer_has_a_form_for_people(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    arguments = [str(min((home / "source").rglob("*.txt"))) if part == "FILM" else part for part in arguments]
    assert main([arguments[0], "--library", str(home / "library"), *arguments[1:]]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) > 2
    assert "{" not in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, ""),
        (["search", "--library", "LIB", "(effusion"], 1, "^"),
        (["search", "--library", "LIB", "nofield:x"], 1, "^"),
        (["search", "--library", "/nowhere/at/all", "effusion"], 1, "medsearch ingest FOLDER"),
        (["similar", "--library", "LIB", "no-such-image"], 1, "neither an image of this library nor a file"),
        (["similar", "--library", "LIB", uid(1, 1, 1), "--roi", "0,0,5000,5000"], 1, "96"),
        (["ingest", "--library", "LIB", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (["extract", "/nowhere.txt"], 1, "/nowhere.txt"),
        (["embed", "/nowhere.dcm", "-o", "/tmp/never.npz"], 1, "/nowhere.dcm"),
    ],
)
def test_errors_name_the_item_and_the_remedy(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    capsys.readouterr()
    arguments = [str(home / "library") if part == "LIB" else part for part in arguments]
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    if status == 1:
        assert captured.out == ""


@pytest.mark.parametrize("arguments", [["nonsense"], ["search", "-k", "0", "x"], ["similar", "x", "--roi", "1,2,3"]])
def test_wrong_usage_is_exit_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_a_library_in_use_is_named_with_its_owner(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys, time; from medsearch_desktop.library import open_library\n"
        "with open_library(sys.argv[1]): print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, home / "library"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        assert main(["search", "--library", str(home / "library"), "effusion"]) == 1
        assert f"process {owner.pid}" in capsys.readouterr().err
        owner.communicate("")


def test_output_into_a_closed_pipe_is_no_error(home: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m medsearch_desktop facets --library {home / 'library'} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    assert done.stderr == ""


def test_doctor_tells_of_a_model_that_is_not_there_and_goes_on(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEARCH_MODEL", "no-such-model")
    answer = ask(capsys, "doctor", "--library", home / "library", status=1)
    assert not answer["ok"]
    assert any(check["name"] == "model" and check["state"] == "failure" for check in answer["checks"])
    assert any(check["name"] == "network" for check in answer["checks"])


@pytest.mark.parametrize("studies", ["1", "3"])
def test_the_smallest_demo_has_its_two_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], studies: str
) -> None:
    answer = ask(capsys, "demo", "--no-window", "--studies", studies, "--library", tmp_path / "demo")
    assert answer["ingest"]["images"] > int(studies)
    assert Path(answer["library"]).is_dir()
    assert {"search", "similar"} <= set(answer)
