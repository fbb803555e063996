"""Attacks on the server, each tried: who has no token, another name, another site, too much, too slow, hostile text."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from makers import Film, dataset, uid, write_department
from servers import Local, local_server

from medsearch_desktop.library import open_library
from medsearch_desktop.serve.security import HEADERS, MOST_BODY_BYTES

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("security")
    source = write_department(folder / "source", studies=2)
    (source / "files" / "<img src=x>.txt").write_text(f"Study 9.\nFINDINGS: No effusion. {HOSTILE}\n", "utf-8")
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
        with local_server(library, most_upload_bytes=300_000, body_seconds=300.0) as local:
            yield local


def raw(server: Local, head: str, body: bytes = b"", *, wait: float = 30.0, until: bytes | None = None) -> bytes:
    """Send bytes as they are and return all that comes back, or all of it as far as `until`."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            if until is not None and until in answer:
                break
            if b"\r\n\r\n" in answer and b"connection: close" in answer.lower() and answer.endswith(b"}"):
                break
        return answer


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["kind"])


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer wrong", "Basic TOKEN", "TOKEN", "Bearer TOKENx", "Bearer xTOKEN", "bearer \xff"],
)
@pytest.mark.parametrize("path", ["/api/status", "/api/openapi.json", "/", "/api/images/x/file", "/api/nothing"])
def test_without_the_token_nothing_is_told(server: Local, authorization: str, path: str) -> None:
    given = authorization.replace("TOKEN", server.security.token)
    headers = {"Authorization": given.encode("latin-1")} if given else {}
    answer = httpx.get(f"http://127.0.0.1:{server.port}{path}", headers=headers, trust_env=False, timeout=60)
    assert (answer.status_code, kind(answer)) == (401, "auth")
    assert server.security.token not in answer.text


def test_two_tokens_are_none(server: Local) -> None:
    right = f"Bearer {server.security.token}"
    headers = [("Authorization", right), ("Authorization", right)]
    answer = httpx.get(f"http://127.0.0.1:{server.port}/api/status", headers=headers, trust_env=False, timeout=60)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "localhost.evil",
        "localhost.evil:PORT",
        "evil.example:PORT",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost:PORT.evil",
        "",
    ],
)
def test_another_host_is_refused_even_with_the_token(server: Local, host: str) -> None:
    answer = server.client.get("/api/status", headers={"Host": host.replace("PORT", str(server.port))})
    assert (answer.status_code, kind(answer)) == (421, "host")


def test_two_hosts_are_refused(server: Local) -> None:
    own = f"127.0.0.1:{server.port}"
    answer = raw(server, f"GET /api/status HTTP/1.1\nHost: {own}\nHost: evil.example\nAuthorization: Bearer x")
    assert answer.split()[1] in (b"400", b"421")


