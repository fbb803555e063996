"""`medsearch watch`: keep a library current with folders, until told to end."""

from __future__ import annotations

import argparse
from typing import Any

from medsearch_desktop.serve.commands import add_command, config_of


def add_watch_command(commands: Any) -> None:
    """Add `watch` to the commands of a parser."""
    watch = add_command(commands, "watch", _watch, "keep the library current with folders, until told to end")
    watch.add_argument("folders", nargs="+", metavar="DIR")
    watch.add_argument(
        "--still",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="seconds without a change that end a file (%(default)g)",
    )
    watch.add_argument(
        "--poll",
        action="store_true",
        default=None,
        help="list the folders regularly, as is done by itself on network drives, where no events come",
    )
    watch.add_argument(
        "--every", type=_seconds, default=60.0, metavar="S", help="seconds between two listings (%(default)g)"
    )
    watch.add_argument(
        "--walk", type=_seconds, default=3600.0, metavar="S", help="seconds between two walks of all (%(default)g)"
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 1e7:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 10,000,000 seconds")
    return seconds


def _watch(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.keeping import Keeper, watch_until
    from medsearch_desktop.source.watch import Away, Silent, Watcher

    library = str(config_of(options).library_path)
    watcher = Watcher(
        options.folders,
        still_seconds=options.still,
        poll=options.poll,
        poll_seconds=options.every,
        walk_seconds=options.walk,
        leave_out=[library],
    )
    keeper = Keeper(options)
    polled = watcher.polled

    def tell(change: Away | Silent) -> None:
        if isinstance(change, Silent):
            keeper.tell("silent", f"{change.root}: no events come, it is listed regularly", root=change.root)
        else:
            line = f"{change.root}: {'is away' if change.away else 'is back'}"
            keeper.tell("away" if change.away else "back", line, root=change.root)

    with keeper.until_told():
        keeper.tell("watching", "watching; Ctrl-C ends it", folders=options.folders, polled=list(polled))
        watch_until(keeper.stop, watcher, take=keeper.take, tell=tell)
        keeper.tell("end")
    return 0
