"""The browser interface as a person uses it: the built pages, the real server, a real browser, a small demo library."""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from axe import AXE, check_by_axe
from chromium import chromium
from held import Held
from makers import write_department
from PIL import Image
from servers import served as serving

from medsearch_desktop.demo.build import build_demo_source
from medsearch_desktop.library import open_library

sync_api = pytest.importorskip("playwright.sync_api", reason="no browser driver: `pip install playwright`")
expect = sync_api.expect

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "medsearch_desktop" / "serve" / "static" / "index.html"
PATIENCE_MS = 30_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BUILT.is_file(), reason="the interface is not built: `make ui`"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium: `apt-get install chromium`"),
]


@dataclass(frozen=True)
class Served:
    """A running `medsearch serve`: its address and token, the folder of what it serves, at what its ingests wait."""

    url: str
    token: str
    folder: Path
    held: Held | None = None

    def ask(self, path: str, **asked: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.get(self.url + path, params=asked, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def login(self) -> str:
        answer = httpx.post(f"{self.url}/api/login", headers={"Authorization": f"Bearer {self.token}"}, timeout=60)
        return self.url + str(answer.json()["path"])

    def first_study(self, question: str = "present:effusion has:image") -> dict[str, Any]:
        hit = self.ask("/api/search", q=question, k=1, facets=False)["hits"][0]
        return dict(self.ask(f"/api/studies/{hit['study_uid']}"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("ui")
    build_demo_source(folder / "source", studies=24, size=256)
    with open_library(folder / "library", create=True) as library:
        library.ingest([folder / "source"])
        library.index_regions()
    held = Held(folder, "s50000103/image1")
    with serving(folder / "library", "--port", "0", begin=held.line) as running:
        yield Served(running.url, running.token, folder, held)
        assert running.end() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """A window that is logged in; what the browser complains of, and any request elsewhere, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    window = context.new_page()
    complaints: list[str] = []
    window.on("pageerror", lambda error: complaints.append(str(error)))
    # That a request was refused, which some tests are about, is noted by the browser itself.
    window.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and not message.text.startswith("Failed to load resource")
            else None
        ),
    )
    elsewhere: list[str] = []
    allowed = (served.url, "blob:", "data:")
    window.on("request", lambda request: None if request.url.startswith(allowed) else elsewhere.append(request.url))
    window.goto(served.login())
    yield window
    context.close()
    assert complaints == []
    assert elsewhere == []


def total(page: Any) -> int:
    text = page.get_by_test_id("total").inner_text()
    return int(text.split()[0].replace(",", ""))


def comes(page: Any, look: Callable[[], bool]) -> None:
    """Wait until it is so, as what is drawn comes after what is said."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not look():
        assert time.monotonic() < end, "it did not come"
        page.wait_for_timeout(100)


def settled(page: Any, count: int) -> None:
    """Wait until the page tells of `count` answers."""
    expect(page.get_by_test_id("total")).to_have_text(re.compile(rf"^{count:,} answers?$"))


def picture(page: Any, pane: str = "Image") -> np.ndarray:
    """The pixels of a pane of the viewer, grey, as the screen has them."""
    shot = page.get_by_role("region", name=pane, exact=True).locator("canvas").first.screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("L")).astype(float)


def open_viewer(page: Any, served: Served, study: dict[str, Any], image: int = 0) -> None:
    identifier = study["images"][image]["image_id"]
    page.goto(f"{served.url}/view?study={study['study_uid']}&image={identifier.replace('#', '%23')}")
    expect(page.get_by_role("region", name="Image", exact=True)).to_have_attribute("data-state", "shown")
    expect(page.get_by_role("img", name=re.compile("^Image: Window"))).to_be_visible()


def test_answers_come_while_one_types_and_the_address_keeps_them(page: Any, served: Served) -> None:
    everything = served.ask("/api/search", q="", k=1)["total"]
    wanted = served.ask("/api/search", q="effusion", k=1)["total"]
    assert 0 < wanted < everything
    settled(page, everything)
    page.get_by_role("searchbox").press_sequentially("effusion", delay=30)
    settled(page, wanted)
    expect(page.locator(".rows mark").first).to_have_text(re.compile("effusion", re.IGNORECASE))
    expect(page).to_have_url(re.compile(r"\?q=effusion$"))
    page.reload()
    settled(page, wanted)
    page.go_back()
    settled(page, everything)
    expect(page.get_by_role("searchbox")).to_have_value("")


def test_a_completion_can_be_clicked(page: Any, served: Served) -> None:
    page.get_by_role("searchbox").press_sequentially("pneumoth", delay=30)
    page.get_by_role("option", name=re.compile("^present:Pneumothorax")).click()
    expect(page.get_by_role("searchbox")).to_have_value("present:Pneumothorax ")
    settled(page, served.ask("/api/search", q="present:Pneumothorax", k=1)["total"])
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_a_question_that_cannot_be_read_is_shown_with_its_fault(page: Any) -> None:
    page.get_by_role("searchbox").fill("(effusion")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("No answer")
    expect(alert.locator("mark")).to_be_visible()


@pytest.mark.parametrize("state", ["present", "ruled out", "uncertain", "never mentioned"])
def test_a_state_in_the_facets_finds_as_many_as_it_says(page: Any, served: Served, state: str) -> None:
    settled(page, served.ask("/api/search", q="", k=1)["total"])
    button = page.get_by_role("button", name=re.compile(rf"^Effusion, {state}: "))
    count = int(button.get_attribute("aria-label").rpartition(" ")[2])
    button.click()
    settled(page, count)
    page.get_by_role("button", name=f"Remove the filter {state} Effusion").click()
    settled(page, served.ask("/api/search", q="", k=1)["total"])


def test_a_bar_of_a_chart_is_a_filter(page: Any, served: Served) -> None:
    settled(page, served.ask("/api/search", q="", k=1)["total"])
    bar = page.get_by_role("region", name="Codes ruled out").get_by_role("button").first
    count = int(bar.get_attribute("aria-label").rpartition(" ")[2])
    bar.click()
    settled(page, count)


def test_values_of_one_field_are_alternatives(page: Any, served: Served) -> None:
    for value in ("PA", "AP"):
        page.get_by_role("button", name=re.compile(rf"^{value}: \d+$")).click()
        expect(page.get_by_role("button", name=f"Remove the filter view {value}")).to_be_visible()
    settled(page, served.ask("/api/search", q="(view:PA OR view:AP)", k=1)["total"])


@pytest.mark.parametrize("view", ["rows", "wall"])
def test_answers_say_of_whom_and_what_they_are(page: Any, served: Served, view: str) -> None:
    hit = served.ask("/api/search", q="effusion has:image", k=1, facets=False)["hits"][0]
    told = [hit["patient_sex"], f"{int(hit['patient_age'])} years", " + ".join(hit["modalities"])]
    page.goto(f"{served.url}/?q=effusion has:image&view={view}")
    about = ", ".join([*told, *filter(None, [hit["study_description"]])])
    expect(page.locator(f".{view} > li").first.locator(".about")).to_have_text(about)


def test_every_page_of_a_long_answer_is_reached(page: Any, served: Served) -> None:
    everything = served.ask("/api/search", q="", k=1)["total"]
    assert everything > 40
    settled(page, everything)
    rows = page.locator(".rows > li")
    while rows.count() < everything:
        before = rows.count()
        page.mouse.wheel(0, 100_000)
        expect(rows.nth(before)).to_be_attached()
    assert rows.count() == everything


def test_a_study_tells_why_and_can_be_corrected(page: Any, served: Served) -> None:
    study = served.first_study()
    page.goto(f"{served.url}/study/{study['study_uid']}")
    mention = page.get_by_role("button", name=re.compile("effusion: present", re.IGNORECASE)).first
    mention.focus()
    evidence = page.get_by_role("complementary", name="Evidence")
    expect(evidence).to_contain_text("J90")
    expect(evidence).to_contain_text("Runners-up")
    mention.press("c")
    page.get_by_role("radio", name="ruled out").check()
    page.get_by_role("button", name="Keep the correction").click()
    corrected = page.get_by_role("button", name=re.compile("effusion: ruled out", re.IGNORECASE)).first
    expect(corrected).to_be_visible()
    assert len(served.ask("/api/corrections")["corrections"]) == 1
    corrected.click()
    page.get_by_role("button", name="Undo the latest correction here").click()
    expect(mention).to_be_visible()


def test_similar_images_come_with_their_score(page: Any, served: Served) -> None:
    study = served.first_study()
    image = next(each for each in study["images"] if not each["pixel_error"])
    wanted = served.ask("/api/similar", image=image["image_id"], k=12)["hits"]
    page.goto(f"{served.url}/study/{study['study_uid']}")
    items = page.get_by_role("list", name="Nearest images").get_by_role("listitem")
    expect(items).to_have_count(12)
    expect(items.first).to_contain_text(f"score {wanted[0]['score']:.3f}")


def test_a_hostile_label_is_text(page: Any, served: Served) -> None:
    hostile = "<img src=x onerror=document.title='taken'>"
    page.goto(f"{served.url}/study/{served.first_study()['study_uid']}")
    page.get_by_role("combobox", name="New label", exact=True).fill(hostile)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("list", name="Labels", exact=True)).to_contain_text(hostile)
    page.get_by_role("button", name=f"Remove the label {hostile}").click()
    expect(page.get_by_role("list", name="Labels", exact=True)).not_to_contain_text("img")
    assert page.title() == "MedSearch Desktop"


def test_dragging_in_the_viewer_changes_the_window_and_the_pixels(page: Any, served: Served) -> None:
    open_viewer(page, served, served.first_study())
    image = page.get_by_role("img", name=re.compile("^Image: Window"))
    comes(page, lambda: picture(page).std() > 10)
    before, name = picture(page), image.get_attribute("aria-label")
    assert "12 bit" in name
    box = image.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 60, steps=6)
    page.mouse.up()
    expect(image).not_to_have_attribute("aria-label", name)
    comes(page, lambda: np.abs(picture(page) - before).mean() > 5)
    image.press("0")
    expect(image).to_have_attribute("aria-label", name)
    comes(page, lambda: np.abs(picture(page) - before).mean() < 1)
    image.press("i")
    expect(image).to_have_attribute("aria-label", re.compile("inverted"))
    middle = slice(before.shape[1] // 2 - 50, before.shape[1] // 2 + 50)
    comes(page, lambda: np.abs(255 - picture(page) - before)[100:-100, middle].mean() < 3)


def test_a_length_can_be_measured(page: Any, served: Served) -> None:
    open_viewer(page, served, served.first_study())
    page.get_by_role("button", name="Length").click()
    box = page.get_by_role("img", name=re.compile("^Image: Window")).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=5)
    page.mouse.up()
    expect(page.locator(".svg-layer text")).to_have_text(re.compile(r"\d+(\.\d+)? mm"))
    page.keyboard.press("o")
    expect(page.locator(".svg-layer text")).not_to_be_visible()


def test_two_images_are_linked(page: Any, served: Served) -> None:
    study = served.first_study("view:PA view:LL")
    open_viewer(page, served, study)
    page.keyboard.press("b")
    right = page.get_by_role("img", name=re.compile("^Right image: Window"))
    expect(right).to_be_visible()
    left = page.get_by_role("img", name=re.compile("^Left image: Window"))
    expect(left).to_have_attribute("aria-label", re.compile(", 100 %"))
    left.focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("+")
    # The last of it is said a moment after the key.
    expect(left).not_to_have_attribute("aria-label", re.compile(", 100 %"))
    window, zoom = re.search(r"Window (-?\d+ / \d+), (\d+) %", left.get_attribute("aria-label")).groups()
    expect(right).to_have_attribute("aria-label", re.compile(rf"Window {window}, {zoom} %"))


def test_a_region_is_asked_by(page: Any, served: Served) -> None:
    study = served.first_study()
    image = study["images"][0]["image_id"]
    page.goto(f"{served.url}/ask?image={image.replace('#', '%23')}")
    items = page.get_by_role("list", name="Nearest images").get_by_role("listitem")
    whole = served.ask("/api/similar", image=image, k=24)["hits"]
    expect(items.first).to_contain_text(f"score {whole[0]['score']:.3f}")
    box = page.get_by_test_id("region").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 180, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile("roi="))
    roi = httpx.URL(page.url).params["roi"]
    part = served.ask("/api/similar", image=image, k=24, roi=roi)["hits"]
    assert part[0]["score"] != whole[0]["score"]
    expect(items.first).to_contain_text(f"score {part[0]['score']:.2f}")
    # The box stands in the picture where the answer says.
    found = items.first.locator("svg.found")
    assert found.get_attribute("viewBox").split()[2:] == [str(side) for side in part[0]["size"]]
    drawn = [found.locator("rect").get_attribute(name) for name in ("x", "y", "width", "height")]
    assert drawn == [str(value) for value in part[0]["region"]]
    expect(page.get_by_role("spinbutton", name="Left")).to_have_value(roi.split(",")[0])


