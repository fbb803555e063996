"""FHIR DiagnosticReport resources to reports: alone, in Bundles, and one a line (NDJSON).

Source: HL7 FHIR R4 and R5, DiagnosticReport. Only JSON; whatever is of an unexpected type counts as left out,
so extensions and later releases do no harm.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.composing import Composer, heading_of
from medsearch_desktop.report.markup import without_markup
from medsearch_desktop.report.times import from_iso
from medsearch_desktop.statements import ReportStatus, Statement, Written

# Other resources are no reports; with sorted keys the type comes late.
_MARK = re.compile(
    rb'(?:\xef\xbb\xbf)?\s{0,64}(?:\[\s{0,64})?\{.{0,4000}?"(?:resourceType"\s*:\s*"(?:DiagnosticReport|Bundle)"|presentedForm"|conclusionCode")',
    re.DOTALL,
)
Attached = Callable[[bytes, str], str]

# Reading takes some sixty bytes a bracket, however little is between.
_MOST_BRACKETS = 2_000_000
_MOST_RESOURCES = 200_000
_STATUS = {
    "final": ReportStatus.FINAL,
    "amended": ReportStatus.CORRECTED,
    "corrected": ReportStatus.CORRECTED,
    "appended": ReportStatus.CORRECTED,
    "cancelled": ReportStatus.CANCELLED,
    "entered-in-error": ReportStatus.CANCELLED,
}
# Forms of one report that are said to be equivalent, the plainest first.
_FORMS = ("text/plain", "text/html", "text/rtf", "application/rtf", "application/pdf")
_UID = re.compile(r"(?:urn:oid:)?([0-2](?:\.(?:0|[1-9]\d*)){3,})")
_REMEDY = "Export the report again"

_Object = dict[str, Any]


def is_fhir(head: bytes) -> bool:
    """Whether a file that begins so is FHIR that may hold reports."""
    return _MARK.match(_as_utf_8(head)) is not None


def _as_utf_8(data: bytes) -> bytes:
    """Return what is UTF-16, as some shells write what they fetch, as JSON has to be, and the rest as it is."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data[: len(data) // 2 * 2].decode("utf-16", "replace").encode("utf-8", "replace")
    return data


def read_fhir(data: bytes, *, name: str, max_characters: int, attached: Attached) -> Iterator[Written | ReportError]:
    """Yield the reports of a FHIR file, and an error in the place of each that has no text.

    `attached` reads presented forms (PDF, RTF, HTML). Positions count from 0 over the whole file.
    Raises ReportError when the file is no JSON or too much of it.
    """
    data = _as_utf_8(data)
    resources: list[_Object] = []
    for found in _resources(data, name=name):
        if isinstance(found, ReportError):
            yield found
        else:
            resources.append(found)
    by_reference = _by_reference(resources)
    position = 0
    reports = [resource for resource in resources if resource.get("resourceType") == "DiagnosticReport"]
    if not reports:
        yield ReportError("holds no DiagnosticReport", item=name, remedy="Other resources are no reports here")
    for number, report in enumerate(reports, start=1):
        item = name if len(reports) == 1 else f"{name}, report {number}"
        try:
            written, problem = _report(
                report, by_reference, item=item, max_characters=max_characters, attached=attached
            )
        except ReportError as error:
            yield error
            continue
        assert written.stated is not None
        yield replace(written, stated=replace(written.stated, position=position))
        position += 1
        if problem is not None:
            # The rest of the report is kept.
            yield problem


def _resources(data: bytes, *, name: str) -> Iterator[_Object | ReportError]:
    if data.count(b"[") + data.count(b"{") > _MOST_BRACKETS:
        raise ReportError(
            f"holds more than {_MOST_BRACKETS} objects", item=name, remedy="Export it as several files, or as NDJSON"
        )
    found = 0
    for value in _values(data, name=name):
        waiting = value[::-1] if isinstance(value, list) else [value]
        while waiting:
            resource = waiting.pop()
            if not isinstance(resource, dict | ReportError):
                continue
            found += 1
            if found > _MOST_RESOURCES:
                raise ReportError(
                    f"holds more than {_MOST_RESOURCES} resources", item=name, remedy="Export it as several files"
                )
            if isinstance(resource, ReportError):
                yield resource
            elif resource.get("resourceType") == "Bundle":
                entries = _objects(resource, "entry")
                inside = [entry["resource"] for entry in entries if isinstance(entry.get("resource"), dict)]
                for entry in entries:
                    if isinstance(entry.get("resource"), dict) and isinstance(entry.get("fullUrl"), str):
                        entry["resource"]["\0fullUrl"] = entry["fullUrl"]
                # A history begins with the newest version, and of versions of one time the last counts.
                waiting.extend(inside if resource.get("type") == "history" else reversed(inside))
            else:
                yield resource


