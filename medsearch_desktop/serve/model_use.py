"""`medsearch model use|drop|calibrate`: which model a library uses, and what its answers are worth."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medsearch_desktop.library import Library

Run = Callable[[argparse.Namespace], int]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `use`, `drop` and `calibrate` to the sub-commands of `medsearch model`."""

    def command(name: str, run: Run, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.add_argument("--library", metavar="DIR", help="folder of the library (default: the user's own)")
        sub.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")
        sub.set_defaults(run=run)
        return sub

    use = command("use", _use, "change to another model: embed what it lacks, then search by it; can be interrupted")
    use.add_argument("model_id", metavar="ID")
    drop = command("drop", _drop, "remove the vectors of a model that is not in use")
    drop.add_argument("model_id", metavar="ID")
    command("calibrate", _calibrate, "measure by the library's reports how often images at a cosine share a finding")


def _use(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.show import Progress, show_switch

    with _open(options) as library, Progress("images") as progress:
        summary = library.use_model(options.model_id, on_event=progress).join()
    if options.json:
        _print_json(summary.as_json())
    else:
        show_switch(summary)
    return 0


def _drop(options: argparse.Namespace) -> int:
    with _open(options) as library:
        vectors = library.drop_model(options.model_id)
    if options.json:
        _print_json({"model_id": options.model_id, "vectors": vectors})
    else:
        print(f"{vectors} vectors of {options.model_id} are gone; the library takes up their room before it grows.")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.show import show_curve

    with _open(options) as library:
        curve = library.calibrate()
    if options.json:
        _print_json(curve.as_json())
    else:
        show_curve(curve)
    return 0


def _open(options: argparse.Namespace) -> Library:
    from medsearch_desktop.config import load_config
    from medsearch_desktop.library import Library

    return Library(load_config({"library": options.library}))


def _print_json(value: Any) -> None:
    # Names on disk that are not UTF-8 hold surrogates, which only the escaped form can carry.
    print(json.dumps(value, ensure_ascii=True, default=str))