@pytest.mark.parametrize("kind", ["dicom", "png"])
def test_an_image_from_outside_is_asked_by_and_not_imported(
    page: Any, served: Served, tmp_path: Path, kind: str
) -> None:
    image = served.first_study()["images"][0]
    before = served.ask("/api/status")["totals"]
    file = Path(image["path"])
    if kind == "png":
        headers = {"Authorization": f"Bearer {served.token}"}
        file = tmp_path / "outside.png"
        file.write_bytes(
            httpx.get(f"{served.url}/api/images/{image['image_id']}/frame", headers=headers, timeout=60).content
        )
    page.goto(f"{served.url}/ask")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="choose one").click()
    chooser.value.set_files(file)
    nearest = page.get_by_role("list", name="Nearest images").get_by_role("listitem").first
    expect(nearest).to_contain_text(re.compile(r"score (1\.000|0\.99)"))
    assert image["image_id"] in nearest.get_by_role("link").first.get_attribute("href")
    assert served.ask("/api/status")["totals"] == before


def test_a_folder_is_added_with_progress_and_its_failure_retried(page: Any, served: Served, tmp_path: Path) -> None:
    source = write_department(tmp_path / "more", studies=6, first=101)
    (source / "broken.dcm").write_bytes(b"no DICOM at all")
    page.goto(f"{served.url}/library")
    page.get_by_role("textbox", name="Add a folder, by its whole path").fill(str(source))
    seen: list[str] = []
    page.expose_function("seen", lambda text: seen.append(text))
    page.evaluate(
        """new MutationObserver(() => {
             const text = document.querySelector('.standing')?.textContent;
             if (text) window.seen(text);
           }).observe(document.body, { subtree: true, childList: true, characterData: true })"""
    )
    page.get_by_role("button", name="Add and index").click()
    job = page.get_by_role("list", name="Jobs").get_by_role("listitem").filter(has_text=str(source))
    # It stands still in the midst of it: no machine is through before it has said how far it is.
    comes(page, lambda: any(re.search(r"\d+ (of 19 files|files found so far)", text) for text in seen))
    assert served.held is not None
    served.held.go_on()
    expect(job).to_have_attribute("data-state", "done", timeout=120_000)
    expect(job).to_contain_text("18 indexed, 1 failed")
    row = page.get_by_role("row", name=re.compile("broken.dcm"))
    expect(row).to_contain_text("not DICOM")
    (source / "broken.dcm").unlink()
    page.get_by_role("button", name="Try again").click()
    retry = page.get_by_role("list", name="Jobs").get_by_role("listitem").filter(has_text="What failed, again")
    expect(retry).to_have_attribute("data-state", "done", timeout=120_000)


