"""Training the recogniser: what it learns from, how it is scored, and that a small run learns at all."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from medsearch_desktop.report.ner import LABELS, load_recogniser

MODELS = Path(__file__).parents[2] / "models"
CORPUS = """\
Aspirin\tB-Chemical
helped\tO
in\tO
rheumatoid\tB-Disease
arthritis\tI-Disease
.\tO

No\tO
fever\tB-Disease
or\tO
cough\tB-Disease
.\tO
"""


@pytest.fixture(scope="module")
def corpora() -> Any:
    sys.path.insert(0, str(MODELS))
    try:
        yield importlib.import_module("ner.corpora")
    finally:
        sys.path.remove(str(MODELS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("BC5CDR.train.tsv", "BC5CDR.devel.tsv", "BC5CDR.test.tsv"):
        (tmp_path / name).write_text((CORPUS + "\n") * 4, "utf-8")
    return tmp_path


def test_a_corpus_is_read_sentence_by_sentence(corpora: Any, folder: Path) -> None:
    samples = corpora.read_corpus(folder / "BC5CDR.train.tsv")
    assert len(samples) == 8
    assert samples[0].words == ("Aspirin", "helped", "in", "rheumatoid", "arthritis", ".")
    assert samples[0].spans == ((0, 1, "CHEMICAL"), (3, 5, "DISEASE"))
    assert samples[1].spans == ((1, 2, "DISEASE"), (3, 4, "DISEASE"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("word", "line 2: is not a token, a tab and a tag"),
        ("word\tB-Gene", "line 2: is not a token"),
        ("\tO", "line 2: is not a token"),
        ("word\tI-Disease", "line 2: I-Disease continues nothing"),
    ],
)
def test_a_line_that_is_none_is_named(corpora: Any, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.tsv").write_text(f"fine\tO\n{line}\n", "utf-8")
    with pytest.raises(ValueError, match=message):
        corpora.read_corpus(tmp_path / "x.tsv")


def test_scores_count_what_agrees_in_both_ends_and_label(corpora: Any) -> None:
    gold = [((0, 1, "CHEMICAL"), (3, 5, "DISEASE")), ((1, 2, "DISEASE"),)]
    found = [((0, 1, "CHEMICAL"), (4, 5, "DISEASE")), ((1, 2, "CHEMICAL"),)]
    assert corpora.score(gold, gold)["f1"] == 100.0
    assert corpora.score(gold, found) == pytest.approx({"precision": 100 / 3, "recall": 100 / 3, "f1": 100 / 3})
    assert corpora.score(gold, found, "CHEMICAL") == pytest.approx({"precision": 50.0, "recall": 100.0, "f1": 200 / 3})
    assert corpora.score([()], [()]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_heads_end_mentions_and_plain_words_do_not(corpora: Any, folder: Path) -> None:
    heads, plain = corpora.heads_and_plain(corpora.read_corpus(folder / "BC5CDR.train.tsv"))
    assert heads == {"aspirin", "arthritis", "fever", "cough"}
    assert plain == {"helped", "in", "rheumatoid", "no", "or"}


def test_a_small_run_learns_its_sentences_and_writes_them(
    corpora: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = importlib.import_module("ner.__main__").main
    config = (MODELS / "ner" / "config.toml").read_text("utf-8")
    small = {"width": 32, "depth": 1, "epochs": 60, "batch_words": 10, "average": 0.9, "rate": 0.01}
    lines = [
        f"{name} = {small[name]}" if (name := line.split(" = ")[0]) in small else line for line in config.splitlines()
    ]
    (folder / "config.toml").write_text("\n".join(lines).replace("[10000, 3000, 6000, 1500]", "[99, 99, 99, 99]"))
    out = folder / "out"
    assert main(["train", str(folder), "--out", str(out), "--config", str(folder / "config.toml"), "--choose"]) == 0
    assert ", all " in capsys.readouterr().out
    model = out / "medsearch-ner1.npz"
    assert main(["test", str(folder), "--model", str(model)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["all"]["f1"] > 90
    assert set(LABELS) <= set(found)
    assert found["words_per_s"] > 0
    text = "Aspirin helped in rheumatoid arthritis."
    (mentions,) = load_recogniser(model).find([text])
    assert ("rheumatoid arthritis", "DISEASE") in [(text[each.start : each.end], each.label) for each in mentions]


def test_a_missing_corpus_is_named(corpora: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("ner.__main__").main
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "BC5CDR.train.tsv" in capsys.readouterr().err
