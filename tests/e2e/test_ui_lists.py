"""What a person keeps, in the browser: labels on every level, saved searches, teaching lists; outside images shown."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from axe import AXE, check_by_axe
from e2e.test_ui import Served, browser, expect, page, pytestmark, served, settled
from PIL import Image

from medsearch_desktop.image.picture import png_of

# The fixtures of the other tests of the interface, and what these are skipped for.
__all__ = ["browser", "page", "pytestmark", "served"]

TWO_IMAGES = "view:PA view:LL"
HOSTILE = "<img src=x onerror=document.title='taken'>\"'&"


def kept(served: Served, path: str, **body: Any) -> Any:
    """Send a request of one's own beside the browser."""
    headers = {"Authorization": f"Bearer {served.token}"}
    answer = httpx.post(f"{served.url}/api{path}", json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer.json()


@pytest.fixture(autouse=True)
def nothing_kept(served: Served) -> Iterator[None]:
    yield
    for saved in served.ask("/api/saved")["saved"]:
        kept(served, "/saved/remove", name=saved["name"])
    for teaching in served.ask("/api/teaching")["lists"]:
        kept(served, "/teaching/remove", name=teaching["name"])
    for each in served.ask("/api/labels")["labels"]:
        for target in served.ask("/api/labels/targets", label=each["label"])["targets"]:
            kept(served, "/labels/remove", **target)


def with_entries(served: Served, name: str, count: int = 3) -> list[str]:
    """Make a teaching list of studies, and return their identifiers."""
    hits = served.ask("/api/search", q="has:image has:report", k=count, facets=False)["hits"]
    for hit in hits:
        kept(served, "/teaching/entries", list=name, target_kind="study", target_id=hit["study_uid"])
    return [hit["study_uid"] for hit in hits]


def order(served: Served, name: str) -> list[str]:
    entries = served.ask("/api/teaching/list", name=name)["entries"]
    return [entry["target_id"] for entry in entries]


# Labels


@pytest.mark.parametrize("of", ["series 1", "image 1", "image 2"])
def test_a_label_on_a_part_is_put_on_completed_and_taken_off(page: Any, served: Served, of: str) -> None:
    study = served.first_study(TWO_IMAGES)
    target = {
        "series 1": ("series", study["images"][0]["series_uid"]),
        "image 1": ("image", study["images"][0]["image_id"]),
        "image 2": ("image", study["images"][1]["image_id"]),
    }[of]
    other = served.first_study("absent:effusion has:image")["study_uid"]
    kept(served, "/labels", target_kind="study", target_id=other, label="known word")
    page.goto(f"{served.url}/study/{study['study_uid']}")
    page.get_by_role("button", name=f"Label {of}", exact=True).click()
    box = page.get_by_role("combobox", name=f"New label of {of}")
    expect(box).to_be_focused()
    # What the browser proposes.
    proposals = page.locator(f"datalist[id='{box.get_attribute('list')}'] option")
    expect(proposals).to_have_count(1)
    assert proposals.first.get_attribute("value") == "known word"
    box.fill("odd shape")
    box.press("Enter")
    labels = page.get_by_role("list", name=f"Labels of {of}", exact=True)
    expect(labels).to_contain_text("odd shape")
    assert served.ask("/api/labels/targets", label="odd shape")["targets"] == [
        {"target_kind": target[0], "target_id": target[1], "label": "odd shape"}
    ]
    found = served.ask("/api/search", q='label:"odd shape"')
    assert [hit["study_uid"] for hit in found["hits"]] == [study["study_uid"]]
    expect(box).to_be_focused()
    page.get_by_role("button", name=f"Remove the label odd shape of {of}").click()
    expect(labels.get_by_role("listitem")).to_have_count(0)
    expect(box).to_be_focused()
    assert served.ask("/api/search", q='label:"odd shape"')["total"] == 0


def test_a_hostile_label_on_an_image_is_text(page: Any, served: Served) -> None:
    study = served.first_study()
    kept(served, "/labels", target_kind="image", target_id=study["images"][0]["image_id"], label=HOSTILE)
    page.goto(f"{served.url}/study/{study['study_uid']}")
    expect(page.get_by_role("list", name="Labels of image 1", exact=True)).to_contain_text(HOSTILE)
    assert page.title() == "MedSearch Desktop"


# Saved searches


def test_a_search_is_saved_opened_renamed_and_removed(page: Any, served: Served) -> None:
    page.goto(f"{served.url}/?q=effusion&f=view:PA&sort=date")
    wanted = served.ask("/api/search", q="(effusion) view:PA", k=1)["total"]
    settled(page, wanted)
    page.get_by_role("button", name="Save this search").click()
    page.get_by_role("textbox", name="Name").fill(HOSTILE)
    page.get_by_role("textbox", name="Note").fill("for Monday")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("dialog")).not_to_be_visible()
    (saved,) = served.ask("/api/saved")["saved"]
    assert (saved["name"], saved["question"], saved["sort"], saved["note"]) == (
        HOSTILE,
        "(effusion) view:PA",
        "date",
        "for Monday",
    )
    page.goto(served.url)
    page.get_by_role("combobox", name=re.compile("^Saved")).select_option(HOSTILE)
    settled(page, wanted)
    expect(page.get_by_role("searchbox")).to_have_value("(effusion) view:PA")
    expect(page.get_by_role("combobox", name=re.compile("^Order"))).to_have_value("date")

    page.get_by_role("link", name="Lists").click()
    row = page.get_by_role("list", name="Saved searches").get_by_role("listitem")
    expect(row).to_contain_text("for Monday")
    row.get_by_role("button", name=re.compile("^Rename")).click()
    row.get_by_role("textbox", name="Name").fill("Effusions")
    row.get_by_role("button", name="Keep", exact=True).click()
    row.get_by_role("link", name="Effusions").click()
    settled(page, wanted)
    page.go_back()
    row.get_by_role("button", name="Remove the saved search Effusions").click()
    row.get_by_role("button", name="Keep the saved search Effusions").click()
    row.get_by_role("button", name="Remove the saved search Effusions").click()
    row.get_by_role("button", name=re.compile("for good")).click()
    expect(row).to_have_count(0)
    assert served.ask("/api/saved")["saved"] == []
    assert page.title() == "MedSearch Desktop"


