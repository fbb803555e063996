"""STOW-RS against a real server: what is stored, refused, cut off, and where the guard stands."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from makers import Film, dataset, uid
from servers import Local, local_server

from medsearch_desktop.errors import RequestError
from medsearch_desktop.library import open_library
from medsearch_desktop.serve.multipart import Parts, boundary_of

KIND = 'multipart/related; type="application/dicom"; boundary=frontier'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Local]:
    with open_library(tmp_path / "library", create=True) as library, local_server(library) as local:
        yield local


def film(tmp_path: Path, **numbers: int) -> bytes:
    path = tmp_path / "film.dcm"
    dataset(Film(**numbers)).save_as(path, enforce_file_format=True)
    return path.read_bytes()


def body(*parts: bytes, kind: str = "application/dicom") -> bytes:
    return (
        b"".join(b"--frontier\r\nContent-Type: %s\r\n\r\n%s\r\n" % (kind.encode(), part) for part in parts)
        + b"--frontier--\r\n"
    )


def post(
    server: Local, content: bytes | Iterator[bytes], path: str = "/dicomweb/studies", kind: str = KIND
) -> httpx.Response:
    return server.client.post(path, content=content, headers={"Content-Type": kind})


def until_indexed(server: Local, images: int) -> None:
    end = time.monotonic() + 60
    while server.library.totals().images != images:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_instances_are_stored_and_indexed(server: Local, tmp_path: Path) -> None:
    answer = post(server, body(film(tmp_path), film(tmp_path, image=2)))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/dicom+json")
    told = answer.json()
    assert [item["00081155"]["Value"] for item in told["00081199"]["Value"]] == [[uid(1, 1, 1)], [uid(1, 1, 2)]]
    assert "00081198" not in told
    until_indexed(server, 2)
    assert post(server, body(film(tmp_path, image=3))).status_code == 200
    until_indexed(server, 3)
    # Again is as good as once.
    assert post(server, body(film(tmp_path))).status_code == 200
    assert len(list((server.library.path / "received").glob("*/*.dcm"))) == 3
    assert [root for root, _, _ in server.library.holdings.sources()] == [str(server.library.path / "received")]


def test_those_of_another_study_and_what_is_no_dicom_are_refused(server: Local, tmp_path: Path) -> None:
    parts = body(film(tmp_path), film(tmp_path, study=2), b"no DICOM at all")
    answer = post(server, parts, f"/dicomweb/studies/{uid(1, 1)}")
    assert answer.status_code == 202
    told = answer.json()
    assert [item["00081155"]["Value"][0] for item in told["00081199"]["Value"]] == [uid(1, 1, 1)]
    reasons = [item["00081197"]["Value"][0] for item in told["00081198"]["Value"]]
    assert reasons == [0x0110, 0xC000]
    assert list((server.library.path / "received" / ".incoming").iterdir()) == []
    assert post(server, body(b"text")).status_code == 409
    assert post(server, body(film(tmp_path), kind="image/png")).status_code == 409


def test_a_full_disk_is_told(server: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsearch_desktop.source.spool.Spool.has_room", lambda *_: False)
    answer = post(server, body(film(tmp_path)))
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]


def test_other_media_types_and_bad_bodies_are_refused(server: Local, tmp_path: Path) -> None:
    whole = body(film(tmp_path))
    for kind in ("application/dicom", "multipart/form-data; boundary=frontier",
                 'multipart/related; type="application/dicom"',
                 'multipart/related; type="application/dicom+json"; boundary=frontier'):  # fmt: skip
        assert post(server, whole, kind=kind).status_code == 415
    for bad in (whole[:-20], b"", b"--frontier\r\n" + b"x" * 20_000, b"--frontierX\r\n\r\n\r\n--frontier--"):
        assert post(server, bad).status_code == 400
    assert list((server.library.path / "received" / ".incoming").iterdir()) == []
    assert server.client.post(
        "/dicomweb/studies/..%2f..%2fetc", content=whole, headers={"Content-Type": KIND}
    ).status_code in (404, 405, 422)


def test_what_is_not_served_is_no_page_and_what_is_packed_is_told_so(server: Local, tmp_path: Path) -> None:
    for path in ("/dicomweb/studies", "/dicomweb/studies/1.2.3/metadata", "/dicomweb"):
        answer = server.client.get(path, headers={"Accept": "application/dicom+json"})
        assert (answer.status_code, answer.headers["content-type"]) in (
            (404, "application/json"),
            (405, "application/json"),
        )
    packed = gzip.compress(body(film(tmp_path)))
    headers = {"Content-Type": KIND, "Content-Encoding": "gzip"}
    answer = server.client.post("/dicomweb/studies", content=packed, headers=headers)
    assert answer.status_code == 415
    assert answer.json()["error"]["item"] == "content-encoding"


def test_the_guard_stands_before_it(server: Local, tmp_path: Path) -> None:
    content = body(film(tmp_path))
    url = f"http://127.0.0.1:{server.port}/dicomweb/studies"
    answer = httpx.post(url, content=content, headers={"Content-Type": KIND}, trust_env=False, timeout=60)
    assert answer.status_code == 401
    headers = {"Content-Type": KIND, "Origin": "http://evil.example"}
    assert server.client.post("/dicomweb/studies", content=content, headers=headers).status_code == 403
    assert not (server.library.path / "received").exists()


def test_a_sender_that_falls_silent_is_not_waited_for(tmp_path: Path) -> None:
    def slow() -> Iterator[bytes]:
        yield body(film(tmp_path))[:3000]
        time.sleep(6)
        yield b"x"

    with open_library(tmp_path / "library", create=True) as library, local_server(library, body_seconds=3) as server:
        answer = post(server, slow())
        assert answer.status_code == 400
        assert list((library.path / "received" / ".incoming").iterdir()) == []


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_parts_are_told_apart_however_they_come(step: int) -> None:
    contents = [b"", b"\r\n", b"\r\n--frontie", b"-", b"x\r\n-", bytes(range(256)) * 5]
    whole = (
        b"a preamble\r\n"
        + b"".join(
            b"--frontier  \r\nContent-Type: application/dicom\r\nX: y\r\n\r\n" + content + b"\r\n"
            for content in contents
        )
        + b"--frontier--\r\nan epilogue"
    )
    parts, found, headers = Parts("frontier"), [], 0
    for at in range(0, len(whole), step):
        for event in parts.feed(whole[at : at + step]):
            if event is None:
                continue
            if isinstance(event, bytes):
                found[-1] += event
            else:
                headers += event["X"] == "y"
                found.append(b"")
    assert parts.ended
    assert found == contents
    assert headers == len(contents)


def test_parts_without_headers_are_parts() -> None:
    parts = Parts("b")
    events = list(parts.feed(b"--b\r\n\r\ncontent\r\n--b--"))
    assert [event for event in events if isinstance(event, bytes)] == [b"content"]
    with pytest.raises(RequestError):
        list(Parts("b").feed(b"--bad\r\n\r\n"))


def test_only_related_dicom_has_a_boundary() -> None:
    assert boundary_of('multipart/related; type="application/dicom"; boundary="a b"', kind="application/dicom") == "a b"
    assert boundary_of("multipart/related; boundary=x", kind="application/dicom") == "x"
    for other in (
        "multipart/related; 0*; 0*9; boundary=x",
        "",
        "multipart/related",
        "multipart/mixed; boundary=x",
        f"multipart/related; boundary={'x' * 201}",
    ):
        assert boundary_of(other, kind="application/dicom") == ""
