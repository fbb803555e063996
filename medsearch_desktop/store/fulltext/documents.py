"""Documents as the full-text index holds them: words, keywords, columns, and what is said of each finding.

For each name and code in a report (and each category above the code) the index holds one standing:
present before uncertain before absent when mentions disagree. Historical, family and hypothetical
mentions are held beside it and have no part in it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import tantivy

from medsearch_desktop.store.fulltext.fields import SECTIONS, code_key, keyword_key, name_key

_LAST_DAY = date.max.toordinal()


def standing(assertions: Iterable[str]) -> str | None:
    """Return what a document says on the whole: present before uncertain before absent, or None."""
    said = set(assertions)
    return next((state for state in ("present", "uncertain", "absent") if state in said), None)


def _states(entities: Sequence[tuple[str, str, str, str, str, str]]) -> Iterator[str]:
    said: dict[str, set[str]] = {}
    for icd10cm, title, finding, assertion, _, text in entities:
        keys = {name_key(text), name_key(finding.replace("_", " ")), name_key(title)}
        # ICD-10-CM titles put the plain name first: "Pleural effusion, not elsewhere classified".
        keys.add(name_key(title.partition(",")[0]))
        whole = code_key(icd10cm)
        keys.update(whole[:length] for length in range(4, len(whole) + 1))
        for key in keys - {""}:
            said.setdefault(key, set()).add(assertion)
    for key, assertions in said.items():
        yield f"mentioned|{key}"
        state = standing(assertions)
        if state is not None:
            yield f"{state}|{key}"
        for other in ("historical", "family", "hypothetical"):
            if other in assertions:
                yield f"{other}|{key}"


def _counted(entities: Sequence[tuple[str, str, str, str, str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the standing of each code (with its title) and of each finding, as the facets count them."""
    codes: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    findings: dict[str, list[str]] = {}
    for icd10cm, title, finding, assertion, _, _ in entities:
        if icd10cm:
            codes.setdefault(icd10cm, []).append(assertion)
            titles.setdefault(icd10cm, title)
        if finding:
            findings.setdefault(finding, []).append(assertion)
    for code, assertions in codes.items():
        if (state := standing(assertions)) is not None:
            yield "codes", f"{state}\t{code}\t{titles[code]}"
    for finding, assertions in findings.items():
        if (state := standing(assertions)) is not None:
            yield "findings_14", f"{state}\t{finding}"


def index_document(document: Mapping[str, Any]) -> tantivy.Document:
    """Return what the index holds of a document, given as `FulltextIndex.update` takes it."""
    made = tantivy.Document()
    doc_no: int = document["doc_no"]
    made.add_integer("doc_no", doc_no)
    made.add_bytes("card", document.get("card", b""))
    study_date: date | None = document["study_date"]
    age: float | None = document["patient_age"]
    text: str = document["text"]
    entities = document["entities"]

    texts = [("text", text if document["report_id"] is not None else document["study_description"])]
    for name, start, end in document["sections"]:
        if name.lower() in SECTIONS:
            texts.append((name.lower(), text[start:end]))
    texts.append(("description", document["study_description"]))
    texts.extend(("manufacturer", name) for name in document["manufacturers"])
    for field, value in texts:
        if value:
            composed = unicodedata.normalize("NFC", value)
            made.add_text(field, composed)
            made.add_text(f"{field}_plain", composed)

    has = {
        "REPORT": document["report_id"] is not None,
        "IMAGE": document["image_count"] > 0,
        "LABEL": bool(document["labels"]),
        "FINDING": bool(entities),
        "DATE": study_date is not None,
        "AGE": age is not None,
    }
    keywords: list[tuple[str, Iterable[str | None]]] = [
        ("modality", document["modalities"]),
        ("view", document["view_positions"]),
        ("body", document["body_parts"]),
        ("laterality", document["lateralities"]),
        ("sex", [document["patient_sex"]]),
        ("patient", [document["patient_id"]]),
        ("accession", [document["accession_number"]]),
        ("study_id", [document["study_id"]]),
        ("study_uid", [document["study_uid"]]),
        ("report", [document["report_id"]]),
        ("label_key", document["labels"]),
        ("has", [name for name, there in has.items() if there]),
    ]
    for field, values in keywords:
        for key in dict.fromkeys(keyword_key(value) for value in values if value):
            if key:
                made.add_text(field, key)
    for label in dict.fromkeys(document["labels"]):
        made.add_text("label", label)
    for field, token in _counted(entities):
        made.add_text(field, token)
    made.add_text("states", " ".join(_states(entities)))

    if age is not None:
        made.add_float("age", float(age))
        made.add_text("decade", f"{int(age) // 10 * 10}-{int(age) // 10 * 10 + 9}")
    day = study_date.toordinal() if study_date is not None else 0
    if study_date is not None:
        made.add_integer("day", day)
        made.add_text("year", f"{study_date.year:04d}")
    # Each order is one ascending column in which no two documents are equal; without a date comes last.
    newest = (_LAST_DAY - day) << 40 | doc_no
    made.add_integer("by_date", newest)
    made.add_integer("by_oldest", (day or _LAST_DAY + 1) << 40 | doc_no)
    patient = keyword_key(document["patient_id"] or "") or "\U0010ffff"
    made.add_text("by_patient", f"{patient}\0{newest:020d}")
    return made
