"""The desktop window: the built interface in a web engine of its own, at the server that owns the library.

The only file that imports pywebview and Qt. The page is given nothing of Python: pywebview's bridge (`js_api`)
needs `unsafe-eval`, which our Content-Security-Policy refuses, and follows dotted names to whatever hangs on an
exposed function. The native dialogs for folders and files are entries of the window's own menu instead,
whose choice this process sends to the server. The engine loads nothing of another origin, keeps nothing on disk
but what the user saves by a dialog (on Linux; elsewhere nothing is saved), has no developer tools, and keeps its
sandbox.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

from medsearch_desktop.errors import MedSearchError, ServeError
from medsearch_desktop.serve.front import RAISE
from medsearch_desktop.serve.geometry import SMALLEST, Area, Geometry, geometry_file
from medsearch_desktop.serve.owner import Owner, RemoteLibrary, ask_owner, find_owner
from medsearch_desktop.serve.security import LOGIN

TITLE = "MedSearch Desktop"
_LIBRARY_PAGE = "/library"
_SECONDS_TO_LOAD = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0
# Whatever an environment asks the engine for, the way in for a debugger and the way around the sandbox stay shut.
# pywebview itself adds the second on some distributions.
_REFUSED_FLAGS = ("--remote-debugging", "--remote-allow", "--no-sandbox", "--disable-web-security")
# What a page has made itself needs no connection.
_OF_THE_PAGE = ("blob:", "data:")
_FLAGS = (
    "--no-proxy-server",
    # No name is looked up: the server is known by its number.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE ::1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--no-pings",
)


def open_window(library: Path) -> NoReturn:
    """Show a window onto the process that owns `library` until it is closed or that process ends, and end this one.

    Runs in the main thread. Its size and place are kept. The exit status is 1 where the page does not come up.
    Raises ServeError where nobody owns the library or the engine cannot be loaded.
    """
    owner, remote = find_owner(library), ask_owner(library)
    if owner is None or remote is None:
        raise ServeError("no process answers for it", item=str(library), remedy="Run `medsearch app`")
    # What is saved here are patients' files.
    os.umask(0o077)
    webview = _engine()
    kept = Geometry.read(geometry_file())
    screens = [Area(each.x, each.y, each.width, each.height) for each in webview.screens]
    geometry = kept.fitted(screens)
    window = webview.create_window(
        TITLE,
        remote.login_address(),
        js_api=_Nothing(),
        width=geometry.width,
        height=geometry.height,
        min_size=SMALLEST,
        **_place(geometry, screens),
        maximized=geometry.maximized,
        menu=_menu(webview, remote, owner),
        text_select=True,
        zoomable=True,
    )
    session = _Session(window, owner, geometry)
    threading.Thread(target=session.listen, name="front", daemon=True).start()
    before = signal.signal(signal.SIGTERM, session.leave_by_signal)
    try:
        webview.start(session.watch, gui="qt" if sys.platform == "linux" else None, private_mode=True, debug=False)
    finally:
        session.over.set()
        signal.signal(signal.SIGTERM, before)
    session.keep()
    if session.error is not None:
        print(f"medsearch: {session.error}", file=sys.stderr, flush=True)
    # Threads of pywebview wait without end for what a script in the closed page would have answered.
    os._exit(1 if session.error is not None else 0)


class _Session:
    """One window from its opening to its end: what happens to it, and when it has to go by itself."""

    def __init__(self, window: Any, owner: Owner, geometry: Geometry) -> None:
        self.over = threading.Event()
        self.error: ServeError | None = None
        self._up = threading.Event()
        self._window = window
        self._owner = owner
        self._parent = os.getppid()
        self._geometry = geometry
        self._maximized = geometry.maximized
        events = window.events
        events.maximized += lambda: self._maximize(True)
        events.restored += lambda: self._maximize(False)
        # The only one of them that comes before the window has gone, and in the thread that may ask it.
        events.closing += self._measure
        if sys.platform == "linux":
            events.before_show += lambda: _confine(window, owner.url, on_loaded=self._came_up)
            events.before_show += lambda: _save_downloads(window.native, owner.url)
        else:
            events.loaded += lambda: self._came_up(True)

    def leave_by_signal(self, _signal: int, _frame: FrameType | None) -> None:
        """Have the window closed as its user would close it."""
        self.over.set()

    def listen(self) -> None:
        """Come to the front as often as whoever opened the window says so."""
        told = sys.stdin
        # Started by hand, it has a terminal to read from, which is somebody else's.
        if told is None or told.isatty() or not self._up.wait(_SECONDS_TO_LOAD):
            return
        for line in told:
            if line.strip() == RAISE and not self.over.is_set():
                self._bring()

    def watch(self) -> None:
        """Close the window when it is told to, its page does not come up, or its server has gone."""
        waited = 0.0
        while not self.over.wait(_SECONDS_BETWEEN_LOOKS):
            waited += _SECONDS_BETWEEN_LOOKS
            if not self._up.is_set() and waited > _SECONDS_TO_LOAD:
                self.error = ServeError(f"the page did not come up within {_SECONDS_TO_LOAD:g} seconds")
                break
            # Whoever opened it is not there to close it either when it was killed.
            if not self._owner.alive or os.getppid() != self._parent:
                break
        self._window.destroy()

    def keep(self) -> None:
        """Remember size and place for the next window."""
        self._geometry.write(geometry_file())

    def _bring(self) -> None:
        if sys.platform == "linux":
            from PySide6.QtCore import QTimer

            # In the thread of the window's own.
            QTimer.singleShot(0, self._window.native, self._window.native.bring)
        else:
            self._window.show()
            # Neither system has another way for a program to raise itself.
            self._window.on_top = True
            self._window.on_top = False

    def _came_up(self, well: bool) -> None:
        if well:
            self._up.set()
        elif not self._up.is_set():
            # Better no window than one with the engine's own page about an error.
            self.error = ServeError("the page did not come up")
            self.over.set()

    def _measure(self) -> None:
        if sys.platform == "linux":
            view = self._window.native
            normal, corner = view.geometry(), view.frameGeometry().topLeft()
            if maximized := view.isMaximized():
                # What to come back to, not the screen's own size.
                normal = view.normalGeometry()
                corner = normal.topLeft()
            self._geometry = Geometry(normal.width(), normal.height(), corner.x(), corner.y(), maximized)
        elif self._maximized:
            self._geometry = replace(self._geometry, maximized=True)
        else:
            window = self._window
            self._geometry = Geometry(int(window.width), int(window.height), int(window.x), int(window.y))

    def _maximize(self, maximized: bool) -> None:
        self._maximized = maximized


class _Nothing:
    """What pywebview's bridge finds of Python: nothing, whatever name a page sends.

    Left to itself it would look names up on None, and so reach its class and all that hangs there.
    """

    def __getattribute__(self, name: str) -> NoReturn:
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        return []


def _engine() -> Any:
    """Return pywebview with its engine loaded and bound hand and foot. Raises ServeError."""
    # The engine logs addresses and what pages say.
    os.environ["PYWEBVIEW_LOG"] = "CRITICAL"
    os.environ.pop("QTWEBENGINE_REMOTE_DEBUGGING", None)
    try:
        if sys.platform == "linux":
            # For pywebview's look at the screens, which takes no argument, and for qtpy, which would take PyQt.
            os.environ["PYWEBVIEW_GUI"], os.environ["QT_API"] = "qt", "pyside6"
            # First by itself: pywebview would tell of another binding that is missing too.
            import PySide6.QtWebEngineWidgets  # noqa: F401
            import webview.platforms.qt
            from PySide6.QtCore import QSettings

            # Else the dialogs keep the names of what was chosen in the user's settings of Qt.
            QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, os.devnull)
        import webview
    except ImportError as error:
        raise ServeError(
            f"the window's engine cannot be loaded ({error})", remedy="Install what it names, or use the browser"
        ) from error
    given = os.environ.get("QTWEBENGINE_CHROMIUM_FLAGS", "").split()
    left = [flag for flag in given if not flag.startswith(_REFUSED_FLAGS)]
    os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = " ".join([*left, *(_quoted(flag) for flag in _FLAGS)])
    webview.settings["OPEN_EXTERNAL_LINKS_IN_BROWSER"] = False
    webview.settings["ALLOW_DOWNLOADS"] = False
    webview.settings["ALLOW_FILE_URLS"] = False
    webview.settings["REMOTE_DEBUGGING_PORT"] = None
    logging.getLogger("pywebview").setLevel(logging.CRITICAL)
    return webview


def _quoted(flag: str) -> str:
    return f'"{flag}"' if " " in flag else flag


def _place(geometry: Geometry, screens: list[Area]) -> dict[str, int]:
    if geometry.x is None or geometry.y is None:
        return {}
    # pywebview counts from the first screen's corner there, and tells places from the desktop's.
    corner = screens[0] if sys.platform == "linux" and screens else Area(0, 0, 0, 0)
    return {"x": geometry.x - corner.x, "y": geometry.y - corner.y}


def _confine(window: Any, url: str, *, on_loaded: Callable[[bool], None]) -> None:
    """Let the engine load what our own server answers, and nothing else: no page, picture or frame of another."""
    from PySide6.QtCore import Qt
    from PySide6.QtWebEngineCore import QWebEngineUrlRequestInterceptor

    class Fence(QWebEngineUrlRequestInterceptor):
        def interceptRequest(self, info: Any) -> None:  # noqa: N802 - Qt's name
            address = info.requestUrl().toString()
            if not (is_own(address, url) or address.startswith(_OF_THE_PAGE)):
                info.block(True)

    def decide(request: Any) -> None:
        if is_own(request.url().toString(), url):
            request.accept()
        else:
            request.reject()

    def tell(well: bool) -> None:
        # A login address that is refused answers too, and stays where it is.
        on_loaded(well and view.webview.page().url().path() != LOGIN)

    def bring() -> None:
        view.setWindowState(view.windowState() & ~Qt.WindowState.WindowMinimized)
        view.show()
        view.raise_()
        view.activateWindow()

    view = window.native
    view.bring = bring
    # Qt does not keep it alive; the window does.
    view.fence = Fence()
    view.profile.setUrlRequestInterceptor(view.fence)
    view.webview.page().navigationRequested.connect(decide)
    view.webview.page().loadFinished.connect(tell)


def _save_downloads(view: Any, url: str) -> None:
    """Save what the page lets the user download where the user says, one at a time; without an answer, nothing."""
    from PySide6.QtCore import QStandardPaths
    from PySide6.QtWebEngineCore import QWebEngineDownloadRequest
    from PySide6.QtWidgets import QFileDialog, QMessageBox

    asking = False

    def save(download: Any) -> None:
        nonlocal asking
        if asking or not is_own(download.url().toString().removeprefix("blob:"), url):
            download.cancel()
            return
        asking = True
        try:
            usual = Path(QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DownloadLocation))
            # The engine has taken out of the name what is no part of one.
            proposed = (usual if usual.is_dir() else Path.home()) / download.suggestedFileName()
            chosen, _ = QFileDialog.getSaveFileName(view, TITLE, str(proposed))
        finally:
            asking = False
        if not chosen:
            download.cancel()
            return
        path = Path(chosen)
        download.setDownloadDirectory(str(path.parent))
        download.setDownloadFileName(path.name)
        download.isFinishedChanged.connect(lambda: tell(download, path.name))
        download.accept()

    def tell(download: Any, name: str) -> None:
        if download.state() == QWebEngineDownloadRequest.DownloadState.DownloadInterrupted:
            QMessageBox.warning(view, TITLE, f"{name} was not saved: {download.interruptReasonString()}")

    view.profile.downloadRequested.connect(save)


def is_own(address: str, url: str) -> bool:
    """Whether an address is one of the server at `url`."""
    try:
        given, own = urlsplit(address), urlsplit(url)
        return (given.scheme, given.hostname, given.port) == (own.scheme, own.hostname, own.port)
    except ValueError:
        return False


def _menu(webview: Any, remote: RemoteLibrary, owner: Owner) -> list[Any]:
    from webview.menu import Menu, MenuAction, MenuSeparator

    def adding(kind: Any, *, several: bool) -> Callable[[], None]:
        def add() -> None:
            window = webview.windows[0]
            paths = window.create_file_dialog(kind, allow_multiple=several)
            if not paths:
                return
            try:
                remote.begin_ingest(paths)
            except MedSearchError as error:
                window.create_confirmation_dialog(TITLE, str(error))
            else:
                window.load_url(owner.url + _LIBRARY_PAGE)

        return add

    def close() -> None:
        webview.windows[0].destroy()

    return [
        Menu(
            "Library",
            [
                MenuAction("Add a folder …", adding(webview.FileDialog.FOLDER, several=False)),
                MenuAction("Add files …", adding(webview.FileDialog.OPEN, several=True)),
                MenuSeparator(),
                MenuAction("Close", close),
            ],
        )
    ]
