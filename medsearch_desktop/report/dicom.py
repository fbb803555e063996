"""Reports in DICOM files: structured reports (SR) and encapsulated PDF.

Source: DICOM PS3.3 A.35 (SR), C.17 (SR document modules), A.45 (encapsulated documents); PS3.16 TID 2000.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.composing import Composer, heading_of
from medsearch_desktop.report.sop_classes import PDF_CLASS, SR_CLASSES, may_hold_report
from medsearch_desktop.report.times import iso
from medsearch_desktop.statements import ReportStatus, Statement, Written

# As in `image/dataset.py`: neither warnings nor logs may quote what a header says.
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

Attached = Callable[[bytes, str], str]

_DEFLATED = b"1.2.840.10008.1.2.1.99"
# Elements of eight bytes take pydicom hundreds of them in memory.
_MOST_TREE = 1 << 23
_MOST_INFLATED = _MOST_TREE
_FLAT = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "StudyID",
    "AccessionNumber",
    "PatientID",
    "StudyDate",
    "ContentDate",
    "ContentTime",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "VerificationFlag",
    "SpecificCharacterSet",
    "EncapsulatedDocument",
)
# An item takes pydicom two thirds of a kilobyte of memory, however empty.
_ITEM, _MOST_ITEMS = b"\xfe\xff\x00\xe0", 100_000
_MOST_PIECES = 20_000
# Who observed what, how and of whom: no part of what was seen. What qualifies a value stands with it.
_CONTEXT = frozenset(("HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS ACQ CONTEXT"))
_QUALIFIES = frozenset(("HAS CONCEPT MOD", "HAS PROPERTIES"))
# What takes a finding back. A name and such a value side by side are read as one statement.
_DENIALS = frozenset(("absent", "no", "none", "negative", "not present", "not seen", "not detected", "not identified"))
# Languages and countries of the words (PS3.16 TID 1204), and how the same is called otherwise.
_OF_WORDS = frozenset(("121045", "121046", "121047", "121048", "121049", "121050"))
_MOST_QUALIFIERS = 20
_REMEDY = "Copy the file again from its origin"
_DATE, _TIME = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)"), re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(?:\.(\d{1,6}))?")
_UID = re.compile(r"[0-9.]{3,64}")
# What reading a damaged data set comes to, converting its values included.
_BROKEN = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    LookupError,
    OverflowError,
    EOFError,
    OSError,
    NotImplementedError,
    AssertionError,
    struct.error,
    zlib.error,
    RecursionError,
    pydicom.errors.InvalidDicomError,
    pydicom.errors.BytesLengthException,
)


def read_dicom(data: bytes, *, name: str, max_characters: int, attached: Attached) -> Written | None:
    """Return the report in a DICOM file, or None where it is of a kind that holds none, or a tree without any text.

    `attached` reads an encapsulated PDF. Raises ReportError when the file is damaged.
    """
    try:
        ds = _dataset(data, name=name)
        sop_class = str(ds.get("SOPClassUID", ""))
        if not may_hold_report(sop_class):
            return None
        stated = _stated(ds)
        if sop_class == PDF_CLASS:
            document = bytes(ds.get("EncapsulatedDocument", None) or b"")
            if not document:
                raise ReportError("holds no document", item=name, remedy=_REMEDY)
            return Written(attached(document, name), "utf-8", stated)
        composer = Composer(limit=max_characters)
        _compose(ds, composer)
        if composer.is_full:
            raise ReportError(
                f"holds more than {max_characters} characters of text",
                item=name,
                remedy="Raise the setting max_report_bytes",
            )
        text = composer.text()
        return Written(text, "utf-8", stated) if text.strip() else None
    except ReportError:
        raise
    except _BROKEN as error:
        raise ReportError("is a damaged DICOM structured report", item=name, remedy=_REMEDY) from error


def _dataset(data: bytes, *, name: str) -> Dataset:
    if len(data) > _MOST_TREE:
        # Of a large file only a document that lies in it whole.
        ds = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(_FLAT))
        if str(ds.get("SOPClassUID", "")).startswith(SR_CLASSES):
            raise ReportError(
                f"has {len(data)} bytes, more than the {_MOST_TREE} that a structured report may have",
                item=name,
                remedy="Export the report as text",
            )
        return ds
    if _DEFLATED in data[132:1156]:
        return _inflated(data, name=name)
    _check_items(data, name=name)
    return pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)


def _inflated(data: bytes, *, name: str) -> Dataset:
    # pydicom inflates without bound.
    (length,) = struct.unpack_from("<I", data, 140)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inner = inflater.decompress(data[144 + length :], _MOST_INFLATED)
    if inflater.unconsumed_tail:
        raise ReportError(f"inflates to more than {_MOST_INFLATED >> 20} MiB", item=name, remedy=_REMEDY)
    _check_items(inner, name=name)
    return read_dataset(io.BytesIO(inner), is_implicit_VR=False, is_little_endian=True)


def _check_items(data: bytes, *, name: str) -> None:
    if data.count(_ITEM) > _MOST_ITEMS:
        raise ReportError(f"has more than {_MOST_ITEMS} items in its sequences", item=name, remedy=_REMEDY)


def _compose(ds: Dataset, composer: Composer) -> None:
    """Append a content tree in its order; a list replaces the call stack, whatever the depth."""
    waiting: list[tuple[Dataset, str]] = [(item, "") for item in reversed(_items(ds, "ContentSequence"))]
    inline: set[int] = set()
    for _ in range(_MOST_PIECES):
        if not waiting or composer.is_full:
            return
        item, heading = waiting.pop()
        if _text(item, "RelationshipType") in _CONTEXT:
            continue
        kind = _text(item, "ValueType")
        code, name = _concept(item, "ConceptNameCodeSequence")
        own = heading_of(code, name)
        if kind == "CONTAINER":
            # A part that no table knows keeps its name, which may well be a heading to whoever reads it.
            heading = own or heading or name.upper()
        elif id(item) not in inline and (said := _said(item, kind)):
            is_prose = kind == "TEXT" and (bool(own) or not name)
            qualifiers = _qualifiers(item)
            inline.update(map(id, qualifiers))
            said = _qualified(said, [_concept(each, "ConceptCodeSequence")[1] for each in qualifiers])
            composer.add(said if is_prose or not name else f"{name}: {said}", heading=own or heading)
        waiting += [(child, heading) for child in reversed(_items(item, "ContentSequence"))]


def _qualifiers(item: Dataset, *, depth: int = 0) -> list[Dataset]:
    """Return the codes that qualify a value (site, side, whether it is there at all), and those that qualify them."""
    found: list[Dataset] = []
    for child in _items(item, "ContentSequence"):
        is_code = _text(child, "RelationshipType") in _QUALIFIES and _text(child, "ValueType") == "CODE"
        if is_code and _concept(child, "ConceptNameCodeSequence")[0] not in _OF_WORDS:
            found.append(child)
            if depth < 2:
                found += _qualifiers(child, depth=depth + 1)
    return found[:_MOST_QUALIFIERS]


def _qualified(said: str, qualifiers: list[str]) -> str:
    denial = next((each for each in qualifiers if each.strip().lower() in _DENIALS), "")
    others = "; ".join(each for each in qualifiers if each and each != denial)
    return said + (f": {denial}" if denial else "") + (f" ({others})" if others else "")


def _said(item: Dataset, kind: str) -> str:
    if kind == "TEXT":
        return _text(item, "TextValue")
    if kind == "CODE":
        return _concept(item, "ConceptCodeSequence")[1]
    if kind == "NUM":
        for measured in _items(item, "MeasuredValueSequence"):
            unit = _concept(measured, "MeasurementUnitsCodeSequence")[0]
            return " ".join(filter(None, (_text(measured, "NumericValue"), unit if unit != "1" else "")))
    if kind == "DATE":
        return _text(item, "Date")
    return _text(item, "DateTime") if kind == "DATETIME" else ""


def _stated(ds: Dataset) -> Statement:
    uid = _uid(ds, "SOPInstanceUID")
    others = [*_referenced(ds, "PredecessorDocumentsSequence"), *_referenced(ds, "IdenticalDocumentsSequence")]
    requests = _items(ds, "ReferencedRequestSequence")
    accessions = [_text(ds, "AccessionNumber"), *(_text(request, "AccessionNumber") for request in requests)]
    uids = [_uid(ds, "StudyInstanceUID"), *(_uid(request, "StudyInstanceUID") for request in requests)]
    verified = [_moment(_text(each, "VerificationDateTime")) for each in _items(ds, "VerifyingObserverSequence")]
    written = _moment(_text(ds, "ContentDate") + _text(ds, "ContentTime"))
    made = _moment(_text(ds, "InstanceCreationDate") + _text(ds, "InstanceCreationTime"))
    return Statement(
        status=_status(ds),
        names=tuple(dict.fromkeys(f"sr\x1f{each}" for each in (uid, *others) if each)),
        number=uid,
        effective=max(verified, default="") or written or made,
        sent=made or written,
        study_uids=tuple(dict.fromkeys(filter(None, uids))),
        accession_numbers=tuple(dict.fromkeys(filter(None, accessions))),
        study_ids=tuple(filter(None, [_text(ds, "StudyID")])),
        patient_ids=tuple(filter(None, [_text(ds, "PatientID")])),
        study_date=_moment(_text(ds, "StudyDate"))[:10],
    )


def _status(ds: Dataset) -> ReportStatus:
    """Return how far along a document is (PS3.3 C.17.2): what it calls itself, else whether anybody verified it."""
    flag = _text(ds, "PreliminaryFlag")
    unverified = _text(ds, "VerificationFlag") == "UNVERIFIED" and flag != "FINAL"
    unfinished = flag == "PRELIMINARY" or _text(ds, "CompletionFlag") == "PARTIAL" or unverified
    return ReportStatus.PRELIMINARY if unfinished else ReportStatus.FINAL


def _referenced(ds: Dataset, keyword: str) -> Iterator[str]:
    """Yield the SOPInstanceUIDs of a hierarchical reference macro (PS3.3 C.17-3)."""
    for study in _items(ds, keyword):
        for series in _items(study, "ReferencedSeriesSequence"):
            for instance in _items(series, "ReferencedSOPSequence"):
                if uid := _uid(instance, "ReferencedSOPInstanceUID"):
                    yield uid


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    value: Any = ds.get(keyword, None)
    return list(value) if isinstance(value, pydicom.Sequence) else []


def _concept(ds: Dataset, keyword: str) -> tuple[str, str]:
    """Return (code value, meaning) of the first code in a sequence, both "" where there is none."""
    for item in _items(ds, keyword):
        code = _text(item, "CodeValue") or _text(item, "LongCodeValue") or _text(item, "URNCodeValue")
        return code, _text(item, "CodeMeaning")
    return "", ""


def _text(ds: Dataset, keyword: str) -> str:
    value: Any = ds.get(keyword, None)
    if value is None or isinstance(value, bytes | pydicom.Sequence):
        return ""
    if isinstance(value, pydicom.multival.MultiValue):
        value = next(iter(value), "")
    return str(value).strip("\0 ")


def _uid(ds: Dataset, keyword: str) -> str:
    value = _text(ds, keyword)
    return value if _UID.fullmatch(value) else ""


def _moment(value: str) -> str:
    """Return a DT value, or a DA and a TM one after the other, as a statement writes it."""
    date = _DATE.match(value)
    if not date:
        return ""
    time = _TIME.match(value[date.end() :])
    hour, minute, second = (int(part) if part else 0 for part in time.groups()[:3]) if time else (0, 0, 0)
    micro = int((time[4] or "").ljust(6, "0")) if time else 0
    zone = re.search(r"[+-]\d{4}$", value)
    year, month, day = (int(part) for part in date.groups())
    return iso(year, month, day, hour, minute, second, micro, zone=zone[0] if zone else "")
