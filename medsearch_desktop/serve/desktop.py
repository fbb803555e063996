"""`medsearch app` and `medsearch serve --open`: own a library, or find its owner, and show it to a person.

The window is a process of its own (`window.py`): pywebview wants a main thread, as the server does, and a web
engine that crashes takes neither the library nor an ingest along. What it needs it learns as any second
`medsearch app` does: from the file that tells of the owner. That second one brings the first one's window to the
front, over a pipe that the window listens at. Where there can be no window, the user's browser shows the same pages.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medsearch_desktop.errors import LibraryLockedError, MedSearchError, ServeError
from medsearch_desktop.serve.api.pages import BUILT, INDEX
from medsearch_desktop.serve.front import RAISE, screen_of
from medsearch_desktop.serve.owner import ask_owner
from medsearch_desktop.serve.server import Running, announce, serve

if TYPE_CHECKING:
    from medsearch_desktop.config import Config

INSTALL = "pip install 'medsearch-desktop[desktop]'"
# What the window's process has to be able to import, by the system it is on.
_PACKAGES = {"linux": ("webview", "qtpy", "PySide6.QtWebEngineWidgets")}
_SECONDS_TO_CLOSE = 15.0
_SECONDS_TO_TELL = 2.0
# Beside our own line, what Chromium and Qt say before they end the process.
_TELLING = (":FATAL:", "could not connect to display", "no Qt platform plugin")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why there can be no window, and what to do about it."""

    why: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.why} ({self.remedy})" if self.remedy else self.why


def has_screen(environ: Mapping[str, str] = os.environ, *, system: str = sys.platform) -> bool:
    """Whether there is a screen to show anything on."""
    return system != "linux" or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def find_obstacle(
    environ: Mapping[str, str] = os.environ, *, system: str = sys.platform, packages: tuple[str, ...] | None = None
) -> Obstacle | None:
    """Return why a window cannot be opened, as far as can be told without trying."""
    if not has_screen(environ, system=system):
        return Obstacle("there is no screen here")
    for name in _PACKAGES.get(system, ("webview",)) if packages is None else packages:
        if not _is_installed(name):
            return Obstacle(f"{name.partition('.')[0]} is not installed", INSTALL)
    if system == "linux" and os.geteuid() == 0 and environ.get("QTWEBENGINE_DISABLE_SANDBOX") != "1":
        return Obstacle("the window's sandbox does not work for root", "run it as an ordinary user")
    return None


def why_no_window() -> Obstacle | None:
    """Return why the demo ends without a window: `find_obstacle`'s reasons, and an interface that is not built."""
    if not (BUILT / INDEX).is_file():
        return Obstacle("the browser interface is not built", "`make ui` builds it")
    return find_obstacle()


def run_app(config: Config, *, as_json: bool = False) -> int:
    """Show the library in a window until that is closed, and own it meanwhile unless another process does.

    Where that other one has a window on this screen, it comes to the front and this returns. Falls back to the user's
    browser, and then goes on until SIGTERM or SIGINT if it owns the library. Raises ServeError without a screen or a
    built interface, else as `serve` does.
    """
    library = config.library_path
    if not has_screen():
        raise ServeError(
            "there is no screen here to open a window on",
            remedy=f"`medsearch serve --library {library}` answers programs and browsers of this machine instead",
        )
    _check_built()
    display = _Display(library, as_json=as_json)
    try:
        if ask_owner(library) is None:
            try:
                serve(config, watch=True, on_ready=display.begin)
                return 0
            except LibraryLockedError:
                # Another `medsearch app` of the same moment may have been the first.
                if ask_owner(library) is None:
                    raise
        with suppress(KeyboardInterrupt):
            if not display.bring_first():
                display.show()
    finally:
        display.end()
    return 0


def serve_and_open(config: Config, *, port: int, host: str, watch: bool = False) -> int:
    """Serve as `medsearch serve` does, and log the user's browser in by an address that is good for once."""
    _check_built()
    serve(config, port=port, host=host, watch=watch, on_ready=_announce_and_open)
    return 0


def open_browser(library: Path) -> bool:
    """Open the user's browser at the owner of a library, or print the address to open; return which.

    Raises ServeError where nobody owns the library.
    """
    remote = ask_owner(library)
    if remote is None:
        raise ServeError("no process answers for it", item=str(library), remedy="Run `medsearch app`")
    address = remote.login_address()
    # Without a screen, webbrowser would start a browser in the terminal.
    if has_screen() and webbrowser.open(address):
        return True
    print(f"medsearch: open this address in a browser; it is good for a minute, once:\n{address}", file=sys.stderr)
    return False


