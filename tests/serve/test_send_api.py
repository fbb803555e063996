"""Stations and sending under /api, to real stations on loopback: our own receiver, ones that refuse, slow ones."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from makers import uid, write_department
from pynetdicom import AE, evt
from serve.test_send import CR, small_station, station
from servers import Local, local_server, served

from medsearch_desktop.errors import ConfigError
from medsearch_desktop.library import open_library
from medsearch_desktop.sending import Station
from medsearch_desktop.serve import jobs
from medsearch_desktop.serve.cli import main
from medsearch_desktop.stations import Remembered, Stations

STUDIES = 3
SERIES = uid(1, 1, 0)
EXPLICIT = pydicom.uid.ExplicitVRLittleEndian


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("send")
    source = write_department(folder / "source", studies=STUDIES, size=32)
    with zipfile.ZipFile(source / "cd.zip", "w") as file:
        for path in (write_department(folder / "other", studies=1, first=9, size=32)).rglob("*.dcm"):
            file.write(path, path.name)
    with open_library(folder / "library", create=True) as library:
        library.ingest([source], metadata_only=True)
        with local_server(library) as local:
            yield local


def post(server: Local, path: str, status: int = 200, /, **body: Any) -> Any:
    answer = server.client.post(f"/api{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def remember(server: Local, place: str, name: str = "archive", **more: Any) -> Any:
    at = Station.parse(place)
    return post(server, "/stations", name=name, ae_title=at.ae_title, host=at.host, port=at.port, **more)


def ended(server: Local, job: dict[str, Any]) -> list[dict[str, Any]]:
    """The states of a job by its events."""
    with server.client.stream("GET", f"/api/jobs/{job['job_id']}/events") as stream:
        return [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]


def files(server: Local, job: dict[str, Any], **asked: Any) -> Any:
    return server.client.get(f"/api/jobs/{job['job_id']}/files", params=asked).raise_for_status().json()


def sent_uids(kept: list[str]) -> set[str]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in kept}


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({"studies": [uid(1, 1), uid(1, 2)]}, {"studies": 2, "files": 4}),
        ({"series": [SERIES]}, {"studies": 1, "files": 2}),
        ({"images": [uid(1, 1, 1)]}, {"studies": 1, "files": 1}),
        ({"images": [uid(1, 1, 1) + "#1", uid(1, 1, 1)]}, {"studies": 1, "files": 1}),
        ({"question": "view:PA", "studies": [uid(1, 1)]}, {"studies": 4, "files": 8}),
        ({"question": f"modality:CR like:{uid(1, 1, 1)}"}, {"studies": 4, "files": 8}),
    ],
    ids=["studies", "series", "image", "frames", "question", "likeness"],
)
def test_what_is_chosen_is_counted_sent_and_told_file_by_file(
    server: Local, tmp_path: Path, chosen: dict[str, Any], count: dict[str, Any]
) -> None:
    told = post(server, "/send/count", **chosen)
    assert told.pop("bytes") > 1000 * count["files"]
    assert told == count
    with station(tmp_path) as (place, kept):
        remember(server, place)
        job = post(server, "/send", 202, station="archive", **chosen)
        assert (job["kind"], job["station"], job["error"]) == ("send", "archive", None)
        last = ended(server, job)[-1]
    assert last["state"] == "done"
    assert {**last["summary"], "seconds": 0} == {
        "station": "archive", "sent": count["files"], "failed": 0, "left": 0, "seconds": 0,
    }  # fmt: skip
    assert (last["progress"]["stage"], last["progress"]["left"]) == ("sent", 0)
    page = files(server, job)
    assert (page["total"], page["next"]) == (count["files"], "")
    assert {row["image_id"].partition("#")[0] for row in page["files"]} == sent_uids(kept)
    assert {(row["ok"], row["status"]) for row in page["files"]} == {(True, "0x0000")}


def test_a_station_is_remembered_asked_and_forgotten(server: Local, tmp_path: Path) -> None:
    with station(tmp_path) as (place, _):
        row = remember(server, place, name="Röntgen 2 <b>")
        assert (row["ae_title"], row["caller"], row["encrypted"]) == ("STATION", "MEDSEARCH", False)
        assert server.client.get("/api/stations").json() == {"stations": [row]}
        assert post(server, "/stations/echo", name="Röntgen 2 <b>")["seconds"] >= 0
        # The command line knows the same ones.
        assert main(["echo", "Röntgen 2 <b>"]) == 0
    error = post(server, "/stations/echo", 502, name="Röntgen 2 <b>")["error"]
    assert (error["kind"], error["item"]) == ("station", place)
    assert "cannot be reached" in error["message"]
    assert error["remedy"]
    assert "already" in post(server, "/stations", 400, **_fields(row))["error"]["message"]
    assert main(["echo", "--forget", "Röntgen 2 <b>"]) == 0
    assert server.client.get("/api/stations").json() == {"stations": []}
    post(server, "/stations/remove", 404, name="Röntgen 2 <b>")
    post(server, "/stations/echo", 404, name="Röntgen 2 <b>")


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("name", "ae_title", "host", "port", "caller")}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": ""}, 422),
        ({"name": "  "}, 400),
        ({"name": "a@b"}, 400),
        ({"name": "a\nb"}, 400),
        ({"name": "x" * 41}, 422),
        ({"ae_title": "A\\B"}, 400),
        ({"host": "a b"}, 400),
        ({"host": "h/../x"}, 400),
        ({"port": 0}, 422),
        ({"caller": "Ä"}, 400),
        ({"tls_authority": "/nowhere/ca.pem"}, 400),
        ({"tls_authority": "ca.pem"}, 400),
        ({"tls_authority": "/a\0b"}, 400),
        ({"tls_key": "/key.pem"}, 400),
    ],
)
def test_what_is_no_station_is_not_remembered(server: Local, change: dict[str, Any], status: int) -> None:
    good = {"name": "archive", "ae_title": "AE", "host": "127.0.0.1", "port": 104}
    error = post(server, "/stations", status, **{**good, **change})["error"]
    assert error["message"]
    assert server.client.get("/api/stations").json() == {"stations": []}


def test_an_address_of_version_6_is_remembered(server: Local) -> None:
    assert post(server, "/stations", name="six", ae_title="AE", host="::1", port=104)["host"] == "::1"
    assert Stations().get("six").station == Station("AE", "::1", 104)


@pytest.mark.parametrize(
    ("chosen", "status"),
    [
        ({}, 400),
        ({"question": "   "}, 400),
        ({"studies": ["1.2.3"]}, 404),
        ({"studies": [uid(1, 1), "1.2.3"]}, 404),
        ({"series": ["1.2.3"]}, 404),
        ({"question": "modality:MG"}, 404),
        ({"question": "("}, 400),
        ({"again": "none"}, 404),
        ({"again": "none", "studies": [uid(1, 1)]}, 400),
        ({"images": ["1"] * 10_001}, 422),
    ],
)
def test_what_cannot_be_sent_is_told_before_anything_goes(server: Local, chosen: dict[str, Any], status: int) -> None:
    assert post(server, "/stations", name="archive", ae_title="AE", host="127.0.0.1", port=104)
    before = len(server.client.get("/api/jobs").json()["jobs"])
    for path, more in (("/send/count", {}), ("/send", {"station": "archive"})):
        assert post(server, path, status, **chosen, **more)["error"]["message"]
    assert post(server, "/send", 404, station="nobody", studies=[uid(1, 1)])["error"]["item"] == "nobody"
    assert len(server.client.get("/api/jobs").json()["jobs"]) == before


def test_an_address_is_no_station_that_is_remembered(server: Local, tmp_path: Path) -> None:
    with station(tmp_path) as (place, kept):
        error = post(server, "/send", 404, station=place, studies=[uid(1, 1)])["error"]
        assert "remember" in error["remedy"].lower()
        assert post(server, "/stations/echo", 404, name=place)
    assert kept == []


def test_without_token_or_from_elsewhere_nothing_is_remembered_or_sent(server: Local, tmp_path: Path) -> None:
    with station(tmp_path) as (place, kept):
        remember(server, place)
        base = str(server.client.base_url)
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            body = {"station": "archive", "question": "view:PA"}
            answer = httpx.post(f"{base}/api/send", json=body, headers=headers, timeout=60)
            assert answer.status_code == 401
            assert httpx.get(f"{base}/api/stations", headers=headers, timeout=60).status_code == 401
        for path, body in (
            ("/send", {"station": "archive", "question": "view:PA"}),
            ("/stations/echo", {"name": "archive"}),
            ("/stations", {"name": "x", "ae_title": "X", "host": "h", "port": 1}),
        ):
            answer = server.client.post(f"/api{path}", json=body, headers={"Origin": "http://example.org"})
            assert answer.status_code == 403
    assert kept == []
    assert [each.name for each in Stations().all()] == ["archive"]


def test_what_a_station_refuses_is_told_and_sent_again_where_it_is_taken(server: Local, tmp_path: Path) -> None:
    with small_station(EXPLICIT, status=0xA700) as (place, _):
        remember(server, place)
        job = ended(
            server, post(server, "/send", 202, station="archive", images=[uid(1, 1, 1), uid(1, 1, 2), "9.9.9"])
        )[-1]
    assert (job["state"], job["summary"]["sent"], job["summary"]["failed"]) == ("done", 0, 3)
    page = files(server, job, k=2)
    assert (page["total"], len(page["files"])) == (3, 2)
    rest = files(server, job, k=2, cursor=page["next"])
    assert (len(rest["files"]), rest["next"]) == (1, "")
    notes = {row["image_id"]: (row["status"], row["note"]) for row in page["files"] + rest["files"]}
    assert notes["9.9.9"] == (None, "the library has no such image")
    assert notes[uid(1, 1, 1)] == ("0xA700", "0xA700 (out of resources)")
    assert main(["echo", "--forget", "archive"]) == 0
    with station(tmp_path) as (place, kept):
        remember(server, place)
        again = ended(server, post(server, "/send", 202, station="archive", again=job["job_id"]))[-1]
        assert (again["summary"]["sent"], again["summary"]["failed"]) == (2, 1)
        assert [row["image_id"] for row in files(server, again, failed=True)["files"]] == ["9.9.9"]
        assert sent_uids(kept) == {uid(1, 1, 1), uid(1, 1, 2)}
        whole = ended(server, post(server, "/send", 202, station="archive", images=[uid(1, 1, 1)]))[-1]
        assert (
            "all of the job" in post(server, "/send", 400, station="archive", again=whole["job_id"])["error"]["message"]
        )


def test_a_station_that_is_away_fails_the_job_with_its_remedy(server: Local, tmp_path: Path) -> None:
    with station(tmp_path) as (place, _):
        remember(server, place)
    job = ended(server, post(server, "/send", 202, station="archive", studies=[uid(1, 1)]))[-1]
    assert (job["state"], job["error"]["kind"], job["error"]["item"]) == ("failed", "station", place)
    assert "firewall" in job["error"]["remedy"]
    assert files(server, job)["total"] == 0
    with station(tmp_path) as (place, kept):
        main(["echo", "--forget", "archive"])
        remember(server, place)
        ended(server, post(server, "/send", 202, station="archive", again=job["job_id"]))
    assert sent_uids(kept) == {uid(1, 1, 1), uid(1, 1, 2)}


def test_sending_is_stopped_after_the_file_in_hand_and_goes_on(server: Local, tmp_path: Path) -> None:
    going, came = threading.Event(), []

    def store(event: evt.Event) -> int:
        came.append(str(event.dataset.SOPInstanceUID))
        going.wait(300)
        return 0x0000

    ae = AE("SLOW")
    ae.add_supported_context(CR, EXPLICIT)
    slow = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert slow is not None
    try:
        remember(server, f"SLOW@127.0.0.1:{slow.server_address[1]}")
        job = post(server, "/send", 202, station="archive", question="view:PA")
        waiting = post(server, "/send", 202, station="archive", studies=[uid(1, 1)])
        while not came:
            time.sleep(0.01)
        assert "goes on" in post(server, "/send", 400, station="archive", again=job["job_id"])["error"]["message"]
        # What else there is to do does not wait for a station.
        assert ended(server, post(server, "/failures/retry", 202))[-1]["state"] == "done"
        post(server, f"/jobs/{job['job_id']}/cancel")
        post(server, f"/jobs/{waiting['job_id']}/cancel")
        going.set()
        last = ended(server, job)[-1]
        assert (last["state"], last["summary"]["sent"], last["summary"]["left"]) == ("stopped", 1, 7)
        assert ended(server, waiting)[-1]["state"] == "stopped"
        assert len(came) == 1
        rest = ended(server, post(server, "/send", 202, station="archive", again=job["job_id"]))[-1]
    finally:
        going.set()
        slow.shutdown()
    assert (rest["state"], rest["summary"]["sent"]) == ("done", 7)
    assert len(set(came)) == len(came) == 8


def test_a_job_that_sends_nothing_has_no_files(server: Local) -> None:
    job = post(server, "/failures/retry", 202)
    assert server.client.get(f"/api/jobs/{job['job_id']}/files").status_code == 404
    ended(server, job)
    assert "no job of sending" in post(server, "/send/count", 404, again=job["job_id"])["error"]["message"]


def test_of_old_jobs_no_files_are_kept(server: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_SENDINGS", 2)
    with station(tmp_path) as (place, _):
        remember(server, place)
        made = []
        for _ in range(4):
            made.append(post(server, "/send", 202, station="archive", images=[uid(1, 1, 1)]))
            ended(server, made[-1])
    assert [server.client.get(f"/api/jobs/{job['job_id']}/files").status_code for job in made] == [404, 200, 200, 200]


def test_the_command_line_sends_through_whoever_owns_the_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    with open_library(library, create=True) as opened:
        opened.ingest([write_department(tmp_path / "source", studies=2, size=32)], metadata_only=True)
    command = ["send", "view:PA", "--library", str(library)]
    with served(library) as server, station(tmp_path) as (place, kept):
        assert main([*command[:1], place, *command[1:]]) == 1
        told = capsys.readouterr().err
        assert "remembered stations alone" in told
        assert f"medsearch echo {place} --remember NAME" in told
        assert main(["echo", place, "--remember", "archive"]) == 0
        assert main(["send", "archive", "--ae-title", "OTHER", *command[1:]]) == 1
        assert kept == []
        capsys.readouterr()
        assert main(["send", "archive", *command[1:], "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["station"], told["sent"], told["failed"]) == (place, 4, 0)
        assert {row["image_id"] for row in told["results"]} == sent_uids(kept)
        # By its address as well, once it is known.
        assert main(["send", place, uid(1, 1, 1), "9.9.9", "--library", str(library)]) == 1
        out = capsys.readouterr().out
        assert f"{uid(1, 1, 1)}: sent" in out
        assert "9.9.9: not sent (the library has no such image)" in out
        with server.client() as client:
            assert [job["kind"] for job in client.get("/api/jobs").json()["jobs"]] == ["send", "send"]
    assert main(["send", "archive", *command[1:]]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_options_of_a_station_are_remembered_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with station(tmp_path, callers=("KNOWN",), require_called=True) as (place, _):
        assert main(["echo", place, "--ae-title", "KNOWN", "--remember", "archive"]) == 0
        assert main(["echo", "archive"]) == 0
        assert main(["echo", "archive", "--ae-title", "OTHER"]) == 1
    assert "does not know who calls" in capsys.readouterr().err
    assert Stations().get("archive").caller == "KNOWN"


def test_a_file_of_an_earlier_release_is_read_and_a_damaged_one_told(tmp_path: Path) -> None:
    file = tmp_path / "stations.json"
    known = Stations(file)
    assert known.all() == []
    file.write_text('{"archive": "ARCHIVE@10.1.2.9:104"}')
    assert known.get("archive") == Remembered("archive", Station("ARCHIVE", "10.1.2.9", 104))
    known.remember(Remembered("ward", Station("WARD", "h", 1), "OTHER"))
    assert {each.name: each.caller for each in known.all()} == {"archive": "MEDSEARCH", "ward": "OTHER"}
    for damaged in ("{", "[]", '{"a": 1}', '{"a": {}}', '{"a": "x"}', "\xff"):
        file.write_text(damaged, "latin-1")
        with pytest.raises(ConfigError):
            known.all()
    file.write_text("{")
    with pytest.raises(ConfigError):
        known.remember(Remembered("more", Station("WARD", "h", 1)))
    assert file.read_text() == "{"


def test_many_at_once_lose_no_station(tmp_path: Path) -> None:
    stations = [Stations(tmp_path / "stations.json") for _ in range(8)]

    def some(number: int) -> None:
        for each in range(5):
            stations[number].remember(Remembered(f"{number}-{each}", Station("AE", "h", 1)))

    threads = [threading.Thread(target=some, args=(number,)) for number in range(len(stations))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stations[0].all()) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stations.json"]
