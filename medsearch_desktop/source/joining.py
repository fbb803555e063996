"""Which study a report belongs to: what the report says of itself, then where it lies, then its name.

A wrong join puts one patient's findings beside another's images, a missing one only leaves a report
on its own. So a rule decides only when exactly one study answers to it, and what a report says of
itself overrules where it lies.
"""

# os.path throughout: paths stay the strings that the records hold, surrogate escapes included.
# ruff: noqa: PTH118, PTH119, PTH120, PTH122

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from medsearch_desktop.records import LinkRule
from medsearch_desktop.statements import Statement

# A header stands at the top; further down a report may quote the identifiers of other studies.
HEADER_CHARACTERS = 4000

_Key = TypeVar("_Key")

_UID = re.compile(r"(?<![A-Za-z0-9.])[0-2](?:\.(?:0|[1-9]\d*)){3,}(?![A-Za-z0-9]|\.\d)")
# Matched against lower-cased text, and only where one of the words occurs: most reports state nothing,
# and searching each for four patterns without regard to case took 0.4 ms each.
_STATED_UID = re.compile(
    r"\b(?:study[ \t_]*(?:instance[ \t_]*)?uid|siuid)\b[ \t]*[:=#]?[ \t]*([0-2](?:\.\d+){2,})"
    r"|0020,[ \t]*000d\b[^\n]{0,40}?([0-2](?:\.\d+){2,})"
)
_STATED_ACCESSION = re.compile(
    r"\b(?:accession|acc\b\.?)[ \t_]*(?:(?:numbers?|nums?|nr|no|id)\b\.?)?"
    r"[ \t]*[:=#]+[ \t#:]*([a-z0-9][^\n\t;|]{0,200})"
    r"|\b(?:accession|acc\b\.?)[ \t_]*(?:numbers?|nums?|nr|no)\b\.?[ \t]+([a-z0-9][\w./-]*)"
)
_STATED_STUDY_ID = re.compile(r"\bstudy[ \t_]*(?:id|identifier)\b[ \t]*[:=#]+[ \t]*([a-z0-9][\w.-]*)")
_STATED_PATIENT = re.compile(
    r"\b(?:patient[ \t_]*(?:id|identifier)|mrn|medical[ \t]+record[ \t]+(?:number|no))\b\.?"
    r"[ \t]*[:=#]+[ \t]*([a-z0-9][\w.-]*)"
)
_ACCESSION_VALUE = re.compile(r"[a-z0-9][\w./-]*")
_SEPARATORS = re.compile(r"[ _.\-]+")
_REPORT_WORDS = re.compile(r"(?:[ _.\-]+(?:report|rpt|rep|text|txt|findings|final|reading))+$", re.IGNORECASE)
# MIMIC-CXR: files/p10/p10000032/s50414267/*.dcm beside files/p10/p10000032/s50414267.txt.
STUDY_FOLDER = re.compile(r"s(\d{6,})", re.IGNORECASE)
_PATIENT_FOLDER = re.compile(r"p(\d{6,})", re.IGNORECASE)
# Names that every scanner and export gives; they say something within one folder only.
COUNTED_NAME = re.compile(
    r"(?:im|img|image|i|slice|file|dicom|dcm|scan|frame|series|se|st|study|pa|ap|lat|report|rpt)?[-_ .]*\d{0,8}",
    re.IGNORECASE,
)
# Only these names say nothing about which of several studies a report may be of.
_BARE_REPORT_NAME = re.compile(
    r"(?:(?:radiology|reports?|rpt|final|preliminary|prelim|addendum|findings|impression|reading|dictation|text)"
    r"[ _.\-]*)+",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])[0-3]\d")
# Below this a StudyID is a counter ("1" in most archives) and repeats between patients.
_UNIQUE_STUDY_ID = 6
FOLDERS_READ = 3


@dataclass(frozen=True, slots=True)
class Identifiers:
    """Candidates for the identifiers of a report's study, likeliest first; their case does not count."""

    study_uids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()
    study_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportKeys:
    """All by which a report may be joined: what its text states, what its name and folders suggest, where it lies."""

    stated: Identifiers
    named: Identifiers
    patient_ids: tuple[str, ...]
    folder: str
    stem: str
    study_date: str = ""


class ImageRow(NamedTuple):
    """One image file of a study, as far as joining needs it; identifiers are "" when the file has none."""

    study_uid: str
    accession_number: str
    study_id: str
    patient_id: str
    path: str
    study_date: str = ""


def message_keys(stated: Statement) -> ReportKeys:
    """Return by what the report of a message may be joined to a study: what the message states, and nothing else."""
    own = Identifiers(stated.study_uids, stated.accession_numbers, stated.study_ids)
    return ReportKeys(own, Identifiers(), stated.patient_ids, "", "", stated.study_date)


