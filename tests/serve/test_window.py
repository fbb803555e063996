"""Whether there can be a window, what happens where there is none, where it was: real processes, a real address."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from running import spoken
from servers import served

from medsearch_desktop.serve.api.pages import BUILT, INDEX
from medsearch_desktop.serve.cli import main
from medsearch_desktop.serve.desktop import find_obstacle, has_screen
from medsearch_desktop.serve.geometry import SMALLEST, Area, Geometry, geometry_file
from medsearch_desktop.serve.owner import Owner, find_owner
from medsearch_desktop.serve.window import _Nothing, is_own

SCREEN = Area(0, 0, 1920, 1080)
needs_pages = pytest.mark.skipif(
    not (BUILT / INDEX).is_file(), reason="the browser interface is not built: run `make ui`"
)
needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("PySide6") is None or importlib.util.find_spec("webview") is None,
    reason="no window's engine: pip install 'medsearch-desktop[desktop]'",
)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="screens are looked for on Linux; run it there")


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A browser that writes the address it is to open into the file returned, and a screen that is not there."""
    asked = tmp_path / "asked"
    script = tmp_path / "browser.py"
    script.write_text(
        f"import pathlib, sys\npart = pathlib.Path({str(asked)!r} + '.part')\n"
        f"part.write_text(sys.argv[1])\npart.rename({str(asked)!r})\n"
    )
    monkeypatch.setenv("BROWSER", f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} %s")
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return asked


