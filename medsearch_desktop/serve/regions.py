"""`medsearch regions`: make the images of a library findable by a region of them."""

from __future__ import annotations

import argparse
from typing import Any

from medsearch_desktop.serve.commands import add_command, answer, open_library


def add_region_command(commands: Any) -> None:
    """Add `regions` to the sub-commands of `medsearch`."""
    add_command(
        commands,
        "regions",
        _regions,
        "index the regions of images, for `similar --roi`; a server or window does so by itself after each ingest",
    )


def _regions(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.show import Progress

    with open_library(options) as library, Progress("images") as progress:
        summary = library.index_regions(on_event=progress)
    rate = f" ({summary.images / summary.seconds:.1f} images/s)" if summary.images and summary.seconds else ""
    left = f" {summary.skipped} have no picture: their file is away or broken." if summary.skipped else ""
    return answer(
        options, summary.as_json(), f"{summary.images} images can be found by region from now on{rate}.{left}"
    )
