"""A whole report, and the object that the command line prints."""

from __future__ import annotations

import json

from medsearch_desktop.report.reader import ReportReader, extract_json

TEXT = "INDICATION: Cough.\nFINDINGS: No effusion.\nIMPRESSION: Normal heart size.\nFINDINGS: Nodule."


def test_read_fills_the_record() -> None:
    report = ReportReader().read(TEXT, report_id="a/b.txt", encoding="cp1252")
    assert (report.report_id, report.text, report.encoding) == ("a/b.txt", TEXT, "cp1252")
    assert report.study_uid is None
    assert [section.name for section in report.sections] == ["INDICATION", "FINDINGS", "IMPRESSION", "FINDINGS"]
    assert report.entities


def test_read_many_keeps_the_order() -> None:
    reader = ReportReader()
    reports = list(reader.read_many([("2", "Mass."), ("1", "Nodule.")]))
    assert [(report.report_id, report.entities[0].finding) for report in reports] == [("2", "Mass"), ("1", "Nodule")]


def test_json_is_the_contract() -> None:
    found = json.loads(json.dumps(extract_json(ReportReader().read(TEXT, report_id="r"))))
    assert found["report_id"] == "r"
    assert found["sections"] == {
        "INDICATION": "Cough.",
        "FINDINGS": "No effusion.\nNodule.",
        "IMPRESSION": "Normal heart size.",
    }
    assert found["findings"] == {"present": ["Nodule"], "absent": ["Cardiomegaly", "Effusion"], "uncertain": []}
    effusion = next(entity for entity in found["entities"] if entity["text"] == "effusion")
    expected = {"text", "start", "end", "section", "category", "assertion", "cui", "icd10cm", "title", "score"}
    assert expected | {"alternatives"} <= set(effusion)
    assert (effusion["assertion"], effusion["cue"], effusion["category"]) == ("absent", "No", "Diagnosis")


def test_empty_text_is_a_report_without_anything() -> None:
    assert extract_json(ReportReader().read("", report_id="r")) == {
        "report_id": "r",
        "sections": {},
        "entities": [],
        "findings": {"present": [], "absent": [], "uncertain": []},
        "language": "en",
    }
