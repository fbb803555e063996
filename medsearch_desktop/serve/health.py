"""`medsearch verify|repair|backup|restore|compact`: whether a library is sound, and keeping it so."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from medsearch_desktop.serve.commands import add_command, answer, ask_library, config_of, one_line, print_json

if TYPE_CHECKING:
    from medsearch_desktop.health import Health

_MOST_LINES = 20
_FILES_HELP = "read every file and compare its SHA-256 (as long as it takes to read them all)"


class Steps:
    """A bar on stderr for what has several steps; silent where that is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` of `what` are done."""
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)


def add_health_commands(commands: Any) -> None:
    """Add the commands to the commands of a parser."""
    command = partial(add_command, commands)
    verify = command("verify", _verify, "hold records, files and indexes against each other; nothing is written")
    verify.add_argument("--sample", type=_count, default=1000, metavar="N", help="values compared (%(default)s)")
    verify.add_argument("--files", action="store_true", help=_FILES_HELP)

    repair = command("repair", _repair, "set right what `verify` finds; labels and corrections are never touched")
    repair.add_argument("--files", action="store_true", help=_FILES_HELP)

    backup = command("backup", _backup, "write a checked copy of the library, while it may be in use")
    backup.add_argument("target", metavar="FOLDER", help="a new name, or a folder to put a dated backup in")

    restore = command("restore", _restore, "make a new library from a backup", library="folder of the new library")
    restore.add_argument("backup", metavar="BACKUP")

    command("compact", _compact, "write the database anew without the room of what is gone")


def compact_after_ingest(options: argparse.Namespace) -> None:
    """Compact the library of a command line, which nobody has open now, where that pays."""
    from medsearch_desktop.errors import LibraryError, LibraryLockedError
    from medsearch_desktop.health import compact

    try:
        done = compact(config_of(options).library_path, always=False)
    except LibraryLockedError:
        # Somebody was quicker; there will be another time.
        return
    except LibraryError as error:
        # What was ingested is safe; the next ingest tries again.
        print(f"medsearch: the database was not compacted: {error}", file=sys.stderr)
        return
    if not done.reason:
        print(f"medsearch: the database takes {_size(done.after)}, {_size(done.before)} before", file=sys.stderr)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _asked(
    options: argparse.Namespace, action: str, body: dict[str, Any], here: Callable[[Health, Steps], dict[str, Any]]
) -> dict[str, Any]:
    """Have the process that owns the library do `action`, or do it `here` where that is this one."""
    with ask_library(options) as library, Steps() as steps:
        if hasattr(library, "health"):
            return here(library.health, steps)
        return library.look_after(action, body, on_progress=steps)


def _verify(options: argparse.Namespace) -> int:
    how = {"sample": options.sample, "files": options.files}
    row = _asked(options, "verify", how, lambda health, steps: health.verify(**how, on_progress=steps).as_json())
    if options.json:
        print_json(row)
    else:
        print(_page(row))
    return 0 if row["ok"] else 1


def _page(row: dict[str, Any]) -> str:
    lines = [", ".join(f"{count} {what}" for what, count in row["checked"].items() if count) or "nothing to look at"]
    if row["checked"].get("approximate searches"):
        lines.append(f"approximate image search finds {100 * row['recall']:.1f} % of what the exact one finds")
    lines += [f"note: {note}" for note in row["notes"]]
    lines += [f"{f['kind']}: {f['item']}: {f['message']}. {f['remedy']}" for f in row["listed"][:_MOST_LINES]]
    if row["faults"] > _MOST_LINES:
        lines.append(f"and {row['faults'] - min(len(row['listed']), _MOST_LINES)} more; --json lists up to 1,000")
    if row["stopped"]:
        lines.append("stopped before the end")
    kinds = ", ".join(f"{count} {kind}" for kind, count in row["kinds"].items())
    lines.append(f"{row['faults']} faults: {kinds}" if row["faults"] else f"sound; {row['seconds']:.1f} s")
    return "\n".join(map(one_line, lines))


def _repair(options: argparse.Namespace) -> int:
    how = {"files": options.files}
    row = _asked(options, "repair", how, lambda health, steps: health.repair(**how, on_progress=steps).as_json())
    lines = [f"{count} items mended: {kind}" for kind, count in row["mended"].items()]
    lines += [f"the {name} was made anew" for name in row["rebuilt"]]
    if row["requeued"]:
        lines.append(f"{row['requeued']} files are read again by the next `medsearch ingest FOLDER`")
    return answer(options, row, *(lines or ["nothing was to be done"]))


def _backup(options: argparse.Namespace) -> int:
    target = Path(options.target).expanduser().absolute()
    how = {"target": str(target)}
    row = _asked(options, "backup", how, lambda health, steps: health.backup(target, on_progress=steps).as_json())
    return answer(options, row, f"{row['path']}: {row['rows']['images']} images, {_size(row['bytes'])}, checked")


def _restore(options: argparse.Namespace) -> int:
    from medsearch_desktop.health import restore
    from medsearch_desktop.library import Library

    config = config_of(options)
    with Steps() as steps:
        row = restore(Path(options.backup).expanduser().absolute(), config.library_path, on_progress=steps).as_json()
        steps("indexes", 0, 1)
        with Library(config) as library:
            images = library.totals().images
    row["library"] = str(config.library_path)
    return answer(options, row, f"{config.library_path}: {images} images, as of {row['made']}")


def _compact(options: argparse.Namespace) -> int:
    from medsearch_desktop.health import compact

    done = compact(config_of(options).library_path)
    swept = (f"{done.pictures} thumbnails of no image were removed",) if done.pictures else ()
    return answer(options, done.as_json(), f"{_size(done.before)} before, {_size(done.after)} now", *swept)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