def _values(data: bytes, *, name: str) -> Iterator[Any]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReportError("is not UTF-8, as JSON has to be", item=name, remedy=_REMEDY) from error
    try:
        yield json.loads(text)
        return
    except RecursionError as error:
        raise ReportError("is nested too deeply", item=name, remedy=_REMEDY) from error
    except ValueError as error:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2 or not lines[0].rstrip().endswith("}"):
            raise ReportError("is no sound JSON", item=name, remedy=_REMEDY) from error
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = ReportError("is no sound JSON", item=f"{name}, line {number}", remedy=_REMEDY)
            problem.__cause__ = error
            yield problem


def _by_reference(resources: list[_Object]) -> dict[str, _Object]:
    found: dict[str, _Object] = {}
    for resource in resources:
        kind, identity = resource.get("resourceType"), resource.get("id")
        if isinstance(kind, str) and isinstance(identity, str):
            found[f"{kind}/{identity}"] = resource
        if isinstance(url := resource.get("\0fullUrl"), str):
            found[url] = resource
    return found


def _report(
    report: _Object, by_reference: dict[str, _Object], *, item: str, max_characters: int, attached: Attached
) -> tuple[Written, ReportError | None]:
    """Return a report, and what could not be read of it."""
    contained = {f"#{each['id']}": each for each in _objects(report, "contained") if isinstance(each.get("id"), str)}

    def resolve(reference: Any) -> _Object:
        if not isinstance(reference, dict) or not isinstance(name := reference.get("reference"), str):
            return {}
        if name in contained:
            return contained[name]
        # An address may have a server before it and a version behind.
        plain = name.split("/_history/")[0]
        return by_reference.get(plain) or by_reference.get("/".join(plain.split("/")[-2:])) or {}

    stated = _stated(report, resolve)
    composer = Composer(limit=max_characters)
    text, problem, elsewhere = _presented(report, attached, resolve, item=item)
    composer.add(text)
    if not text:
        seen: set[int] = set()
        for reference in _objects(report, "result"):
            _observe(resolve(reference), composer, resolve, seen)
    so_far = _squeezed(composer.text())
    conclusion = _text(report, "conclusion")
    if not so_far and not conclusion and isinstance(narrative := report.get("text"), dict):
        # Codes alone say less than what somebody wrote.
        composer.add(without_markup(_text(narrative, "div")))
        so_far = _squeezed(composer.text())
    for words in (conclusion, *(_concept(each) for each in _objects(report, "conclusionCode"))):
        if words and _squeezed(words) not in so_far:
            composer.add(without_markup(words), heading="IMPRESSION")
    for note in _objects(report, "note"):
        composer.add(_text(note, "text"))
    if composer.is_full:
        raise ReportError(
            f"holds more than {max_characters} characters of text",
            item=item,
            remedy="Raise the setting max_report_bytes",
        )
    whole = composer.text()
    if not whole.strip() and stated.status is not ReportStatus.CANCELLED:
        raise problem or elsewhere or ReportError("holds no text of a report", item=item, remedy=_REMEDY)
    return Written(whole, "utf-8", stated), problem


def _presented(
    report: _Object, attached: Attached, resolve: Callable[[Any], _Object], *, item: str
) -> tuple[str, ReportError | None, ReportError | None]:
    """Return the text of the plainest form that can be read, what is wrong with the others, and if one is elsewhere."""
    forms = [_with_data(form, resolve) for form in _objects(report, "presentedForm")]
    kinds = [_text(form, "contentType").split(";")[0].strip().lower() for form in forms]
    order = sorted(range(len(forms)), key=lambda n: _FORMS.index(kinds[n]) if kinds[n] in _FORMS else len(_FORMS))
    problem: ReportError | None = None
    elsewhere: ReportError | None = None
    for n in order:
        encoded = _text(forms[n], "data")
        if not encoded:
            if _text(forms[n], "url"):
                elsewhere = ReportError(
                    "names an address for its text, from which nothing is fetched here",
                    item=item,
                    remedy="Export reports with their presentedForm inside",
                )
            continue
        try:
            text = attached(base64.b64decode("".join(encoded.split()), validate=True), item)
        except (binascii.Error, ValueError):
            problem = ReportError("has a presentedForm that is no sound base64", item=item, remedy=_REMEDY)
            continue
        except ReportError as error:
            problem = error
            continue
        if text.strip():
            return text, None, None
    return "", problem, elsewhere


def _with_data(form: _Object, resolve: Callable[[Any], _Object]) -> _Object:
    """Return a form with its content where that is a Binary of the same Bundle, which its address names."""
    binary = {} if _text(form, "data") else resolve({"reference": _text(form, "url")})
    return {**form, **binary} if binary.get("resourceType") == "Binary" else form


