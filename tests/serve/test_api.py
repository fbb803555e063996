"""The routes against a real library: what each answers, pages, caching, jobs, and errors in one shape."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from held import hold
from makers import Film, dataset, pixels, uid, write_department
from PIL import Image
from servers import Local, local_server

from medsearch_desktop import errors
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.serve.cursors import write_cursor
from medsearch_desktop.serve.errors import STATUSES, error_from_json, error_json, kind_of, status_of
from medsearch_desktop.serve.wire import facets_json, search_json, similar_json

FIRST = uid(1, 1, 1)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_department(folder / "source", studies=8)
    with open_library(folder / "library", create=True) as library:
        library.ingest([folder / "source"])
        library.index_regions()
    return folder


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[Local]:
    with open_library(made / "library") as library, local_server(library) as local:
        yield local


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Iterator[tuple[Local, Path]]:
    """A server for one test that changes something: its library, and a source folder of two studies."""
    source = write_department(tmp_path / "source", studies=2)
    with open_library(tmp_path / "library", create=True) as library, local_server(library) as local:
        yield local, source


def get(server: Local, path: str, **asked: Any) -> Any:
    answer = server.client.get(path, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["kind"]
    assert error["message"]
    return error


def finished(server: Local, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for a job by its events, and return the last."""
    with server.client.stream("GET", f"/api/jobs/{job['job_id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        rows = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert rows
    last: dict[str, Any] = rows[-1]
    return last


# Questions


def test_search_answers_as_the_library_does(server: Local) -> None:
    row = get(server, "/api/search", q="effusion view:PA", k=5)
    assert row.pop("next") == write_cursor(
        5, generation=server.library.fulltext.generation, about="score effusion view:PA"
    )
    expected = search_json(server.library.search("effusion view:PA", k=5, with_facets=True))
    assert row == json.loads(json.dumps(expected, default=str))
    assert row["total"] == 6


def test_pages_hold_every_hit_once(server: Local) -> None:
    whole = [hit["report_id"] for hit in get(server, "/api/search", q="study", k=100)["hits"]]
    pages, cursor = [], ""
    while True:
        row = get(server, "/api/search", q="study", k=3, cursor=cursor, facets=False)
        pages += [hit["report_id"] for hit in row["hits"]]
        assert (row["total"], row["facets"]) == (8, {})
        cursor = row["next"]
        if not cursor:
            break
    assert pages == whole
    assert len(set(pages)) == 8


def test_a_cursor_belongs_to_its_question(server: Local) -> None:
    cursor = get(server, "/api/search", q="study", k=3)["next"]
    for other in ({"q": "effusion", "cursor": cursor}, {"q": "study", "sort": "date", "cursor": cursor}):
        assert told(server.client.get("/api/search", params=other), 400)["kind"] == "request"
    for bad in ("x", "!", "W10", write_cursor(-1, generation=None, about="score study")):
        assert told(server.client.get("/api/search", params={"q": "study", "cursor": bad}), 400)["kind"] == "request"


def test_a_cursor_of_before_a_change_is_refused(own: tuple[Local, Path]) -> None:
    server, source = own
    server.library.ingest([source])
    cursor = get(server, "/api/search", q="study", k=1)["next"]
    body = {"target_kind": "study", "target_id": uid(1, 1), "label": "teaching"}
    assert server.client.post("/api/labels", json=body).status_code == 200
    error = told(server.client.get("/api/search", params={"q": "study", "k": 1, "cursor": cursor}), 409)
    assert error["kind"] == "stale_cursor"
    assert get(server, "/api/search", q="label:teaching")["total"] == 1
    assert get(server, "/api/labels") == {"labels": [{"label": "teaching", "count": 1}]}
    assert server.client.post("/api/labels/remove", json=body).status_code == 200
    assert told(server.client.post("/api/labels/remove", json=body), 404)
    assert get(server, "/api/search", q="label:teaching")["total"] == 0


@pytest.mark.parametrize(
    "asked",
    [{"k": 0}, {"k": 1001}, {"k": "x"}, {"q": "a" * 4001}, {"sort": "size"}, {"cursor": "a" * 201}],
)
def test_what_is_asked_has_limits(server: Local, asked: dict[str, Any]) -> None:
    error = told(server.client.get("/api/search", params=asked), 422)
    assert (error["kind"], error["item"]) == ("request", next(iter(asked)))


def test_a_question_that_cannot_be_read_is_told_with_the_character(server: Local) -> None:
    error = told(server.client.get("/api/search", params={"q": "a nofield:x"}), 400)
    assert (error["kind"], error["query"], error["position"]) == ("query", "a nofield:x", 2)


def test_facets_are_those_of_the_library(server: Local) -> None:
    assert get(server, "/api/facets", q="view:PA") == facets_json(server.library.facets("view:PA"))


def test_completions_are_of_what_the_library_holds(server: Local) -> None:
    def proposed(q: str) -> list[str]:
        return [q[: row["start"]] + row["text"] for row in get(server, "/api/complete", q=q)["completions"]]

    assert "effusion view:" in proposed("effusion vi")
    assert proposed("(a view:") == ["(a view:LL", "(a view:PA"]
    assert "present:Effusion" in proposed("effu")
    assert "icd:J90" in proposed("j9")
    assert proposed("absent:pleural") == ["absent:J90"]
    assert proposed("has:re") == ["has:report"]
    for q in ("effusion vi", "present:eff", "icd:j"):
        for whole in proposed(q):
            if not whole.endswith(":"):
                assert server.client.get("/api/search", params={"q": whole}).status_code == 200


def test_similar_answers_as_the_library_does(server: Local) -> None:
    for asked in ({}, {"where": "view:LL"}, {"roi": "10,10,40,40"}):
        roi = (10, 10, 40, 40) if "roi" in asked else None
        expected = similar_json(server.library.similar(FIRST, k=4, roi=roi, where=asked.get("where", "")))
        assert get(server, "/api/similar", image=FIRST, k=4, **asked) == json.loads(json.dumps(expected, default=str))


@pytest.mark.parametrize("roi", ["1,2,3", "a,b,c,d", "0,0,5000,5000", "0,0,0,0"])
def test_a_region_outside_the_image_is_refused(server: Local, roi: str) -> None:
    told(server.client.get("/api/similar", params={"image": FIRST, "roi": roi}), 400)


def test_an_uploaded_film_is_asked_by_like_its_own_image(server: Local) -> None:
    path = server.library.holdings.image_file(FIRST).path
    answer = server.client.post("/api/similar", params={"k": 1}, content=Path(path).read_bytes())
    (hit,) = answer.json()["hits"]
    assert hit["image_id"] == FIRST
    assert hit["score"] == pytest.approx(1, abs=1e-5)


# Studies and images


def test_a_study_comes_with_all_that_belongs_to_it(server: Local) -> None:
    row = get(server, f"/api/studies/{uid(1, 1)}")
    assert (row["patient_id"], row["study_date"], row["accession_number"]) == ("P0001", "2024-02-10", "A00001")
    assert [(image["image_id"], image["view_position"], image["rows"]) for image in row["images"]] == [
        (uid(1, 1, 1), "PA", 96),
        (uid(1, 1, 2), "LL", 96),
    ]
    (report,) = row["reports"]
    assert report["report_id"] == "s50000001"
    assert {"FINDINGS", "IMPRESSION"} <= set(report["sections"])
    for entity in report["entities"]:
        assert report["text"][entity["start"] : entity["end"]] == entity["text"]
    assert [(other["study_uid"], other["images"], other["reports"]) for other in row["others"]] == [(uid(1, 2), 2, 1)]
    told(server.client.get("/api/studies/1.2.3"), 404)


def test_a_report_can_be_corrected_and_that_undone(own: tuple[Local, Path]) -> None:
    server, source = own
    server.library.ingest([source])
    report = get(server, "/api/reports/s50000001")
    entity = next(each for each in report["entities"] if each["assertion"] == "absent")
    where = {"report_id": "s50000001", "start": entity["start"], "end": entity["end"]}
    kept = server.client.post("/api/corrections", json={**where, "assertion": "present", "author": "tester"})
    assert kept.json()["before"]["assertion"] == "absent"
    again = get(server, "/api/reports/s50000001")
    assert next(each for each in again["entities"] if each["start"] == entity["start"])["assertion"] == "present"
    assert len(get(server, "/api/corrections")["corrections"]) == 1
    assert server.client.post("/api/corrections/undo", json=where).status_code == 200
    assert get(server, "/api/reports/s50000001")["entities"] == report["entities"]
    told(server.client.post("/api/corrections/undo", json=where), 404)
    told(server.client.post("/api/corrections", json=where), 400)


def test_the_original_file_comes_as_it_is(server: Local, made: Path) -> None:
    answer = server.client.get(f"/api/images/{FIRST}/file")
    path = min((made / "source").rglob("image1.dcm"))
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.headers["content-disposition"] == f'attachment; filename="{FIRST}.dcm"'


@pytest.mark.parametrize("what", ["file", "frame", "frame?format=raw", "frame?center=100&width=50", "thumbnail"])
def test_images_are_sent_again_only_when_they_changed(server: Local, what: str) -> None:
    url = f"/api/images/{FIRST}/{what}"
    first = server.client.get(url)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "private, no-cache"
    etag = first.headers["etag"]
    for given in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = server.client.get(url, headers={"If-None-Match": given})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert server.client.get(url, headers={"If-None-Match": '"other"'}).content == first.content


def test_stored_values_come_as_they_are(server: Local) -> None:
    answer = server.client.get(f"/api/images/{FIRST}/frame", params={"format": "raw"})
    rows, columns = int(answer.headers["x-rows"]), int(answer.headers["x-columns"])
    values = np.frombuffer(answer.content, "<u2").reshape(rows, columns)
    assert np.array_equal(values, pixels(Film()))
    told_of = {
        name: float(value)
        for name, value in answer.headers.items()
        if name.startswith("x-") and name != "x-content-type-options" and name != "x-frame-options"
    }
    assert told_of == {
        "x-rows": 96, "x-columns": 96, "x-bits-stored": 12, "x-signed": 0, "x-slope": 1, "x-intercept": 0,
        "x-dark-is-high": 0, "x-window-center": 2048, "x-window-width": 4096,
    }  # fmt: skip


def test_a_window_decides_what_is_seen(server: Local) -> None:
    def levels(**asked: float) -> np.ndarray:
        answer = server.client.get(f"/api/images/{FIRST}/frame", params=asked)
        assert answer.headers["content-type"] == "image/png"
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    stored = pixels(Film()).astype(float)
    narrow = levels(center=1000, width=200)
    expected = np.floor(np.clip((stored - 999.5) / 199 + 0.5, 0, 1) * 255 + 0.5)
    assert np.array_equal(narrow, expected)
    assert not np.array_equal(levels(), narrow)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"frame": 2}, 404),
        ({"frame": 0}, 422),
        ({"center": 100}, 400),
        ({"center": 100, "width": 0}, 400),
        ({"center": "nan", "width": 5}, 422),
        ({"format": "raw", "center": 1, "width": 5}, 400),
        ({"format": "gif"}, 422),
    ],
)
def test_a_frame_that_cannot_be_shown_is_told(server: Local, asked: dict[str, Any], status: int) -> None:
    told(server.client.get(f"/api/images/{FIRST}/frame", params=asked), status)


