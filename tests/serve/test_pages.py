"""The built interface as the server gives it: its files, its own addresses, and nothing else of the disk."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import Local, local_server

from medsearch_desktop.library import open_library

INDEX = '<!doctype html><script type="module" src="/assets/index-1a2b.js"></script>'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("pages")
    built = folder / "static"
    (built / "assets").mkdir(parents=True)
    (built / "index.html").write_text(INDEX, "utf-8")
    (built / "assets" / "index-1a2b.js").write_text("export {}", "utf-8")
    (built / "assets" / "notes.map").write_text("{}", "utf-8")
    (folder / "secret.txt").write_text("secret", "utf-8")
    with open_library(folder / "library", create=True) as library, local_server(library, pages=built) as local:
        yield local


@pytest.mark.parametrize("address", ["/", "/study/1.2.840", "/library"])
def test_every_address_of_the_interface_is_its_index(server: Local, address: str) -> None:
    answer = server.client.get(address)
    assert (answer.status_code, answer.text) == (200, INDEX)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    again = server.client.get("/", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_a_file_that_is_named_by_its_content_is_kept(server: Local) -> None:
    answer = server.client.get("/assets/index-1a2b.js")
    assert answer.text == "export {}"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"


@pytest.mark.parametrize(
    "address",
    ["/assets/other.js", "/assets/notes.map", "/secret.txt", "/api/nothing", "/graphql/x", "/assets/..%2fsecret.txt"],
)
def test_what_is_not_of_the_interface_is_not_found(server: Local, address: str) -> None:
    answer = server.client.get(address)
    assert answer.status_code == 404
    assert answer.json()["error"]["kind"] == "not_found"


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/assets/../../secret.txt", "/%2e%2e/secret.txt", "//secret.txt", "/assets/%00.js"]
)
def test_no_way_leads_out_of_the_folder(server: Local, path: str) -> None:
    # By hand: a client would tidy the path up before it sends it.
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.security.token}\r\n"
        )
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2].replace(b"secret.txt", b"")


def test_pages_need_the_secret_too(server: Local) -> None:
    url = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as stranger:
        assert stranger.get("/").status_code == 401
        login = server.client.post("/api/login").json()["path"]
        answer = stranger.get(login, follow_redirects=True)
        assert (answer.status_code, answer.text) == (200, INDEX)


def test_an_interface_that_is_not_built_says_how(tmp_path: Path) -> None:
    with open_library(tmp_path / "library", create=True) as library, local_server(library, pages=tmp_path) as local:
        error = local.client.get("/").json()["error"]
    assert error["remedy"] == "Run `make ui` once"
