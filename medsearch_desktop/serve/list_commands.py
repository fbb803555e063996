"""`medsearch label`, `medsearch saved` and `medsearch teaching`: what a person keeps in a library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from medsearch_desktop.errors import NotFoundError, RequestError, SourceError
from medsearch_desktop.serve.commands import add_command, answer, ask_library, print_json, warn

# Spelt out here, as the modules that know them would cost `medsearch --help` their import.
_SORTS = ("score", "date", "oldest", "patient")
_LABELLED = ("study", "series", "image", "report")
_LISTED = ("study", "image")


def add_list_commands(commands: Any) -> None:
    """Add `label`, `saved` and `teaching` to the commands of a parser."""
    label = _group(commands, "label", "your own words on studies, series, images and reports")
    for name, run, help in (("add", _label, "put a label on something"), ("remove", _unlabel, "take a label off")):
        command = label(name, run, help)
        command.add_argument("kind", choices=_LABELLED)
        command.add_argument("target", metavar="ID", help="its identifier, as answers and the study page show it")
        command.add_argument("label", metavar="LABEL")
    command = label("list", _labels, "list the labels that are in use, or what has one of them")
    command.add_argument("label", nargs="?", default="", metavar="LABEL")

    saved = _group(commands, "saved", "questions that are kept under a name")
    saved("list", _saved, "list the saved searches")
    command = saved("add", _save, "keep a question under a name")
    command.add_argument("name", metavar="NAME")
    command.add_argument("query", metavar="QUERY")
    command.add_argument("--sort", choices=_SORTS, default="score")
    command.add_argument("--note", default="", metavar="TEXT")
    command = saved("remove", _forget, "remove a saved search")
    command.add_argument("name", metavar="NAME")
    command = saved("run", _run, "ask a saved search and print what `medsearch search` would")
    command.add_argument("name", metavar="NAME")
    command.add_argument("-k", type=_positive, default=10, metavar="N", help="hits (%(default)s)")

    teaching = _group(commands, "teaching", "lists of studies and images to teach with, and handing them over")
    command = teaching("list", _teaching, "list the teaching lists, or the entries of one")
    command.add_argument("name", nargs="?", default="", metavar="NAME")
    command = teaching("add", _add, "put a study or an image at the end of a list, which begins where there is none")
    command.add_argument("name", metavar="NAME")
    command.add_argument("kind", choices=_LISTED)
    command.add_argument("target", metavar="ID")
    command.add_argument("--note", default="", metavar="TEXT")
    command = teaching("remove", _remove, "take an entry off a list, or remove the list; studies and images stay")
    command.add_argument("name", metavar="NAME")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("number", nargs="?", type=_positive, metavar="NUMBER", help="of the entry, from 1")
    which.add_argument("--whole", action="store_true", help="the whole list")
    command = teaching("export", _export, "write a list as web page, table, JSON and PNG, without what names patients")
    command.add_argument("name", metavar="NAME")
    command.add_argument("-o", "--output", required=True, metavar="FOLDER|FILE.zip")
    command.add_argument(
        "--with-reports", action="store_true", help="with the text of reports, which may hold names and dates"
    )
    command = teaching("import", _bring, "take over the list.json of an export made where the same images are")
    command.add_argument("file", metavar="list.json|-")
    command.add_argument("--name", default="", metavar="NAME", help="another name for it")


def _group(commands: Any, name: str, help: str) -> Any:
    group = commands.add_parser(name, help=help, description=help)
    return partial(add_command, group.add_subparsers(title="commands", metavar="COMMAND", required=True))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _label(options: argparse.Namespace) -> int:
    word = " ".join(options.label.split())
    if not word:
        raise RequestError("a label of blanks only", item="label")
    with ask_library(options) as library:
        library.label(options.kind, options.target, word)
    row = {"target_kind": options.kind, "target_id": options.target, "label": word}
    return answer(options, row, f"{options.kind} {options.target} is labelled {word}")


def _unlabel(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        library.unlabel(options.kind, options.target, options.label)
    row = {"target_kind": options.kind, "target_id": options.target, "label": options.label}
    return answer(options, row, f"{options.kind} {options.target} is not labelled {options.label} any more")


def _labels(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        if options.label:
            targets = library.lists.labelled(options.label)
            lines = [f"{each.target_kind} {each.target_id}" for each in targets]
            return answer(options, [asdict(each) for each in targets], *lines or ["Nothing has this label."])
        counts = library.lists.labels()
    lines = [f"{count:6}  {label}" for label, count in counts.items()]
    rows = [{"label": label, "count": count} for label, count in counts.items()]
    return answer(options, rows, *lines or ["Nothing is labelled."])


def _saved(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        found = library.lists.saved()
    lines = [f"{each.name}: {each.question or '(everything)'}{_noted(each.note)}" for each in found]
    return answer(options, [asdict(each) for each in found], *lines or ["No search is saved."])


def _save(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        kept = library.lists.save(options.name, options.query, sort=options.sort, note=options.note)
    return answer(options, asdict(kept), f"Saved as {kept.name}: {kept.question}")


def _forget(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        library.lists.forget_saved(options.name)
    return answer(options, {"removed": options.name}, f"Removed: {options.name}")


def _run(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve import show, wire

    with ask_library(options) as library:
        kept = library.lists.saved_search(options.name)
        found = library.search(kept.question, k=options.k, sort=kept.sort, with_facets=True)
    if options.json:
        print_json(wire.search_json(found))
    else:
        show.show_hits(found, offset=0)
    return 0


def _teaching(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        if not options.name:
            lists = library.lists.teaching()
            lines = [
                f"{each.name}: {each.entries} entries{_missing(each.missing)}{_noted(each.note)}" for each in lists
            ]
            return answer(options, [asdict(each) for each in lists], *lines or ["There is no teaching list."])
        about, entries = library.lists.teaching_list(options.name)
    row = {"about": asdict(about), "entries": [asdict(each) for each in entries]}
    lines = [f"{about.name}: {about.entries} entries{_missing(about.missing)}{_noted(about.note)}"]
    for number, each in enumerate(entries, start=1):
        told = "is not here" if each.missing else f"{each.study_date or 'no date'} {' '.join(each.modalities)}"
        lines.append(f"{number:4}  {each.target_kind} {each.target_id}  {told}{_noted(each.note)}")
    return answer(options, row, *lines)


def _add(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        entry_id = library.lists.add_entry(options.name, options.kind, options.target, note=options.note)
    return answer(options, {"entry_id": entry_id}, f"{options.kind} {options.target} is on the list {options.name}")


def _remove(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        if options.whole:
            library.lists.remove_teaching(options.name)
            return answer(options, {"removed": options.name}, f"Removed: the list {options.name}")
        entry = _numbered(library.lists.teaching_list(options.name)[1], options)
        library.lists.remove_entry(entry.entry_id)
    return answer(options, {"removed": entry.entry_id}, f"Off the list: {entry.target_kind} {entry.target_id}")


def _numbered(entries: Sequence[Any], options: argparse.Namespace) -> Any:
    if options.number > len(entries):
        raise NotFoundError(
            f"the list has {len(entries)} entries, {options.number} is none of them",
            item=options.name,
            remedy="`medsearch teaching list NAME` numbers them",
        )
    return entries[options.number - 1]


def _export(options: argparse.Namespace) -> int:
    with ask_library(options) as library:
        to_zip = options.output.lower().endswith(".zip")
        export = library.lists.export_zip if to_zip else library.lists.export_folder
        count = export(options.name, options.output, with_reports=options.with_reports)
    warn("burned-in text is not removed from pictures, nor names from your notes")
    if options.with_reports:
        warn("the text of reports is as written: it may hold names and dates")
    return answer(options, {"entries": count, "output": options.output}, f"{count} entries are in {options.output}")


def _bring(options: argparse.Namespace) -> int:
    try:
        data = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot be read ({error})", item=options.file) from error
    with ask_library(options) as library:
        about = library.lists.import_teaching(text, name=options.name, item=options.file)
    return answer(options, asdict(about), f"{about.name}: {about.entries} entries{_missing(about.missing)}")


def _missing(count: int) -> str:
    return f", {count} not here" if count else ""


def _noted(note: str) -> str:
    return f"  ({' '.join(note.split())})" if note else ""
