"""The findings of real reports against their manual annotation: a floor, so that no change loses what was won."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from medsearch_desktop.report.entities import findings
from medsearch_desktop.report.lexicon import FINDINGS
from medsearch_desktop.report.reader import ReportReader

MICRO_F1_FLOOR = 0.93
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


def test_micro_f1(folder: Path, predicted: dict[str, dict[str, list[str]]]) -> None:
    hits = false_alarms = misses = 0
    for row in rows(folder / "gold.csv"):
        present = predicted[row["report_id"]]["present"]
        for finding in FINDINGS:
            if row[finding] == "1":
                hits += finding in present
                misses += finding not in present
            elif row[finding] == "0":
                false_alarms += finding in present
    f1 = 2 * hits / (2 * hits + false_alarms + misses)
    assert f1 >= MICRO_F1_FLOOR


def test_hedged_mentions_stay_unasserted(folder: Path, predicted: dict[str, dict[str, list[str]]]) -> None:
    hard = [row for row in rows(folder / "mentioned_absent.csv") if row["hard"] == "1"]
    wrong = sum(row["finding"] in predicted[row["report_id"]]["present"] for row in hard)
    assert wrong / len(hard) <= HARD_FALSE_POSITIVE_CEILING