def test_a_name_that_is_taken_is_told_and_nothing_is_lost(page: Any, served: Served) -> None:
    kept(served, "/saved", name="Mine", question="nodule")
    page.goto(f"{served.url}/?q=effusion")
    page.get_by_role("button", name="Save this search").click()
    page.get_by_role("textbox", name="Name").fill("mine")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("already")
    expect(page.get_by_role("textbox", name="Name")).to_have_value("mine")
    page.keyboard.press("Escape")
    assert [each["question"] for each in served.ask("/api/saved")["saved"]] == ["nodule"]


# Teaching lists


def test_studies_and_images_are_put_on_a_list_from_everywhere(page: Any, served: Served) -> None:
    study = served.first_study(TWO_IMAGES)
    image = study["images"][0]["image_id"]

    def put(button: Any, note: str = "") -> None:
        button.click()
        page.get_by_role("combobox", name=re.compile("^List, or")).fill("Chest basics")
        page.get_by_role("textbox", name="Note").fill(note)
        page.get_by_role("button", name="Put on the list").click()
        expect(page.get_by_role("dialog")).not_to_be_visible()
        expect(page.get_by_text("On the list Chest basics")).to_be_visible()

    page.goto(f"{served.url}/?q=effusion")
    hits = served.ask("/api/search", q="effusion", k=20)["hits"]
    put(page.locator(".row").first.get_by_role("button", name=re.compile("teaching list$")))
    page.goto(f"{served.url}/view?study={study['study_uid']}&image={image.replace('#', '%23')}")
    put(page.get_by_role("button", name="Put the image on a teaching list"), note="from the viewer")
    page.goto(f"{served.url}/study/{study['study_uid']}")
    put(page.get_by_role("button", name="Put image 2 on a teaching list"))
    assert order(served, "Chest basics") == [hits[0]["study_uid"], image, study["images"][1]["image_id"]]
    page.get_by_role("button", name="Put image 2 on a teaching list").click()
    # The only list there is stands there already.
    expect(page.get_by_role("combobox", name=re.compile("^List, or"))).to_have_value("Chest basics")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("already")


