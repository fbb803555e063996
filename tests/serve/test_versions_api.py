"""Versions of reports under /api: which one is searched, the text of any, reports that were withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import messages_made as made
import pytest
from makers import uid, write_department
from servers import Local, local_server

from medsearch_desktop.library import open_library

FIRST, SECOND = uid(1, 1), uid(1, 2)
ODD = "N/1/versions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("versions")
    source = write_department(folder / "source", studies=3, size=32)
    for name, words, status, hour in (
        ("1", "IMPRESSION: Perhaps an effusion.", "P", 10),
        ("2", "IMPRESSION: Left effusion.", "F", 11),
        ("3", "IMPRESSION: Right effusion.", "C", 12),
    ):
        (source / f"{name}.hl7").write_bytes(made.hl7(words, status=status, changed=f"20240315{hour}0000"))
    (source / "4.hl7").write_bytes(made.hl7("IMPRESSION: Wrong patient.", filler="A00002"))
    (source / "5.hl7").write_bytes(made.hl7(status="X", filler="A00002", changed="20240316100000"))
    # States the accession number of the third study, and another patient.
    (source / "6.hl7").write_bytes(made.hl7(status="X", filler="A00003", patient="P0999"))
    (source / "7.hl7").write_bytes(made.hl7("IMPRESSION: Odd number.", filler=ODD, patient="P0777"))
    with open_library(folder / "library", create=True) as library:
        library.ingest([source], metadata_only=True)
        with local_server(library) as local:
            yield local


def get(server: Local, path: str, status: int = 200) -> Any:
    answer = server.client.get(f"/api{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def test_every_version_is_listed_and_its_text_given_when_asked_for(server: Local) -> None:
    told = get(server, "/reports/A00001/versions")
    assert told["report_id"] == "A00001"
    assert [(each["status"], each["is_current"], each["effective"]) for each in told["versions"]] == [
        ("preliminary", False, "2024-03-15T10:00:00"),
        ("final", False, "2024-03-15T11:00:00"),
        ("corrected", True, "2024-03-15T12:00:00"),
    ]
    assert all("text" not in each for each in told["versions"])
    first = told["versions"][0]
    whole = get(server, f"/reports/A00001/versions/{first['version_no']}")
    assert "Perhaps" in whole["text"]
    assert whole == {**first, "report_id": "A00001", "text": whole["text"]}
    assert first["characters"] == len(whole["text"])
    assert Path(first["path"]).name == "1.hl7"


def test_a_study_says_how_far_along_its_reports_are(server: Local) -> None:
    by_name = {report["report_id"]: report["version"] for report in get(server, f"/studies/{FIRST}")["reports"]}
    assert by_name["A00001"] == {
        "report_id": "A00001", "status": "corrected", "effective": "2024-03-15T12:00:00", "versions": 3,
    }  # fmt: skip
    assert by_name["s50000001"] is None
    assert get(server, "/reports/A00001")["version"]["versions"] == 3
    assert get(server, f"/studies/{FIRST}")["withdrawn"] == []


def test_a_report_that_was_withdrawn_is_told_of_where_it_was(server: Local) -> None:
    assert get(server, f"/studies/{SECOND}")["withdrawn"] == [
        {"report_id": "A00002", "status": "cancelled", "effective": "2024-03-16T10:00:00", "versions": 2}
    ]
    get(server, "/reports/A00002", 404)
    versions = get(server, "/reports/A00002/versions")["versions"]
    assert [(each["status"], each["is_current"]) for each in versions] == [("final", False), ("cancelled", False)]
    assert "Wrong patient" in get(server, f"/reports/A00002/versions/{versions[0]['version_no']}")["text"]
    assert get(server, f"/reports/A00002/versions/{versions[1]['version_no']}")["text"] == ""


def test_a_withdrawn_report_of_another_patient_is_none_of_the_study(server: Local) -> None:
    assert get(server, "/reports/A00003/versions")["versions"]
    assert get(server, f"/studies/{uid(2, 3)}")["withdrawn"] == []


def test_what_is_not_there_is_told(server: Local) -> None:
    assert get(server, "/reports/s50000001/versions") == {"report_id": "s50000001", "versions": []}
    get(server, "/reports/nothing/versions", 404)
    get(server, "/reports/A00001/versions/999999", 404)
    get(server, "/reports/A00001/versions/x", 422)
    get(server, f"/reports/A00001/versions/{1 << 70}", 422)
    # A version of another report is none of this.
    number = get(server, "/reports/A00002/versions")["versions"][0]["version_no"]
    get(server, f"/reports/A00001/versions/{number}", 404)


def test_an_odd_number_of_a_report_is_no_matter(server: Local) -> None:
    (only,) = get(server, f"/reports/{quote(ODD, safe='')}/versions")["versions"]
    assert "Odd number" in get(server, f"/reports/{quote(ODD, safe='')}/versions/{only['version_no']}")["text"]