def test_the_thumbnail_is_a_picture(server: Local) -> None:
    answer = server.client.get(f"/api/images/{FIRST}/thumbnail")
    assert Image.open(io.BytesIO(answer.content)).size == (96, 96)
    told(server.client.get("/api/images/1.2.3/thumbnail"), 404)


def test_a_file_that_is_another_one_by_now_is_not_shown_as_the_image(own: tuple[Local, Path]) -> None:
    server, source = own
    server.library.ingest([source])
    film = min(source.rglob("image1.dcm"))
    dataset(Film(patient=9, study=9)).save_as(film, enforce_file_format=True)
    for what in ("file", "frame", "frame?format=raw"):
        error = told(server.client.get(f"/api/images/{FIRST}/{what}"), 422)
        assert (error["kind"], error["item"]) == ("source", FIRST)
    film.unlink()
    assert "Connect the drive" in told(server.client.get(f"/api/images/{FIRST}/file"), 422)["remedy"]


def test_a_file_that_was_only_touched_is_still_the_image(own: tuple[Local, Path]) -> None:
    server, source = own
    server.library.ingest([source])
    min(source.rglob("image1.dcm")).touch()
    assert server.client.get(f"/api/images/{FIRST}/file").status_code == 200


# Jobs


def test_an_ingest_is_a_job_with_its_progress(own: tuple[Local, Path]) -> None:
    server, source = own
    (source / "bad.dcm").write_bytes(b"junk")
    begun = server.client.post("/api/jobs", json={"paths": [str(source)]})
    assert begun.status_code == 202
    last = finished(server, begun.json())
    assert (last["state"], last["error"]) == ("done", None)
    summary = last["summary"]
    assert (summary["indexed"], summary["failed"], summary["images"], summary["reports"]) == (6, 1, 4, 2)
    assert (last["progress"]["left"], last["progress"]["failed"]) == (0, 1)
    assert last["progress"]["rate"] > 0
    assert get(server, f"/api/jobs/{last['job_id']}") == last
    assert get(server, "/api/jobs")["jobs"] == [last]
    assert get(server, "/api/search", q="study")["total"] == 2
    status = get(server, "/api/status")
    assert (status["totals"]["images"], status["totals"]["failures"]) == (4, 1)
    assert status["disk"]["library.duckdb"] > 0
    assert status["disk"]["free"] > 0
    (row,) = get(server, "/api/failures")["failures"]
    assert row["path"] == str(source / "bad.dcm")
    dataset(Film(patient=5, study=5)).save_as(source / "bad.dcm", enforce_file_format=True)
    assert finished(server, server.client.post("/api/failures/retry").json())["summary"]["failed"] == 0
    assert get(server, "/api/failures") == {"total": 0, "failures": [], "next": ""}


