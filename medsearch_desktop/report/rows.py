"""Tables of reports, a report a row: CSV here, Parquet by whoever hands its rows over.

Columns are found by the names that exports give them, or named by the setting `report_columns`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from medsearch_desktop.errors import ConfigError, ReportError
from medsearch_desktop.report.composing import Composer
from medsearch_desktop.report.formats import read_text
from medsearch_desktop.report.times import from_iso
from medsearch_desktop.statements import ReportStatus, Statement, Written

SUFFIXES = (".csv", ".tsv")

# What a column is, and the names that exports give it: letters and digits in lower case, likeliest first.
_NAMES: dict[str, tuple[str, ...]] = {
    "report_id": ("reportid", "noteid", "reportnumber", "documentid"),
    "text": ("reporttext", "text", "report", "fulltext", "narrative", "notetext", "reportbody", "radiologyreport"),
    "indication": ("indication", "indications", "clinicalindication", "reasonforexam"),
    "history": ("history", "clinicalhistory", "clinicalinformation"),
    "comparison": ("comparison", "comparisons"),
    "technique": ("technique",),
    "findings": ("findings", "finding", "reportfindings"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "reportimpression"),
    "recommendation": ("recommendation", "recommendations"),
    "addendum": ("addendum", "addenda"),
    "study_uid": ("studyinstanceuid", "studyuid", "siuid"),
    "accession": ("accessionnumber", "accession", "accessionno", "accno", "acc"),
    "study_id": ("studyid", "examid", "uid"),
    "patient_id": ("patientid", "subjectid", "mrn", "patient"),
    "date": ("studydate", "examdate", "date", "charttime", "studydatetime", "reportdate"),
    "status": ("reportstatus", "status"),
    # When this version of the report came to be so.
    "time": (
        "reporttime",
        "reportdatetime",
        "signedtime",
        "signeddatetime",
        "verifiedtime",
        "verifieddatetime",
        "finalizeddatetime",
        "storetime",
    ),
}
# In the order in which a report has them.
_PARTS = ("indication", "history", "comparison", "technique", "findings", "impression", "recommendation", "addendum")
# One of these makes a row a report; the others alone are columns of any table.
_TELLING = ("findings", "impression")
_PLAIN = re.compile(r"[\W_]+")
_MOST_COLUMNS = 2000
_STATUS = {
    "p": ReportStatus.PRELIMINARY,
    "preliminary": ReportStatus.PRELIMINARY,
    "c": ReportStatus.CORRECTED,
    "corrected": ReportStatus.CORRECTED,
    "amended": ReportStatus.CORRECTED,
    "x": ReportStatus.CANCELLED,
    "cancelled": ReportStatus.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row each thing stands; with `has_versions` rows of one report identifier are versions of it."""

    places: dict[str, int]
    has_versions: bool = False

    def value(self, row: Sequence[object], what: str) -> str:
        """Return a cell as text, "" where the row or the table has none."""
        place = self.places.get(what, -1)
        value = row[place] if 0 <= place < len(row) else None
        return "" if value is None else str(value).strip()


def find_columns(header: Sequence[str], *, columns: str = "") -> Columns | None:
    """Return which column is what, or None for a table without report text.

    `columns` is the setting of that name, "text=Befund, accession=Auftrag". Raises ConfigError when it
    cannot be read.
    """
    plain = {_plain(name): place for place, name in reversed(list(enumerate(header)))}
    places = {}
    for what, names in _NAMES.items():
        if (place := next((plain[name] for name in names if name in plain), None)) is not None:
            places[what] = place
    for what, name in _mapping(columns).items():
        if _plain(name) in plain:
            places[what] = plain[_plain(name)]
    # Without either nobody could tell which counts, and parts of one report may stand in rows of their own.
    has_versions = "report_id" in places and bool({"status", "time"} & places.keys())
    # A number of the report is as often called an identifier and nothing more.
    if "report_id" not in places and "id" in plain:
        places["report_id"] = plain["id"]
    return Columns(places, has_versions) if any(what in places for what in ("text", *_TELLING)) else None


def is_table(head: bytes, name: str, *, columns: str = "") -> bool:
    """Whether a file that begins so is a CSV table with a column of report text. Raises ConfigError."""
    if not name.lower().endswith(SUFFIXES):
        return False
    line = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    return find_columns(_header(line), columns=columns) is not None


