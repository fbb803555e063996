"""Findings and codes of real reports, judged by the data's own evaluators, and how fast they are read.

The reports lie in the folder that MEDSEARCH_TEST_DATA names (default: ../shared/data beside the
project); they are for evaluation only. Where they are missing, that is the result.
"""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from medsearch_desktop.report.entities import findings
from medsearch_desktop.report.linking import Linker
from medsearch_desktop.report.reader import ReportReader

DATA = Path(os.environ.get("MEDSEARCH_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "openi"
# A finding in fewer reports is measured too coarsely to be judged alone.
ENOUGH = 20


def measure(work: Path, *, most: int = 10_000) -> dict[str, Any]:
    """Return F1 of the 14 findings, false positives of hedged mentions, codes of phrases, and reports a second.

    F1 is told over all findings, for each that the annotators marked in `ENOUGH` reports or more, and
    against the labels that were published with NegBio.
    """
    if not (DATA / "reports.jsonl").is_file():
        return {"what": "language", "missing": f"no reports at {DATA}; set MEDSEARCH_TEST_DATA"}
    rows = [json.loads(line) for line in (DATA / "reports.jsonl").read_text("utf-8").splitlines()][:most]
    reader = ReportReader()
    reader.read(rows[0]["text"], report_id="warm")
    began, processor = time.perf_counter(), time.process_time()
    reports = list(reader.read_many((row["report_id"], row["text"]) for row in rows))
    rate = len(rows) / (time.perf_counter() - began)
    processor_rate = len(rows) / (time.process_time() - processor)
    # In kilobytes on Linux, where this is measured; of reading alone, as what follows asks the whole base.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    predictions = work / "findings.jsonl"
    names = {"positive": "present", "negative": "absent", "uncertain": "uncertain"}
    with predictions.open("w", encoding="utf-8") as file:
        for report in reports:
            said = findings(report.entities)
            line = {"report_id": report.report_id, **{theirs: said[ours] for theirs, ours in names.items()}}
            file.write(json.dumps(line) + "\n")
    scores = _scores(predictions, work / "judged.json", "--bootstrap", "200")
    published = _scores(predictions, work / "published.json", "--bootstrap", "0", "--gold", DATA / "gold_negbio.csv")
    phrases = work / "codes.jsonl"
    with (DATA / "icd10_phrases_dev.csv").open(encoding="utf-8") as file:
        asked = [row["phrase"] for row in csv.DictReader(file)]
    with phrases.open("w", encoding="utf-8") as file:
        for row in Linker().code_phrases(asked):
            codes = [row["icd10cm"], *(other["icd10cm"] for other in row["alternatives"])] if row["icd10cm"] else []
            file.write(json.dumps({"phrase": row["phrase"], "codes": [code for code in codes if code]}) + "\n")
    return {
        "what": "reports of the Open-i development half",
        "reports": len(rows),
        "micro_f1": scores["micro"]["f1"],
        "macro_f1": scores["macro"]["f1"],
        "f1_by_finding": {
            finding: score["f1"] for finding, score in scores["findings"].items() if _positives(score) >= ENOUGH
        },
        "negbio_findings": sum(_positives(score) > 0 for score in published["findings"].values()),
        "negbio_micro_f1": published["micro"]["f1"],
        "negbio_macro_f1": published["macro"]["f1"],
        "hard_false_positives": _share(
            _evaluate("evaluate_findings.py", predictions, "--bootstrap", "0"), r"hard[^%]*?([\d.]+) ?%"
        ),
        "codes": _evaluate("evaluate_icd10.py", phrases).strip().splitlines(),
        "reports_per_s": rate,
        "reports_per_processor_s": processor_rate,
        "peak_megabytes": peak,
    }


def rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the lines of the table."""
    if "missing" in result:
        return [(result["what"], result["missing"], "")]
    what = f"{result['reports']} {result['what']}"
    single = sorted(result["f1_by_finding"].items(), key=lambda item: item[1])
    return [
        (f"{what}: 14 findings, F1", f"{result['micro_f1']:.1%} micro, {result['macro_f1']:.1%} macro", ">= 93, >= 88"),
        (
            f"{what}: each finding in {ENOUGH} reports or more, F1",
            ", ".join(f"{finding} {f1:.1%}" for finding, f1 in single),
            ">= 80 %",
        ),
        (
            f"{what}: {result['negbio_findings']} findings as published with NegBio, F1",
            f"{result['negbio_micro_f1']:.1%} micro, {result['negbio_macro_f1']:.1%} macro",
            ">= 89",
        ),
        (f"{what}: hedged mentions taken for findings", f"{result['hard_false_positives']:.1%}", "<= 35 %"),
        (
            f"{what}: reading",
            f"{result['reports_per_s']:.0f} reports/s, {1000 / result['reports_per_processor_s']:.2f} ms of processor "
            f"time a report, {result['peak_megabytes']:.0f} MB at the peak",
            ">= 500/s, <= 500 MB",
        ),
        *((f"ICD-10-CM phrases: {line.split(':')[0]}", line.split(":", 1)[1].strip(), "") for line in result["codes"]),
    ]


def _scores(predictions: Path, judged: Path, *arguments: str | Path) -> dict[str, Any]:
    _evaluate("evaluate_findings.py", predictions, "--json", judged, *arguments)
    scores: dict[str, Any] = json.loads(judged.read_text("utf-8"))
    return scores


def _positives(score: dict[str, Any]) -> int:
    return int(score["tp"] + score["fn"])


def _evaluate(script: str, predictions: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, DATA / script, predictions, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def _share(text: str, pattern: str) -> float:
    found = re.search(pattern, text, flags=re.IGNORECASE)
    assert found, text
    return float(found[1]) / 100
