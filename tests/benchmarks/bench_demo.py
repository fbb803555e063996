"""Does the nearest image show the same finding? Visual search among the demo's synthetic films.

    python -m tests.benchmarks demo

Every frontal film that shows one of the six drawn findings asks. Its neighbours are the five nearest films of the
same view of other patients; precision is the share of them that show the finding. Chance is the share of all
films it could have been given that do. A film with two findings asks once for each. The intervals come
from drawing patients anew, 2,000 times: films of one patient are not independent.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.demo.build import build_demo_source
from medsearch_desktop.demo.truth import DRAWN_FINDINGS
from medsearch_desktop.library import open_library

NEIGHBOURS = 5
FRONTAL = ("PA", "AP")
RESAMPLES = 2000
Row = tuple[str, str, str]
# What one film asked for one finding got: patient, precision, chance.
Asked = tuple[str, float, float]


def measure(work: Path, *, studies: int = 120, size: int = 1024) -> dict[str, Any]:
    """Return precision@5 and chance, overall and for each finding, with 95 % intervals."""
    source = work / f"demo-{studies}-{size}"
    truth = build_demo_source(source, studies=studies, size=size)
    patients = {study.study_uid: study.patient_id for study in truth.studies}
    films = {film.sop_instance_uid: film for film in truth.films if film.view in FRONTAL}
    shown = {uid: {finding.name for finding in film.findings} for uid, film in films.items()}
    asked: dict[str, list[Asked]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=work) as name, open_library(Path(name) / "library", create=True) as library:
        summary = library.ingest([source])
        model_id = library.model.model_id
        for uid, film in films.items():
            patient = patients[film.study_uid]
            eligible = {
                other
                for other, candidate in films.items()
                if candidate.view == film.view and patients[candidate.study_uid] != patient
            }
            if not shown[uid] or len(eligible) < NEIGHBOURS:
                continue
            answer = library.similar(uid, k=library.totals().images, where=f"view:{film.view}")
            nearest = [hit.image_id for hit in answer.hits if hit.image_id in eligible][:NEIGHBOURS]
            assert len(nearest) == NEIGHBOURS, f"only {len(nearest)} neighbours of a {film.view} film"
            for finding in shown[uid]:
                asked[finding].append(
                    (
                        patient,
                        float(np.mean([finding in shown[other] for other in nearest])),
                        float(np.mean([finding in shown[other] for other in eligible])),
                    )
                )
    every = [entry for entries in asked.values() for entry in entries]
    return {
        "what": f"demo, {studies} studies: precision@{NEIGHBOURS} of the same finding",
        "model": model_id,
        "ingest": {key: value for key, value in summary.as_json().items() if key not in ("failures", "seconds")},
        "frontal_films": len(films),
        "overall": _summary(every),
        "by_finding": {finding: _summary(asked[finding]) for finding in DRAWN_FINDINGS if asked[finding]},
    }


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    cases = {"overall": result["overall"], **result["by_finding"]}
    return [
        (
            f"{result['what']}, {name}",
            f"{case['precision']:.2f} ({case['interval'][0]:.2f} to {case['interval'][1]:.2f}),"
            f" chance {case['chance']:.2f}, {case['asked']} asked",
            "above chance",
        )
        for name, case in cases.items()
    ]


def _summary(entries: list[Asked]) -> dict[str, Any]:
    by_patient: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for patient, precision, chance in entries:
        by_patient[patient].append((precision, chance))
    sums = np.array([[len(own), *np.sum(own, axis=0)] for own in by_patient.values()])
    drawn = np.random.default_rng(12).integers(0, len(sums), (RESAMPLES, len(sums)))
    count, precision, chance = sums[drawn].sum(axis=1).T
    low, high = np.percentile(precision / count, (2.5, 97.5))
    gain_low, gain_high = np.percentile((precision - chance) / count, (2.5, 97.5))
    totals = sums.sum(axis=0)
    return {
        "asked": len(entries),
        "patients": len(sums),
        "precision": round(float(totals[1] / totals[0]), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "chance": round(float(totals[2] / totals[0]), 4),
        "gain_interval": [round(float(gain_low), 4), round(float(gain_high), 4)],
    }


def main() -> None:
    """Print what was measured as JSON."""
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Path(name)), indent=2))


if __name__ == "__main__":
    main()