def test_reports_are_read_again_beside_it(page: Any, served: Served) -> None:
    page.goto(f"{served.url}/library")
    page.get_by_role("button", name="Read reports again with this release").click()
    job = page.get_by_role("list", name="Jobs").get_by_role("listitem").filter(has_text="Reports, read again")
    expect(job).to_contain_text("0 reports read, 0 of them are understood otherwise")


def test_a_folder_that_is_not_there_is_refused_with_a_remedy(page: Any, served: Served) -> None:
    page.goto(f"{served.url}/library")
    page.get_by_role("textbox", name="Add a folder, by its whole path").fill("/no/such/folder")
    page.get_by_role("textbox", name="Add a folder, by its whole path").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("/no/such/folder")


def test_all_can_be_done_by_the_keyboard(page: Any, served: Served) -> None:
    def tab_to(pattern: str, key: str = "Tab") -> None:
        for _ in range(150):
            page.keyboard.press(key)
            name = page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
            )
            if re.search(pattern, name or ""):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"the focus on {name} cannot be seen"
                return
        raise AssertionError(f"no way to {pattern} by {key}")

    settled(page, served.ask("/api/search", q="", k=1)["total"])
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("searchbox").focus()
    page.keyboard.type("modal")
    proposed = [each["text"] for each in served.ask("/api/complete", q="modal", k=8)["completions"]]
    # Those of the first letters have gone, and with them what is marked among them.
    expect(page.get_by_role("option").locator(".what")).to_have_text(proposed)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("searchbox")).to_have_value("modality:")
    page.keyboard.press("Control+a")
    page.keyboard.type("effusion")
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).to_have_value("effusion")
    settled(page, served.ask("/api/search", q="effusion", k=1)["total"])
    tab_to(r"^Effusion, present: \d+")
    page.keyboard.press("Space")
    settled(page, served.ask("/api/search", q="effusion present:effusion", k=1)["total"])
    tab_to(r"^p\d+, \d{4}-")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/study/"))
    expect(page.get_by_role("button", name=re.compile("effusion: present", re.IGNORECASE)).first).to_be_visible()
    tab_to("effusion: present")
    expect(page.get_by_role("complementary", name="Evidence")).to_contain_text("J90")
    page.keyboard.press("c")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).not_to_be_visible()
    tab_to("^Open .* in the viewer", "Shift+Tab")
    page.keyboard.press("Enter")
    image = page.get_by_role("img", name=re.compile("^Image: Window"))
    expect(image).to_be_visible()
    before = image.get_attribute("aria-label")
    page.keyboard.press("Shift+ArrowUp")
    expect(image).not_to_have_attribute("aria-label", before)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys of the viewer")).to_be_visible()


