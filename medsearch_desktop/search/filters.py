"""One table of filters: key, what the index and the database call it, how a person reads it.

The parser, the full-text query, the SQL of visual search, the sentence shown to the user and
the help all come from these rows, so they cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from medsearch_desktop.search.tree import (
    And,
    DateRange,
    Field,
    Like,
    Not,
    NumberRange,
    Or,
    Phrase,
    Prefix,
    Tree,
    Value,
    Word,
)


class Kind(StrEnum):
    """What values a filter takes."""

    TEXT = "words"
    KEYWORD = "keyword"
    NUMBER = "number"
    DATE = "date"
    CODE = "code"
    STATE = "finding"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Filter:
    """One row of the table.

    `index` names fields of the full-text index, of which one must match. `sql` is a predicate over
    an image `i`, its series `se` and its study `s`, with `{match}` for the comparison; without one,
    the full-text index is asked for the studies. `reads` and `reads_not` are what a person reads.
    """

    key: str
    kind: Kind
    index: tuple[str, ...]
    sql: str
    reads: str
    reads_not: str
    help: str
    aliases: tuple[str, ...] = ()


def _keyword(key: str, column: str, name: str, help: str, *aliases: str, index: str = "") -> Filter:
    return Filter(
        key,
        Kind.KEYWORD,
        (index or key,),
        f"upper(trim({column})) {{match}}",
        f"{name} is {{value}}",
        f"{name} is not {{value}}",
        help,
        aliases,
    )


def _section(key: str, help: str, *aliases: str) -> Filter:
    name = key.upper()
    return Filter(
        key,
        Kind.TEXT,
        (key,),
        "",
        f"the {name} section contains {{value}}",
        f"the {name} section does not contain {{value}}",
        help,
        aliases,
    )


def _state(key: str, reads: str, help: str, *aliases: str) -> Filter:
    return Filter(key, Kind.STATE, ("states",), "", f"{{value}} is {reads}", f"{{value}} is not {reads}", help, aliases)


_LABELLED = (
    "EXISTS (SELECT 1 FROM labels WHERE {condition}"
    "((target_kind = 'study' AND target_id = s.study_uid)"
    " OR (target_kind = 'series' AND target_id = i.series_uid)"
    " OR (target_kind = 'image' AND target_id = i.image_id)"
    " OR (target_kind = 'report' AND target_id IN"
    " (SELECT report_id FROM reports WHERE reports.study_uid = s.study_uid))))"
)

_SIDE = "coalesce((SELECT sides.laterality FROM sides WHERE sides.image_no = i.image_no), se.laterality)"

# What `has:` takes: the SQL, and how a person reads it.
CHOICES: dict[str, tuple[str, str]] = {
    "report": ("EXISTS (SELECT 1 FROM reports WHERE reports.study_uid = s.study_uid)", "a report"),
    "image": ("TRUE", "an image"),
    "label": (_LABELLED.format(condition=""), "a label"),
    "finding": (
        "EXISTS (SELECT 1 FROM reports JOIN entities USING (report_no) WHERE reports.study_uid = s.study_uid)",
        "a finding",
    ),
    "date": ("s.study_date IS NOT NULL", "a study date"),
    "age": ("s.patient_age IS NOT NULL", "a patient age"),
}

FILTERS: tuple[Filter, ...] = (
    _keyword("modality", "i.modality", "modality", "Modality: modality:CR", "mod"),
    _keyword("view", "i.view_position", "view", "View position: view:PA", "view_position", "projection"),
    _keyword("body", "se.body_part", "body part", "Body part: body:chest", "body_part", "bodypart", "part"),
    _keyword("laterality", _SIDE, "laterality", "Side: laterality:L", "side"),
    _keyword("sex", "s.patient_sex", "sex", "Patient's sex: sex:F", "gender", "patient_sex"),
    Filter(
        "age",
        Kind.NUMBER,
        ("age",),
        "s.patient_age {match}",
        "age {value}",
        "age not {value}",
        "Patient's age in years: age:>60, age:20..40, age:60 (the whole year)",
        ("patient_age",),
    ),
    Filter(
        "date",
        Kind.DATE,
        ("day",),
        "s.study_date {match}",
        "dated {value}",
        "not dated {value}",
        "Study date: date:2024, date:2024-01..2024-06, date:>=2024-03-05",
        ("study_date",),
    ),
    _keyword("patient", "s.patient_id", "patient", "Patient ID: patient:P123, patient:P1*", "patient_id", "pid", "mrn"),
    _keyword("accession", "s.accession_number", "accession number", "Accession number", "accession_number", "acc"),
    Filter(
        "study",
        Kind.KEYWORD,
        ("study_id", "study_uid"),
        "(upper(trim(s.study_id)) {match} OR upper(trim(s.study_uid)) {match})",
        "study is {value}",
        "study is not {value}",
        "Study ID or StudyInstanceUID",
        ("study_id", "study_uid"),
    ),
    Filter(
        "report",
        Kind.KEYWORD,
        ("report",),
        "EXISTS (SELECT 1 FROM reports WHERE reports.study_uid = s.study_uid AND upper(trim(report_id)) {match})",
        "report is {value}",
        "report is not {value}",
        "Report ID",
        ("report_id",),
    ),
    Filter(
        "label",
        Kind.KEYWORD,
        ("label_key",),
        _LABELLED.format(condition="upper(trim(label)) {match} AND "),
        "labelled {value}",
        "not labelled {value}",
        'Your own label: label:teaching, label:"follow up"',
        ("labels", "tag"),
    ),
    Filter(
        "icd",
        Kind.CODE,
        ("states",),
        "",
        "the report mentions ICD-10-CM {value}",
        "the report does not mention ICD-10-CM {value}",
        "ICD-10-CM code or category, whatever is said about it: icd:J18.9, icd:J18",
        ("icd10", "icd10cm", "code"),
    ),
    _state("present", "present", 'Seen: present:"pleural effusion", present:J90', "positive"),
    _state("absent", "ruled out", "Ruled out: absent:pneumothorax", "negative", "ruled_out"),
    _state("uncertain", "uncertain", "Possible: uncertain:pneumonia", "possible"),
    _state("historical", "part of the history", "Of the past: historical:pneumonia", "past"),
    _state("family", "part of the family's history", 'In the family: family:"lung cancer"'),
    _state("hypothetical", "hypothetical", "Only supposed: hypothetical:pneumonia"),
    _state("mentioned", "mentioned", "Whatever is said about it: mentioned:effusion", "finding"),
    Filter(
        "description",
        Kind.TEXT,
        ("description",),
        "",
        "the study description contains {value}",
        "the study description does not contain {value}",
        'Words of the study description: description:"chest 2 views"',
        ("desc", "study_description"),
    ),
    Filter(
        "manufacturer",
        Kind.TEXT,
        ("manufacturer",),
        "",
        "manufacturer is {value}",
        "manufacturer is not {value}",
        "Words of the manufacturer's name: manufacturer:siemens",
        ("vendor", "maker"),
    ),
    Filter(
        "has",
        Kind.CHOICE,
        ("has",),
        "",
        "has {value}",
        "does not have {value}",
        f"What is there: has:{', has:'.join(CHOICES)}",
    ),
    _section("findings", "Words of the findings: findings:effusion"),
    _section("impression", 'Words of the impression: impression:"no acute"', "conclusion"),
    _section("indication", "Words of the indication: indication:cough", "reason"),
    _section("history", "Words of the clinical history: history:smoker", "clinical_history"),
    _section("technique", "Words of the technique: technique:portable"),
    _section("comparison", "Words of the comparison: comparison:none"),
    _section("examination", "Words of the examination: examination:chest", "exam"),
    _section("addendum", "Words of an addendum: addendum:corrected"),
)
BY_NAME: dict[str, Filter] = {name: row for row in FILTERS for name in (row.key, *row.aliases)}

_ICD_CODE = re.compile(r"([A-Z][0-9][0-9A-Z])(?:\.?([0-9A-Z]{0,4}))?", re.ASCII)
_SEXES = {"FEMALE": "F", "WOMAN": "F", "MALE": "M", "MAN": "M", "OTHER": "O"}


def icd_code(text: str) -> str | None:
    """Return the ICD-10-CM code or category that `text` is, as "J18.9" or "J18", or None."""
    match = _ICD_CODE.fullmatch(text.strip().upper())
    if match is None:
        return None
    return f"{match[1]}.{match[2]}" if match[2] else match[1]


def keyword_text(key: str, value: Value) -> str:
    """Return the value of a keyword filter as the index and the database compare it."""
    assert isinstance(value, Word | Phrase | Prefix)
    folded = " ".join(value.text.split()).upper()
    return _SEXES.get(folded, folded) if key == "sex" else folded


def to_sql(
    tree: Tree, *, matching_studies: Callable[[Tree], Sequence[str]], name: str = "f"
) -> tuple[str, dict[str, object]]:
    """Return a predicate over an image `i`, its series `se` and its study `s`, and its parameters.

    Parameters are called `$f0`, `$f1`, ... with `name` for the f; nothing of the question is in
    the SQL itself. Parts that only the full-text index can answer go to `matching_studies`, which
    returns StudyInstanceUIDs: whole And and Or trees of such parts go as one, so that they hold
    within one report; a Not is taken of the studies, so that no report of the study may match.
    The predicate is never NULL. An image to be near to is left out (TRUE).
    """
    writer = _SqlWriter(matching_studies, name)
    return writer.write(tree), writer.params


class _SqlWriter:
    def __init__(self, matching_studies: Callable[[Tree], Sequence[str]], name: str) -> None:
        self.params: dict[str, object] = {}
        self._matching_studies = matching_studies
        self._name = name

    def write(self, tree: Tree) -> str:
        if tree == And(()) or isinstance(tree, Like):
            return "TRUE"
        if isinstance(tree, Not):
            return f"NOT {self.write(tree.child)}"
        if _of_documents(tree):
            return f"s.study_uid IN (SELECT unnest({self._bind(list(self._matching_studies(tree)))}::VARCHAR[]))"
        match tree:
            case And(children):
                # Neighbours that only documents can answer are asked together, not one by one.
                texts = tuple(child for child in children if _of_documents(child))
                others = [self.write(child) for child in children if not _of_documents(child)]
                if texts:
                    others.append(self.write(texts[0] if len(texts) == 1 else And(texts)))
                return f"({' AND '.join(others)})"
            case Or(children):
                return f"({' OR '.join(self.write(child) for child in children)})"
            case Field(key, value):
                return f"coalesce({self._field(BY_NAME[key], value)}, FALSE)"
            case _:
                raise AssertionError(tree)

    def _field(self, row: Filter, value: Value) -> str:
        match value:
            case NumberRange(low, high, include_low, include_high):
                bounds = [(">=" if include_low else ">", low), ("<=" if include_high else "<", high)]
            case DateRange(first, last):
                return self._between(row, [(">=", first), ("<=", last)])
            case _ if row.kind is Kind.CHOICE:
                return f"({CHOICES[value.text][0]})"
            case Prefix():
                start = re.sub(r"([!%_])", r"!\1", keyword_text(row.key, value))
                return row.sql.format(match=f"LIKE {self._bind(start + '%')} ESCAPE '!'")
            case _:
                return row.sql.format(match=f"= {self._bind(keyword_text(row.key, value))}")
        return self._between(row, bounds)

    def _between(self, row: Filter, bounds: Sequence[tuple[str, float | date | None]]) -> str:
        parts = [row.sql.format(match=f"{sign} {self._bind(bound)}") for sign, bound in bounds if bound is not None]
        return f"({' AND '.join(parts)})"

    def _bind(self, value: object) -> str:
        parameter = f"{self._name}{len(self.params)}"
        self.params[parameter] = value
        return f"${parameter}"


def _of_documents(tree: Tree) -> bool:
    """Whether every leaf is one that only the full-text index answers."""
    match tree:
        case And(children) | Or(children):
            return bool(children) and all(_of_documents(child) for child in children)
        case Not(child):
            return _of_documents(child)
        case Field(key):
            return not BY_NAME[key].sql and BY_NAME[key].kind is not Kind.CHOICE
        case Like():
            return False
        case _:
            return True


def describe(tree: Tree) -> str:
    """Return the question as one English sentence."""
    if tree == And(()):
        return "Everything in the library."
    text = _read(tree, top=True)
    return f"{text[0].upper()}{text[1:]}."


def _read(tree: Tree, *, top: bool = False, negated: bool = False) -> str:
    match tree:
        case Not(child) if isinstance(child, And | Or):
            return f"not ({_read(child, top=True)})" if not negated else f"not (not ({_read(child, top=True)}))"
        case Not(Not(child)):
            return _read(child, top=top, negated=negated)
        case Not(child):
            return _read(child, negated=not negated)
        case And(children):
            joined = _listed([_read(child) for child in children], "and")
            return joined if top else f"({joined})"
        case Or(children):
            joined = _listed([_read(child) for child in children], "or")
            return f"either {joined}" if top else f"(either {joined})"
        case Like(image):
            return f'looks like "{image}"'
        case Field(key, value):
            row = BY_NAME[key]
            return (row.reads_not if negated else row.reads).replace("{value}", _read_value(row, value))
        case _:
            return f"{'does not contain' if negated else 'contains'} {_read_text(tree)}"


def _read_text(value: Word | Phrase | Prefix) -> str:
    return f'a word that begins with "{value.text}"' if isinstance(value, Prefix) else f'"{value.text}"'


def _read_value(row: Filter, value: Value) -> str:
    match value:
        case NumberRange(low, high, include_low, include_high):
            if low is not None and high is not None:
                whole_year = include_low and not include_high and high == low + 1
                return f"{low:g}" if whole_year or low == high else f"from {low:g} to {high:g}"
            if low is not None:
                return f"{low:g} or over" if include_low else f"over {low:g}"
            return f"{high:g} or under" if include_high else f"under {high:g}"
        case DateRange(first, last):
            if first is not None and last is not None:
                return f"on {first}" if first == last else f"from {first} to {last}"
            return f"from {first} on" if first is not None else f"up to {last}"
        case _ if row.kind is Kind.CHOICE:
            return CHOICES[value.text][1]
        case Prefix(text) if row.kind is Kind.KEYWORD:
            return f"{text}..."
        case _ if row.kind is Kind.TEXT:
            return _read_text(value)
        case Phrase(text):
            return f'"{text}"'
        case _:
            return value.text


def _listed(parts: Sequence[str], word: str) -> str:
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}" if len(parts) > 1 else parts[0]
