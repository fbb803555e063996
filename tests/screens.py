"""The desktop window on a screen of its own (Xvfb): what is on it, a hand to click and press keys, `medsearch app`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from servers import MEDSEARCH

from medsearch_desktop.serve.api.pages import BUILT, INDEX

WIDTH, HEIGHT = 1400, 1000
PATIENCE_SECONDS = 90.0
GRAB = """
import sys
from PySide6.QtGui import QGuiApplication
app = QGuiApplication(sys.argv[:1])
sys.exit(not app.primaryScreen().grabWindow(0).save(sys.argv[1]))
"""
# What a hand does: `x,y` is a click there, all else the name of a key.
HAND = """
import ctypes, sys, time
x11, xtst = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXtst.so.6")
x11.XOpenDisplay.restype = ctypes.c_void_p
x11.XStringToKeysym.restype = ctypes.c_ulong
display = ctypes.c_void_p(x11.XOpenDisplay(None))
for act in sys.argv[1:]:
    if "," in act:
        xtst.XTestFakeMotionEvent(display, -1, *map(int, act.split(",")), 0)
        press, code = xtst.XTestFakeButtonEvent, 1
    else:
        keysym = ctypes.c_ulong(x11.XStringToKeysym(act.encode()))
        press, code = xtst.XTestFakeKeyEvent, x11.XKeysymToKeycode(display, keysym)
    for down in (1, 0):
        press(display, code, down, 0)
        x11.XFlush(display)
        time.sleep(0.2)
"""

needs_screen = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the screen is one of Xvfb; run it on Linux"),
    pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no screen to show it on: `apt-get install xvfb`"),
    pytest.mark.skipif(
        importlib.util.find_spec("PySide6") is None or importlib.util.find_spec("webview") is None,
        reason="no window's engine: pip install 'medsearch-desktop[desktop]'",
    ),
]
needs_pages = pytest.mark.skipif(
    not (BUILT / INDEX).is_file(), reason="the browser interface is not built: run `make ui`"
)


@dataclass
class Screen:
    """A screen of its own, and a picture of what is on it."""

    folder: Path

    def picture(self) -> np.ndarray:
        """Return what is on it now: (rows, columns, 3) in 8 bit."""
        path = self.folder / "screen.png"
        subprocess.run([sys.executable, "-c", GRAB, str(path)], check=True, capture_output=True, timeout=60)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def still(self) -> np.ndarray:
        """Return what is on it once that is the same twice."""
        pictures = [self.picture()]

        def is_still() -> bool:
            pictures.append(self.picture())
            return np.array_equal(pictures.pop(0), pictures[0])

        until(is_still)
        return pictures[0]

    def after(self, act: str, before: np.ndarray) -> np.ndarray:
        """Click or press as `hand` does; return what is on it once that is another picture than `before`, and stays."""
        hand(act)
        until(lambda: not np.array_equal(self.picture(), before))
        return self.still()


def hand(*acts: str) -> None:
    """Click at places and press keys on the screen."""
    subprocess.run([sys.executable, "-c", HAND, *acts], check=True, timeout=60)


@contextmanager
def own_screen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """Have what the test starts show itself on a screen of its own until the end of the block."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as process:
        os.close(write)
        with os.fdopen(read) as numbers:
            monkeypatch.setenv("DISPLAY", f":{numbers.readline().strip()}")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
        # A browser in the window's place would be a failure that nobody sees.
        monkeypatch.setenv("BROWSER", "false %s")
        if os.geteuid() == 0:
            monkeypatch.setenv("QTWEBENGINE_DISABLE_SANDBOX", "1")
        try:
            yield Screen(folder)
        finally:
            process.terminate()


@contextmanager
def program(*arguments: str | Path, begin: Sequence[str] = MEDSEARCH) -> Iterator[subprocess.Popen[str]]:
    """Run `medsearch app` until the end of the block; `begin` begins the command line, where it is another one."""
    command = [*begin, "app", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=60)


def until(look: Callable[[], Any]) -> Any:
    """Return the first true value of `look`."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.3)
    return found


def window_of(process: subprocess.Popen[str]) -> psutil.Process:
    """Return the process of the window that a `medsearch app` has opened."""
    return until(lambda: next(iter(psutil.Process(process.pid).children()), None))


def shows_pages(screen: Screen) -> bool:
    """Whether films are on the screen, among all else: our pages are of few colours, films of many greys."""
    picture = screen.picture()
    grey = picture[(picture.max(axis=2) - picture.min(axis=2)) < 2][:, 0]
    return len(np.unique(grey)) > 100