def report_keys(path: str, root: str, head: str) -> ReportKeys:
    """Return by what the report at `path`, found under `root`, may be joined to a study.

    `head` is the beginning of its text, of which the first `HEADER_CHARACTERS` are read. Of the
    folders the three nearest count, up to `root` and with it.
    """
    text = head[:HEADER_CHARACTERS].lower()
    folder, base = os.path.split(path)
    stem = stem_of(base)
    folders = list(_folder_names(folder, root))
    stated = Identifiers(
        study_uids=_distinct(match[0] or match[1] for match in _stated(_STATED_UID, text, "uid", "0020,")),
        accession_numbers=_distinct(
            number for match in _stated(_STATED_ACCESSION, text, "acc") for number in _accessions(match[0] or match[1])
        ),
        study_ids=_distinct(filter(_has_digit, _stated(_STATED_STUDY_ID, text, "study"))),
    )
    suggested = [_suggested(_REPORT_WORDS.sub("", stem)), *map(_suggested_by_folder, folders)]
    named = Identifiers(
        study_uids=_distinct(value for each in suggested for value in each.study_uids),
        accession_numbers=_distinct(value for each in suggested for value in each.accession_numbers),
        study_ids=_distinct(value for each in suggested for value in each.study_ids),
    )
    patients = [*_stated(_STATED_PATIENT, text, "patient", "mrn", "medical"), *folders]
    return ReportKeys(stated, named, _distinct(patients), folder, stem)


def study_hint(path: str, root: str) -> str:
    """Return what the images of one study share when their files hold no header, or "".

    That is the folder of the study in the layout of MIMIC-CXR-JPG, "p10000032/s50414267"; without
    the patient's folder above it, the study's alone, when it lies below `root`.
    """
    folder = os.path.dirname(path)
    above, study = os.path.split(folder)
    if not STUDY_FOLDER.fullmatch(study):
        return ""
    patient = os.path.basename(above)
    if _PATIENT_FOLDER.fullmatch(patient):
        return f"{patient.lower()}/{study.lower()}"
    return study.lower() if folder != root and path != root else ""


