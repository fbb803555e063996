"""The description of the interface against what routes really answer: every field is described, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import messages_made as made
import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from makers import register_model, uid, write_department
from serve.test_send import station
from servers import Local, local_server

from medsearch_desktop import errors
from medsearch_desktop.errors import MedSearchError, QueryError
from medsearch_desktop.library import open_library
from medsearch_desktop.sending import Station
from medsearch_desktop.serve.api.openapi import description
from medsearch_desktop.serve.errors import error_json
from medsearch_desktop.serve.security import INTERNAL

KEPT = Path(__file__).parents[2] / "ui" / "openapi.json"
FIRST, STUDY, REPORT = uid(1, 1, 1), uid(1, 1), "s50000001"
JSON = "application/json"


class Description:
    """The description as a judge of answers: an object may hold what is described, and has to hold what is required."""

    def __init__(self, told: dict[str, Any], *, whole: bool = True) -> None:
        self.told = _closed(told, whole=whole)
        self.routes = [
            (method, path, re.compile(re.sub(r"\{\w+\}", "[^?]+", path)))
            for path, methods in self.told["paths"].items()
            for method in methods
        ]
        self.seen: set[tuple[str, str, str]] = set()

    def check(self, value: Any, schema: dict[str, Any]) -> None:
        """Raise ValidationError for what `schema` does not describe."""
        whole = {**schema, "components": self.told["components"]}
        Draft202012Validator(whole, format_checker=FormatChecker()).validate(value)

    def check_answer(self, answer: httpx.Response) -> None:
        """Hold an answer against its route, and remember that it was seen."""
        path, method = answer.request.url.path, answer.request.method.lower()
        # Names before what is in braces: /api/jobs/x/events is no job, and the versions of a report are no report.
        fits = [(p, m) for m, p, pattern in self.routes if m == method and pattern.fullmatch(path)]
        route = max(fits, key=lambda fit: len(re.sub(r"\{\w+\}", "", fit[0])))[0]
        by_status = self.told["paths"][route][method]["responses"]
        status = str(answer.status_code) if str(answer.status_code) in by_status else "default"
        kind = answer.headers.get("content-type", "").partition(";")[0]
        self.seen.add((method, route, status))
        content = by_status[status]["content"]
        assert kind in content, f"{method} {path} answers with {kind}"
        if kind == JSON:
            answer.read()
            self.check(answer.json(), content[kind]["schema"])

    def json_routes(self) -> set[tuple[str, str, str]]:
        """Every (method, route, status) that answers with JSON when all goes well."""
        return {
            (method, path, status)
            for method, path, _ in self.routes
            for status, answer in self.told["paths"][path][method]["responses"].items()
            if status != "default" and JSON in answer.get("content", {})
        }


def _closed(value: Any, *, whole: bool) -> Any:
    """The same description, in which no object holds a field that is not named; with `whole` off, it may lack some."""
    if isinstance(value, list):
        return [_closed(each, whole=whole) for each in value]
    if not isinstance(value, dict):
        return value
    row = {name: _closed(each, whole=whole) for name, each in value.items()}
    if row.get("type") == "object" and "properties" in row:
        row.setdefault("additionalProperties", False)
        if not whole:
            row.pop("required", None)
    return row


@pytest.fixture(scope="module")
def described() -> Description:
    return Description(description())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("openapi")
    source = write_department(folder / "source", studies=24, size=64)
    (source / "broken.dcm").write_bytes(b"no DICOM at all")
    for name, status, changed in (("1", "P", "20240315100000"), ("2", "C", "20240315110000")):
        (source / f"{name}.hl7").write_bytes(made.hl7("IMPRESSION: Effusion.", status=status, changed=changed))
    (source / "3.hl7").write_bytes(made.hl7(status="X", filler="A00002"))
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
        with local_server(library) as local:
            yield local


@pytest.fixture
def client(server: Local, described: Description) -> Iterator[httpx.Client]:
    """A client of which every answer is held against the description."""
    server.client.event_hooks = {"response": [described.check_answer]}
    yield server.client
    server.client.event_hooks = {}


def get(client: httpx.Client, path: str, status: int = 200, /, **asked: Any) -> Any:
    answer = client.get(path, params=asked)
    assert answer.status_code == status, answer.text
    return answer.json()


def post(client: httpx.Client, path: str, status: int = 200, /, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def follow(client: httpx.Client, described: Description, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for a job by its events, each held against the description, and return the last."""
    route = described.told["paths"]["/api/jobs/{job_id}/events"]["get"]["responses"]["200"]
    with client.stream("GET", f"/api/jobs/{job['job_id']}/events") as stream:
        rows = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    for row in rows:
        described.check(row, route["content"]["text/event-stream"]["schema"])
    last: dict[str, Any] = rows[-1]
    return last


