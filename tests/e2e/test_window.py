"""The real window: pywebview with its engine on a screen of Xvfb, the real server, a small library."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from held import Held
from makers import write_department
from running import spoken
from screens import (
    HEIGHT,
    PATIENCE_SECONDS,
    WIDTH,
    Screen,
    hand,
    needs_pages,
    needs_screen,
    own_screen,
    program,
    shows_pages,
    until,
    window_of,
)
from servers import local_server, served

from medsearch_desktop.library import open_library
from medsearch_desktop.serve.api.pages import INDEX
from medsearch_desktop.serve.geometry import geometry_file
from medsearch_desktop.serve.owner import Owner, RemoteLibrary, find_owner

ROOT = Path(__file__).parents[2]
pytestmark = needs_screen


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    with own_screen(tmp_path, monkeypatch) as one:
        yield one


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("window")
    with open_library(folder / "library", create=True) as library:
        library.ingest([write_department(folder / "source", studies=6)])
    return folder / "library"


@needs_pages
def test_the_window_shows_the_library_and_closes_well(screen: Screen, made: Path) -> None:
    with program("--json", "--library", made) as process:
        window = window_of(process)
        until(lambda: shows_pages(screen))
        listening = [
            each
            for part in [psutil.Process(process.pid), window, *window.children(recursive=True)]
            for each in part.net_connections("inet")
            if each.status == psutil.CONN_LISTEN
        ]
        # The server's, and none of the engine's for a debugger.
        assert [each.laddr.ip for each in listening] == ["127.0.0.1"]
        window.terminate()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
    assert [json.loads(line)["shown"] for line in out.splitlines()] == ["window"]
    assert spoken(err) == ""
    assert find_owner(made) is None
    row = json.loads(geometry_file().read_text())
    assert (row["width"], row["height"], row["maximized"]) == (1280, 860, False)


@needs_pages
def test_the_window_comes_back_where_it_was(screen: Screen, made: Path) -> None:
    file = geometry_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    row = {"width": 900, "height": 600, "x": 300, "y": 200, "maximized": False}
    file.write_text(json.dumps(row))
    with program("--library", made) as process:
        window = window_of(process)
        until(lambda: shows_pages(screen))
        picture = screen.picture()
        window.terminate()
        assert process.wait(120) == 0
    # Nothing manages windows on this screen: what no window covers is black.
    rows, columns = np.nonzero(picture.any(axis=2))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (300, 200, 1200, 800)
    assert json.loads(file.read_text()) == row


@needs_pages
def test_windows_onto_a_server_come_and_go_and_go_with_it(screen: Screen, made: Path) -> None:
    with served(made) as server:
        owner = find_owner(made)
        assert owner is not None
        with program("--library", made) as one:
            window = window_of(one)
            until(lambda: shows_pages(screen))
            assert find_owner(made) == owner
            window.terminate()
            assert one.wait(60) == 0
            assert RemoteLibrary(owner).answers()
        with program("--library", made) as other:
            window_of(other)
            until(lambda: shows_pages(screen))
            assert server.end(signal.SIGTERM) == 0
            assert other.wait(60) == 0
    assert find_owner(made) is None


@needs_pages
def test_closing_the_window_parks_an_ingest(screen: Screen, tmp_path: Path) -> None:
    source, held = write_department(tmp_path / "source", studies=30), Held(tmp_path, "s50000012/image1")
    with program("--library", tmp_path / "library", begin=held.line) as process:
        window = window_of(process)
        owner = until(lambda: find_owner(tmp_path / "library"))
        until(RemoteLibrary(owner).answers)
        until(lambda: screen.picture().any())
        headers = {"Authorization": f"Bearer {owner.token}"}
        with httpx.Client(base_url=owner.url, headers=headers, timeout=60, trust_env=False) as client:
            job = client.post("/api/jobs", json={"paths": [str(source)]}).raise_for_status().json()
            with client.stream("GET", f"/api/jobs/{job['job_id']}/events") as events:
                held.until_reached(process)
                window.terminate()
                # They end when every job has been told to stop: this one, which stands still, as well.
                told = [json.loads(line[6:])["state"] for line in events.iter_lines() if line.startswith("data: ")]
                assert told[-1] == "running"
        held.go_on()
        assert process.wait(120) == 0
        assert process.stderr is not None
        assert spoken(process.stderr.read()) == ""
    with open_library(tmp_path / "library") as library:
        kept = library.totals()
        assert 0 < kept.files < 90
        assert library.vectors.count == kept.vectors == kept.images
        library.ingest([source])
        assert library.totals().images == 60


@needs_pages
@pytest.mark.skipif(find_library("Xtst") is None, reason="no hand to press keys: `apt-get install libxtst6`")
def test_the_menu_adds_a_folder_and_closes(screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_department(tmp_path / "source", studies=2)
    file = geometry_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"width": 900, "height": 600, "x": 100, "y": 100, "maximized": False}))
    menu = "130,109"
    # The dialog begins there, and takes it when it is told no other.
    monkeypatch.chdir(source)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with program("--library", tmp_path / "library") as process:
        window_of(process)
        until(lambda: len(np.unique(screen.picture().reshape(-1, 3), axis=0)) > 50)
        owner = find_owner(tmp_path / "library")
        assert owner is not None
        seen = screen.still()
        for act in (menu, "Down", "Return"):
            seen = screen.after(act, seen)
        # The dialog is there.
        hand("Return")
        until(lambda: RemoteLibrary(owner).search("").total == 2)
        seen = screen.still()
        for act in (menu, "Up"):
            seen = screen.after(act, seen)
        hand("Return")
        assert process.wait(120) == 0
    with open_library(tmp_path / "library") as library:
        assert library.holdings.sources() == [(str(source), True, 6)]


@needs_pages
def test_a_window_that_crashes_takes_nothing_along(screen: Screen, made: Path) -> None:
    with program("--json", "--library", made) as process:
        window = window_of(process)
        until(lambda: shows_pages(screen))
        owner = find_owner(made)
        assert owner is not None
        window.kill()
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["shown"] for _ in range(2)] == ["window", "browser"]
        assert RemoteLibrary(owner).answers()
        process.terminate()
        assert process.wait(120) == 0


HOSTILE = """
const other = 'http://127.0.0.1:PORT';
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const attempts = [
  () => window.open(other + '/open'),
  () => {
    for (const target of ['_blank', '_top', '_self']) {
      const link = document.createElement('a');
      Object.assign(link, { href: other + '/link', target });
      document.body.append(link);
      link.click();
    }
  },
  () => { new Image().src = other + '/picture'; },
  () => fetch(other + '/fetch').catch(() => {}),
  () => {
    const frame = document.createElement('iframe');
    frame.src = other + '/frame';
    document.body.append(frame);
  },
  () => { location.href = other + '/gone'; },
  () => { location.href = 'file:///etc/hostname'; },
  () => window.pywebview._jsApiCallback('__class__.__base__.__subclasses__', [], '1'),
];
async function run() {
  // The bridge is put into the page by the window, some time after the page has begun.
  while (!window.pywebview?.api || !window.pywebview._jsApiCallback) await wait(100);
  await wait(1000);
  for (const attempt of attempts) {
    attempt();
    await wait(300);
  }
  const status = await fetch('/api/status');
  const bare = Object.keys(window.pywebview.api).length === 0;
  document.body.className = status.ok && bare ? 'well' : 'bad';
}
run();
"""


def test_a_page_goes_nowhere_else_and_reaches_nothing(screen: Screen, made: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    with (
        open_library(made) as library,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        port = other.getsockname()[1]
        (pages / "app.js").write_text(HOSTILE.replace("PORT", str(port)))
        (pages / "app.css").write_text(".well { background: rgb(0, 128, 0); } .bad { background: rgb(128, 0, 0); }")
        (pages / INDEX).write_text(
            '<!doctype html><link rel="stylesheet" href="/app.css"><body><script src="/app.js"></script>'
        )
        with local_server(library, pages=pages) as local:
            Owner.of_this_process(f"http://127.0.0.1:{local.port}", local.security.token).write(made)
            try:
                with program("--attach", "--library", made) as window:
                    colours = until(
                        lambda: (
                            {(0, 128, 0), (128, 0, 0)}
                            & {tuple(int(part) for part in screen.picture()[HEIGHT // 2, WIDTH // 2])}
                        )
                    )
                    assert colours == {(0, 128, 0)}
                    window.terminate()
                    assert window.wait(60) == 0
            finally:
                (made / "owner.json").unlink()
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_page_that_does_not_come_up_is_told(screen: Screen, made: Path) -> None:
    """The login address answers, but its server goes away before the window asks for the page."""
    answers = threading.Event()

    def answer_once_and_go(listener: socket.socket) -> None:
        body = b'{"jobs": [], "path": "/login?ticket=x"}'
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        listener.close()
        answers.set()

    listener = socket.create_server(("127.0.0.1", 0))
    Owner.of_this_process(f"http://127.0.0.1:{listener.getsockname()[1]}", "token").write(made)
    thread = threading.Thread(target=answer_once_and_go, args=(listener,))
    thread.start()
    try:
        with program("--attach", "--library", made) as window:
            _, err = window.communicate(timeout=PATIENCE_SECONDS)
            assert window.returncode == 1
            assert err.splitlines()[-1] == "medsearch: the page did not come up"
        thread.join(10)
        assert answers.is_set()
    finally:
        (made / "owner.json").unlink()
