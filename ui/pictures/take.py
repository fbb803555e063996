"""Take README's pictures of the pages: `PYTHONPATH=. python ui/pictures/take.py LIBRARY`, which has to be the demo's.

The built interface at a server of its own, in Chromium without a graphics card, 1280 x 800, dark theme.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.chromium import chromium
from tests.servers import Served, served

SIZE = {"width": 1280, "height": 800}
QUESTION = "effusion view:PA"
STUDY = 'impression:"large right pleural effusion" view:PA'
PATIENCE_MS = 60_000
MOST_BYTES = 250_000
# Where the library lies on the machine that took the pictures is nobody's business.
PLACE = "/home/radiology"
ELSEWHERE = """
([from, to]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}
"""


def main(library: Path) -> None:
    """Write a picture of each page beside this file."""
    with served(library) as running, chromium() as browser:
        context = browser.new_context(viewport=SIZE, color_scheme="dark", reduced_motion="reduce")
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        with running.client() as client:
            page.goto(running.url + client.post("/api/login").raise_for_status().json()["path"])
            study, image = film(client)
        steps = {
            "search": lambda: search(page, running),
            "study": lambda: open_study(page, running, study),
            "viewer": lambda: view(page, running, study, image),
            "ask": lambda: ask(page, running, image),
            "library": lambda: show_library(page, running),
        }
        for name, step in steps.items():
            step()
            page.wait_for_load_state("networkidle")
            page.evaluate(ELSEWHERE, [str(library.absolute().parent), PLACE])
            save(page, Path(__file__).with_name(f"{name}.webp"))
        context.close()


def film(client: Any) -> tuple[str, str]:
    """Return the study and the image that the pictures are of: a PA film of a large effusion."""
    hits = client.get("/api/search", params={"q": STUDY, "k": 1, "facets": False}).raise_for_status().json()["hits"]
    if not hits:
        raise SystemExit("this is not the demo library: make one with `medsearch demo --library DIR`")
    study = client.get(f"/api/studies/{hits[0]['study_uid']}").raise_for_status().json()
    image = next(each for each in study["images"] if each["view_position"] == "PA")
    return study["study_uid"], image["image_id"]


def search(page: Any, running: Served) -> None:
    """Show answers with facets and charts."""
    page.goto(f"{running.url}/?q={QUESTION.replace(' ', '%20').replace(':', '%3A')}")
    page.locator("[data-testid=total]:not(:empty)").wait_for()


def open_study(page: Any, running: Served, study: str) -> None:
    """Show a study with a mention explained."""
    page.goto(f"{running.url}/study/{study}")
    page.get_by_role("button", name=re.compile("effusion: present", re.IGNORECASE)).first.focus()


def view(page: Any, running: Served, study: str, image: str) -> None:
    """Show an image in the viewer."""
    page.goto(f"{running.url}/view?study={study}&image={image}")
    page.locator(".pane[data-state=shown]").wait_for()


def ask(page: Any, running: Served, image: str) -> None:
    """Show a region of an image and what is like it."""
    page.goto(f"{running.url}/ask?image={image}&roi=60,420,420,420&where=view%3APA")
    page.locator('main a[href^="/study/"], main a[href^="/view"]').first.wait_for()


def show_library(page: Any, running: Served) -> None:
    """Show folders, failures, models and room on disk."""
    page.goto(f"{running.url}/library")
    page.get_by_role("heading", name="Models").wait_for()


def save(page: Any, path: Path) -> None:
    """Write what the page shows as WebP, small enough for a repository."""
    with Image.open(io.BytesIO(page.screenshot(animations="disabled"))) as shot:
        shot.convert("RGB").save(path, quality=80, method=6)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} is larger than {MOST_BYTES / 1000:.0f} kB: lower its quality")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
