"""`medsearch model use|drop|calibrate`: which model a library uses, and what its answers are worth."""

from __future__ import annotations

import argparse
from functools import partial

from medsearch_desktop.serve.commands import add_command, open_library, print_json


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `use`, `drop` and `calibrate` to the sub-commands of `medsearch model`."""

    command = partial(add_command, commands)
    use = command("use", _use, "change to another model: embed what it lacks, then search by it; can be interrupted")
    use.add_argument("model_id", metavar="ID")
    drop = command("drop", _drop, "remove the vectors of a model that is not in use")
    drop.add_argument("model_id", metavar="ID")
    command("calibrate", _calibrate, "measure by the library's reports how often images at a cosine share a finding")


def _use(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.show import Progress, show_switch

    with open_library(options) as library, Progress("images") as progress:
        summary = library.use_model(options.model_id, on_event=progress).join()
    if options.json:
        print_json(summary.as_json())
    else:
        show_switch(summary)
    return 0


def _drop(options: argparse.Namespace) -> int:
    with open_library(options) as library:
        vectors = library.drop_model(options.model_id)
    if options.json:
        print_json({"model_id": options.model_id, "vectors": vectors})
    else:
        print(f"{vectors} vectors of {options.model_id} are gone; the library takes up their room before it grows.")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.show import show_curve

    with open_library(options) as library:
        curve = library.calibrate()
    if options.json:
        print_json(curve.as_json())
    else:
        show_curve(curve)
    return 0