def test_failures_come_by_pages(own: tuple[Local, Path]) -> None:
    server, source = own
    for number in range(5):
        (source / f"bad{number}.dcm").write_bytes(b"junk")
    server.library.ingest([source])
    found, cursor = [], ""
    while True:
        row = get(server, "/api/failures", k=2, cursor=cursor)
        found += [Path(each["path"]).name for each in row["failures"]]
        cursor = row["next"]
        if not cursor:
            break
    assert found == [f"bad{number}.dcm" for number in range(5)]


def test_an_ingest_that_is_cancelled_goes_on_when_asked_again(
    own: tuple[Local, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, source = own
    still = hold(monkeypatch, "s50000020/image1")
    write_department(source, studies=30, first=3)
    job = server.client.post("/api/jobs", json={"paths": [str(source)]}).json()
    waiting = server.client.post("/api/jobs", json={"paths": [str(source)]}).json()
    assert still.reached.wait(300)
    server.client.post(f"/api/jobs/{waiting['job_id']}/cancel")
    server.client.post(f"/api/jobs/{job['job_id']}/cancel")
    still.go_on.set()
    last = finished(server, job)
    assert last["state"] == "stopped"
    assert finished(server, waiting)["state"] == "stopped"
    written = server.library.totals()
    assert 0 < last["summary"]["indexed"] < 96
    assert written.files == last["summary"]["indexed"]
    assert last["summary"]["removed"] == 0
    again = finished(server, server.client.post("/api/jobs", json={"paths": [str(source)]}).json())
    assert (again["state"], again["summary"]["unchanged"]) == ("done", written.files)
    assert server.library.totals().images == server.library.vectors.count == 64
    assert server.library.fulltext.document_count == 32
    told(server.client.post("/api/jobs/none/cancel"), 404)


def test_a_job_that_fails_says_why(own: tuple[Local, Path]) -> None:
    server, source = own
    job = server.client.post("/api/jobs", json={"paths": [str(source), str(source)]}).json()
    assert finished(server, job)["state"] == "done"
    known = get(server, "/api/sources")["sources"]
    assert known == [{"path": str(source), "online": True, "files": 6}]
    shutil.rmtree(source)
    # Known and away: offline, and nothing is lost.
    job = server.client.post("/api/jobs", json={"paths": [str(source)]}).json()
    assert finished(server, job)["summary"]["offline"] == [str(source)]
    assert server.library.totals().images == 4


def test_a_source_can_be_forgotten_and_its_copies_stay(own: tuple[Local, Path], tmp_path: Path) -> None:
    server, source = own
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    extra = write_department(tmp_path / "extra", studies=1, first=9)
    server.library.ingest([source])
    server.library.ingest([copy, extra])
    before = {path.name for path in source.rglob("*")}
    assert server.library.totals().images == 6
    gone = server.client.post("/api/sources/remove", json={"path": str(source)})
    assert gone.json() == {"path": str(source), "files": 6}
    assert {path.name for path in source.rglob("*")} == before
    assert [row["path"] for row in get(server, "/api/sources")["sources"]] == [str(copy), str(extra)]
    assert server.library.totals().images == server.library.vectors.count == 2
    assert get(server, "/api/search", q="study")["total"] == 1
    server.library.ingest([copy])
    assert server.library.totals().images == server.library.vectors.count == 6
    assert get(server, "/api/search", q="study")["total"] == 3
    told(server.client.post("/api/sources/remove", json={"path": "/nowhere"}), 404)


def test_a_folder_whose_name_is_no_text_is_ingested(own: tuple[Local, Path], tmp_path: Path) -> None:
    server, source = own
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    source.rename(odd)
    job = server.client.post("/api/jobs", content=json.dumps({"paths": [odd]}), headers=JSON).json()
    last = finished(server, job)
    assert (last["paths"], last["summary"]["indexed"]) == ([odd], 6)
    assert get(server, "/api/sources")["sources"][0]["path"] == odd
    gone = server.client.post("/api/sources/remove", content=json.dumps({"path": odd}), headers=JSON)
    assert gone.json()["files"] == 6


@pytest.mark.parametrize("paths", [[], [7], [None], ["/" + "a" * 5000], "not a list"])
def test_folders_that_are_no_paths_are_refused(server: Local, paths: Any) -> None:
    told(server.client.post("/api/jobs", json={"paths": paths}), 422)


def test_models_are_listed_and_one_that_is_not_there_is_told(server: Local) -> None:
    models = get(server, "/api/models")["models"]
    (used,) = [row for row in models if row["role"] == "in use"]
    assert (used["model_id"], used["vectors"]) == (server.library.model_id, 16)
    assert told(server.client.post("/api/models/use", json={"model_id": "none"}), 409)["kind"] == "model_missing"
    assert server.client.post("/api/models/cancel", json={}).json() == {"switch": None}


# The shape of it all


def test_the_interface_describes_itself_with_examples(server: Local) -> None:
    described = get(server, "/api/openapi.json")
    assert described["info"]["title"] == "MedSearch Desktop"
    routes = [(path, method) for path, methods in described["paths"].items() for method in methods]
    assert len(routes) >= 28
    for path, method in routes:
        answers = described["paths"][path][method]["responses"]
        content = next(answers[code]["content"] for code in ("200", "202") if code in answers)
        assert path.startswith("/api/")
        assert "application/json" not in content or content["application/json"]["example"]


def every_error() -> list[type[errors.MedSearchError]]:
    found = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.MedSearchError)
    ]
    return sorted(found, key=lambda each: each.__name__)