def read_table(data: bytes, *, name: str, max_characters: int, columns: str = "") -> Iterator[Written | ReportError]:
    """Yield the reports of a CSV table, and an error in the place of each row that holds none.

    Raises ReportError when it is not text or has no column of report text, ConfigError for a wrong setting.
    """
    text, encoding = read_text(data, name=name, max_bytes=len(data), markup=False)
    lines = text.split("\n", 1)[0]
    found = find_columns(_header(lines), columns=columns)
    if found is None:
        raise no_columns(name)
    csv.field_size_limit(max(csv.field_size_limit(), max_characters))
    reader = csv.reader(io.StringIO(text), delimiter=_delimiter(lines))
    next(reader, None)
    yield from read_rows(_sound(reader, name), found, name=name, max_characters=max_characters, encoding=encoding)


def read_rows(
    rows: Iterable[Sequence[object] | ReportError],
    columns: Columns,
    *,
    name: str,
    max_characters: int,
    encoding: str = "utf-8",
) -> Iterator[Written | ReportError]:
    """Yield the report of each row, and an error in the place of each that holds none; positions count from 0."""
    position = 0
    for number, row in enumerate(rows, start=1):
        if isinstance(row, ReportError):
            yield row
            continue
        if not any(cell is not None and str(cell).strip() for cell in row):
            continue
        composer = Composer(limit=max_characters)
        composer.add(columns.value(row, "text"))
        so_far = composer.text()
        for what in _PARTS:
            # Some exports give the parts beside the whole.
            if (part := columns.value(row, what)) and part not in so_far:
                composer.add(part, heading=what.upper())
        text, item = composer.text(), f"{name}, row {number}"
        stated = _stated(row, columns, position)
        if composer.is_full:
            yield ReportError(
                f"holds more than {max_characters} characters of text",
                item=item,
                remedy="Raise the setting max_report_bytes",
            )
        elif not text.strip() and not (stated.names and stated.status is ReportStatus.CANCELLED):
            yield ReportError("has no text of a report", item=item, remedy="Its findings or text are empty")
        else:
            yield Written(text if text.strip() else "", encoding, stated)
            position += 1


def no_columns(name: str) -> ReportError:
    """Return the error for a table in which no column is known to hold report text."""
    return ReportError(
        "has no column that is known to hold report text",
        item=name,
        remedy="Name its columns in the setting report_columns, as text=NAME,accession=NAME",
    )


def _stated(row: Sequence[object], columns: Columns, position: int) -> Statement:
    def some(what: str) -> tuple[str, ...]:
        value = columns.value(row, what)
        return (value,) if value else ()

    number = columns.value(row, "report_id")
    # Other tables count their reports from 1 as well: a number alone says nothing.
    whose = next(filter(None, (columns.value(row, what) for what in ("patient_id", "accession", "study_uid"))), "")
    names = (f"row\x1f{number}\x1f{whose}".casefold(),) if columns.has_versions and number and whose else ()
    return Statement(
        status=_STATUS.get(columns.value(row, "status").lower(), ReportStatus.FINAL),
        names=names,
        number=number or columns.value(row, "study_id"),
        effective=from_iso(columns.value(row, "time")) if names else "",
        position=position,
        study_uids=some("study_uid"),
        accession_numbers=some("accession"),
        study_ids=some("study_id"),
        patient_ids=some("patient_id"),
        study_date=from_iso(columns.value(row, "date")[:10])[:10],
    )


def _sound(reader: Iterator[list[str]], name: str) -> Iterator[Sequence[object] | ReportError]:
    number = 0
    while True:
        number += 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield ReportError("cannot be read", item=f"{name}, row {number}", remedy="Export the table again")


def _mapping(columns: str) -> dict[str, str]:
    found = {}
    for part in filter(None, (part.strip() for part in columns.split(","))):
        what, equals, name = (word.strip() for word in part.partition("="))
        if not equals or what not in _NAMES or not name:
            raise ConfigError(
                f"{part!r} is not COLUMN=NAME", item="report_columns", remedy=f"Columns are: {', '.join(_NAMES)}"
            )
        found[what] = name
    return found


def _header(line: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r")], delimiter=_delimiter(line)), [])[:_MOST_COLUMNS]
    except csv.Error:
        return []


def _delimiter(line: str) -> str:
    return max(",;\t|", key=line.count)


def _plain(name: str) -> str:
    return _PLAIN.sub("", name.casefold())