def test_a_list_is_put_in_order_and_noted_by_the_keyboard(page: Any, served: Served) -> None:
    first, second, third = with_entries(served, "basics")
    page.goto(f"{served.url}/lists")

    def tab_to(pattern: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            told = page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.labels?.[0]?.textContent"
                " ?? document.activeElement.textContent"
            )
            if re.search(pattern, told or ""):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"the focus on {told} cannot be seen"
                return
        raise AssertionError(f"no way to {pattern}")

    expect(page.get_by_role("link", name="basics")).to_be_visible()
    tab_to("^basics$")
    page.keyboard.press("Enter")
    entries = page.get_by_role("list", name="Entries").get_by_role("listitem")
    expect(entries).to_have_count(3)
    tab_to("^Move entry 1 down$")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Move entry 2 down")).to_be_focused()
    assert order(served, "basics") == [second, first, third]
    page.keyboard.press("Enter")
    # At the end this way is closed, and the focus is on the other.
    expect(page.get_by_role("button", name="Move entry 3 up")).to_be_focused()
    assert order(served, "basics") == [second, third, first]
    page.get_by_role("textbox", name="Note of entry 1").focus()
    page.keyboard.type("look at the left base")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Keep the note of entry 1")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep the note of entry 1")).not_to_be_visible()
    expect(page.get_by_role("textbox", name="Note of entry 1")).to_be_focused()
    assert served.ask("/api/teaching/list", name="basics")["entries"][0]["note"] == "look at the left base"
    page.get_by_role("button", name="Take entry 2 off the list").click()
    expect(entries).to_have_count(2)
    assert order(served, "basics") == [second, first]


def test_a_list_is_handed_over_and_taken_over(page: Any, served: Served, tmp_path: Path) -> None:
    (study,) = with_entries(served, HOSTILE, 1)
    page.goto(f"{served.url}/lists")
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    page.get_by_text("Hand over").click()
    expect(page.get_by_text("Burned-in text is not removed")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as a ZIP file").click()
    download.value.save_as(tmp_path / "list.zip")
    with zipfile.ZipFile(tmp_path / "list.zip") as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("list.json")]
        text = archive.read(name).decode()
        assert "reports" not in json.loads(text)["entries"][0]
        assert study not in text
        archive.extractall(tmp_path / "unpacked")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_role("checkbox", name=re.compile("text of reports")).check()
    expect(page.get_by_role("alert")).to_contain_text("may hold names")
    page.get_by_role("textbox", name=re.compile("new folder")).fill(str(tmp_path / "written"))
    page.get_by_role("button", name="Write").click()
    expect(page.get_by_text(f"Written to {tmp_path / 'written'}")).to_be_visible()
    assert json.loads((tmp_path / "written" / "list.json").read_text())["entries"][0]["reports"]

    page.get_by_role("link", name="All lists").click()
    page.get_by_role("textbox", name="New list").fill("Again")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take over a list.json").click()
    chooser.value.set_files(tmp_path / "unpacked" / name)
    expect(page.get_by_role("link", name="Again")).to_be_visible()
    assert order(served, "Again") == [study]

    # The page that was handed over, on a machine without us: it runs nothing, asks for nothing, and shows its pictures.
    context = page.context.browser.new_context(offline=True)
    handed = context.new_page()
    complaints: list[str] = []
    handed.on("console", lambda message: complaints.append(message.text))
    handed.goto((tmp_path / "written" / "index.html").as_uri())
    expect(handed.get_by_role("heading", name=HOSTILE)).to_be_visible()
    widths = handed.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert widths
    assert all(width > 0 for width in widths)
    assert handed.title() == HOSTILE
    handed.evaluate(AXE.read_text("utf-8"))
    found = handed.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] })")
    assert [rule["id"] for rule in found["violations"] if rule["impact"] in ("serious", "critical")] == []
    assert complaints == []
    context.close()


# An image from outside


