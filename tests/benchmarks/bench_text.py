"""What a search by words takes: `python tests/benchmarks/bench_text.py [N]` prints JSON.

Builds an index of N made-up reports in a temporary folder, then times varied questions, their
facets and their snippets. It measures; it judges nothing.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.search.aggregate import facets
from medsearch_desktop.search.query import parse
from medsearch_desktop.search.text import make_snippet, matching_documents, search_documents
from medsearch_desktop.store.fulltext import FulltextIndex

# Mention, ICD-10-CM, title, ChestX-ray14 name.
MENTIONS = (
    ("pleural effusion", "J90", "Pleural effusion, not elsewhere classified", "Effusion"),
    ("pneumothorax", "J93.9", "Pneumothorax, unspecified", "Pneumothorax"),
    ("pneumonia", "J18.9", "Pneumonia, unspecified organism", "Pneumonia"),
    ("atelectasis", "J98.11", "Atelectasis", "Atelectasis"),
    ("cardiomegaly", "I51.7", "Cardiomegaly", "Cardiomegaly"),
    ("pulmonary edema", "J81.0", "Acute pulmonary edema", "Edema"),
    ("emphysema", "J43.9", "Emphysema, unspecified", "Emphysema"),
    ("pulmonary nodule", "R91.1", "Solitary pulmonary nodule", "Nodule"),
    ("consolidation", "R91.8", "Other nonspecific abnormal finding of lung field", "Consolidation"),
    ("hiatal hernia", "K44.9", "Diaphragmatic hernia without obstruction or gangrene", "Hernia"),
    ("rib fracture", "S22.39XA", "Fracture of one rib, unspecified side, initial encounter", ""),
    ("scoliosis", "M41.9", "Scoliosis, unspecified", ""),
    ("granuloma", "J84.10", "Pulmonary fibrosis, unspecified", "Fibrosis"),
    ("calcified aorta", "I70.0", "Atherosclerosis of aorta", ""),
    ("heart failure", "I50.9", "Heart failure, unspecified", ""),
    ("cough", "R05.9", "Cough, unspecified", ""),
    ("chest pain", "R07.9", "Chest pain, unspecified", ""),
    ("dyspnea", "R06.00", "Dyspnea, unspecified", ""),
)
SIDES = ("right", "left", "bilateral", "basilar", "apical", "perihilar", "retrocardiac", "lingular")
DEGREES = ("small", "mild", "moderate", "large", "trace", "subtle", "chronic", "stable", "new", "worsening")
PLAIN = (
    "The cardiomediastinal silhouette is within normal limits.",
    "The lungs are clear and well expanded.",
    "Osseous structures are intact for age.",
    "Monitoring leads overlie the {side} hemithorax.",
    "An endotracheal tube ends {n} cm above the carina.",
    "Lung volumes are low with bronchovascular crowding.",
    "The {side} hilum is prominent but unchanged since the prior examination.",
    "Degenerative changes of the thoracic spine at T{n}.",
    "A {side} subclavian line ends in the superior vena cava.",
    "Surgical clips project over the {side} upper abdomen.",
)
SAID = {
    "present": ("There is a {degree} {side} {what}.", "{degree} {what} is seen on the {side} side."),
    "absent": ("No {what} is identified.", "There is no evidence of {side} {what}."),
    "uncertain": ("A {degree} {side} {what} cannot be excluded.", "Findings may represent {degree} {what}."),
    "historical": ("History of {what}.",),
}


def documents(n: int, *, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Yield `n` made-up documents of 60 to 90 words and about ten mentions, always the same for a seed."""
    rng = random.Random(seed)
    # Names, places and typing errors: a vocabulary grows with the number of reports.
    rare = ["".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(5, 9))) for _ in range(max(200, n // 20))]
    for number in range(n):
        chosen = rng.choices(MENTIONS, range(len(MENTIONS), 0, -1), k=10)
        entities, sentences = [], []
        for what, code, title, finding in chosen:
            assertion = rng.choices(tuple(SAID), (5, 6, 2, 1))[0]
            line = rng.choice(SAID[assertion])
            sentences.append(line.format(what=what, degree=rng.choice(DEGREES), side=rng.choice(SIDES)).capitalize())
            entities.append((code, title, finding, assertion, "Diagnosis", what))
        sentences.extend(
            rng.choice(PLAIN).format(side=rng.choice(SIDES), n=rng.randint(1, 12)) for _ in range(rng.randint(1, 4))
        )
        sentences.append(f"Discussed with Dr. {rng.choice(rare)}.")
        rng.shuffle(sentences)
        parts = (
            ("INDICATION", f"{what.capitalize()}."),
            ("FINDINGS", " ".join(sentences[3:])),
            ("IMPRESSION", " ".join(sentences[:3])),
        )
        text, sections = "", []
        for name, body in parts:
            text += f"{name}: "
            sections.append((name, len(text), len(text) + len(body)))
            text += f"{body}\n"
        yield {
            "doc_no": 2 * number,
            "report_id": f"r{number}",
            "study_uid": f"2.25.{number}",
            "text": text,
            "sections": sections,
            "patient_id": f"P{rng.randrange(max(1, n // 3)):06d}",
            "accession_number": f"A{number:07d}",
            "study_id": str(number),
            "study_date": date(2015, 1, 1) + timedelta(days=rng.randrange(3650)),
            "study_description": rng.choice(("CHEST 2 VIEWS", "CHEST PORTABLE", "CT CHEST")),
            "patient_sex": rng.choice("MF"),
            "patient_age": float(rng.randint(18, 95)),
            "modalities": [rng.choice(("CR", "DX", "CT"))],
            "view_positions": [rng.choice(("PA", "AP", "LL"))],
            "body_parts": ["CHEST"],
            "lateralities": [],
            "manufacturers": [rng.choice(("SIEMENS", "GE Healthcare", "Philips"))],
            "labels": ["teaching"] if rng.random() < 0.01 else [],
            "image_count": 2,
            "entities": entities,
        }


def questions(count: int = 360, *, seed: int = 11) -> list[str]:
    """Return varied questions: words, phrases, beginnings, operators, filters."""
    rng = random.Random(seed)

    def what() -> str:
        return rng.choice(MENTIONS)[0]

    def word() -> str:
        return rng.choice(what().split())

    shapes: tuple[Callable[[], str], ...] = (
        word,
        lambda: f"{word()} {rng.choice(SIDES)}",
        lambda: f'"{what()}"',
        lambda: f'"{rng.choice(DEGREES)} {rng.choice(SIDES)} {what()}"',
        lambda: f"{word()[:5]}*",
        lambda: f"{word()} AND NOT {word()}",
        lambda: f'{word()} OR "{what()}" OR {rng.choice(DEGREES)}',
        lambda: f"{word()} modality:CR view:PA age:>60 date:2016-01..2019-06",
        lambda: f'present:"{what()}" absent:{rng.choice(MENTIONS)[1]}',
        lambda: f"impression:{word()} -findings:{word()} sex:F",
        lambda: f"icd:J18 {rng.choice(DEGREES)} age:20..{rng.randint(30, 80)}",
        lambda: f"({word()} OR {word()}) ({rng.choice(SIDES)} OR {rng.choice(DEGREES)}) date:{rng.randint(2015, 2024)}",
    )
    return [shapes[number % len(shapes)]() for number in range(count)]


def measure(n: int = 200_000) -> dict[str, Any]:
    """Build an index of `n` documents and return what was measured; times in milliseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        index = FulltextIndex(folder)
        index.update(documents(n), (), watermark=1)
        built = time.perf_counter() - started
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        reopened = _milliseconds(lambda: FulltextIndex(folder))
        sample = list(documents(20, seed=3))

        asked = questions()
        for query in asked[:24]:
            search_documents(index, parse(query), k=20)
        totals, search, answer, facet = [], [], [], []
        for query in asked:
            tree = parse(query)
            totals.append(search_documents(index, tree, k=20)[0])
            search.append(_milliseconds(lambda query=query: search_documents(index, parse(query), k=20)))
            snippets = _milliseconds(lambda tree=tree: [make_snippet(d["text"], d["sections"], tree) for d in sample])
            answer.append(search[-1] + snippets)
            facet.append(_milliseconds(lambda tree=tree: facets(index, tree)))
        everything = parse("")
        return {
            "documents": n,
            "build_seconds": round(built, 1),
            "index_megabytes": round(size / 1e6, 1),
            "open_ms": round(reopened, 2),
            "queries": len(asked),
            "median_total": int(np.median(totals)),
            "search_ms": _spread(search),
            "search_and_20_snippets_ms": _spread(answer),
            "facets_ms": _spread(facet),
            "all_facets_of_everything_ms": round(
                min(_milliseconds(lambda: facets(index, everything)) for _ in range(5)), 2
            ),
            "matching_everything_ms": round(
                min(_milliseconds(lambda: matching_documents(index, everything)) for _ in range(3)), 2
            ),
            "one_report_more_ms": round(_milliseconds(lambda: index.update(documents(1, seed=5), (), watermark=2)), 2),
        }


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def _spread(times: list[float]) -> dict[str, float]:
    return {f"p{level}": round(float(np.percentile(times, level)), 3) for level in (50, 95, 99)}


def main() -> None:
    """Print what was measured as JSON."""
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000), indent=2))


if __name__ == "__main__":
    main()
