"""The routes of saved searches, teaching lists, labelled things and previews against a real library."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from makers import Film, dataset, uid, write_department
from PIL import Image
from servers import Local, local_server

from medsearch_desktop.library import open_library

STUDY, IMAGE = uid(1, 1), uid(1, 2, 1)
HOSTILE = "<b onclick=alert(1)>\"'& /..%2f"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("lists")
    with open_library(folder / "library", create=True) as library:
        library.ingest([write_department(folder / "source", studies=4)])
        with local_server(library) as local:
            yield local


@pytest.fixture(autouse=True)
def empty(server: Local) -> None:
    """Begin each test without anything kept."""
    lists = server.library.lists
    for saved in lists.saved():
        lists.forget_saved(saved.name)
    for teaching in lists.teaching():
        lists.remove_teaching(teaching.name)


def get(server: Local, path: str, **asked: Any) -> Any:
    answer = server.client.get(path, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(server: Local, path: str, **body: Any) -> Any:
    answer = server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_searches_are_saved_changed_and_removed(server: Local) -> None:
    kept = post(server, "/api/saved", name=HOSTILE, question="present:effusion", sort="date", note=HOSTILE)
    assert (kept["name"], kept["note"]) == (HOSTILE, HOSTILE)
    assert get(server, "/api/saved") == {"saved": [kept]}
    error = refused(server.client.post("/api/saved", json={"name": HOSTILE, "question": "x"}), 409)
    assert (error["kind"], error["item"]) == ("list", HOSTILE)
    changed = post(server, "/api/saved/change", name=HOSTILE, to="Plain", question="effusion")
    assert changed == {**kept, "name": "Plain", "question": "effusion"}
    error = refused(server.client.post("/api/saved", json={"name": "bad", "question": "a nofield:x"}), 400)
    assert (error["kind"], error["position"]) == ("query", 2)
    assert post(server, "/api/saved/remove", name="plain") == {"removed": "plain"}
    refused(server.client.post("/api/saved/remove", json={"name": "plain"}), 404)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/saved", {"question": "x"}),
        ("/api/saved", {"name": ""}),
        ("/api/saved", {"name": "a" * 201}),
        ("/api/saved", {"name": "a", "sort": "size"}),
        ("/api/saved", {"name": "a", "question": "x" * 4001}),
        ("/api/teaching", {"name": "a", "note": "x" * 4001}),
        ("/api/teaching/entries", {"list": "a", "target_kind": "report", "target_id": "x"}),
        ("/api/teaching/entries/change", {"entry_id": "x", "place": 0}),
    ],
    ids=range(8),
)
def test_what_is_kept_has_limits(server: Local, path: str, body: dict[str, Any]) -> None:
    assert refused(server.client.post(path, json=body), 422)["kind"] == "request"


def test_a_list_is_made_shown_reordered_and_removed(server: Local) -> None:
    first = post(server, "/api/teaching/entries", list=HOSTILE, target_kind="study", target_id=STUDY)["entry_id"]
    body = {"list": HOSTILE, "target_kind": "image", "target_id": IMAGE, "note": "here"}
    second = post(server, "/api/teaching/entries", **body)["entry_id"]
    assert refused(server.client.post("/api/teaching/entries", json=body), 409)["kind"] == "list"
    opened = get(server, "/api/teaching/list", name=HOSTILE)
    assert [row["entry_id"] for row in opened["entries"]] == [first, second]
    assert get(server, "/api/teaching")["lists"] == [opened["about"]]
    post(server, "/api/teaching/entries/change", entry_id=second, place=1, note="there")
    opened = get(server, "/api/teaching/list", name=HOSTILE)
    assert [(row["entry_id"], row["note"]) for row in opened["entries"]] == [(second, "there"), (first, "")]
    assert opened["entries"][0]["study_date"] == "2024-03-10"
    assert post(server, "/api/teaching/entries/remove", entry_id=first) == {"removed": first}
    assert post(server, "/api/teaching/change", name=HOSTILE, to="Plain", note="n")["entries"] == 1
    post(server, "/api/teaching/remove", name="Plain")
    refused(server.client.get("/api/teaching/list", params={"name": "Plain"}), 404)
    post(server, "/api/teaching", name="Plain")
    assert get(server, "/api/teaching/list", name="Plain")["entries"] == []


def test_a_list_is_sent_as_a_zip_and_taken_over(server: Local) -> None:
    post(server, "/api/teaching/entries", list=HOSTILE, target_kind="study", target_id=uid(2, 4))
    answer = server.client.get("/api/teaching/export", params={"name": HOSTILE})
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="b-onclick-alert-1-2f.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
        text = archive.read("b-onclick-alert-1-2f/list.json")
        page = archive.read("b-onclick-alert-1-2f/index.html")
    assert names == {"list.json", "list.csv", "index.html", "pictures/0001-01.png", "pictures/0001-02.png"}
    assert b"<b onclick" not in page
    assert b"Large left" not in page
    with_reports = server.client.get("/api/teaching/export", params={"name": HOSTILE, "reports": True})
    with zipfile.ZipFile(io.BytesIO(with_reports.content)) as archive:
        assert b"Large left" in archive.read("b-onclick-alert-1-2f/index.html")
    refused(server.client.get("/api/teaching/export", params={"name": "none"}), 404)

    refused(server.client.post("/api/teaching/import", content=text), 409)
    brought = server.client.post("/api/teaching/import", params={"name": "Again"}, content=b"\xef\xbb\xbf" + text)
    assert (brought.json()["name"], brought.json()["entries"], brought.json()["missing"]) == ("Again", 1, 0)
    for bad in (b"", b"\xff\xfe", b"{}"):
        assert refused(server.client.post("/api/teaching/import", content=bad), 409)["item"] == "upload"


def test_a_list_is_written_into_a_folder_of_this_machine(server: Local, tmp_path: Path) -> None:
    post(server, "/api/teaching/entries", list="Basics", target_kind="image", target_id=IMAGE)
    folder = str(tmp_path / "out")
    assert post(server, "/api/teaching/export", name="Basics", folder=folder) == {"folder": folder, "entries": 1}
    assert (tmp_path / "out" / "pictures" / "0001-01.png").is_file()
    for name, where, status in (
        ("Basics", folder, 409),
        ("Basics", "out", 400),
        ("Basics", "/out\0", 400),
        ("Basics", "/" + "a" * 300, 409),
        ("None", str(tmp_path / "none"), 404),
        ("Basics", str(tmp_path / "no" / "such"), 409),
    ):
        refused(server.client.post("/api/teaching/export", json={"name": name, "folder": where}), status)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_has_a_label_is_listed(server: Local) -> None:
    post(server, "/api/labels", target_kind="series", target_id=uid(1, 1, 0), label="odd")
    row = {"target_kind": "series", "target_id": uid(1, 1, 0), "label": "odd"}
    assert get(server, "/api/labels/targets", label="odd") == {"targets": [row]}
    assert get(server, f"/api/studies/{STUDY}")["labels"] == [row]
    assert get(server, "/api/search", q="label:odd")["hits"][0]["study_uid"] == STUDY
    post(server, "/api/labels/remove", **row)


# Previews


def film(size: int = 96) -> bytes:
    buffer = io.BytesIO()
    dataset(Film(size=size)).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def raster(form: str, size: tuple[int, int], mode: str = "L", **told: Any) -> bytes:
    buffer = io.BytesIO()
    grey = np.linspace(0, 255, size[0] * size[1]).astype(np.uint8).reshape(size[1], size[0])
    Image.fromarray(grey).convert(mode).save(buffer, form, **told)
    return buffer.getvalue()


def test_a_dicom_from_outside_is_shown_as_it_is_embedded(server: Local) -> None:
    before = server.library.totals()
    answer = server.client.post("/api/preview", content=film())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert (answer.headers["x-rows"], answer.headers["x-columns"]) == ("96", "96")
    assert answer.headers["cache-control"] == "no-store"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(shown, server.library.workbench.display("x", data=film()))
    assert server.library.totals() == before


@pytest.mark.parametrize(("form", "mode"), [("PNG", "L"), ("PNG", "RGB"), ("JPEG", "L"), ("JPEG", "RGB")])
def test_a_picture_is_shown_no_larger_than_asked(server: Local, form: str, mode: str) -> None:
    answer = server.client.post("/api/preview", params={"max": 64}, content=raster(form, (300, 100), mode))
    assert (answer.headers["x-rows"], answer.headers["x-columns"]) == ("100", "300")
    assert Image.open(io.BytesIO(answer.content)).size == (64, 21)


def test_a_camera_picture_stands_as_its_region_is_counted(server: Local) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = raster("JPEG", (60, 40), exif=exif)
    answer = server.client.post("/api/preview", content=content)
    assert (answer.headers["x-rows"], answer.headers["x-columns"]) == ("60", "40")
    inside, outside = (server.client.post("/api/similar", params={"roi": r}, content=content) for r in ROIS)
    assert inside.status_code == 200
    refused(outside, 400)


ROIS = ("0,0,40,60", "0,0,60,40")


def test_what_cannot_be_shown_is_told(server: Local) -> None:
    assert refused(server.client.post("/api/preview", content=b"no image"), 422)["kind"] == "not_an_image"
    for bad in (film()[:-2000], b"", film(1024), raster("PNG", (9, 9))[:-30]):
        shown, asked = (server.client.post(f"/api/{route}", content=bad) for route in ("preview", "similar"))
        assert (shown.status_code, shown.json()) == (asked.status_code, asked.json())
        assert shown.status_code in (413, 422)
    for most in (0, 15, 4097, "x"):
        refused(server.client.post("/api/preview", params={"max": most}, content=film()), 422)


# The browser's half


def test_the_routes_are_described_with_what_they_answer(server: Local) -> None:
    described = get(server, "/api/openapi.json")
    schemas = described["components"]["schemas"]
    ours = [path for path in described["paths"] if path.startswith(("/api/saved", "/api/teaching"))]
    assert len(ours) == 12
    for path in ours:
        for method in described["paths"][path].values():
            content = method["responses"]["200"]["content"]
            if "application/zip" in content:
                continue
            name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
            example = content["application/json"]["example"]
            assert set(schemas[name]["required"]) == set(example), (path, name)
    assert json.dumps(described["paths"]["/api/teaching/import"]["post"]["requestBody"])
