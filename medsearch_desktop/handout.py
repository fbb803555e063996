"""A teaching list as files to hand over: list.json, list.csv, index.html and pictures/.

What names a patient stays behind: names, patient and accession numbers, identifiers of study, series and image, file
names, descriptions, dates but for their year, ages over 89. Reports are left out unless asked for. What is drawn into
pixels is not removed, nor what a person wrote into names and notes.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from medsearch_desktop.errors import DecodeError, NotFoundError, SourceError
from medsearch_desktop.holdings import Holdings
from medsearch_desktop.image.picture import shrunk
from medsearch_desktop.store.lists import TeachingEntry, TeachingList
from medsearch_desktop.store.reports import StoredReport
from medsearch_desktop.store.studies import Study

FORMAT = "medsearch teaching list 1"
PICTURE_SIDE = 1024
PIXELS_WARNING = (
    "Pictures are rendered frames: what is burned into their pixels, a name for example, is still there. Look at each."
)
WORDS_WARNING = "Names and notes of lists and entries are as they were written."
REPORTS_WARNING = "The text of reports is as it was written: it may hold names, dates and numbers of patients."
# HIPAA's safe harbour, 45 CFR 164.514(b)(2)(i)(C).
_OLDEST_TOLD = 89
_STATES = {"present": "present", "uncertain": "uncertain", "absent": "ruled out"}
_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")
_COLUMNS = ("number", "kind", "here", "modalities", "views", "body_parts", "sex", "age", "year")
_STYLE = """
body { font-family: system-ui, sans-serif; line-height: 1.45; max-width: 70rem; margin: 1rem auto; padding: 0 1rem;
       background: #f8fafa; color: #1d2529; }
article { border-top: 1px solid #8b979e; padding: 1rem 0; }
img { max-width: min(100%, 32rem); background: #000; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; }
.warning { border: 2px solid #9c5200; padding: 0.5rem 1rem; }
.note, pre { white-space: pre-wrap; overflow-wrap: anywhere; font-family: inherit; }
"""


def write_handout(
    folder: Path,
    of: TeachingList,
    entries: Sequence[TeachingEntry],
    *,
    holdings: Holdings,
    report_of: Callable[[str], StoredReport | None],
    with_reports: bool,
) -> dict[str, Any]:
    """Write a list into an empty folder and return what its list.json holds. Raises OSError."""
    (folder / "pictures").mkdir()
    rows = [
        _entry(folder, number, entry, holdings, report_of, with_reports)
        for number, entry in enumerate(entries, start=1)
    ]
    warnings = [PIXELS_WARNING, WORDS_WARNING, *([REPORTS_WARNING] if with_reports else [])]
    whole = {"format": FORMAT, "name": of.name, "note": of.note, "warnings": warnings, "entries": rows}
    (folder / "list.json").write_text(json.dumps(whole, indent=1, ensure_ascii=True) + "\n", "utf-8")
    _write_table(folder / "list.csv", rows, with_reports=with_reports)
    with (folder / "index.html").open("w", encoding="utf-8") as page:
        page.writelines(_page(folder, whole))
    return whole


def _entry(
    folder: Path,
    number: int,
    entry: TeachingEntry,
    holdings: Holdings,
    report_of: Callable[[str], StoredReport | None],
    with_reports: bool,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": number,
        "kind": entry.target_kind,
        "reference": entry.reference,
        "note": entry.note,
        "missing": entry.missing,
    }
    try:
        study = None if entry.missing else holdings.study(entry.study_uid)
    except NotFoundError:
        # Removed since the list was read.
        study = None
    if study is None:
        return {**row, "missing": True, "pictures": [], "images": 0, "codes": []}
    stored = [each for each in map(report_of, study.report_ids) if each is not None]
    row |= {
        "sex": _code_string(study.patient_sex),
        "age": _age(study.patient_age),
        "year": study.study_date.year if study.study_date else None,
        "images": entry.images,
        "pictures": _pictures(folder, number, entry, study, holdings),
        "codes": _codes(stored),
    }
    return {**row, "reports": [each.report.text for each in stored]} if with_reports else row


def _pictures(
    folder: Path, number: int, entry: TeachingEntry, study: Study, holdings: Holdings
) -> list[dict[str, Any]]:
    images = {image.image_id: image for image in study.images}
    rows = []
    for place, image_id in enumerate(entry.image_ids, start=1):
        image = images.get(image_id)
        if image is None:
            continue
        name = f"pictures/{number:04d}-{place:02d}.png"
        try:
            picture = shrunk(holdings.frame_picture(image_id), most=PICTURE_SIDE)
        except (SourceError, DecodeError, NotFoundError, OSError):
            # Without its words: they may hold the name of a file.
            name = ""
        else:
            (folder / name).write_bytes(picture)
        rows.append(
            {
                "file": name,
                "modality": _code_string(image.modality),
                "view_position": _code_string(image.view_position),
                "body_part": _code_string(image.body_part),
                "laterality": _code_string(image.laterality),
            }
        )
    return rows


def _codes(stored: Sequence[StoredReport]) -> list[dict[str, str]]:
    """Return each code that reports state once, in its strongest state: present, then uncertain, then ruled out."""
    found: dict[str, tuple[int, dict[str, str]]] = {}
    order = {state: rank for rank, state in enumerate(_STATES)}
    for entity in (entity for each in stored for entity in each.report.entities):
        state = entity.assertion.value
        if not entity.icd10cm or state not in order:
            continue
        row = {"code": entity.icd10cm, "title": entity.title, "assertion": state}
        if entity.icd10cm not in found or order[state] < found[entity.icd10cm][0]:
            found[entity.icd10cm] = (order[state], row)
    return [row for _, row in sorted(found.values(), key=lambda each: each[0])]


def _age(years: float | None) -> str:
    if years is None or not math.isfinite(years):
        return ""
    return f"over {_OLDEST_TOLD}" if years >= _OLDEST_TOLD + 1 else str(int(years))


def _code_string(text: str) -> str:
    """Return a value that DICOM takes from a list (PS3.5 6.2: CS), and nothing that anybody wrote in its place."""
    return text.strip().upper() if _CODE_STRING.fullmatch(text.strip().upper()) else ""


def _write_table(file: Path, rows: Sequence[dict[str, Any]], *, with_reports: bool) -> None:
    columns = [*_COLUMNS, *_STATES, "note", "pictures", *(["reports"] if with_reports else [])]
    # With a mark of its encoding: spreadsheets take it for another otherwise.
    with file.open("w", encoding="utf-8-sig", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(columns)
        for row in rows:
            codes = {
                state: "; ".join(f"{c['code']} {c['title']}" for c in row["codes"] if c["assertion"] == state)
                for state in _STATES
            }
            values = {
                **row,
                **codes,
                "here": "no" if row["missing"] else "yes",
                "modalities": _joined(row, "modality"),
                "views": _joined(row, "view_position"),
                "body_parts": _joined(row, "body_part"),
                "pictures": " ".join(each["file"] for each in row["pictures"] if each["file"]),
                "reports": "\n\n".join(row.get("reports", ())),
            }
            writer.writerow([_cell(values.get(name)) for name in columns])


def _joined(row: dict[str, Any], name: str) -> str:
    return " ".join(dict.fromkeys(each[name] for each in row["pictures"] if each[name]))


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    # A spreadsheet would take it for a formula and work it out.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def _page(folder: Path, whole: dict[str, Any]) -> Iterator[str]:
    """Yield a page that needs no other file, runs nothing and asks for nothing."""
    name = escape(whole["name"])
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield (
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
    )
    yield f'<meta name="viewport" content="width=device-width">\n<title>{name}</title>\n<style>{_STYLE}</style>\n'
    yield f'</head>\n<body>\n<main>\n<h1>{name}</h1>\n<p class="note">{escape(whole["note"])}</p>\n'
    yield '<div class="warning">\n<p>Not for diagnosis.</p>\n'
    yield "".join(f"<p>{escape(text)}</p>\n" for text in whole["warnings"])
    yield "</div>\n"
    for row in whole["entries"]:
        yield from _article(folder, row)
    yield "</main>\n</body>\n</html>\n"


def _article(folder: Path, row: dict[str, Any]) -> Iterator[str]:
    yield f"<article>\n<h2>{row['number']}. {_heading(row)}</h2>\n"
    if row["note"]:
        yield f'<p class="note">{escape(row["note"])}</p>\n'
    if row["missing"]:
        yield f"<p>This {row['kind']} is not in the library any more, or never was.</p>\n"
    for each in row["pictures"]:
        told = escape(" ".join(filter(None, (each["modality"], each["view_position"], each["laterality"]))) or "image")
        if each["file"]:
            data = base64.b64encode((folder / each["file"]).read_bytes()).decode("ascii")
            yield f'<figure><img alt="{told}" src="data:image/png;base64,{data}">'
            yield f"<figcaption>{told}</figcaption></figure>\n"
        else:
            yield f"<p>{told}: no picture, its file is away or cannot be read.</p>\n"
    if row["images"] > len(row["pictures"]):
        yield f"<p>{len(row['pictures'])} of {row['images']} images.</p>\n"
    if row["codes"]:
        items = (
            f"<li>{_STATES[c['assertion']]}: {escape(c['code'])} {escape(c['title'])}</li>\n" for c in row["codes"]
        )
        yield f"<ul>\n{''.join(items)}</ul>\n"
    for text in row.get("reports", ()):
        yield f"<pre>{escape(text)}</pre>\n"
    yield "</article>\n"


def _heading(row: dict[str, Any]) -> str:
    age = f"{row['age']} years" if row.get("age") else ""
    parts = (row["kind"].capitalize(), _joined(row, "modality"), row.get("sex"), age, row.get("year"))
    return escape(", ".join(str(part) for part in parts if part))