def test_every_route_answers_as_it_is_described(
    client: httpx.Client, described: Description, server: Local, tmp_path: Path
) -> None:
    register_model(Path(os.environ["XDG_DATA_HOME"]), "other")
    source = get(client, "/api/sources")["sources"][0]["path"]
    # Questions
    page = get(client, "/api/search", q="effusion", k=1)
    assert page["next"]
    assert page["hits"][0]["modalities"] == ["CR"]
    mentions = [each for hit in get(client, "/api/search", k=10)["hits"] for each in hit["entities"]]
    assert any(each["alternatives"] and each["attributes"] for each in mentions)
    assert get(client, "/api/search", q=f"effusion like:{FIRST}", facets=False)["facets"] == {}
    assert get(client, "/api/facets").keys() == described.told["components"]["schemas"]["Facets"]["properties"].keys()
    assert get(client, "/api/complete", q="mod")["completions"]
    assert get(client, "/api/similar", image=FIRST)["hits"]
    film = Path(server.library.holdings.image_file(FIRST).path).read_bytes()
    assert client.post("/api/similar", content=film, params={"k": 2, "roi": "0,0,40,40"}).status_code == 200
    # Studies, corrections, labels
    label = {"target_kind": "study", "target_id": STUDY, "label": "teaching"}
    post(client, "/api/labels", **label)
    assert get(client, "/api/labels")["labels"]
    assert get(client, f"/api/studies/{STUDY}")["labels"] == [label]
    assert get(client, "/api/labels/targets", label="teaching")["targets"] == [label]
    post(client, "/api/labels/remove", **label)
    assert get(client, f"/api/studies/{uid(1, 2)}")["withdrawn"]
    versions = get(client, "/api/reports/A00001/versions")["versions"]
    assert [each["is_current"] for each in versions] == [False, True]
    assert get(client, f"/api/reports/A00001/versions/{versions[0]['version_no']}")["text"]
    entity = get(client, f"/api/reports/{REPORT}")["entities"][0]
    where = {"report_id": REPORT, "start": entity["start"], "end": entity["end"]}
    post(client, "/api/corrections", **where, assertion="uncertain", code="J91.0", note="seen")
    post(client, "/api/corrections/undo", **where)
    assert get(client, "/api/corrections")["corrections"]
    # Saved searches and teaching lists
    post(client, "/api/saved", name="mine", question="effusion")
    post(client, "/api/saved/change", name="mine", note="for Monday")
    assert get(client, "/api/saved")["saved"]
    post(client, "/api/saved/remove", name="mine")
    post(client, "/api/teaching", name="basics")
    post(client, "/api/teaching/change", name="basics", note="first year")
    entry = post(client, "/api/teaching/entries", list="basics", target_kind="study", target_id=STUDY)["entry_id"]
    post(client, "/api/teaching/entries/change", entry_id=entry, note="look at the base")
    assert get(client, "/api/teaching")["lists"]
    assert get(client, "/api/teaching/list", name="basics")["entries"]
    written = post(client, "/api/teaching/export", name="basics", folder=str(tmp_path / "handout"))
    exported = (Path(written["folder"]) / "list.json").read_bytes()
    assert client.post("/api/teaching/import", content=exported, params={"name": "again"}).json()["entries"] == 1
    post(client, "/api/teaching/entries/remove", entry_id=entry)
    post(client, "/api/teaching/remove", name="basics")
    # Ingests
    assert get(client, "/api/failures")["failures"]
    assert follow(client, described, post(client, "/api/jobs", 202, paths=[source]))["summary"]["unchanged"]
    retried = follow(client, described, post(client, "/api/failures/retry", 202))
    get(client, f"/api/jobs/{retried['job_id']}")
    post(client, f"/api/jobs/{retried['job_id']}/cancel")
    server.library._database.write("UPDATE entities SET assertion = 'family', title = '' WHERE text ILIKE '%effusion%'")
    again = follow(client, described, post(client, "/api/reports/reprocess", 202, everything=True))
    assert again["summary"]["reports"][0]["changes"]
    assert follow(client, described, post(client, "/api/model/calibrate", 202))["summary"]["scores"]
    gone = tmp_path / "gone"
    gone.mkdir()
    (gone / "cut.dcm").write_bytes(film[:200])
    begun = follow(client, described, post(client, "/api/jobs", 202, paths=[str(gone)]))
    assert begun["summary"]["failures"]
    assert len(get(client, "/api/jobs")["jobs"]) == 5
    post(client, "/api/sources/remove", path=str(gone))
    # Stations
    with station(tmp_path) as (place, kept):
        at = Station.parse(place)
        post(client, "/api/stations", name="archive", ae_title=at.ae_title, host=at.host, port=at.port)
        assert get(client, "/api/stations")["stations"]
        assert post(client, "/api/stations/echo", name="archive")["name"] == "archive"
        assert post(client, "/api/send/count", studies=[STUDY])["files"] == 2
        sending = follow(client, described, post(client, "/api/send", 202, station="archive", studies=[STUDY]))
        assert sending["summary"]["sent"] == len(kept) == 2
        assert get(client, f"/api/jobs/{sending['job_id']}/files")["files"]
        post(client, "/api/stations/remove", name="archive")
    # The library
    assert post(client, "/api/models/cancel")["switch"] is None
    assert get(client, "/api/status")["switch"] is None
    assert post(client, "/api/models/use", 202, model_id="other")["model_id"] == "other"
    while get(client, "/api/status")["switch"]["running"]:
        time.sleep(0.05)
    assert get(client, "/api/status")["switch"]["summary"]["in_use"]
    assert {model["role"] for model in get(client, "/api/models")["models"]} == {"in use", "kept"}
    post(client, "/api/models/use", 202, model_id=server.library.models()[1].model_id)
    assert post(client, "/api/models/cancel")["switch"]
    assert get(client, "/api/doctor")["checks"]
    server.library._database.write(
        "INSERT INTO reports SELECT * REPLACE (-1 AS report_no, '/gone' AS path, 'gone' AS report_id) FROM reports"
        " LIMIT 1"
    )
    assert follow(client, described, post(client, "/api/health/verify", 202))["summary"]["listed"]
    assert follow(client, described, post(client, "/api/health/repair", 202))["summary"]["mended"]
    assert post(client, "/api/watched/on", path=str(tmp_path))["path"] == str(tmp_path)
    assert get(client, "/api/watched")["folders"]
    post(client, "/api/watched/off", path=str(tmp_path))
    assert post(client, "/api/receiver/on", port=0, reserve_mb=0)["state"] == "listening"
    assert get(client, "/api/receiver")["port"]
    assert post(client, "/api/receiver/off")["state"] == "off"
    assert post(client, "/api/health/backup", target=str(tmp_path / "backup"))["rows"]
    assert post(client, "/api/window") == {"raised": False}
    post(client, "/api/login")
    missing = described.json_routes() - described.seen
    assert missing == set()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/search?q=(", 400),
        ("GET", "/api/search?k=0", 422),
        ("GET", "/api/studies/1.2.3", 404),
        ("GET", "/api/images/1.2.3/file", 404),
        ("GET", "/api/images/1.2.3/frame", 404),
        ("GET", f"/api/images/{FIRST}/frame?frame=2", 404),
        ("POST", "/api/jobs", 422),
        ("POST", "/api/jobs/none/cancel", 404),
        ("GET", "/api/jobs/none/events", 404),
    ],
)
def test_what_goes_wrong_is_answered_as_it_is_described(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    assert client.request(method, path).status_code == status


def test_bytes_come_as_they_are_described(client: httpx.Client, described: Description) -> None:
    for what in ("file", "frame", "frame?format=raw", "thumbnail"):
        assert client.get(f"/api/images/{FIRST}/{what}").status_code == 200
    assert ("get", "/api/images/{image_id}/thumbnail", "200") in described.seen


def test_what_the_guard_refuses_is_an_error_as_well(server: Local, described: Description) -> None:
    schema = {"$ref": "#/components/schemas/ErrorAnswer"}
    told = [
        server.client.get("/api/status", headers={"Authorization": "Bearer wrong"}),
        server.client.get("/api/status", headers={"Origin": "http://example.org"}),
        server.client.get("/api/status", headers={"Host": "example.org"}),
        server.client.post("/api/labels", content=b"x" * (2 << 20)),
        server.client.get("/api/nowhere"),
        server.client.delete("/api/jobs"),
    ]
    assert [answer.status_code for answer in told] == [401, 403, 421, 413, 404, 405]
    for answer in told:
        described.check(answer.json(), schema)
    described.check(INTERNAL.body, schema)


def test_every_error_is_described(described: Description) -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MedSearchError)]
    assert QueryError in kinds
    for kind in kinds:
        if issubclass(kind, QueryError):
            error: MedSearchError = kind("what", query="q", position=3, remedy="do")
        else:
            error = kind("what", item="it", remedy="do")
        described.check(error_json(error), {"$ref": "#/components/schemas/ErrorAnswer"})


