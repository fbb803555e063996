"""The route by which a second `medsearch app` asks for the first one's window, without a screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import Served, served

from medsearch_desktop.serve.front import Front, screen_of
from medsearch_desktop.serve.owner import ask_owner


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("front") / "library"


@pytest.fixture(scope="module")
def server(library: Path) -> Iterator[Served]:
    with served(library) as running:
        yield running


def test_a_server_without_a_window_has_none_to_bring(server: Served, library: Path) -> None:
    remote = ask_owner(library)
    assert remote is not None
    assert remote.bring_window(":0") is False
    with server.client() as client:
        assert client.post("/api/window", json={}).json() == {"raised": False}
        assert client.post("/api/window", json={"screen": "x" * 201}).status_code == 422
    assert httpx.post(f"{server.url}/api/window", json={}, trust_env=False, timeout=60).status_code == 401


def test_the_window_is_asked_for_by_its_screen() -> None:
    front = Front()
    assert front.bring(":0") is False
    front.offer(lambda screen: screen == ":0")
    assert front.bring(":0") is True
    assert front.bring(":1") is False


@pytest.mark.parametrize(
    ("environ", "system", "screen"),
    [
        ({}, "linux", ""),
        ({"DISPLAY": ":1"}, "linux", ":1"),
        ({"DISPLAY": ":1", "WAYLAND_DISPLAY": "wayland-0"}, "linux", "wayland-0"),
        ({"DISPLAY": ":1"}, "win32", ""),
        ({"DISPLAY": ":1"}, "darwin", ""),
    ],
)
def test_screens_have_names_where_there_may_be_several(environ: dict[str, str], system: str, screen: str) -> None:
    assert screen_of(environ, system=system) == screen