@pytest.mark.parametrize("kind", every_error())
def test_an_error_travels_and_is_the_same_again(kind: type[errors.MedSearchError]) -> None:
    if issubclass(kind, errors.QueryError):
        error: errors.MedSearchError = kind("what", query="q", position=0, remedy="do")
    else:
        error = kind("what", item="it", remedy="do")
    back = error_from_json(json.loads(json.dumps(error_json(error))))
    assert type(back) is kind
    assert str(back) == str(error)
    assert 400 <= status_of(error) < 600


def test_the_table_of_errors_names_each_kind_once() -> None:
    kinds = [kind_of(each) for each in every_error()]
    assert len(set(kinds)) == len(kinds)
    assert kind_of(errors.LibraryLockedError) == "library_locked"
    assert set(STATUSES) <= set(every_error())


def test_an_answer_that_is_no_error_of_ours_is_told_as_such() -> None:
    for value in (None, [], {}, {"error": "x"}, {"error": {}}):
        assert isinstance(error_from_json(value), errors.ServeError)


def test_the_library_stays_open_when_its_server_ends(made: Path) -> None:
    with open_library(made / "library") as library:
        with local_server(library) as local:
            assert local.client.get("/api/status").status_code == 200
        assert isinstance(library, Library)
        assert library.search("study").total == 8
