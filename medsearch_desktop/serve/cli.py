"""`medsearch`: the command line. Exit 0 done, 1 the operation failed, 2 usage.

With `--json` stdout holds only JSON; progress and messages go to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from medsearch_desktop import __version__
from medsearch_desktop.errors import MedSearchError
from medsearch_desktop.serve.commands import add_command, ask_library, config_of, open_workbench, print_json
from medsearch_desktop.serve.health import add_health_commands, compact_after_ingest
from medsearch_desktop.serve.list_commands import add_list_commands
from medsearch_desktop.serve.mllp import add_mllp_command
from medsearch_desktop.serve.model_use import add_commands
from medsearch_desktop.serve.models import add_model_commands
from medsearch_desktop.serve.receive import add_receive_command
from medsearch_desktop.serve.regions import add_region_command
from medsearch_desktop.serve.reports import add_report_commands
from medsearch_desktop.serve.send import add_send_commands
from medsearch_desktop.serve.terminology import add_terminology_commands
from medsearch_desktop.serve.watch import add_watch_command

EPILOG = """\
a question:  effusion AND NOT pneumothorax modality:CR view:PA age:>60 date:2024-01..2024-06
             "pleural effusion"  effus*  (a OR b)  icd:J90  present:pneumothorax  absent:"pleural effusion"
             uncertain:nodule  like:IMAGE  label:teaching   `medsearch search --fields` lists the fields
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    # Before numpy is there. Its products here are small: idle threads of OpenBLAS spin beside the search of a graph,
    # which then takes twice as long, and hold 200 MB each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 2
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except MedSearchError as error:
        print(f"medsearch: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("medsearch: stopped; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return 1
    except MemoryError:
        print("medsearch: there is not enough memory; what was finished is kept. Close other programs", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the pipe has enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medsearch",
        description="Search radiology images and reports on this workstation. Not a medical device.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medsearch {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    command = partial(add_command, commands)

    demo = command("demo", _demo, "build and open the demo library: synthetic studies with reports")
    demo.add_argument("--no-window", action="store_true", help="do not open the window")
    demo.add_argument("--studies", type=_positive, default=120, metavar="N", help="synthetic studies (%(default)s)")

    ingest = command("ingest", _ingest, "bring the library up to date with folders of DICOM and reports")
    ingest.add_argument("paths", nargs="+", metavar="PATH")
    ingest.add_argument("--metadata-only", action="store_true", help="read headers and reports, no pixels: fast")
    ingest.add_argument("--threads", type=_positive, metavar="N", help="processor cores to use (default: all)")

    search = command("search", _search, "find reports and studies by words, codes, fields and images")
    search.add_argument("query", nargs="?", default="", metavar="QUERY")
    search.add_argument("-k", type=_positive, default=10, metavar="N", help="hits a page (%(default)s)")
    search.add_argument("--offset", type=_not_negative, default=0, metavar="N", help="hits to skip (%(default)s)")
    search.add_argument("--sort", choices=["score", "date", "oldest", "patient"], default="score")
    search.add_argument("--fields", action="store_true", help="list the fields of the query language and exit")

    similar = command("similar", _similar, "find the images that look like one: an image id or any image file")
    similar.add_argument("image", metavar="IMAGE")
    similar.add_argument("-k", type=_positive, default=10, metavar="N", help="images (%(default)s)")
    similar.add_argument("--roi", type=_region, metavar="X,Y,W,H", help="ask by this part of the image, in its pixels")
    similar.add_argument("--where", default="", metavar="QUERY", help="only among images that match")
    similar.add_argument("--model", default="", metavar="ID", help="by this model's vectors (default: the one in use)")

    facets = command("facets", _facets, "count codes and fields: seen, ruled out, uncertain, never mentioned")
    facets.add_argument("query", nargs="?", default="", metavar="QUERY")

    extract = command("extract", _extract, "read the reports in a file: sections, entities, assertions, codes")
    extract.add_argument("file", metavar="FILE|-")
    extract.add_argument(
        "--jsonl",
        action="store_true",
        help='one answer a line out; in, a file of many reports (HL7, FHIR, tables) or one {"report_id","text"} a line',
    )

    code = command("code", _code, "find the ICD-10-CM code of phrases")
    code.add_argument("phrases", nargs="+", metavar="PHRASE")

    embed = command("embed", _embed, "write the vectors of image files to an .npz file")
    embed.add_argument("files", nargs="+", metavar="FILE")
    embed.add_argument("-o", "--output", required=True, metavar="OUT.npz")

    failures = command("failures", _failures, "list what could not be indexed, and why")
    failures.add_argument("--retry", action="store_true", help="try each of them again")

    add_watch_command(commands)
    add_receive_command(commands)
    add_send_commands(commands)

    add_report_commands(commands)
    add_list_commands(commands)
    add_commands(add_model_commands(commands))
    add_terminology_commands(commands)
    add_mllp_command(commands)
    add_health_commands(commands)

    serve = command("serve", _serve, "own the library and answer programs and browsers of this machine")
    serve.add_argument("--port", type=_not_negative, default=0, metavar="N", help="port (default: any that is free)")
    serve.add_argument("--host", default="127.0.0.1", metavar="IP", help="address to listen at (%(default)s)")

    serve.add_argument("--watch", action="store_true", help="watch folders and receive as was switched on in its pages")
    serve.add_argument("--open", action="store_true", help="open it in your browser, which is then logged in")

    app = command("app", _app, "show the library in a window of its own, or in your browser where there can be none")
    # The window's own process, which `app` starts.
    app.add_argument("--attach", action="store_true", help=argparse.SUPPRESS)

    add_region_command(commands)
    # The processes that `report/pdf.py` and `image/aside.py` ask; no names of commands that one would type.
    commands.add_parser("pdf-worker").set_defaults(run=_pdf_worker)
    commands.add_parser("frame-worker").set_defaults(run=_frame_worker)

    command("doctor", _doctor, "check decoders, model, indexes, permissions, sockets")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _region(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not four whole numbers X,Y,W,H") from error
    return x, y, width, height


def _demo(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.tour import run_demo

    config = config_of(options)
    status = run_demo(config, studies=options.studies, as_json=options.json)
    if status or options.no_window or options.json:
        return status
    from medsearch_desktop.serve.desktop import run_app, why_no_window

    if (obstacle := why_no_window()) is not None:
        print(f"No window is opened: {obstacle}.")
        return 0
    print("\nThe window opens; close it to end. --no-window leaves it out.", flush=True)
    return run_app(config)


def _ingest(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.show import Progress, show_summary

    with ask_library(options, create=True) as library, Progress() as progress:
        summary = library.ingest(options.paths, metadata_only=options.metadata_only, on_event=progress)
        alone = not hasattr(library, "look_after")
    if alone:
        compact_after_ingest(options)
    if options.json:
        print_json(summary.as_json())
    else:
        show_summary(summary)
    return 0


def _search(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve import show, wire

    if options.fields:
        show.show_fields(as_json=options.json)
        return 0
    with ask_library(options) as library:
        answer = library.search(options.query, k=options.k, offset=options.offset, sort=options.sort, with_facets=True)
    if options.json:
        print_json(wire.search_json(answer))
    else:
        show.show_hits(answer, offset=options.offset)
    return 0


def _similar(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve import show, wire

    with ask_library(options) as library:
        answer = library.similar(options.image, k=options.k, roi=options.roi, where=options.where, model=options.model)
    if options.json:
        print_json(wire.similar_json(answer))
    else:
        show.show_similar(answer)
    return 0


def _facets(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve import show, wire

    with ask_library(options) as library:
        found = library.facets(options.query)
    if options.json:
        print_json(wire.facets_json(found))
    else:
        show.show_facets(found)
    return 0


def _extract(options: argparse.Namespace) -> int:
    bench = open_workbench(options)
    if options.jsonl and (options.file == "-" or not bench.is_document(options.file)):
        return _extract_lines(options.file, bench.extractor)
    whole = options.file == "-"
    reports, reason = bench.reports(sys.stdin.buffer.read(), name="-") if whole else bench.read_reports(options.file)
    for report in reports:
        if options.json or options.jsonl:
            print_json(bench.extract(report))
        else:
            from medsearch_desktop.serve.show_reports import show_report

            show_report(report)
    if reason:
        print(f"medsearch: {options.file}: {reason}", file=sys.stderr)
    return 0


def _extract_lines(file: str, reader: Any) -> int:
    from medsearch_desktop.errors import ReportError, SourceError
    from medsearch_desktop.report.reader import extract_json

    try:
        source = sys.stdin if file == "-" else Path(file).open(encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise SourceError(f"cannot be read ({error.strerror})", item=file) from error
    with source as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                report_id, text = str(row["report_id"]), row["text"]
                if not isinstance(text, str):
                    raise TypeError
            except (ValueError, KeyError, TypeError) as error:
                raise ReportError(
                    'is not an object with "report_id" and "text"', item=f"{file}, line {number}"
                ) from error
            print_json(extract_json(reader.read(text, report_id=report_id)))
    return 0


def _code(options: argparse.Namespace) -> int:
    rows = open_workbench(options).code(options.phrases)
    if options.json:
        print_json(rows)
    else:
        from medsearch_desktop.serve.show import show_codes

        show_codes(rows)
    return 0


def _embed(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve import show
    from medsearch_desktop.workbench import Workbench

    bench = Workbench(config_of(options))
    vectors = bench.embed(options.files)
    show.write_vectors(options.output, vectors, options.files, model_id=bench.model.model_id)
    if options.json:
        print_json({"output": options.output, "vectors": len(vectors), "model_id": bench.model.model_id})
    else:
        print(f"{len(vectors)} vectors of model {bench.model.model_id} are in {options.output}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    if options.open:
        from medsearch_desktop.serve.desktop import serve_and_open

        return serve_and_open(config_of(options), port=options.port, host=options.host, watch=options.watch)
    from medsearch_desktop.serve.server import serve

    serve(config_of(options), port=options.port, host=options.host, watch=options.watch)
    return 0


def _app(options: argparse.Namespace) -> int:
    config = config_of(options)
    if options.attach:
        from medsearch_desktop.serve.window import open_window

        open_window(config.library_path)
    from medsearch_desktop.serve.desktop import run_app

    return run_app(config, as_json=options.json)


def _failures(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve import show

    with ask_library(options) as library:
        if options.retry:
            with show.Progress() as progress:
                library.retry_failures(on_event=progress)
        failures = library.failures()
    if options.json:
        print_json([{"path": failure.path, "reason": failure.reason} for failure in failures])
    else:
        show.show_failures(failures)
    return 0


def _pdf_worker(_: argparse.Namespace) -> int:
    from medsearch_desktop.report.pdf import serve_pdf

    return serve_pdf()


def _frame_worker(_: argparse.Namespace) -> int:
    from medsearch_desktop.image.aside import serve_frames

    return serve_frames()


def _doctor(options: argparse.Namespace) -> int:
    from medsearch_desktop.doctor import checks_json, examine
    from medsearch_desktop.serve import show

    checks = examine(config_of(options))
    page = checks_json(checks)
    if options.json:
        print_json(page)
    else:
        show.show_checks(checks)
    return 0 if page["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
