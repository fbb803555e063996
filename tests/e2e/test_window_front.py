"""A second `medsearch app` brings the first one's window to the front, and what is saved out of a window."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import psutil
import pytest
from makers import write_department
from screens import (
    HEIGHT,
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
from medsearch_desktop.serve.owner import Owner

RED = (200, 0, 0)
# Another program's window over all of the screen.
COVER = """
import sys
from PySide6.QtGui import QGuiApplication, QRasterWindow, QPainter, QColor
class Cover(QRasterWindow):
    def paintEvent(self, event):
        QPainter(self).fillRect(0, 0, self.width(), self.height(), QColor(200, 0, 0))
app = QGuiApplication(sys.argv)
cover = Cover()
cover.setGeometry(app.primaryScreen().geometry())
cover.show()
cover.raise_()
sys.exit(app.exec())
"""
# A click on a link, as the page makes it, and the same from a place that is not ours.
SAVING = """
function save(href) {
  const link = document.createElement('a');
  Object.assign(link, { href, download: '' });
  document.body.append(link);
  link.click();
}
save('data:text/plain,elsewhere');
setTimeout(() => save('/api/images/IMAGE/file'), 1500);
"""

pytestmark = needs_screen


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    with own_screen(tmp_path, monkeypatch) as one:
        yield one


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front")
    with open_library(folder / "library", create=True) as library:
        library.ingest([write_department(folder / "source", studies=6)])
    return folder / "library"


def middle(screen: Screen) -> tuple[int, ...]:
    return tuple(int(part) for part in screen.picture()[HEIGHT // 2, WIDTH // 2])


@needs_pages
def test_a_second_one_brings_the_first_to_the_front(screen: Screen, made: Path) -> None:
    with program("--library", made) as first:
        window_of(first)
        until(lambda: shows_pages(screen))
        with subprocess.Popen([sys.executable, "-c", COVER]) as cover:
            try:
                until(lambda: middle(screen) == RED)
                with program("--json", "--library", made) as second:
                    out, err = second.communicate(timeout=60)
                assert (second.returncode, err) == (0, "")
                assert [json.loads(line)["shown"] for line in out.splitlines()] == ["raised"]
                until(lambda: middle(screen) != RED)
                assert cover.poll() is None
            finally:
                cover.terminate()
        # It is the same window still, and the only one.
        assert len(psutil.Process(first.pid).children()) == 1
        first.terminate()
        assert first.wait(60) == 0


@needs_pages
def test_where_the_owner_has_no_window_on_this_screen_there_is_a_new_one(
    screen: Screen, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(made), program("--json", "--library", made) as process:
        window = window_of(process)
        until(lambda: shows_pages(screen))
        window.terminate()
        out, _ = process.communicate(timeout=60)
        assert [json.loads(line)["shown"] for line in out.splitlines()] == ["window"]
    with program("--library", made) as first:
        window_of(first)
        until(lambda: shows_pages(screen))
        # The same screen under another name, as far as the two can tell.
        monkeypatch.setenv("DISPLAY", f"{os.environ['DISPLAY']}.0")
        with program("--json", "--library", made) as second:
            assert second.stdout is not None
            assert json.loads(second.stdout.readline())["shown"] == "window"
            assert first.poll() is None


@pytest.mark.skipif(find_library("Xtst") is None, reason="no hand to press keys: `apt-get install libxtst6`")
def test_what_a_page_lets_one_save_goes_where_the_user_says_and_nowhere_else(
    screen: Screen, made: Path, tmp_path: Path
) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    home = Path.home()
    with open_library(made) as library:
        image = library.search("has:image", k=1).hits[0].image_ids[0]
        original = Path(library.holdings.image_file(image).path)
        (pages / "app.js").write_text(SAVING.replace("IMAGE", image))
        (pages / INDEX).write_text('<!doctype html><body><script src="/app.js"></script>')
        with local_server(library, pages=pages) as local:
            Owner.of_this_process(f"http://127.0.0.1:{local.port}", local.security.token).write(made)
            try:
                with program("--attach", "--library", made) as window:
                    saved = home / f"{image}.dcm"
                    # The dialog proposes the name, and takes it.
                    until(lambda: hand("Return") or saved.exists())
                    until(lambda: saved.stat().st_size == original.stat().st_size)
                    window.terminate()
                    assert window.wait(60) == 0
            finally:
                (made / "owner.json").unlink()
    assert saved.read_bytes() == original.read_bytes()
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir() if path.is_file()] == [saved.name]
