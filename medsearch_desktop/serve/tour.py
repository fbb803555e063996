"""`medsearch demo`: draw the synthetic department, index it, ask it one question of each kind."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medsearch_desktop.demo.build import build_demo_source
from medsearch_desktop.errors import MeterError
from medsearch_desktop.library import Library
from medsearch_desktop.serve import show, wire

if TYPE_CHECKING:
    from medsearch_desktop.config import Config
    from medsearch_desktop.records import MatchCurve

QUESTION = "effusion present:cardiomegaly AND NOT present:pneumothorax view:PA"


def run_demo(config: Config, *, studies: int, as_json: bool) -> int:
    """Build the demo library beside its source folder and print two answers from it.

    The source goes into a folder of the library's name with `-source` behind it.
    """
    path = _short(config.library_path)
    source = path.with_name(f"{path.name}-source")
    # In a fresh checkout the program is in .venv/bin and on no search path.
    program = "medsearch" if shutil.which("medsearch") else str(_short(Path(sys.argv[0]).absolute()))
    print(f"Drawing {studies} synthetic studies in {source} (a minute or so) ...", file=sys.stderr)
    build_demo_source(source, studies=studies)
    with Library(config, create=True) as library:
        with show.Progress() as progress:
            summary = library.ingest([source], on_event=progress)
        curve = _calibrated(library)
        library.index_regions()
        text = library.search(QUESTION, k=3)
        # A handful of studies may hold no answer to the question; some film there always is.
        hits = text.hits or library.search("has:image", k=3).hits
        films = [image_id for hit in hits for image_id in hit.image_ids]
        image_id = next((film for film in films if library.view_of(film) == "PA"), films[0])
        visual = library.similar(image_id, k=3, where="view:PA")
        if as_json:
            print(
                json.dumps(
                    {
                        "library": str(path),
                        "source": str(source),
                        "ingest": summary.as_json(),
                        "search": wire.search_json(text),
                        "similar": wire.similar_json(visual),
                        "calibration": curve.as_json() if curve else None,
                    },
                    default=str,
                )
            )
            return 0
        show.show_summary(summary, failures=False)
        print("What failed are files that pydicom ships to be difficult; `medsearch failures` says why.")
        print(f"\nBy words and fields:  {program} search --library {path} '{QUESTION}'\n")
        show.show_hits(text, offset=0)
        print(f"     picture of a film: {library.thumbnails.path(image_id)}")
        print(f"\nBy image:  {program} similar --library {path} --where view:PA {image_id}\n")
        show.show_similar(visual)
    print(
        f"""
Everything above is synthetic. Go on with
  {program} facets  --library {path}
  {program} search  --library {path} 'absent:pneumothorax like:{image_id}'
  {program} ingest  FOLDER        your own DICOM and reports, into your own library
  {program} doctor                is everything in order on this machine?"""
    )
    return 0


def _calibrated(library: Library) -> MatchCurve | None:
    """Measure the match meter where there are studies enough to measure it by."""
    try:
        return library.calibrate()
    except MeterError:
        return None


def _short(path: Path) -> Path:
    """Return the path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
