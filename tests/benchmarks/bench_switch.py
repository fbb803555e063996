"""How fast the images of a library get the vectors of another model, against the ingest that they came by.

    python -m tests.benchmarks switch

Each round makes a library of its own, ingests the films, and changes to a second model: the shipped network under
another name, so that both do the same work at the model. A switch reads, hashes and decodes as an ingest does, and
leaves out thumbnails and records; a rate is of the whole call, to the last index. The model is loaded before.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.image.models import find_model
from medsearch_desktop.library import open_library
from tests.benchmarks.corpus import write_films
from tests.makers import register_model

OTHER = "bench-other"
Row = tuple[str, str, str]


def measure(work: Path, *, films: int = 300, size: int = 1024, rounds: int = 3) -> dict[str, Any]:
    """Return the rates of ingest and of the switch in images a second, and their ratio round by round."""
    folder = work / f"films-{films}-{size}"
    write_films(folder, films, size=size)
    rates: dict[str, list[float]] = {"ingest": [], "switch": []}
    before = os.environ.get("XDG_DATA_HOME")
    with tempfile.TemporaryDirectory(dir=work) as data:
        os.environ["XDG_DATA_HOME"] = data
        try:
            register_model(Path(data), OTHER, size=find_model().preprocessing.size)
            # The first round warms up.
            for round_number in range(rounds + 1):
                found = _round(work, folder, films)
                if round_number:
                    for name, rate in found.items():
                        rates[name].append(rate)
        finally:
            os.environ.pop("XDG_DATA_HOME")
            if before is not None:
                os.environ["XDG_DATA_HOME"] = before
    ratios = [switch / ingest for switch, ingest in zip(rates["switch"], rates["ingest"], strict=True)]
    return {
        "what": f"another model for {films} films, {size} x {size}",
        "rounds": rounds,
        "images_per_s": {name: _spread(values) for name, values in rates.items()},
        "switch_over_ingest": _spread(ratios),
    }


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    switch, ratio = result["images_per_s"]["switch"], result["switch_over_ingest"]
    return [
        (result["what"], f"{switch['median']:.1f} images/s ({switch['low']:.1f} to {switch['high']:.1f})", ""),
        (
            f"{result['what']}: switch / ingest",
            f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
            "",
        ),
    ]


def _round(work: Path, folder: Path, films: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=work) as name, open_library(Path(name) / "library", create=True) as library:
        # Loading is no part of either.
        library.workbench.encoder_of(find_model())
        library.workbench.encoder_of(find_model(OTHER))
        began = time.perf_counter()
        ingested = library.ingest([folder])
        between = time.perf_counter()
        summary = library.use_model(OTHER).summary
        ended = time.perf_counter()
    assert summary is not None
    assert ingested.images == summary.images == films, (ingested, summary)
    return {"ingest": films / (between - began), "switch": films / (ended - between)}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}