def _observe(
    observation: _Object, composer: Composer, resolve: Callable[[Any], _Object], seen: set[int], *, depth: int = 0
) -> None:
    # Once each: members that name each other would go on for ever.
    if id(observation) in seen or observation.get("status") in ("cancelled", "entered-in-error"):
        return
    seen.add(id(observation))
    code = observation.get("code") if isinstance(observation.get("code"), dict) else {}
    assert isinstance(code, dict)
    label = _concept(code)
    codes = [_text(each, "code") for each in _objects(code, "coding")]
    heading = next(filter(None, (heading_of(each, "") for each in codes)), "") or heading_of("", label)
    for part in (observation, *_objects(observation, "component")):
        own = _concept(part["code"]) if part is not observation and isinstance(part.get("code"), dict) else label
        if said := _value(part):
            is_text = isinstance(part.get("valueString"), str)
            composer.add(said if heading or is_text or not own else f"{own}: {said}", heading=heading)
    for note in _objects(observation, "note"):
        composer.add(_text(note, "text"), heading=heading)
    if depth < 4:
        for member in _objects(observation, "hasMember"):
            _observe(resolve(member), composer, resolve, seen, depth=depth + 1)


def _value(part: _Object) -> str:
    for key, value in part.items():
        if not key.startswith("value"):
            continue
        if key in ("valueString", "valueDateTime", "valueTime", "valueMarkdown") and isinstance(value, str):
            return value
        if key == "valueCodeableConcept" and isinstance(value, dict):
            return _concept(value)
        if key == "valueQuantity" and isinstance(value, dict):
            number = value.get("value")
            known = isinstance(number, int | float) and not isinstance(number, bool)
            return (
                " ".join(filter(None, (_text(value, "comparator"), str(number), _text(value, "unit")))) if known else ""
            )
        if key == "valueBoolean" and isinstance(value, bool):
            return "yes" if value else "no"
        if key == "valueInteger" and isinstance(value, int):
            return str(value)
    return ""


def _stated(report: _Object, resolve: Callable[[Any], _Object]) -> Statement:
    subject = report.get("subject")
    patient = resolve(subject)
    patients = [_text(each, "value") for each in _objects(patient, "identifier")]
    reference = ""
    if isinstance(subject, dict):
        reference = _text(subject, "reference")
        if isinstance(identifier := subject.get("identifier"), dict):
            patients.insert(0, _text(identifier, "value"))
    uids: list[str] = []
    accessions: list[str] = []
    started = ""
    requests = [resolve(each) or each for each in _objects(report, "basedOn")]
    studies = [resolve(each) or each for key in ("imagingStudy", "study") for each in _objects(report, key)]
    for resource in (*studies, report, *requests):
        started = started or _text(resource, "started")
        identifiers = _objects(resource, "identifier")
        if isinstance(single := resource.get("identifier"), dict):
            identifiers = [single]
        for identifier in identifiers:
            value = _text(identifier, "value").strip()
            if match := _UID.fullmatch(value):
                uids.append(match[1])
            elif value:
                accessions.append(value)
        if match := _UID.fullmatch(_text(resource, "uid").strip()):
            uids.append(match[1])
    own = [each for each in _objects(report, "identifier") if _text(each, "value").strip()]
    # Several reports may be of one order.
    telling = [each for each in own if not _is_of_the_order(each)] or ([] if _text(report, "id") else own)
    names = ["\x1f".join(("fhir", _text(each, "system"), _text(each, "value").strip())) for each in telling]
    if not names and (identity := _text(report, "id")):
        # Servers count; with the patient it is as good as one's own.
        names = ["\x1f".join(("fhir", "id", identity, reference, *patients[:1]))]
    meta = report.get("meta")
    updated = _text(meta, "lastUpdated") if isinstance(meta, dict) else ""
    period = report.get("effectivePeriod")
    when = _text(report, "effectiveDateTime") or (_text(period, "end") if isinstance(period, dict) else "")
    began = when or (_text(period, "start") if isinstance(period, dict) else "") or started
    return Statement(
        status=_STATUS.get(_text(report, "status"), ReportStatus.PRELIMINARY),
        names=tuple(name.casefold() for name in names),
        number=_text(own[0], "value").strip() if own else _text(report, "id"),
        effective=from_iso(_text(report, "issued")) or from_iso(updated) or from_iso(when),
        sent=from_iso(updated),
        study_uids=tuple(dict.fromkeys(uids)),
        accession_numbers=tuple(dict.fromkeys(accessions)),
        patient_ids=tuple(dict.fromkeys(filter(None, patients))),
        study_date=from_iso(began[:10])[:10],
    )


def _is_of_the_order(identifier: _Object) -> bool:
    """Whether an identifier is an accession or a placer's number (HL7 table 0203)."""
    return any(_text(each, "code") in ("ACSN", "PLAC") for each in _objects(identifier.get("type"), "coding"))


def _concept(concept: _Object) -> str:
    """Return the words of a CodeableConcept."""
    codings = _objects(concept, "coding")
    return _text(concept, "text") or next(filter(None, (_text(each, "display") for each in codings)), "")


def _objects(value: Any, key: str) -> list[_Object]:
    found = value.get(key) if isinstance(value, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _text(value: Any, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _squeezed(text: str) -> str:
    return " ".join(text.split()).casefold()