def test_the_theme_is_switched_and_remembered(page: Any) -> None:
    for name, theme in (("Light theme", "light"), ("Dark theme", "dark")):
        page.get_by_role("button", name=name).click()
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        page.reload()
        expect(page.get_by_role("searchbox")).to_be_visible()
        expect(page.locator("html")).to_have_attribute("data-theme", theme)


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: `npm ci` in ui/")
@pytest.mark.parametrize("place", ["search", "wall", "study", "view", "ask", "library"])
def test_axe_finds_nothing_serious(page: Any, served: Served, place: str) -> None:
    study = served.first_study()
    uid, image = study["study_uid"], study["images"][0]["image_id"]
    addresses = {
        "search": "/?q=effusion&f=present:J90",
        "wall": "/?q=effusion&view=wall",
        "study": f"/study/{uid}",
        "view": f"/view?study={uid}&image={image}&beside={image}",
        "ask": f"/ask?image={image}&roi=20,20,90,90",
        "library": "/library",
    }
    page.goto(served.url + addresses[place])
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    check_by_axe(page)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (640, 360), (900, 1600)])
def test_no_page_is_wider_than_its_window(page: Any, served: Served, width: int, height: int) -> None:
    # 640 x 360 is what 1280 x 720 has left at a zoom of 200 %.
    page.set_viewport_size({"width": width, "height": height})
    uid = served.first_study()["study_uid"]
    for address in ("/?q=effusion", f"/study/{uid}", "/ask", "/library"):
        page.goto(served.url + address)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