def test_localhost_is_a_name_of_the_server(server: Local) -> None:
    answer = server.client.get("/api/status", headers={"Host": f"LOCALHOST:{server.port}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil:PORT"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_another_site_is_refused_even_with_the_token(server: Local, headers: dict[str, str], method: str) -> None:
    given = {name: value.replace("PORT", str(server.port)) for name, value in headers.items()}
    answer = server.client.request(method, "/api/jobs", headers=given)
    assert (answer.status_code, kind(answer)) == (403, "origin")
    assert "access-control-allow-origin" not in answer.headers


@contextmanager
def browser(server: Local) -> Iterator[httpx.Client]:
    """A browser window that has opened a login address."""
    path = server.client.post("/api/login").json()["path"]
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False) as window:
        answer = window.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert server.security.token not in cookie
        yield window


def test_a_login_address_works_once(server: Local) -> None:
    path = server.client.post("/api/login").json()["path"]
    url = f"http://127.0.0.1:{server.port}"
    assert httpx.get(url + path, trust_env=False, timeout=60).status_code == 303
    for used in (path, "/login", "/login?ticket=", "/login?ticket=guess"):
        answer = httpx.get(url + used, trust_env=False, timeout=60)
        assert (answer.status_code, kind(answer)) == (401, "auth")
        assert "set-cookie" not in answer.headers
    assert httpx.post(url + path, trust_env=False, timeout=60).status_code == 401


def test_a_login_address_grows_old(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    path = server.security.ticket()
    later = time.monotonic() + 61
    # Of that module alone: the server's own waiting goes by the same clock.
    clocks = SimpleNamespace(monotonic=lambda: later, perf_counter=time.perf_counter)
    monkeypatch.setattr("medsearch_desktop.serve.security.time", clocks)
    assert httpx.get(f"http://127.0.0.1:{server.port}{path}", trust_env=False, timeout=60).status_code == 401


def test_a_cookie_opens_what_the_token_does(server: Local) -> None:
    with browser(server) as window:
        assert window.get("/api/status").status_code == 200
        body = {"target_kind": "study", "target_id": uid(1, 1), "label": "seen"}
        own = {"Origin": f"http://127.0.0.1:{server.port}"}
        assert window.post("/api/labels", json=body, headers=own).status_code == 200


@pytest.mark.parametrize("origin", [{}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_cookie_changes_nothing_for_another_site(server: Local, origin: dict[str, str]) -> None:
    before = server.library.holdings.labels()
    with browser(server) as window:
        body = {"target_kind": "study", "target_id": uid(1, 1), "label": "forged"}
        answer = window.post("/api/labels", json=body, headers=origin)
        # What a form of another site could send without asking first.
        form = window.post("/api/labels", content=json.dumps(body), headers={**origin, "Content-Type": "text/plain"})
    assert (answer.status_code, form.status_code) == (403, 403)
    assert server.library.holdings.labels() == before


def test_a_forged_cookie_is_none(server: Local) -> None:
    for value in ("x", server.security.token):
        cookie = {"Cookie": f"{server.security.cookie}={value}"}
        answer = httpx.get(f"http://127.0.0.1:{server.port}/api/status", headers=cookie, trust_env=False, timeout=60)
        assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/api/status", "/api/nothing", "/api/search?q=(a"])
def test_every_answer_has_the_headers(server: Local, path: str) -> None:
    stranger = httpx.get(f"http://127.0.0.1:{server.port}{path}", trust_env=False, timeout=60)
    for answer in (server.client.get(path), stranger):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers or "uvicorn" in answer.headers["server"]
    policy = HEADERS["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/api/images/..%2f..%2f..%2f..%2fetc%2fpasswd/file",
        "/api/images/%2fetc%2fpasswd/file",
        "/api/images/....//....//etc/passwd/file",
        "/api/images/%00/thumbnail",
        "/api/reports/..%2f..%2flibrary.json",
        "/api/studies/..%2f..%2fowner.json",
        "/../../etc/passwd",
        "/api/similar?image=/etc/passwd",
        "/api/similar?image=../../etc/passwd",
        "/api/search?q=like:/etc/passwd",
        '/api/search?q=like:"../../../etc/passwd"',
    ],
)
def test_no_path_reaches_a_file(server: Local, path: str) -> None:
    answer = raw(
        server,
        f"GET {path} HTTP/1.1\nHost: 127.0.0.1:{server.port}\nAuthorization: Bearer {server.security.token}\n"
        "Connection: close",
    )
    assert answer.split()[1] == b"404"
    assert b"root:" not in answer


def test_a_film_that_lies_here_is_asked_by_its_content_alone(server: Local, tmp_path: Path) -> None:
    film = tmp_path / "film.dcm"
    dataset(Film()).save_as(film, enforce_file_format=True)
    assert server.client.get("/api/similar", params={"image": str(film)}).status_code == 404
    assert server.client.get("/api/search", params={"q": f'like:"{film}"'}).status_code == 404


@pytest.mark.parametrize("name", ["relative/folder", "~", "", "/nowhere/at/all", "/dev/null", "/etc/\0"])
def test_a_folder_to_ingest_is_looked_at(server: Local, name: str) -> None:
    before = len(server.client.get("/api/jobs").json()["jobs"])
    answer = server.client.post("/api/jobs", json={"paths": [name]})
    assert answer.status_code == 422
    assert len(server.client.get("/api/jobs").json()["jobs"]) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; run the tests as a user without privileges")
def test_a_folder_that_may_not_be_read_is_refused(server: Local, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    answer = server.client.post("/api/jobs", json={"paths": [str(closed)]})
    assert (answer.status_code, kind(answer)) == (422, "source")


def test_a_huge_body_is_refused_before_it_is_read(server: Local) -> None:
    head = (
        f"POST /api/jobs HTTP/1.1\nHost: 127.0.0.1:{server.port}\nAuthorization: Bearer {server.security.token}\n"
        f"Content-Type: application/json\nContent-Length: {10**12}"
    )
    assert raw(server, head).split()[1] == b"413"
    large = server.client.post("/api/jobs", content=b" " * (MOST_BODY_BYTES + 1))
    assert (large.status_code, kind(large)) == (413, "too_large")
    upload = server.client.post("/api/similar", content=bytes(300_001))
    assert upload.status_code == 413


def test_a_huge_body_of_unstated_length_is_cut_off(server: Local) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 65536
            yield bytes(65536)

    try:
        answer = server.client.post("/api/similar", content=endless())
        assert answer.status_code == 413
    except httpx.TransportError:
        # The server closed while the rest was still being sent.
        pass
    assert sent < 64 << 20


def test_a_slow_body_is_given_up(tmp_path: Path) -> None:
    with open_library(tmp_path / "library", create=True) as library, local_server(library, body_seconds=1.0) as server:
        head = (
            f"POST /api/labels HTTP/1.1\nHost: 127.0.0.1:{server.port}\n"
            f"Authorization: Bearer {server.security.token}\n"
            "Content-Type: application/json\nContent-Length: 1000"
        )
        began = time.monotonic()
        # Not for as long as the client would wait, which is when this would break off.
        assert raw(server, head, b'{"label":').split()[1] == b"408"
        assert time.monotonic() - began > 1.0


def test_a_slow_stranger_never_gets_as_far_as_its_body(server: Local) -> None:
    head = f"POST /api/labels HTTP/1.1\nHost: 127.0.0.1:{server.port}\nContent-Length: 1000"
    # A body is waited for ten times as long as the answer is here.
    assert raw(server, head).split()[1] == b"401"


def test_hostile_words_come_back_as_data(server: Local) -> None:
    answer = server.client.get("/api/search", params={"q": "alert"})
    assert answer.headers["content-type"] == "application/json"
    (hit,) = answer.json()["hits"]
    assert HOSTILE in hit["snippet"]
    assert hit["report_id"] == "<img src=x>"
    report = server.client.get("/api/reports/%3Cimg%20src%3Dx%3E")
    assert report.headers["content-type"] == "application/json"
    assert HOSTILE in report.json()["text"]
    body = {"target_kind": "study", "target_id": uid(1, 1), "label": HOSTILE}
    assert server.client.post("/api/labels", json=body).json()["label"] == HOSTILE
    labels = server.client.get("/api/labels")
    assert labels.headers["content-type"] == "application/json"
    assert HOSTILE in {row["label"] for row in labels.json()["labels"]}
    assert server.client.post("/api/labels/remove", json=body).status_code == 200


def test_what_was_asked_wrongly_is_not_repeated(server: Local) -> None:
    answer = server.client.get("/api/search", params={"q": "a", "sort": HOSTILE})
    assert (answer.status_code, kind(answer)) == (422, "request")
    assert "script" not in answer.text
    assert answer.json()["error"]["item"] == "sort"


def test_an_uploaded_film_leaves_nothing_behind(server: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = tmp_path / "film.dcm"
    dataset(Film(patient=7, study=70)).save_as(film, enforce_file_format=True)
    spare = tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spare))
    before = server.library.totals(), sorted(server.library.path.rglob("*.webp"))
    answer = server.client.post("/api/similar", content=film.read_bytes())
    assert answer.status_code == 200
    assert (server.library.totals(), sorted(server.library.path.rglob("*.webp"))) == before
    assert list(spare.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\nbut cut off", bytes(2000)])
def test_an_upload_that_is_no_image_is_said_to_be_none(server: Local, content: bytes) -> None:
    answer = server.client.post("/api/similar", content=content)
    assert answer.status_code == 422
    assert "Traceback" not in answer.text


def test_what_goes_wrong_inside_is_told_without_its_words(
    server: Local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "^".join(("DOE", "JANE"))

    def fail() -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(server.library, "totals", fail)
    answer = server.client.get("/api/status")
    assert (answer.status_code, kind(answer)) == (500, "internal")
    told, until = "", time.monotonic() + 60
    # It is told behind the answer.
    while "RuntimeError" not in told and time.monotonic() < until:
        told += capsys.readouterr().err
        time.sleep(0.01)
    assert "RuntimeError" in told
    assert words not in told + answer.text


def test_a_socket_for_messages_is_none_of_ours(server: Local) -> None:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    # Kept open after a plain answer, of which the first line says all.
    answer = raw(
        server,
        f"GET /api/status HTTP/1.1\nHost: 127.0.0.1:{server.port}\nUpgrade: websocket\nConnection: Upgrade\n"
        f"Sec-WebSocket-Key: {key}\nSec-WebSocket-Version: 13",
        until=b"\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 401 ")