class _Display:
    """The window of one launch, or the browser in its place; `begin` and `end` are for whoever owns the library."""

    def __init__(self, library: Path, *, as_json: bool) -> None:
        self._library = library
        self._as_json = as_json
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._ending = False

    def begin(self, running: Running) -> None:
        """Show the library beside its server, which ends when the window is closed."""
        running.front.offer(self.bring)

        def until_closed() -> None:
            if self.show():
                running.end()

        self._thread = threading.Thread(target=until_closed, name="display")
        self._thread.start()

    def end(self) -> None:
        """Close the window if it is still there and wait until it has gone."""
        with self._lock:
            self._ending = True
            if self._child is not None:
                self._child.terminate()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_SECONDS_TO_CLOSE)
            if self._thread.is_alive() and self._child is not None:
                self._child.kill()
                self._thread.join()

    def bring(self, screen: str) -> bool:
        """Bring the window to the front, if there is one on `screen`."""
        with self._lock:
            child = self._child
            if self._ending or child is None or child.poll() is not None or screen != screen_of():
                return False
            assert child.stdin is not None
            try:
                os.write(child.stdin.fileno(), f"{RAISE}\n".encode())
            except OSError:
                # It is closing at this moment.
                return False
            return True

    def bring_first(self) -> bool:
        """Bring the window of the library's owner to the front; return whether it has one on this screen."""
        remote = ask_owner(self._library)
        try:
            if remote is None or not remote.bring_window(screen_of()):
                return False
        except MedSearchError:
            return False
        self._tell("raised", "")
        return True

    def show(self) -> bool:
        """Show a window until it is closed, or else open the browser; return whether it was a window."""
        obstacle = find_obstacle() or self._window()
        if obstacle is None:
            return True
        print(f"medsearch: no window: {obstacle}; your browser shows the library instead", file=sys.stderr)
        try:
            open_browser(self._library)
        except MedSearchError as error:
            print(f"medsearch: {error}", file=sys.stderr)
        self._tell("browser", str(obstacle))
        return False

    def _window(self) -> Obstacle | None:
        """Run the window's process to its end and return why it was none."""
        command = [*_this_program(), "app", "--attach", "--library", str(self._library)]
        with self._lock:
            if self._ending:
                return None
            child = self._child = subprocess.Popen(
                command,
                # By it the window is told to come to the front.
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # The engine repeats there what pages log; of that nothing is passed on but why it failed.
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            assert child.stdin is not None
            if sys.platform != "win32":
                # A window that hangs and reads nothing holds nobody up.
                os.set_blocking(child.stdin.fileno(), False)
        self._tell("window", "")
        told: list[str] = []
        reader = threading.Thread(target=_note, args=(child, told), name="window", daemon=True)
        reader.start()
        status = child.wait()
        # Processes of an engine that was killed may hold the pipe for longer than anybody wants to wait.
        reader.join(_SECONDS_TO_TELL)
        with self._lock:
            self._child = None
            child.stdin.close()
            if status == 0 or self._ending:
                return None
        return Obstacle(told[-1] if told else f"its process ended by {_named(status)}")

    def _tell(self, shown: str, why: str) -> None:
        if self._as_json:
            print(json.dumps({"library": str(self._library), "shown": shown, "why": why}), flush=True)


def _note(child: subprocess.Popen[str], told: list[str]) -> None:
    """Read what a window's process says to its end; add why it failed to `told`, what it says itself last."""
    assert child.stderr is not None
    with child.stderr as lines:
        for line in lines:
            if line.startswith("medsearch: "):
                told.append(line.removeprefix("medsearch: ").strip())
            elif not told and any(mark in line for mark in _TELLING):
                told.append(line.rpartition("] ")[2].strip())


def _announce_and_open(running: Running) -> None:
    announce(running)

    def open_it() -> None:
        try:
            open_browser(running.library)
        except MedSearchError as error:
            print(f"medsearch: {error}", file=sys.stderr)

    # The server answers only once this has returned; and a browser may take its time to start.
    threading.Thread(target=open_it, name="browser", daemon=True).start()


def _check_built(pages: Path = BUILT) -> None:
    if not (pages / INDEX).is_file():
        raise ServeError("the browser interface is not built", item=INDEX, remedy="Run `make ui` once")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def _this_program() -> list[str]:
    # A frozen program is its own interpreter.
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "medsearch_desktop"]


def _named(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
