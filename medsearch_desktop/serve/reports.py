"""`medsearch reports show|reprocess` and `medsearch correct`: evidence, reading again, corrections."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsearch_desktop.serve.commands import add_command, answer, open_library, print_json

if TYPE_CHECKING:
    from medsearch_desktop.records import Correction


def add_report_commands(commands: Any) -> None:
    """Add `reports` and `correct` to the commands of a parser."""
    help = "show a report with its evidence; read stored reports again"
    actions = commands.add_parser("reports", help=help, description=help).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    show = add_command(
        actions, "show", _show, "print a report with its mentions, what is said of each and what decided it"
    )
    show.add_argument("report_id", metavar="REPORT_ID")
    show.add_argument("--versions", action="store_true", help="list every version that came of it, withdrawn ones too")

    help = "read reports of an earlier release again and show what changes; can be interrupted"
    reprocess = add_command(actions, "reprocess", _reprocess, help)
    reprocess.add_argument("--dry-run", action="store_true", help="change nothing, show what would change")
    reprocess.add_argument("--all", action="store_true", help="those that this release has read, too")

    correct = add_command(commands, "correct", _correct, "correct the assertion or code of a mention, from now on")
    correct.add_argument("report_id", nargs="?", default="", metavar="REPORT_ID")
    correct.add_argument(
        "span", nargs="?", type=_span, metavar="START:END", help="its characters, as `reports show` says"
    )
    correct.add_argument("--assertion", choices=_ASSERTIONS, help="what the report says of it")
    correct.add_argument("--code", metavar="CODE|none", help="its ICD-10-CM code, or none")
    correct.add_argument("--note", default="", metavar="TEXT", help="why")
    correct.add_argument("--author", default="", metavar="NAME", help="who says so (default: the user's name here)")
    instead = correct.add_mutually_exclusive_group()
    instead.add_argument("--undo", action="store_true", help="undo the latest correction there")
    instead.add_argument("--list", action="store_true", help="list every correction")
    instead.add_argument("--export", metavar="FILE|-", help="write every correction as JSON")
    instead.add_argument("--import", dest="bring", metavar="FILE|-", help="take over the corrections of an export")


# Spelt out, as the records would cost `medsearch --help` their import.
_ASSERTIONS = ("present", "absent", "uncertain", "historical", "family", "hypothetical")


def _span(text: str) -> tuple[int, int]:
    start, _, end = text.partition(":")
    if not (start.isdecimal() and end.isdecimal() and int(start) < int(end)):
        raise argparse.ArgumentTypeError(f"{text!r} is not START:END, two offsets of which the second is larger")
    return int(start), int(end)


def _show(options: argparse.Namespace) -> int:
    if options.versions:
        return _show_versions(options)
    with open_library(options) as library:
        stored = library.report(options.report_id)
    if options.json:
        from medsearch_desktop.report.reader import extract_json

        row = {**extract_json(stored.report), "text": stored.report.text, "study_uid": stored.report.study_uid}
        print_json({**row, "path": stored.path, "pipeline_version": stored.pipeline_version})
    else:
        from medsearch_desktop.serve.show_reports import show_evidence, show_report

        show_report(stored.report)
        show_evidence(stored.report)
    return 0


def _show_versions(options: argparse.Namespace) -> int:
    with open_library(options) as library:
        found = library.report_versions(options.report_id)
    if options.json:
        print_json([asdict(version) for version in found])
    else:
        from medsearch_desktop.serve.show_reports import show_versions

        show_versions(found)
    return 0


def _reprocess(options: argparse.Namespace) -> int:
    with open_library(options) as library:
        summary = library.reprocess(dry_run=options.dry_run, everything=options.all, on_report=_tell)
    if options.json:
        print_json(summary.as_json())
    else:
        from medsearch_desktop.serve.show_reports import show_reread

        show_reread(summary)
    return 0


def _correct(options: argparse.Namespace) -> int:
    if options.list or options.export or options.bring:
        return _correct_many(options)
    if not options.report_id or options.span is None:
        return _usage("give REPORT_ID and START:END, or --list, --export or --import")
    if not (options.undo or options.assertion or options.code or options.note):
        return _usage("give what is to be corrected: --assertion, --code or --note; or --undo")
    with open_library(options) as library:
        if options.undo:
            kept = library.undo_correction(options.report_id, options.span, author=options.author)
        else:
            kept = library.correct(
                options.report_id,
                options.span,
                assertion=_assertion(options.assertion),
                code="" if options.code == "none" else options.code,
                note=options.note,
                author=options.author,
            )
    if options.json:
        print_json(asdict(kept))
    else:
        print(f"{'Undone' if options.undo else 'Corrected'}: {_line(kept)}")
    return 0


def _correct_many(options: argparse.Namespace) -> int:
    with open_library(options) as library:
        if options.bring:
            text, name = _read(options.bring), options.bring
            count = library.import_corrections(text, name=name)
            answer(options, {"imported": count}, f"{count} corrections are new here.")
        elif options.export:
            exported = library.export_corrections()
            _write(options.export, json.dumps(exported, indent=1, ensure_ascii=True) + "\n")
            if options.export != "-":
                count = len(exported["corrections"])
                answer(
                    options,
                    {"exported": count, "file": options.export},
                    f"{count} corrections are in {options.export}.",
                )
        else:
            found = library.corrections()
            lines = [_line(each) for each in found] or ["Nothing is corrected."]
            answer(options, [asdict(each) for each in found], *lines)
    return 0


def _line(correction: Correction) -> str:
    c = correction
    code = None if c.icd10cm is None else c.icd10cm or "no code"
    what = ", ".join(str(part) for part in (c.assertion, code, c.note and repr(c.note)) if part)
    undone = f" (undone by {c.undone_by} {c.undone_at[:19]})" if c.undone_at else ""
    return f"{c.report_id} {c.start}:{c.end} {c.text!r}: {what}; {c.author} {c.made_at[:19]}{undone}"


def _assertion(name: str | None) -> Any:
    from medsearch_desktop.records import Assertion

    return Assertion(name) if name else None


def _read(file: str) -> str:
    from medsearch_desktop.errors import SourceError

    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot be read ({error})", item=file) from error


def _write(file: str, text: str) -> None:
    from medsearch_desktop.errors import SourceError

    if file == "-":
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, "utf-8")
    except OSError as error:
        raise SourceError(f"cannot be written ({error.strerror})", item=file) from error


def _usage(text: str) -> int:
    print(f"medsearch correct: {text}", file=sys.stderr)
    return 2


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} reports", end="" if done < total else "\n", file=sys.stderr, flush=True)