@pytest.mark.parametrize("kind", ["dicom", "png", "jpeg"])
def test_an_outside_image_is_shown_and_a_region_of_it_asked_by(
    page: Any, served: Served, tmp_path: Path, kind: str
) -> None:
    image = served.first_study()["images"][0]
    headers = {"Authorization": f"Bearer {served.token}"}
    frame = httpx.get(f"{served.url}/api/images/{image['image_id']}/frame", headers=headers, timeout=60).content
    whole = Image.open(io.BytesIO(frame))
    file = tmp_path / f"outside.{kind}"
    if kind == "dicom":
        shutil.copy(image["path"], file)
    else:
        # Larger than what is drawn of it: a region is in the pixels of the file all the same.
        whole = whole.resize((1400, 1400))
        whole.save(file, kind.upper())
    page.goto(f"{served.url}/ask")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="choose one").click()
    chooser.value.set_files(file)
    picture = page.get_by_role("img", name="The image to ask by")
    # The region is drawn on it once it is there.
    expect(page.get_by_test_id("region")).to_be_visible()
    shown = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("L").resize((64, 64))).astype(float)
    expected = np.asarray(Image.open(io.BytesIO(png_of(np.asarray(whole), most=64))).convert("L")).astype(float)
    assert np.abs(shown - expected).mean() < 12
    items = page.get_by_role("list", name="Nearest images").get_by_role("listitem")
    expect(items).to_have_count(24)
    at_first = items.first.text_content()
    box = page.get_by_test_id("region").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 3 / 4, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile("roi="))
    x, y, width, height = map(int, httpx.URL(page.url).params["roi"].split(","))
    for given, share in ((x, 1 / 4), (y, 1 / 4), (width, 1 / 4), (height, 1 / 2)):
        assert abs(given / whole.width - share) < 0.02
    roi = {"roi": f"{x},{y},{width},{height}", "k": 24}
    answer = httpx.post(
        f"{served.url}/api/similar", params=roi, headers=headers, content=file.read_bytes(), timeout=60
    ).json()
    expect(items.first).to_contain_text(f"score {answer['hits'][0]['score']:.2f}")
    assert items.first.text_content() != at_first


def test_a_second_outside_image_is_not_taken_for_the_first(page: Any, served: Served, tmp_path: Path) -> None:
    for name, grey in (("light", 220), ("dark", 30)):
        Image.fromarray(np.full((80, 60), grey, np.uint8)).save(tmp_path / f"{name}.png")
        page.goto(f"{served.url}/ask") if name == "light" else page.get_by_role("link", name="Ask by image").click()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="choose one").click()
        chooser.value.set_files(tmp_path / f"{name}.png")
        picture = page.get_by_role("img", name="The image to ask by")
        expect(page.get_by_test_id("region")).to_be_visible()
        shot = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("L"))
        assert abs(int(np.median(shot)) - grey) < 8
        # To another page and back: what is asked by is forgotten there.
        page.get_by_role("link", name="Library").click()
        expect(page.get_by_role("heading", name="Library")).to_be_visible()


def test_what_is_no_image_is_told(page: Any, served: Served, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    page.goto(f"{served.url}/ask")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="choose one").click()
    chooser.value.set_files(tmp_path / "text.png")
    expect(page.get_by_role("alert").filter(has_text="The file cannot be shown")).to_be_visible()


# The shape of the pages


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: `npm ci` in ui/")
@pytest.mark.parametrize("place", ["lists", "teaching", "study", "saving", "adding", "outside"])
def test_axe_finds_nothing_serious_in_what_is_kept(page: Any, served: Served, place: str) -> None:
    study = served.first_study()
    kept(served, "/saved", name="Effusions", question="present:effusion", note="mine")
    with_entries(served, "basics", 2)
    for kind, target in (("series", study["images"][0]["series_uid"]), ("image", study["images"][0]["image_id"])):
        kept(served, "/labels", target_kind=kind, target_id=target, label="odd")
    addresses = {"lists": "/lists", "teaching": "/teaching?name=basics", "outside": "/ask", "saving": "/?q=effusion"}
    page.goto(served.url + addresses.get(place, f"/study/{study['study_uid']}"))
    page.wait_for_load_state("networkidle")
    if place == "lists":
        page.get_by_role("button", name="Rename basics or change its note").click()
    elif place == "teaching":
        page.get_by_text("Hand over").click()
        page.get_by_role("checkbox", name=re.compile("text of reports")).check()
    elif place == "study":
        page.get_by_role("button", name="Label image 1", exact=True).click()
    elif place == "saving":
        page.get_by_role("button", name="Save this search").click()
    elif place == "adding":
        page.get_by_role("button", name="Put this study on a teaching list").click()
    else:
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="choose one").click()
        chooser.value.set_files(study["images"][0]["path"])
        expect(page.get_by_role("img", name="The image to ask by")).to_be_visible()
    page.wait_for_timeout(300)
    check_by_axe(page)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (640, 360)])
def test_no_list_is_wider_than_its_window(page: Any, served: Served, width: int, height: int) -> None:
    name = "W" * 200
    kept(served, "/saved", name=name, question="effusion OR " + "a" * 300, note="b" * 300)
    with_entries(served, name, 2)
    page.set_viewport_size({"width": width, "height": height})
    for address in ("/lists", f"/teaching?name={name}", "/?q=effusion", f"/study/{served.first_study()['study_uid']}"):
        page.goto(served.url + address)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
