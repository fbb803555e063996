"""What the interface takes the server's answers for, against what the server answers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from makers import uid, write_department
from servers import Local, local_server

from medsearch_desktop.library import open_library

RECORDS = Path(__file__).parents[2] / "ui" / "src" / "api" / "records.ts"
FIRST = uid(1, 1, 1)
STUDY = uid(1, 1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("records")
    source = write_department(folder / "source", studies=4)
    (source / "broken.dcm").write_bytes(b"no DICOM at all")
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
        library.label("study", STUDY, "teaching")
        with local_server(library) as local:
            yield local


def interfaces() -> dict[str, set[str]]:
    """The fields that must be there, by interface."""
    text = re.sub(r"/\*.*?\*/", "", RECORDS.read_text("utf-8"), flags=re.DOTALL)
    found = re.findall(r"^export interface (\w+) \{\n(.*?)^\}", text, flags=re.DOTALL | re.MULTILINE)
    return {name: set(re.findall(r"^  (\w+):", body, flags=re.MULTILINE)) for name, body in found}


def answers(server: Local) -> dict[str, Any]:
    """One real answer, or a part of one, for each interface."""

    def get(path: str, **asked: Any) -> Any:
        answer = server.client.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    source = get("/api/sources")["sources"][0]
    job = server.client.post("/api/jobs", json={"paths": [source["path"]]}).json()
    while job["state"] in ("waiting", "running"):
        time.sleep(0.05)
        job = get(f"/api/jobs/{job['job_id']}")
    search = get("/api/search", q="effusion")
    hit = search["hits"][0]
    entity = next(each for each in hit["entities"] if each["alternatives"] and each["attributes"])
    study = get(f"/api/studies/{STUDY}")
    similar = get("/api/similar", image=FIRST)
    failures = get("/api/failures")
    models = get("/api/models")
    return {
        "SearchPage": search,
        "Facets": search["facets"],
        "Facet": search["facets"]["icd10cm"][0],
        "Bucket": search["facets"]["modality"][0],
        "Hit": hit,
        "Share": hit["shares"][0],
        "Entity": entity,
        "Code": entity["alternatives"][0],
        "Attribute": entity["attributes"][0],
        "Completion": get("/api/complete", q="mod")["completions"][0],
        "VisualAnswer": similar,
        "VisualHit": similar["hits"][0],
        "Study": study,
        "StudyImage": study["images"][0],
        "StudySummary": study["others"][0],
        "Label": study["labels"][0],
        "Report": study["reports"][0],
        "SectionSpan": study["reports"][0]["spans"][0],
        "Status": get("/api/status"),
        "Source": source,
        "FailurePage": failures,
        "Failure": failures["failures"][0],
        "Job": job,
        "Progress": job["progress"],
        "ModelList": models,
        "Model": models["models"][0],
    }


def test_the_interface_knows_the_fields_of_every_answer(server: Local) -> None:
    stated, given = interfaces(), answers(server)
    assert stated.keys() == given.keys()
    missing = {name: fields - given[name].keys() for name, fields in stated.items() if fields - given[name].keys()}
    assert missing == {}
    entity = given["Report"]["entities"][0]
    assert stated["Entity"] <= entity.keys()
