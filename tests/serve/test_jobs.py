"""Jobs that are no ingests: reading reports again and measuring the match meter; and the doctor's page beside them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from makers import uid, write_department
from servers import Local, local_server

from medsearch_desktop import reread
from medsearch_desktop.errors import RequestError
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.serve import jobs
from medsearch_desktop.serve.owner import Owner, RemoteLibrary

STUDIES = 24
FIRST, REPORT = uid(1, 1, 1), "s50000001"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("jobs")
    write_department(folder / "source", studies=STUDIES, size=64)
    with open_library(folder / "library", create=True) as library:
        library.ingest([folder / "source"])
        with local_server(library) as local:
            yield local


def outdate(library: Library) -> int:
    """Leave the library as an earlier release might have, which judged one word otherwise; count the reports of it."""
    library._database.write("UPDATE reports SET pipeline_version = 'rules-0'")
    library._database.write("UPDATE entities SET assertion = 'uncertain' WHERE finding = 'Pneumothorax'")
    (row,) = library._database.read("SELECT count(DISTINCT report_no) FROM entities WHERE finding = 'Pneumothorax'", {})
    return int(row[0])


def begin(server: Local, path: str, **body: Any) -> dict[str, Any]:
    answer = server.client.post(path, json=body)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def ended(server: Local, job: dict[str, Any]) -> dict[str, Any]:
    with server.client.stream("GET", f"/api/jobs/{job['job_id']}/events") as stream:
        rows = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    last: dict[str, Any] = rows[-1]
    return last


def states(server: Local) -> set[str]:
    report = server.client.get(f"/api/reports/{REPORT}").json()
    return {each["assertion"] for each in report["entities"] if each["finding"] == "Pneumothorax"}


def test_reports_are_read_again_as_a_job(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_TOLD", 3)
    outdated = outdate(server.library)
    assert outdated > 3
    dry = ended(server, begin(server, "/api/reports/reprocess", dry_run=True))
    assert (dry["kind"], dry["state"], dry["dry_run"], dry["error"]) == ("reprocess", "done", True, None)
    summary = dry["summary"]
    assert (summary["read"], summary["current"], summary["dry_run"]) == (STUDIES, 0, True)
    assert (summary["changed_reports"], len(summary["reports"])) == (outdated, 3)
    assert summary["fields"] == {"assertion": summary["changed"]}
    assert summary["changed"] >= outdated
    assert summary["reports"][0]["changes"][0]["fields"]["assertion"][0] == "uncertain"
    assert states(server) == {"uncertain"}
    done = ended(server, begin(server, "/api/reports/reprocess"))
    assert (done["progress"]["stage"], done["progress"]["settled"], done["progress"]["left"]) == ("report", STUDIES, 0)
    assert done["progress"]["rate"] > 0
    assert states(server) == {"absent"}
    assert server.client.get("/api/search", params={"q": "uncertain:pneumothorax"}).json()["total"] == 0
    # Without a body as well.
    again = ended(server, server.client.post("/api/reports/reprocess").json())["summary"]
    assert (again["read"], again["current"]) == (0, STUDIES)
    whole = ended(server, begin(server, "/api/reports/reprocess", everything=True))["summary"]
    assert (whole["read"], whole["changed_reports"], whole["reports"]) == (STUDIES, 0, [])


def test_reading_again_can_be_stopped_and_goes_on(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reread, "REPORTS_PER_COMMIT", 5)
    outdate(server.library)
    read, cancelled = reread.read_again, threading.Event()

    def wait_and_read(*given: Any) -> Any:
        assert cancelled.wait(60)
        return read(*given)

    monkeypatch.setattr(reread, "read_again", wait_and_read)
    job = begin(server, "/api/reports/reprocess")
    server.client.post(f"/api/jobs/{job['job_id']}/cancel")
    cancelled.set()
    last = ended(server, job)
    assert (last["state"], last["summary"], last["error"]) == ("stopped", None, None)
    # One that was told to stop before it began has read none.
    kept = 5 if last["progress"] else 0
    again = ended(server, begin(server, "/api/reports/reprocess"))
    assert (again["state"], again["summary"]["read"], again["summary"]["current"]) == ("done", STUDIES - kept, kept)
    assert states(server) == {"absent"}


def test_a_correction_made_meanwhile_holds(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    outdate(server.library)
    entity = next(each for each in server.library.report(REPORT).report.entities if each.finding == "Pneumothorax")
    where = {"report_id": REPORT, "start": entity.start, "end": entity.end}
    read, made = reread.read_again, []

    def correct_and_read(stored: Any, reader: Any) -> Any:
        if stored.report.report_id == REPORT and not made:
            made.append(server.client.post("/api/corrections", json={**where, "assertion": "historical"}))
        return read(stored, reader)

    monkeypatch.setattr(reread, "read_again", correct_and_read)
    assert ended(server, begin(server, "/api/reports/reprocess"))["state"] == "done"
    assert [answer.status_code for answer in made] == [200]
    assert states(server) == {"historical", "absent"}
    assert server.client.post("/api/corrections/undo", json=where).status_code == 200
    assert states(server) == {"absent"}


def test_the_match_meter_is_measured_as_a_job(server: Local) -> None:
    assert server.client.get("/api/similar", params={"image": FIRST}).json()["expected"] is None
    done = ended(server, begin(server, "/api/model/calibrate"))
    assert (done["kind"], done["state"], done["error"]) == ("calibrate", "done", None)
    curve = server.library.curve()
    assert curve is not None
    assert done["summary"] == json.loads(json.dumps(curve.as_json()))
    assert server.client.get("/api/similar", params={"image": FIRST}).json()["expected"] is not None


def test_too_few_reports_to_measure_by_are_told(tmp_path: Path) -> None:
    write_department(tmp_path / "source", studies=1)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([tmp_path / "source"])
        with local_server(library) as server:
            done = ended(server, begin(server, "/api/model/calibrate"))
    assert (done["state"], done["summary"], done["error"]["kind"]) == ("failed", None, "meter")
    assert done["error"]["message"]


def test_no_folder_is_forgotten_while_reports_are_read_again(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    outdate(server.library)
    read, refused = reread.read_again, threading.Event()

    def wait_and_read(*given: Any) -> Any:
        assert refused.wait(60)
        return read(*given)

    monkeypatch.setattr(reread, "read_again", wait_and_read)
    job = begin(server, "/api/reports/reprocess")
    (source,) = server.client.get("/api/sources").json()["sources"]
    answer = server.client.post("/api/sources/remove", json={"path": source["path"]})
    refused.set()
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "a job is under way")
    assert ended(server, job)["state"] == "done"


def test_the_doctor_examines_a_library_that_is_served(server: Local) -> None:
    lost = next(iter(server.library.catalogue.documents()))
    index = server.library.fulltext
    index.update([], [lost["doc_no"]], watermark=index.watermark)
    page = server.client.get("/api/doctor").json()
    index.update([lost], watermark=index.watermark)
    checks = {check["name"]: check for check in page["checks"]}
    assert {"program", "decoder", "model", "engine", "language", "disk", "image index"} <= checks.keys()
    assert f"{2 * STUDIES} images, {STUDIES} reports" in checks["library"]["seen"]
    assert (checks["network"]["state"], page["ok"]) == ("ok", False)
    assert "each of this machine" in checks["network"]["seen"]
    failed = [(check["name"], check["seen"]) for check in page["checks"] if check["state"] == "failure"]
    assert failed == [("text index", f"{STUDIES - 1} entries, the database has {STUDIES}")]
    # The library is still the server's.
    assert server.client.get("/api/search").json()["total"] == STUDIES


def test_the_library_is_looked_over_as_a_job_with_its_progress(server: Local) -> None:
    last = ended(server, begin(server, "/api/health/verify", sample=3, files=True))
    assert (last["state"], last["error"]) == ("done", None)
    assert last["summary"]["ok"] is True
    assert last["summary"]["checked"]["documents compared"] == 3
    assert last["progress"]["stage"] == "records"
    assert last["progress"]["total"] == 4
    last = ended(server, begin(server, "/api/health/repair"))
    assert (last["state"], last["summary"]["mended"]) == ("done", {})


def test_looking_over_can_be_stopped_and_says_so(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    relations = server.library.health._relations

    def slow(*arguments: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        relations(*arguments)

    monkeypatch.setattr(server.library.health, "_relations", slow)
    job = begin(server, "/api/health/verify")
    assert begun.wait(60)
    server.client.post(f"/api/jobs/{job['job_id']}/cancel")
    go_on.set()
    last = ended(server, job)
    assert (last["state"], last["summary"]["stopped"], last["summary"]["ok"]) == ("stopped", True, False)


def test_the_command_line_is_told_how_far_its_owner_is(server: Local) -> None:
    owner = Owner.of_this_process(f"http://127.0.0.1:{server.port}", server.security.token)
    told: list[tuple[str, int, int]] = []
    row = RemoteLibrary(owner).look_after(
        "verify", {"sample": 0, "files": False}, on_progress=lambda *step: told.append(step)
    )
    assert row["ok"] is True
    assert ("records", 3, 4) in told
    with pytest.raises(RequestError):
        RemoteLibrary(owner).look_after("backup", {"target": "relative"}, on_progress=lambda *_: None)
