"""What the viewer shows until its first image is there, and that its pixels are fetched once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium
from makers import write_department
from servers import served

from medsearch_desktop.library import open_library
from medsearch_desktop.serve.api.pages import BUILT, INDEX

pytest.importorskip("playwright.sync_api", reason="no browser driver: `pip install playwright`")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BUILT / INDEX).is_file(), reason="the interface is not built: `make ui`"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium: `apt-get install chromium`"),
]


def test_the_thumbnail_stands_in_until_the_pixels_are_there_and_says_so(tmp_path: Path) -> None:
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([write_department(tmp_path / "source", studies=2)])
        study = library.search("has:image", k=1).hits[0].study_uid
    asked: list[Any] = []
    with served(tmp_path / "library") as running, running.client() as client, chromium() as browser:
        context = browser.new_context()
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.goto(running.url + client.post("/api/login").json()["path"])
        page.goto(f"{running.url}/study/{study}")
        page.route("**/frame?format=raw*", lambda route: asked.append(route))
        page.locator('a[href^="/view"]').first.click()
        pane = page.get_by_role("region", name="Image", exact=True)
        page.locator(".pane[data-state=preview]").wait_for()
        assert pane.locator("img.preview").evaluate("(image) => image.naturalWidth") > 0
        assert pane.get_by_role("img", name="Image: a preview; full depth is loading").count() == 1
        # With its own words on it even where overlays are off.
        page.keyboard.press("o")
        assert "preview" in pane.locator(".bottom-left").inner_text()
        while not asked:
            page.wait_for_timeout(50)
        asked[0].continue_()
        page.locator(".pane[data-state=shown]").wait_for()
        assert pane.locator("img.preview").count() == 0
        assert len(asked) == 1
        context.close()
