"""Reports as XML are told as such, and how else to export them: not passed over, and no text with tags in it."""

from __future__ import annotations

import pytest

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.documents import Limits, is_document, read_documents

LIMITS = Limits(report=10_000, file=1_000_000)
XML = b'<?xml version="1.0" encoding="UTF-8"?>\n'
FORMS = {
    b'<DiagnosticReport xmlns="http://hl7.org/fhir"><status value="final"/></DiagnosticReport>': "FHIR as XML",
    b'<Bundle xmlns="http://hl7.org/fhir"/>': "FHIR as XML",
    b'<ClinicalDocument xmlns:xsi="x" xmlns="urn:hl7-org:v3"><text/></ClinicalDocument>': "Clinical Document",
    b'<cda:ClinicalDocument xmlns:cda="urn:hl7-org:v3"/>': "Clinical Document",
    b'<ORU_R01 xmlns="urn:hl7-org:v2xml"/>': "HL7 version 2 as XML",
}
HEADS = (b"", XML, b"\xef\xbb\xbf" + XML, b"\n" + XML + b"<!-- made by -->\n<?xml-stylesheet href='a.xsl'?>\n")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_told_as_what_it_is(form: bytes, head: bytes) -> None:
    for data in (head + form, (head + form).decode("utf-8-sig").encode("utf-16")):
        assert is_document(data, "r.xml", LIMITS)
        (problem,) = read_documents(data, name="r.xml", limits=LIMITS)
        assert isinstance(problem, ReportError)
        assert FORMS[form] in problem.message
        assert problem.remedy.startswith("Export")


@pytest.mark.parametrize("data", [XML + b"<Bundle/>", XML + b'<svg xmlns="x"/>', b"FINDINGS: <ClinicalDocument>", XML])
def test_other_files_are_none_of_these(data: bytes) -> None:
    assert not is_document(data, "r.xml", LIMITS)
