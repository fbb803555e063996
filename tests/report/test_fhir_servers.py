"""FHIR as servers and scripts export it: bad lines, arrays, UTF-16, XML, histories, forms that cannot be read."""

from __future__ import annotations

import json
from typing import Any

import messages_made as made
import pytest

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.documents import Found, Limits, is_document, read_documents
from medsearch_desktop.statements import Written
from medsearch_desktop.store.versions import choose

LIMITS = Limits(report=100_000, file=10_000_000)
ONE, TWO = made.diagnostic_report("One.", number="1"), made.diagnostic_report("Two.", number="2")


def read(data: bytes | dict[str, Any]) -> list[Found]:
    data = made.as_bytes(data) if isinstance(data, dict) else data
    assert is_document(data[:4096], "r.json", LIMITS)
    return list(read_documents(data, name="r.json", limits=LIMITS))


def told(data: bytes | dict[str, Any]) -> list[str]:
    return [f"! {each}" if isinstance(each, ReportError) else each.text for each in read(data)]


@pytest.mark.parametrize("bad", [b"{bad", b'{"resourceType": "DiagnosticReport", "status": "fi', b"[" * 100_000])
@pytest.mark.parametrize("place", [1, 2])
def test_a_bad_line_takes_no_other_along(bad: bytes, place: int) -> None:
    lines = [made.as_bytes(ONE), made.as_bytes(TWO)]
    lines.insert(place, bad)
    said = f"! r.json, line {place + 1}: is no sound JSON. Export the report again"
    assert told(b"\n".join(lines)) == [said, "One.", "Two."]


def test_an_array_and_what_a_shell_writes() -> None:
    for data in (json.dumps([ONE, TWO]), json.dumps([ONE, TWO], indent=2), f"{json.dumps(ONE)}\r\n{json.dumps(TWO)}"):
        assert told(data.encode()) == ["One.", "Two."]
        assert told(data.encode("utf-16")) == ["One.", "Two."]


def test_of_a_history_the_newest_version_counts() -> None:
    versions = [made.diagnostic_report(f"Version {n}.") for n in (3, 2, 1)]
    found = [each for each in read({**made.bundle(*versions), "type": "history"}) if isinstance(each, Written)]
    rows = [
        {"text": each.text, "version_no": n, **{k: getattr(each.stated, k) for k in ("status", "effective", "sent")}}
        for n, each in enumerate(found)
    ]
    best = choose(rows)
    assert best is not None
    assert best["text"] == "Version 3."


def test_a_history_s_references_are_to_the_newest() -> None:
    def observation(text: str) -> dict[str, Any]:
        return {"resourceType": "Observation", "id": "o1", "status": "final", "valueString": text}

    report = made.diagnostic_report(result=[{"reference": "Observation/o1"}])
    history = {**made.bundle(report, observation("New."), observation("Old.")), "type": "history"}
    assert told(history) == ["New."]


def test_a_form_that_is_a_binary_of_the_bundle() -> None:
    binary = {"resourceType": "Binary", "id": "b1", **made.presented("application/pdf", made.pdf("No effusion."))}
    for url in ("Binary/b1", "https://example.org/fhir/Binary/b1"):
        report = made.diagnostic_report(presentedForm=[{"contentType": "application/pdf", "url": url}])
        assert [each.strip() for each in told(made.bundle(report, binary))] == ["No effusion."]


def test_a_narrative_says_more_than_a_code() -> None:
    narrative = {"status": "generated", "div": "<div><p>FINDINGS: Small effusion on the left.</p></div>"}
    code = [{"text": "Pleural effusion"}]
    report = made.diagnostic_report(text=narrative, conclusionCode=code)
    assert told(report) == ["FINDINGS: Small effusion on the left.\n\nIMPRESSION: Pleural effusion"]
    assert told({**report, "conclusion": "Effusion."}) == ["IMPRESSION: Effusion.\nPleural effusion"]


def test_a_form_that_cannot_be_read_is_told_though_there_is_a_conclusion() -> None:
    scanned = made.presented("application/pdf", made.scanned_pdf())
    text, problem = told(made.diagnostic_report(presentedForm=[scanned], conclusion="Effusion."))
    assert text == "IMPRESSION: Effusion."
    assert "text layer" in problem
    plain = made.presented("text/plain", b"Text.")
    assert told(made.diagnostic_report(presentedForm=[scanned, plain])) == ["Text."]
    # Servers always keep an address; nobody expects it to be followed.
    address = {"contentType": "application/pdf", "url": "https://example.org/1.pdf"}
    assert told(made.diagnostic_report(presentedForm=[address], conclusion="Effusion.")) == ["IMPRESSION: Effusion."]
