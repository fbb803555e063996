"""Documents that hold reports in a form that is not read here: told as such, and how else to export them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from medsearch_desktop.errors import ReportError
from medsearch_desktop.statements import Written

_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}(?:<\?xml[^>]{0,200}>)?(?:\s|<[?!][^>]{0,300}>){0,64}")
# What the root element is, what that is called, and what to do.
_FORMS = (
    (rb"<(?:DiagnosticReport|Bundle)\s[^>]{0,400}http://hl7\.org/fhir", "FHIR as XML", "Export it as JSON"),
    (
        rb"<(?:\w{1,20}:)?ClinicalDocument\s[^>]{0,900}urn:hl7-org:v3",
        "a document of the Clinical Document Architecture",
        "Export the report as text or PDF",
    ),
    (rb"<ORU_R\d\d\s[^>]{0,400}urn:hl7-org:v2xml", "HL7 version 2 as XML", "Export it with vertical bars"),
)
_PATTERNS = tuple((re.compile(pattern), what, remedy) for pattern, what, remedy in _FORMS)


def is_refused(head: bytes) -> bool:
    """Whether a file that begins so is of such a form."""
    return _form_of(head) is not None


def refuse(data: bytes, *, name: str) -> Iterator[Written | ReportError]:
    """Yield the reason why nothing of a file is read."""
    if (form := _form_of(data[:4096])) is not None:
        what, remedy = form
        yield ReportError(f"is {what}, which is not read", item=name, remedy=remedy)


def _form_of(head: bytes) -> tuple[str, str] | None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head[: len(head) // 2 * 2].decode("utf-16", "replace").encode("utf-8", "replace")
    beginning = _BEGINNING.match(head)
    at = beginning.end() if beginning else 0
    return next(((what, remedy) for pattern, what, remedy in _PATTERNS if pattern.match(head, at)), None)