@pytest.mark.parametrize(
    "change",
    [
        lambda hit: hit.update(more=1),
        lambda hit: hit.pop("patient_sex"),
        lambda hit: hit.update(study_date="10.03.2024"),
        lambda hit: hit["entities"][0].update(assertion="perhaps"),
        lambda hit: hit["highlights"].append([1, 2, 3]),
    ],
    ids=["more", "less", "no date", "no assertion", "no range"],
)
def test_an_answer_that_is_not_as_described_would_be_noticed(
    server: Local, described: Description, change: Any
) -> None:
    page = server.client.get("/api/search", params={"q": "effusion"}).json()
    schema = {"$ref": "#/components/schemas/SearchPage"}
    described.check(page, schema)
    change(page["hits"][0])
    with pytest.raises(ValidationError):
        described.check(page, schema)


def test_examples_are_as_described(described: Description) -> None:
    """They may be abridged."""
    loose = Description(description(), whole=False)
    for method, path, _ in loose.routes:
        for answer in loose.told["paths"][path][method]["responses"].values():
            content = answer.get("content", {}).get(JSON, {})
            if "example" in content:
                loose.check(content["example"], content["schema"])


def test_the_description_is_the_same_without_a_library(server: Local) -> None:
    assert server.client.get("/api/openapi.json").json() == json.loads(json.dumps(description()))


def test_the_description_that_the_browser_interface_is_made_of_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medsearch_desktop.serve.api.openapi"], capture_output=True, check=True
    )
    assert done.stdout == KEPT.read_bytes(), "run `make types`"