class StudyDirectory:
    """The studies of a library, to be looked up by what a report says, where it lies and how it is called.

    `rows` is one row an image file; `reports` are the paths of all reports, those to be joined and
    those joined before, for how many lie in a folder tells whether the folder can decide.
    Looking up takes a few dictionary accesses, whatever the size of the library.
    """

    def __init__(self, rows: Iterable[ImageRow], reports: Iterable[str]) -> None:
        # In every table: the one study of that key, or "" when there are several.
        self._by_accession: dict[str, str] = {}
        self._by_study_id: dict[str, str] = {}
        self._by_patient_and_id: dict[tuple[str, str], str] = {}
        self._by_patient_and_date: dict[tuple[str, str], str] = {}
        self._by_folder_and_id: dict[tuple[str, str], str] = {}
        self._in_folder: dict[str, str] = {}
        self._below_folder: dict[str, str] = {}
        self._by_stem: dict[str, str] = {}
        self._by_folder_and_stem: dict[tuple[str, str], str] = {}
        self._accessions: dict[str, set[str]] = {}
        self._patients: dict[str, set[str]] = {}
        self._reports_in: dict[str, int] = {}
        wanted: set[str] = set()
        for path in reports:
            folder, base = os.path.split(path)
            self._reports_in[folder] = self._reports_in.get(folder, 0) + 1
            wanted.update(report_stems(stem_of(base)))
        seen: set[tuple[str, ...]] = set()
        for row in rows:
            folder, base = os.path.split(row.path)
            for stem in image_stems(stem_of(base)):
                if stem in wanted:
                    _enter(self._by_stem, stem, row.study_uid)
                    _enter(self._by_folder_and_stem, (folder, stem), row.study_uid)
            # Nearly all rows repeat the study, the identifiers and the folder of the row before.
            study = (row.study_uid, row.accession_number, row.study_id, row.patient_id, folder, row.study_date)
            if study not in seen:
                seen.add(study)
                self._add(row, folder)

    def find(self, keys: ReportKeys) -> tuple[str, LinkRule] | None:
        """Return the StudyInstanceUID of the report's study and the rule that found it, or None.

        The rules are tried in the order of `LinkRule`; one that several studies answer to does not
        decide. The folder decides when the report lies with the images of one study, beside a
        folder of its own name that holds one, or above the folders of one; among several reports
        in a folder only for those with a name like "report" or "addendum". What a name or a folder suggests
        is refused when the report states another StudyInstanceUID or AccessionNumber than the
        study has, and so is whatever a message says, but for the StudyInstanceUID, of another patient's study.
        """
        for uids, stated in ((keys.stated.study_uids, True), (keys.named.study_uids, False)):
            known = {uid for uid in uids if uid in self._accessions}
            if len(known) == 1 and (stated or not self._contradicts(keys, min(known))):
                return known.pop(), LinkRule.STUDY_UID
        for rule, find in (
            (LinkRule.ACCESSION_NUMBER, self._accession),
            (LinkRule.STUDY_ID, self._study_id),
            (LinkRule.PATIENT_AND_DATE, self._patient_and_date),
            (LinkRule.FOLDER, self._folder),
            (LinkRule.FILE_NAME, self._file_name),
        ):
            study_uid = find(keys)
            if study_uid:
                return study_uid, rule
        return None

    def _add(self, row: ImageRow, folder: str) -> None:
        uid = row.study_uid
        accession = folded(row.accession_number)
        known = self._accessions.setdefault(uid, set())
        if accession:
            known.add(accession)
            _enter(self._by_accession, accession, uid)
        self._patients.setdefault(uid, set()).add(row.patient_id)
        study_id, patients = study_key(row.study_id), {patient_key(row.patient_id)}
        above, name = os.path.split(folder)
        match = STUDY_FOLDER.fullmatch(name)
        if match:
            study_id = study_id or match[1]
            patients.add(patient_key(os.path.basename(above)))
        if row.study_date and row.patient_id.strip(" \0"):
            _enter(self._by_patient_and_date, (patient_key(row.patient_id), row.study_date), uid)
        if study_id:
            _enter(self._by_study_id, study_id, uid)
            for patient in patients - {""}:
                _enter(self._by_patient_and_id, (patient, study_id), uid)
        _enter(self._in_folder, folder, uid)
        for near in nearest_folders(folder, FOLDERS_READ):
            _enter(self._below_folder, near, uid)
            if study_id:
                _enter(self._by_folder_and_id, (near, study_id), uid)

    def _contradicts(self, keys: ReportKeys, study_uid: str) -> bool:
        # UIDs under 2.25 are made up, here too for images without a header: nothing can state them.
        if keys.stated.study_uids and study_uid not in keys.stated.study_uids and not study_uid.startswith("2.25."):
            return True
        if self._is_of_another(keys, study_uid):
            return True
        accessions = self._accessions.get(study_uid, set())
        stated = {folded(number) for number in keys.stated.accession_numbers}
        return bool(stated and accessions) and stated.isdisjoint(accessions)

    def _is_of_another(self, keys: ReportKeys, study_uid: str) -> bool:
        """Whether a message is of another patient than a study: two hospitals may count their examinations alike.

        Of what a text and its folders say any number may be a patient's; a message says which is. Systems pad
        numbers and put letters before them, so their digits decide where there are any.
        """
        if keys.folder or keys.stem:
            return False
        own = {each for number in keys.patient_ids for each in _spellings(number)}
        of_study = {each for number in self._patients.get(study_uid, set()) for each in _spellings(number)}
        return bool(own and of_study) and own.isdisjoint(of_study)

    def _accession(self, keys: ReportKeys) -> str:
        stated = [
            self._by_accession[folded(n)] for n in keys.stated.accession_numbers if folded(n) in self._by_accession
        ]
        if stated:
            return stated[0] if len(set(stated)) == 1 and not self._is_of_another(keys, stated[0]) else ""
        named = (self._by_accession[folded(n)] for n in keys.named.accession_numbers if folded(n) in self._by_accession)
        # Of what the names suggest the nearest counts: the report's own before that of its folders.
        found = next(named, "")
        return "" if not found or self._contradicts(keys, found) else found

    def _study_id(self, keys: ReportKeys) -> str:
        for study_ids in (keys.stated.study_ids, keys.named.study_ids):
            found = {self._study_of_id(study_key(study_id), keys) for study_id in study_ids} - {""}
            if len(found) == 1:
                study_uid = found.pop()
                if not self._contradicts(keys, study_uid):
                    return study_uid
        return ""

    def _study_of_id(self, study_id: str, keys: ReportKeys) -> str:
        for patient in keys.patient_ids:
            found = self._by_patient_and_id.get((patient_key(patient), study_id), "")
            if found:
                return found
        found = self._by_folder_and_id.get((keys.folder, study_id), "")
        if not found and len(study_id) >= _UNIQUE_STUDY_ID and not _DATE.fullmatch(study_id):
            found = self._by_study_id.get(study_id, "")
        return found

    def _patient_and_date(self, keys: ReportKeys) -> str:
        if not keys.study_date:
            return ""
        found = {self._by_patient_and_date.get((patient_key(each), keys.study_date), "") for each in keys.patient_ids}
        found.discard("")
        return min(found) if len(found) == 1 and not self._contradicts(keys, min(found)) else ""

    def _folder(self, keys: ReportKeys) -> str:
        if not keys.folder:
            return ""
        found = self._below_folder.get(os.path.join(keys.folder, keys.stem), "")
        numbered = _has_digit(keys.stem)
        alone = self._reports_in.get(keys.folder, 0) <= 1
        if not found and (alone or _BARE_REPORT_NAME.fullmatch(keys.stem)):
            # Images in the folder itself decide, also when they are of several studies.
            found = self._in_folder.get(keys.folder, "" if numbered else self._below_folder.get(keys.folder, ""))
        return "" if not found or self._contradicts(keys, found) else found

    def _file_name(self, keys: ReportKeys) -> str:
        if not keys.stem:
            return ""
        for stem in report_stems(keys.stem):
            found = self._by_folder_and_stem.get((keys.folder, stem))
            if found is None and not COUNTED_NAME.fullmatch(stem):
                found = self._by_stem.get(stem)
            if found is not None:
                return "" if not found or self._contradicts(keys, found) else found
        return ""


