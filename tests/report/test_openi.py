"""The findings of real reports against their manual annotation: a floor, so that no change loses what was won."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from medsearch_desktop.report.entities import findings
from medsearch_desktop.report.lexicon import FINDINGS
from medsearch_desktop.report.reader import ReportReader

MICRO_F1_FLOOR = 0.93
NEGBIO_F1_FLOOR = 0.89
FINDING_F1_FLOOR = 0.80
# A finding in fewer reports is measured too coarsely to be judged alone.
ENOUGH = 20
HARD_FALSE_POSITIVE_CEILING = 0.25


@pytest.fixture(scope="module")
def folder() -> Path:
    data = os.environ.get("MEDSEARCH_TEST_DATA") or Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(data) / "openi"
    if not (folder / "reports.jsonl").is_file():
        pytest.skip(f"no Open-i reports at {folder}; set MEDSEARCH_TEST_DATA to the folder that holds openi/")
    return folder


@pytest.fixture(scope="module")
def predicted(folder: Path) -> dict[str, dict[str, list[str]]]:
    lines = (folder / "reports.jsonl").read_text("utf-8").splitlines()
    texts = [(row["report_id"], row["text"]) for row in map(json.loads, filter(None, lines))]
    return {report.report_id: findings(report.entities) for report in ReportReader().read_many(texts)}


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def counted(file: Path, predicted: dict[str, dict[str, list[str]]]) -> dict[str, Counter[str]]:
    """Return hits, false alarms and misses of each finding."""
    counts: dict[str, Counter[str]] = {finding: Counter() for finding in FINDINGS}
    for row in rows(file):
        present = predicted[row["report_id"]]["present"]
        for finding in FINDINGS:
            if row[finding] == "1":
                counts[finding]["hit" if finding in present else "miss"] += 1
            elif row[finding] == "0":
                counts[finding]["false alarm"] += finding in present
    return counts


def f1(count: Counter[str]) -> float:
    return 2 * count["hit"] / (2 * count["hit"] + count["false alarm"] + count["miss"])


@pytest.mark.parametrize(("gold", "floor"), [("gold.csv", MICRO_F1_FLOOR), ("gold_negbio.csv", NEGBIO_F1_FLOOR)])
def test_micro_f1(folder: Path, predicted: dict[str, dict[str, list[str]]], gold: str, floor: float) -> None:
    assert f1(sum(counted(folder / gold, predicted).values(), Counter())) >= floor


def test_f1_of_each_finding(folder: Path, predicted: dict[str, dict[str, list[str]]]) -> None:
    counts = counted(folder / "gold.csv", predicted)
    often = {finding: count for finding, count in counts.items() if count["hit"] + count["miss"] >= ENOUGH}
    assert len(often) >= 10
    assert {finding: f1(count) for finding, count in often.items() if f1(count) < FINDING_F1_FLOOR} == {}


def test_hedged_mentions_stay_unasserted(folder: Path, predicted: dict[str, dict[str, list[str]]]) -> None:
    hard = [row for row in rows(folder / "mentioned_absent.csv") if row["hard"] == "1"]
    wrong = sum(row["finding"] in predicted[row["report_id"]]["present"] for row in hard)
    assert wrong / len(hard) <= HARD_FALSE_POSITIVE_CEILING
