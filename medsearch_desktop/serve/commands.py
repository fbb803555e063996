"""What the commands of `medsearch` share: their options, opening the library, printing an answer."""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medsearch_desktop.config import Config
    from medsearch_desktop.library import Library
    from medsearch_desktop.serve.owner import RemoteLibrary
    from medsearch_desktop.workbench import Workbench

Run = Callable[[argparse.Namespace], int]
OF_LIBRARY = "folder of the library (default: the user's own)"


def add_command(commands: Any, name: str, run: Run, help: str, *, library: str = OF_LIBRARY) -> argparse.ArgumentParser:
    """Add a command with `--library` and `--json` to sub-parsers and return its parser."""
    sub: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    sub.add_argument("--library", metavar="DIR", help=library)
    sub.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")
    sub.set_defaults(run=run)
    return sub


def config_of(options: argparse.Namespace) -> Config:
    """Return the settings that a command line asks for. Raises ConfigError."""
    from medsearch_desktop.config import load_config

    return load_config({"library": options.library, "threads": getattr(options, "threads", None)})


def open_library(options: argparse.Namespace, *, create: bool = False) -> Library:
    """Open the library that a command line names. Raises as `Library` does."""
    from medsearch_desktop.library import Library

    return Library(config_of(options), create=create)


def ask_library(options: argparse.Namespace, *, create: bool = False) -> Library | RemoteLibrary:
    """Open the library that a command line names, or ask the process that owns it. Raises as `Library` does."""
    config = config_of(options)
    # Without a server there is no such file, and nothing of what follows is loaded. os.path: whatever the name.
    if os.path.exists(config.library_path / "owner.json"):  # noqa: PTH110
        from medsearch_desktop.serve.owner import ask_owner

        if (remote := ask_owner(config.library_path)) is not None:
            if getattr(options, "threads", None):
                print("medsearch: --threads has no effect: the process that owns the library works", file=sys.stderr)
            return remote
    from medsearch_desktop.library import Library

    return Library(config, create=create)


def open_workbench(options: argparse.Namespace) -> Workbench:
    """Return what reads and codes without a library, for a process that ends with the answer. Raises ConfigError."""
    from medsearch_desktop.workbench import Workbench

    # Else Python goes through all tables once more when it ends, in search of garbage: an eighth of one short report.
    atexit.register(gc.freeze)
    return Workbench(config_of(options))


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    # Names on disk that are not UTF-8 hold surrogates, which only the escaped form can carry.
    print(json.dumps(value, ensure_ascii=True, default=str))


def answer(options: argparse.Namespace, value: Any, *lines: str) -> int:
    """Print `value` where JSON is asked for and `lines` otherwise; return exit status 0."""
    if options.json:
        print_json(value)
    else:
        print("\n".join(map(one_line, lines)))
    return 0


def warn(text: str) -> None:
    """Print what a user has to know beside the answer."""
    print(f"medsearch: {text}", file=sys.stderr)


def printable(text: str) -> str:
    """Return text that any terminal takes: control characters (not line breaks and tabs) and lone surrogates shown."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def one_line(text: str) -> str:
    """Return text that takes up one line of any terminal, whatever it holds."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def tell_where(error: Exception) -> None:
    """Print to stderr what sort of error came up inside and where, without its words, which may be a patient's."""
    places = "".join(traceback.format_tb(error.__traceback__))
    print(f"medsearch: {type(error).__name__}\n{places}", file=sys.stderr)