@contextmanager
def app(library: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run `medsearch app --json` until the end of the block."""
    command = [sys.executable, "-m", "medsearch_desktop", "app", "--json", "--library", str(library)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ}
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)


def awaited(path: Path) -> str:
    for _ in range(600):
        if path.exists():
            return path.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{path.name} did not come")


def opens(address: str) -> bool:
    """Whether an address logs a browser window in and shows the interface."""
    with httpx.Client(trust_env=False, timeout=60) as window:
        answer = window.get(address, follow_redirects=True)
    return answer.status_code == 200 and "<html" in answer.text.lower()


@pytest.mark.parametrize(
    ("environ", "system", "seen"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "win32", True),
        ({}, "darwin", True),
    ],
)
def test_a_screen_is_found(environ: dict[str, str], system: str, seen: bool) -> None:
    assert has_screen(environ, system=system) is seen
    assert (str(find_obstacle(environ, system=system, packages=("json",))) == "there is no screen here") is not seen


def test_what_is_not_installed_is_named_with_the_command() -> None:
    obstacle = find_obstacle({"DISPLAY": ":0"}, system="win32", packages=("json", "no_such_package.part"))
    assert str(obstacle) == "no_such_package is not installed (pip install 'medsearch-desktop[desktop]')"
    assert find_obstacle({}, system="win32", packages=("json", "json.decoder")) is None


@on_linux
def test_the_sandbox_is_not_given_up_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(user: int, **environ: str) -> str:
        monkeypatch.setattr(os, "geteuid", lambda: user)
        return str(find_obstacle({"DISPLAY": ":0", **environ}, packages=("json",)))

    assert told(1000) == "None"
    assert "ordinary user" in told(0)
    assert told(0, QTWEBENGINE_DISABLE_SANDBOX="1") == "None"


@on_linux
def test_without_a_screen_it_says_what_to_use_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["app", "--library", str(tmp_path / "library")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"`medsearch serve --library {tmp_path / 'library'}`" in err
    assert not (tmp_path / "library").exists()


@on_linux
@needs_pages
@pytest.mark.parametrize("case", ["root", "no-display"])
def test_where_there_is_no_window_the_browser_shows_the_library(tmp_path: Path, browser: Path, case: str) -> None:
    if case == "root" and os.geteuid() != 0:
        pytest.skip("only root is refused for its sandbox: run the tests as root to see it")
    if importlib.util.find_spec("PySide6") is None:
        pytest.skip("no window's engine to fail: pip install 'medsearch-desktop[desktop]'")
    library = tmp_path / "library"
    with app(library, QTWEBENGINE_DISABLE_SANDBOX="1" if case == "no-display" else "") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = awaited(browser)
        owner = find_owner(library)
        assert owner is not None
        assert owner.pid == process.pid
        assert address.startswith(f"{owner.url}/login?ticket=")
        assert owner.token not in address
        assert opens(address)
        # It was good for once.
        assert httpx.get(address, trust_env=False, timeout=60).status_code == 401
        process.terminate()
        assert process.wait(60) == 0
        rows = [json.loads(line) for line in process.stdout]
        told = spoken(process.stderr.read())
    assert rows[-1]["shown"] == "browser"
    assert {"root": "sandbox", "no-display": "could not connect to display"}[case] in rows[-1]["why"]
    assert told == f"medsearch: no window: {rows[-1]['why']}; your browser shows the library instead\n"
    assert find_owner(library) is None


@on_linux
@needs_pages
def test_a_second_one_shows_the_first_ones_library(tmp_path: Path, browser: Path) -> None:
    library = tmp_path / "library"
    with served(library) as first, app(library, QTWEBENGINE_DISABLE_SANDBOX="") as second:
        # Where it owns nothing there is nothing to go on with once the browser is open.
        assert second.wait(60) == 0
        assert awaited(browser).startswith(f"{first.url}/login?ticket=")
        owner = find_owner(library)
        assert owner is not None
        assert owner.pid == first.process.pid


@on_linux
@needs_pages
def test_serve_opens_the_browser_logged_in(tmp_path: Path, browser: Path) -> None:
    with served(tmp_path / "library", "--open") as running:
        address = awaited(browser)
        assert address.startswith(f"{running.url}/login?ticket=")
        assert opens(address)
        assert running.end() == 0


@on_linux
@needs_pages
def test_serve_without_a_screen_says_which_address_to_open(tmp_path: Path) -> None:
    with served(tmp_path / "library", "--open", DISPLAY="", WAYLAND_DISPLAY="") as running:
        assert running.process.stderr is not None
        assert "open this address" in running.process.stderr.readline()
        assert opens(running.process.stderr.readline().strip())
        assert running.end() == 0


@needs_engine
def test_a_window_needs_an_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--attach", "--library", str(tmp_path)]) == 1
    assert "no process answers for it" in capsys.readouterr().err
    Owner.of_this_process("http://127.0.0.1:9", "token").write(tmp_path)
    assert main(["app", "--attach", "--library", str(tmp_path)]) == 1
    assert "no process answers for it" in capsys.readouterr().err


@on_linux
@pytest.mark.slow
def test_the_demo_ends_without_a_window_where_there_is_no_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["demo", "--studies", "1", "--library", str(tmp_path / "demo")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("No window is opened: ")
    assert last.endswith(("there is no screen here.", "`make ui` builds it)."))


def test_size_and_place_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "state" / "window.json"
    kept = Geometry(1000, 700, -40, 12, maximized=True)
    assert Geometry.read(file) == Geometry()
    kept.write(file)
    assert Geometry.read(file) == kept
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_they_are_kept_in_the_users_state_folder() -> None:
    assert geometry_file().name == "window.json"
    assert geometry_file().is_relative_to(Path.home())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"width": 900}',
        '{"width": "900", "height": 700, "x": 0, "y": 0, "maximized": false}',
        '{"width": 900, "height": 0, "x": 0, "y": 0, "maximized": false}',
        '{"width": 900, "height": true, "x": 0, "y": 0, "maximized": false}',
        '{"width": 900, "height": 700, "x": 0, "y": null, "maximized": false}',
        '{"width": 900, "height": 700, "x": 0, "y": 1e999, "maximized": false}',
        '{"width": 900, "height": 700, "x": 0, "y": 0, "maximized": "yes"}',
        "[" * 9_000,
        "\udcff",
    ],
)
def test_what_is_not_sound_counts_for_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "window.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert Geometry.read(file) == Geometry()


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    Geometry().write(tmp_path / "state" / "window.json")
    assert Geometry.read(tmp_path / "state" / "window.json") == Geometry()


@pytest.mark.parametrize(
    ("kept", "screens", "fitted"),
    [
        (Geometry(1000, 700, 10, 20), [SCREEN], Geometry(1000, 700, 10, 20)),
        (Geometry(1000, 700, -500, 20), [SCREEN], Geometry(1000, 700, -500, 20)),
        (Geometry(1000, 700, -950, 20), [SCREEN], Geometry(1000, 700)),
        (Geometry(1000, 700, 10, -20), [SCREEN], Geometry(1000, 700)),
        (Geometry(1000, 700, 10, 1075), [SCREEN], Geometry(1000, 700)),
        (Geometry(1000, 700, 2500, 20, maximized=True), [SCREEN], Geometry(1000, 700, maximized=True)),
        (Geometry(1000, 700, 2500, 20), [SCREEN, Area(1920, 0, 1280, 720)], Geometry(1000, 700, 2500, 20)),
        (Geometry(4000, 3000, 0, 0), [SCREEN], Geometry(1920, 1080, 0, 0)),
        (Geometry(10, 10, 0, 0), [SCREEN], Geometry(*SMALLEST)),
        (Geometry(1000, 700, 10, 20), [], Geometry(1000, 700, 10, 20)),
    ],
)
def test_a_window_comes_back_within_reach(kept: Geometry, screens: list[Area], fitted: Geometry) -> None:
    assert kept.fitted(screens) == fitted


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("http://127.0.0.1:8765/", True),
        ("http://127.0.0.1:8765/study/1.2.3?x=1#y", True),
        ("http://127.0.0.1:8766/", False),
        ("https://127.0.0.1:8765/", False),
        ("http://127.0.0.1:8765@192.0.2.1/", False),
        ("http://127.0.0.1:8765.example.org/", False),
        ("http://localhost:8765/", False),
        ("file:///etc/passwd", False),
        ("data:text/html,x", False),
        ("javascript:alert(1)", False),
        ("http://127.0.0.1:port/", False),
        ("", False),
    ],
)
def test_only_the_servers_own_addresses_are_gone_to(address: str, own: bool) -> None:
    assert is_own(address, "http://127.0.0.1:8765") is own


def test_a_page_reaches_nothing_of_python() -> None:
    nothing = _Nothing()
    assert dir(nothing) == []
    for name in ("__class__", "__init__", "__dir__", "pick_folder", "_anything"):
        with pytest.raises(AttributeError):
            getattr(nothing, name)