def _enter(table: dict[_Key, str], key: _Key, study_uid: str) -> None:
    if table.setdefault(key, study_uid) != study_uid:
        table[key] = ""


def stem_of(base: str) -> str:
    stem, suffix = os.path.splitext(base)
    return base if suffix[1:].isdigit() else stem


def report_stems(stem: str) -> list[str]:
    return list(_distinct([stem.casefold(), _REPORT_WORDS.sub("", stem).casefold()]))


def image_stems(stem: str) -> Iterator[str]:
    """Yield an image's stem and the first parts of it that hold a number: CXR1_IM-0001-3001 begins with CXR1."""
    stem = stem.casefold()
    yield stem
    if _UID.fullmatch(stem):
        return
    for separator in list(_SEPARATORS.finditer(stem))[:3]:
        part = stem[: separator.start()]
        if _has_digit(part):
            yield part


def _folder_names(folder: str, root: str) -> Iterator[str]:
    for near in nearest_folders(folder, FOLDERS_READ):
        yield os.path.basename(near)
        if near == root:
            return


def nearest_folders(folder: str, count: int) -> Iterator[str]:
    for _ in range(count):
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above


def _is_telling(part: str) -> bool:
    """Whether a part of a name may be an accession number, and not a counter, a word or a date."""
    if not _has_digit(part) or _DATE.fullmatch(part):
        return False
    return len(part) >= (5 if part.isdigit() else 3)


def _is_study_id(part: str) -> bool:
    """Whether a part of a name may be a StudyID: a long number, or any behind an s."""
    digits = study_key(part)
    return digits.isdigit() and (len(digits) >= _UNIQUE_STUDY_ID or digits != folded(part))


def _suggested(name: str) -> Identifiers:
    """Return what a name may mean: itself, or those of its parts that are long enough to be an identifier."""
    parts = [name]
    parts += (part for part in _SEPARATORS.split(name) if part != name and len(part) >= 5 and _has_digit(part))
    return Identifiers(
        study_uids=tuple(_UID.findall(name)),
        accession_numbers=tuple(filter(_is_telling, parts)),
        study_ids=tuple(filter(_is_study_id, parts)),
    )


# Reports share their folders.
_suggested_by_folder = lru_cache(maxsize=4096)(_suggested)


def _stated(pattern: re.Pattern[str], text: str, *words: str) -> list[Any]:
    return pattern.findall(text) if any(word in text for word in words) else []


def _accessions(value: str) -> Iterator[str]:
    """Yield the numbers of a list like "A1, A2 and A3"; what follows it on the line is not of it."""
    for item in re.split(r"[ \t]*(?:,|&|\band\b)[ \t]*", value):
        match = _ACCESSION_VALUE.match(item)
        # "pending" and "unknown" are no numbers, and must not stand against a study that has one.
        if match and _has_digit(match[0]):
            yield match[0].rstrip(".")
        if not match or match.end() != len(item.rstrip()):
            return


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def folded(identifier: str) -> str:
    return identifier.strip(" \0").casefold()


def study_key(identifier: str) -> str:
    plain = folded(identifier)
    return plain[1:] if plain[:1] == "s" and plain[1:].isdigit() else plain


def patient_key(identifier: str) -> str:
    plain = folded(identifier)
    match = _PATIENT_FOLDER.fullmatch(plain)
    return match[1] if match else plain


def _spellings(patient: str) -> Iterator[str]:
    if plain := patient_key(patient):
        yield plain
        if digits := "".join(filter(str.isdecimal, plain)).lstrip("0"):
            yield digits


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
