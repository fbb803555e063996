"""FHIR resources to reports: forms, conclusions, observations, bundles, who is meant, and hostile JSON."""

from __future__ import annotations

import json
from typing import Any

import messages_made as made
import pytest

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.documents import Limits, read_documents
from medsearch_desktop.statements import Statement, Written

LIMITS = Limits(report=1_000_000, file=30_000_000)


def read(data: bytes | dict[str, Any], name: str = "r.json") -> list[Written | ReportError]:
    data = data if isinstance(data, bytes) else made.as_bytes(data)
    return list(read_documents(data, name=name, limits=LIMITS))


def only(data: bytes | dict[str, Any]) -> Written:
    (found,) = read(data)
    assert isinstance(found, Written)
    return found


def stated(data: dict[str, Any]) -> Statement:
    found = only(data).stated
    assert found is not None
    return found


FORMS = {
    "text/plain": b"IMPRESSION: Effusion.",
    "text/html": b"<div><p>IMPRESSION: Effusion.</p></div>",
    "text/rtf": rb"{\rtf1 IMPRESSION: Effusion.\par}",
    "application/pdf": made.pdf("IMPRESSION: Effusion."),
    "": b"IMPRESSION: Effusion.",
}


@pytest.mark.parametrize("kind", FORMS)
def test_every_form(kind: str) -> None:
    report = made.diagnostic_report(presentedForm=[made.presented(kind, FORMS[kind])])
    assert only(report).text.strip() == "IMPRESSION: Effusion."


def test_the_plainest_form_that_can_be_read_counts_once() -> None:
    forms = [made.presented("application/pdf", made.pdf("Of the PDF.")), made.presented("text/plain", b"Of the text.")]
    assert only(made.diagnostic_report(presentedForm=forms)).text == "Of the text."
    forms[1]["data"] = "no base64 at all!"
    assert only(made.diagnostic_report(presentedForm=forms)).text.strip() == "Of the PDF."


def test_a_conclusion_is_the_impression_unless_the_text_has_it() -> None:
    coded = [{"coding": [{"code": "J90", "display": "Pleural effusion"}]}]
    assert only(made.diagnostic_report("FINDINGS: Fluid.", conclusion="Left effusion.")).text == (
        "FINDINGS: Fluid.\n\nIMPRESSION: Left effusion."
    )
    report = made.diagnostic_report(
        "A left  EFFUSION. Pleural effusion.", conclusion="left effusion.", conclusionCode=coded
    )
    assert only(report).text == "A left  EFFUSION. Pleural effusion."
    assert only(made.diagnostic_report(conclusionCode=coded)).text == "IMPRESSION: Pleural effusion"


def observation(identity: str, code: str, name: str, **value: Any) -> dict[str, Any]:
    coding = {"text": name, "coding": [{"system": "http://loinc.org", "code": code}]}
    return {"resourceType": "Observation", "id": identity, "status": "final", "code": coding, **value}


def test_observations_of_the_bundle_and_those_contained() -> None:
    report = made.diagnostic_report(
        result=[
            {"reference": "Observation/a"},
            {"reference": "#b"},
            {"reference": "http://x/Observation/c/_history/2"},
        ],
        contained=[observation("b", "59776-5", "Findings", valueString="Clear lungs.")],
    )
    members = observation("c", "1", "Sizes", hasMember=[{"reference": "Observation/d"}, {"reference": "Observation/c"}])
    found = only(
        made.bundle(
            report,
            observation("a", "18785-6", "Reason", valueCodeableConcept={"text": "Cough"}),
            members,
            observation("d", "2", "Nodule", valueQuantity={"value": 12, "unit": "mm", "comparator": "<"}),
            {**observation("e", "2", "Other", valueString="Not of this report.")},
        )
    )
    assert found.text == "INDICATION: Cough\n\nFINDINGS: Clear lungs.\nNodule: < 12 mm"


def test_the_narrative_counts_where_there_is_nothing_else() -> None:
    report = made.diagnostic_report(text={"status": "generated", "div": "<div xmlns='x'><p>Effusion.</p></div>"})
    assert only(report).text == "Effusion."


def test_who_what_and_when() -> None:
    study = {
        "resourceType": "ImagingStudy",
        "id": "s",
        "started": "2024-03-14",
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4.5"}, {"value": "ACC1"}],
    }
    patient = {"resourceType": "Patient", "id": "p1", "identifier": [{"value": "MRN7"}]}
    report = made.diagnostic_report(
        "Text.",
        study=[{"reference": "ImagingStudy/s"}],
        basedOn=[{"identifier": {"value": "ORD9"}}],
        extension=[{"url": "http://x", "valueString": "ignored", "identifier": 7}],
    )
    found = stated(made.bundle(report, study, patient))
    assert found.study_uids == ("1.2.3.4.5",)
    assert found.accession_numbers == ("ACC1", "A00001", "ORD9")
    assert found.patient_ids == ("P0001", "MRN7")
    assert (found.effective, found.study_date) == ("2024-03-15T09:10:00", "2024-03-15")
    assert (found.status, found.number) == ("final", "A00001")
    assert found.names == ("fhir\x1furn:ris\x1fa00001",)


