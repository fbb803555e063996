"""Does a rectangle around a mark find films with such a mark? Asking by region among the demo's synthetic films.

    python -m tests.benchmarks region

Every frontal film with a nodule asks, by a rectangle around it (the drawing knows where it is), among the frontal
films of all other patients. Relevant is a film with a nodule; more strictly, one with a nodule in the same zone of the
same lung. Compared are four ways: the whole film's vector; the rectangle cut out, embedded alone and compared with
whole films, as it was before regions were indexed; the regions; and the regions asked by a rectangle drawn twice as
wide and high. `pointing` is the share of relevant films of which the middle of the box that the answer shows lies in
that film's nodule. The other drawn findings ask likewise, to see where regions are not the better way.

No film of this seed was looked at while the method was made. The intervals come from drawing patients anew, 2,000
times: films of one patient are not independent.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.demo.build import build_demo_source
from medsearch_desktop.demo.truth import DRAWN_FINDINGS, DemoTruth, FilmTruth, FindingOnFilm
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import VisualHit

FRONTAL = ("PA", "AP")
RESAMPLES = 2000
SEEDS = (102,)
NODULE = "Nodule"
MEASURES = ("P@5", "P@10", "AP", "zone P@5", "zone AP", "pointing", "chance", "zone chance")
WHOLE, CROP, REGION, GENEROUS = "whole film", "crop against whole films", "regions", "regions, rectangle twice as large"
Box = tuple[int, int, int, int]
Row = tuple[str, str, str]


@dataclass(frozen=True)
class _Question:
    film: FilmTruth
    finding: FindingOnFilm


def measure(
    work: Path, *, studies: int = 240, size: int = 768, seeds: Sequence[int] = SEEDS, most: int = 10
) -> dict[str, Any]:
    """Return the measures of every way and finding, with 95 % intervals, over demo libraries of several seeds.

    At most `most` films a seed ask for each finding but nodules, which all do.
    """
    # By finding and way: one row of measures a question, and whose it is.
    found: dict[tuple[str, str], list[tuple[str, list[float]]]] = defaultdict(list)
    totals: dict[str, Any] = {"films": 0, "seconds a question": [], "images a second": []}
    for seed in seeds:
        source = work / f"region-{studies}-{size}-{seed}"
        truth = build_demo_source(source, studies=studies, size=size, seed=seed)
        with tempfile.TemporaryDirectory(dir=work) as name, open_library(Path(name) / "l", create=True) as library:
            library.ingest([source / "synthetic"])
            films = {film.sop_instance_uid: film for film in truth.films if film.view in FRONTAL}
            totals["films"] += len(films)
            questions = _questions(truth, most)
            # As long as nothing is indexed, a rectangle asks in the old way.
            for question in questions:
                _note(found, library, truth, films, question, (WHOLE, CROP), seed, totals)
            indexed = library.index_regions()
            totals["images a second"].append(round(indexed.images / indexed.seconds, 1))
            for question in questions:
                _note(found, library, truth, films, question, (REGION, GENEROUS), seed, totals)
    seconds = totals.pop("seconds a question")
    return {
        "what": f"ask by region, {len(seeds)} demo libraries of {studies} studies",
        **totals,
        "median_seconds": round(float(np.median(seconds)), 3),
        "by_finding": {
            name: {way: _summary(found[name, way]) for way in (WHOLE, CROP, REGION, GENEROUS)}
            for name in DRAWN_FINDINGS
            if found[name, WHOLE]
        },
    }


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    lines = []
    for name, ways in result["by_finding"].items():
        for way, values in ways.items():
            shown = MEASURES[:6] if name == NODULE else MEASURES[:3]
            parts = [f"{measure} {_shown(values[measure])}" for measure in shown if values[measure] is not None]
            chance = f"chance {values['chance'][0]:.2f}, {values['asked']} asked"
            target = "above whole film" if (name, way) == (NODULE, REGION) else ""
            lines.append((f"{name}, {way}", f"{'; '.join(parts)}; {chance}", target))
    return lines


def _shown(value: Sequence[float]) -> str:
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def _questions(truth: DemoTruth, most: int) -> list[_Question]:
    asked: dict[str, list[_Question]] = defaultdict(list)
    for film in truth.films:
        for finding in film.findings if film.view in FRONTAL else ():
            if finding.name == NODULE or len(asked[finding.name]) < most:
                asked[finding.name].append(_Question(film, finding))
    return [question for questions in asked.values() for question in questions]


def _note(
    found: dict[tuple[str, str], list[tuple[str, list[float]]]],
    library: Library,
    truth: DemoTruth,
    films: dict[str, FilmTruth],
    question: _Question,
    ways: Sequence[str],
    seed: int,
    totals: dict[str, Any],
) -> None:
    patients = {study.study_uid: study.patient_id for study in truth.studies}
    patient = patients[question.film.study_uid]
    box = _inside(question.finding.box, truth.size)
    for way in ways:
        roi = {WHOLE: None, CROP: box, REGION: box, GENEROUS: _inside(_doubled(box), truth.size)}[way]
        started = time.perf_counter()
        answer = library.similar(question.film.sop_instance_uid, k=library.totals().images, roi=roi)
        if way == REGION:
            totals["seconds a question"].append(time.perf_counter() - started)
        assert (way in (REGION, GENEROUS)) == (answer.hits[0].region is not None), f"{way} was not asked"
        others = [hit for hit in answer.hits if hit.image_id in films]
        others = [hit for hit in others if patients[films[hit.image_id].study_uid] != patient]
        values = _measured(others, films, question.finding)
        found[question.finding.name, way].append((f"{seed} {patient}", values))


def _measured(hits: list[VisualHit], films: dict[str, FilmTruth], asked: FindingOnFilm) -> list[float]:
    shown = [[each for each in films[hit.image_id].findings if each.name == asked.name] for hit in hits]
    relevant = np.array([bool(each) for each in shown])
    zone = np.array([any((one.side, one.place) == (asked.side, asked.place) for one in each) for each in shown])
    pointed = [
        any(_covers(one.box, hit.region) for one in each)
        for hit, each in zip(hits, shown, strict=True)
        if each and hit.region is not None
    ]
    return [
        float(relevant[:5].mean()),
        float(relevant[:10].mean()),
        _average_precision(relevant),
        float(zone[:5].mean()),
        _average_precision(zone),
        float(np.mean(pointed)) if pointed else float("nan"),
        float(relevant.mean()),
        float(zone.mean()),
    ]


def _average_precision(relevant: NDArray[np.bool_]) -> float:
    places = np.flatnonzero(relevant)
    return float(np.mean(np.arange(1, len(places) + 1) / (places + 1))) if len(places) else float("nan")


def _covers(box: Box, region: Box) -> bool:
    x, y = region[0] + region[2] / 2, region[1] + region[3] / 2
    return box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]


def _doubled(box: Box) -> Box:
    return box[0] - box[2] // 2, box[1] - box[3] // 2, 2 * box[2], 2 * box[3]


def _inside(box: Box, size: int) -> Box:
    left, top = max(0, box[0]), max(0, box[1])
    return left, top, min(size, box[0] + box[2]) - left, min(size, box[1] + box[3]) - top


def _summary(entries: list[tuple[str, list[float]]]) -> dict[str, Any]:
    """Return each measure's mean over the questions that have it, with its interval; None where none has."""
    names = sorted({patient for patient, _ in entries})
    owner = np.array([names.index(patient) for patient, _ in entries])
    values = np.array([row for _, row in entries])
    drawn = np.random.default_rng(12).integers(0, len(names), (RESAMPLES, len(names)))
    result: dict[str, Any] = {"asked": len(entries), "patients": len(names)}
    for name, column in zip(MEASURES, values.T, strict=True):
        known = np.isfinite(column)
        if not known.any():
            result[name] = None
            continue
        sums = np.bincount(owner[known], column[known], len(names))
        counts = np.bincount(owner[known], minlength=len(names))
        with np.errstate(invalid="ignore"):
            means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.nanpercentile(means, (2.5, 97.5))
        result[name] = [round(float(value), 4) for value in (sums.sum() / counts.sum(), low, high)]
    return result


def main() -> None:
    """Print what was measured as JSON."""
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Path(name)), indent=2))


if __name__ == "__main__":
    main()
