"""Tables of reports, a report a row: CSV here, Parquet by whoever hands its rows over.

Columns are found by the names that exports give them, or named by the setting `report_columns`.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from medsearch_desktop.errors import ConfigError, ReportError
from medsearch_desktop.report.composing import Composer
from medsearch_desktop.report.formats import read_text
from medsearch_desktop.report.markup import RTF_MARK, rtf_text, without_markup
from medsearch_desktop.report.times import from_iso
from medsearch_desktop.statements import ReportStatus, Statement, Written

SUFFIXES = (".csv", ".tsv")
# What spreadsheets call text between tabs. A report may begin with any line, but hardly with the names of columns.
_TEXT_SUFFIXES, _TEXT_DELIMITERS = (".txt", ".text"), "\t|;"

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
_WHOSE = ("accession", "study_uid", "patient_id", "report_id")
_PLAIN = re.compile(r"[\W_]+")
_MOST_COLUMNS = 2000
# What systems call it, as `_plain` writes it, and the letters of HL7 that mean nothing else. All else is final.
_STATUS = {
    word: status
    for status, words in {
        ReportStatus.PRELIMINARY: "p preliminary prelim draft unsigned unverified dictated transcribed"
        " pending partial inprogress incomplete wetread notfinal registered",
        ReportStatus.CORRECTED: "c corrected amended revised addended addendum appended",
        ReportStatus.CANCELLED: "x cancelled canceled deleted withdrawn retracted void voided enteredinerror",
    }.items()
    for word in words.split()
}
# What databases and programs write where there is nothing; "none" may be an answer.
_NOTHING = frozenset(("null", "nan", "<na>", "nat"))
# A column of numbers with a gap in it becomes one of fractions in many programs.
_NUMBERS = frozenset(("report_id", "accession", "study_id", "patient_id"))
_WHOLE = re.compile(r"(\d+)\.0")


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row each thing stands; with `has_versions` rows of one report identifier are versions of it."""

    places: dict[str, int]
    has_versions: bool = False

    def value(self, row: Sequence[object], what: str) -> str:
        """Return a cell as text, "" where the row or the table has none."""
        place = self.places.get(what, -1)
        value = _words(row[place]) if 0 <= place < len(row) else ""
        if value.lower() in _NOTHING:
            return ""
        match = _WHOLE.fullmatch(value) if what in _NUMBERS else None
        return match[1] if match else value


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
    """Whether a file that begins so is a CSV table with a column of report text. Raises ConfigError.

    One that is called a text is a table where its columns say whose reports they are, too.
    """
    suffixes = (*SUFFIXES, *_TEXT_SUFFIXES)
    if not name.lower().endswith(suffixes):
        return False
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = head[: len(head) // 2 * 2].decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")
    form = _Form.of(text)
    found = find_columns(form.header(), columns=columns)
    if found is None or name.lower().endswith(SUFFIXES):
        return found is not None
    return form.delimiter in _TEXT_DELIMITERS and any(what in found.places for what in _WHOSE)


def read_table(data: bytes, *, name: str, max_characters: int, columns: str = "") -> Iterator[Written | ReportError]:
    """Yield the reports of a CSV table, and an error in the place of each row that holds none.

    Raises ReportError when it is not text or has no column of report text, ConfigError for a wrong setting.
    """
    text, encoding = read_text(data, name=name, max_bytes=len(data), markup=False)
    form = _Form.of(text)
    found = find_columns(form.header(), columns=columns)
    if found is None:
        raise no_columns(name)
    csv.field_size_limit(max(csv.field_size_limit(), max_characters))
    reader = form.rows()
    rows = _sound(reader, name, width=len(next(reader, [])))
    yield from read_rows(rows, found, name=name, max_characters=max_characters, encoding=encoding)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a table is written: its text from the header on, and what parts its cells."""

    text: str
    delimiter: str

    @classmethod
    def of(cls, text: str) -> _Form:
        """Return the form of a table that begins so."""
        text = text.lstrip("\n")
        line = text.split("\n", 1)[0]
        # Spreadsheets say so before the header.
        if match := re.fullmatch(r'"?sep=([,;:|\t^~])"?[ ]*', line):
            return cls(text[len(line) :].lstrip("\n"), match[1])
        return cls(text, max(",;\t|", key=line.count))

    def header(self) -> list[str]:
        """Return the names of the columns, none where there are no such."""
        try:
            return next(self.rows(), [])[:_MOST_COLUMNS]
        except csv.Error:
            return []

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows, that of the names first. Raises csv.Error in the place of each that is not sound."""
        # Databases put a backslash before a quotation mark where others double it.
        has_escapes = '\\"' in self.text and '""' not in self.text.replace(f'{self.delimiter}""', self.delimiter)
        escape = "\\" if has_escapes else None
        return csv.reader(
            io.StringIO(self.text),
            delimiter=self.delimiter,
            strict=True,
            skipinitialspace=True,
            escapechar=escape,
            doublequote=not escape,
        )


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
        composer, item = Composer(limit=max_characters), f"{name}, row {number}"
        try:
            composer.add(_without_form(columns.value(row, "text"), item))
            so_far = composer.text()
            for what in _PARTS:
                # Some exports give the parts beside the whole.
                if (part := _without_form(columns.value(row, what), item)) and part not in so_far:
                    composer.add(part, heading=what.upper())
        except ReportError as error:
            yield error
            continue
        text = composer.text()
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
        status=_STATUS.get(_plain(columns.value(row, "status")), ReportStatus.FINAL),
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


def _sound(reader: Iterator[list[str]], name: str, *, width: int) -> Iterator[Sequence[object] | ReportError]:
    """Yield the rows of a table of `width` columns, and an error in the place of each whose cells cannot be told apart.

    Such a row would give a report the text, or the number, of another.
    """
    number = 0
    while True:
        number += 1
        item = f"{name}, row {number}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            remedy = "Export the table again, with the quotation marks within texts doubled"
            yield ReportError("has a quotation mark that is not closed, or a cell too long", item=item, remedy=remedy)
            continue
        if width and any(cell.strip() for cell in row[width:]):
            remedy = "Export the table again, with texts in quotation marks"
            yield ReportError(f"has {len(row)} cells for {width} columns", item=item, remedy=remedy)
        else:
            yield row


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


def _plain(name: str) -> str:
    return _PLAIN.sub("", name.casefold())


def _words(value: object) -> str:
    """Return a cell as text: numbers without a fraction that says nothing, lists line by line."""
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace").strip()
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.0f}" if value.is_integer() else str(value)
    if isinstance(value, list):
        return "\n".join(_words(each) for each in value).strip()
    return "" if value is None else str(value).strip()


def _without_form(cell: str, item: str) -> str:
    if cell.startswith(RTF_MARK.decode()):
        return rtf_text(cell.encode("utf-8", "replace"), name=item)
    return without_markup(cell)