def test_the_number_of_an_order_names_no_report() -> None:
    accession = {"value": "ACC1", "type": {"coding": [{"code": "ACSN"}]}}
    own = {"system": "urn:ris", "value": "R1"}
    assert stated(made.diagnostic_report("Text.", identifier=[accession, own])).names == ("fhir\x1furn:ris\x1fr1",)
    found = stated(made.diagnostic_report("Text.", identifier=[accession]))
    assert (found.names, found.accession_numbers) == (("fhir\x1fid\x1fr-a00001\x1fpatient/p1\x1fp0001",), ("ACC1",))


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ("registered", "preliminary"),
        ("partial", "preliminary"),
        ("preliminary", "preliminary"),
        ("modified", "preliminary"),
        ("final", "final"),
        ("amended", "corrected"),
        ("corrected", "corrected"),
        ("appended", "corrected"),
        ("cancelled", "cancelled"),
        ("entered-in-error", "cancelled"),
        ("unknown", "preliminary"),
    ],
)
def test_statuses(status: str, found: str) -> None:
    assert stated(made.diagnostic_report("Text.", status=status)).status == found


def test_bundles_in_bundles_and_lines() -> None:
    one, two = made.diagnostic_report("One.", number="1"), made.diagnostic_report("Two.", number="2")
    nested = made.bundle(made.bundle(one), two)
    lines = b"\n".join(map(made.as_bytes, (one, two))) + b"\n"
    for data in (made.as_bytes(nested), lines, b"\xef\xbb\xbf" + lines, json.dumps(nested, indent=1).encode()):
        found = read(data)
        assert [(each.text, each.stated.position) for each in found] == [("One.", 0), ("Two.", 1)]


def test_keys_in_the_order_of_the_alphabet() -> None:
    data = json.dumps(made.diagnostic_report("Text.", conclusion="x" * 3000), sort_keys=True).encode()
    assert only(data).text.startswith("Text.")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"resourceType": "Bundle", "entry": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deeply"),
        (b'{"resourceType": "Bundle", "entry": ' + b'{"a":' * 10_000, "nested too deeply"),
        (b'{"resourceType": "Bundle", "entry": [' + b"[]," * 2_100_000 + b"[]]}", "more than 2000000 objects"),
        (b'{"resourceType": "DiagnosticReport", ', "no sound JSON"),
        (b'{"resourceType": "DiagnosticReport"}\n{"resource\n', "no sound JSON"),
        (b'{"resourceType": "DiagnosticReport", "x": "\xff"}', "UTF-8"),
        (b'{"resourceType": "Bundle", "entry": 7}', "no DiagnosticReport"),
        (b'{"resourceType": "DiagnosticReport", "status": 5, "presentedForm": {"data": []}}', "no text"),
        (made.as_bytes(made.diagnostic_report(presentedForm=[{"url": "http://x/1"}])), "address"),
        (made.as_bytes(made.diagnostic_report(presentedForm=[{"data": "%%"}])), "base64"),
        (made.as_bytes(made.diagnostic_report(presentedForm=[made.presented("", made.scanned_pdf())])), "text layer"),
        (
            made.as_bytes(made.diagnostic_report(presentedForm=[made.presented("", b"x" * 1_000_001)])),
            "max_report_bytes",
        ),
    ],
    ids=range(12),
)
def test_what_cannot_be_read_says_why(data: bytes, words: str) -> None:
    with pytest.raises(ReportError) as caught:
        raise next(found for found in read(data) if isinstance(found, ReportError))
    assert words in str(caught.value)
    assert "r.json" in caught.value.item


def test_members_that_name_each_other_without_end() -> None:
    names = [f"o{n}" for n in range(300)]
    members = [{"reference": f"Observation/{name}"} for name in names]
    many = [observation(name, "1", "x", hasMember=members) for name in names]
    assert isinstance(read(made.bundle(made.diagnostic_report(result=members), *many))[0], ReportError)


def test_types_that_are_not_meant_count_as_left_out() -> None:
    for wrong in (None, 7, "x", [], {}, [None], [[]], [{"reference": 5}], {"reference": []}, [{"identifier": "x"}]):
        report = made.diagnostic_report("Text.")
        for key in (
            "subject",
            "identifier",
            "issued",
            "imagingStudy",
            "basedOn",
            "result",
            "note",
            "text",
            "meta",
            "contained",
        ):
            assert only({**report, key: wrong}).text.startswith("Text.")
