"""Sending from the browser to real stations on loopback, the panel of stations, and versions of reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import messages_made as made
import pydicom
import pytest
from axe import AXE, check_by_axe
from e2e.test_ui import Served, browser, expect, page, pytestmark
from makers import uid, write_department
from serve.test_send import small_station, station
from servers import served as serving

from medsearch_desktop.library import open_library
from medsearch_desktop.sending import Station

# The fixtures of the other tests of the interface, and what these are skipped for.
__all__ = ["browser", "page", "pytestmark"]

STUDY, WITHDRAWN = uid(1, 1), uid(1, 2)
HOSTILE = "<img src=x onerror=document.title=1>"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("sending")
    source = write_department(folder / "source", studies=3, size=64)
    for name, words, status, hour in (
        ("1", "IMPRESSION: Perhaps an effusion.", "P", 10),
        ("2", "IMPRESSION: Left effusion.", "F", 11),
        ("3", "IMPRESSION: Right effusion.", "C", 12),
    ):
        (source / f"{name}.hl7").write_bytes(made.hl7(words, status=status, changed=f"20240315{hour}0000"))
    (source / "4.hl7").write_bytes(made.hl7("IMPRESSION: Wrong patient.", filler="A00002"))
    (source / "5.hl7").write_bytes(made.hl7(status="X", filler="A00002", changed="20240316100000"))
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
    # Stations are the user's own, not the library's.
    with serving(folder / "library", XDG_CONFIG_HOME=str(folder / "home")) as running:
        yield Served(running.url, running.token, folder)


def post(served: Served, path: str, **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {served.token}"}
    answer = httpx.post(f"{served.url}/api{path}", json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer.json()


@pytest.fixture(autouse=True)
def nothing_remembered(served: Served) -> Iterator[None]:
    yield
    for each in served.ask("/api/stations")["stations"]:
        post(served, "/stations/remove", name=each["name"])


def remember(served: Served, place: str, name: str) -> None:
    at = Station.parse(place)
    post(served, "/stations", name=name, ae_title=at.ae_title, host=at.host, port=at.port)


def sent_uids(kept: list[str]) -> set[str]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in kept}


def test_a_station_is_added_asked_and_removed(page: Any, served: Served, tmp_path: Path) -> None:
    page.goto(f"{served.url}/library")
    form = page.get_by_role("form", name="Add a station")
    add = form.get_by_role("button", name="Add the station")
    expect(add).to_be_disabled()
    with station(tmp_path) as (place, _):
        at = Station.parse(place)
        for label, value in (("Name", HOSTILE), ("AE title", at.ae_title), ("Host", at.host), ("Port", str(at.port))):
            form.get_by_role("textbox", name=label, exact=True).fill(value)
        page.keyboard.press("Enter")
        row = page.get_by_role("list", name="Stations").get_by_role("listitem")
        expect(row).to_contain_text(HOSTILE)
        expect(form.get_by_role("textbox", name="Name", exact=True)).to_be_focused()
        row.get_by_role("button", name=re.compile("^Ask whether")).click()
        expect(row).to_contain_text("It answers")
    row.get_by_role("button", name=re.compile("^Ask whether")).click()
    alert = row.get_by_role("alert")
    expect(alert).to_contain_text("cannot be reached")
    expect(alert).to_contain_text("Check host, port and firewall")
    form.get_by_role("textbox", name="Name", exact=True).fill("a@b")
    form.get_by_role("textbox", name="AE title", exact=True).fill("AE")
    form.get_by_role("textbox", name="Host", exact=True).fill("h")
    add.click()
    expect(form.get_by_role("alert")).to_contain_text("is no name for a station")
    expect(form.get_by_role("textbox", name="Name", exact=True)).to_have_value("a@b")
    row.get_by_role("button", name=re.compile("^Remove")).click()
    row.get_by_role("button", name=re.compile("^Keep")).click()
    row.get_by_role("button", name=re.compile("^Remove")).click()
    row.get_by_role("button", name=re.compile("^Forget")).click()
    expect(row).to_have_count(0)
    assert served.ask("/api/stations")["stations"] == []
    assert page.title() == "MedSearch Desktop"


def test_a_study_is_sent_by_the_keyboard_alone(page: Any, served: Served, tmp_path: Path) -> None:
    with station(tmp_path) as (place, kept):
        remember(served, place, "archive")
        page.goto(f"{served.url}/study/{STUDY}")
        page.get_by_role("button", name="Send this study to a station").focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("2 files of 1 study")
        choice = dialog.get_by_role("combobox", name="Station")
        # The only one there is is chosen already, and the focus on it.
        expect(choice).to_have_value("archive")
        expect(choice).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("It answers")
        expect(dialog.get_by_role("button", name="Send 2 files")).to_be_enabled()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(dialog.get_by_text("2 files sent", exact=True)).to_be_visible()
        expect(dialog.get_by_role("region", name="Sending")).to_be_focused()
        dialog.get_by_text("Files", exact=True).click()
        expect(dialog.get_by_role("listitem")).to_have_count(2)
        page.keyboard.press("Escape")
        expect(dialog).not_to_be_visible()
        expect(page.get_by_role("button", name="Send this study to a station")).to_be_focused()
    assert sent_uids(kept) == {f"{STUDY}.1", f"{STUDY}.2"}
    page.get_by_role("link", name="Library", exact=True).click()
    jobs = page.get_by_role("list", name="Jobs")
    expect(jobs).to_contain_text("To archive")
    jobs.get_by_role("button", name="Files: To archive").first.click()
    expect(jobs.get_by_role("region", name="Files").get_by_role("listitem")).to_have_count(2)


@pytest.mark.parametrize("where", ["series", "image", "viewer", "row", "question"])
def test_parts_and_answers_are_sent_from_where_they_are_shown(
    page: Any, served: Served, tmp_path: Path, where: str
) -> None:
    places = {
        "series": (f"/study/{STUDY}", "Send series 1 to a station", {f"{STUDY}.1", f"{STUDY}.2"}),
        "image": (f"/study/{STUDY}", "Send image 2 to a station", {f"{STUDY}.2"}),
        "viewer": (f"/view?study={STUDY}&image={STUDY}.1", "Send the image to a station", {f"{STUDY}.1"}),
        "row": ("/?q=study:" + STUDY, re.compile("^Send P0001.* to a station$"), {f"{STUDY}.1", f"{STUDY}.2"}),
        "question": ("/?q=view:PA", "Send all that was found to a station", None),
    }
    address, name, wanted = places[where]
    with station(tmp_path) as (place, kept):
        remember(served, place, "archive")
        remember(served, "OTHER@127.0.0.1:1", "other")
        page.goto(served.url + address)
        page.get_by_role("button", name=name).first.click()
        dialog = page.get_by_role("dialog")
        # Of two, none is guessed.
        send = dialog.get_by_role("button", name=re.compile(r"^Send \d+ files?$"))
        expect(send).to_be_disabled()
        dialog.get_by_role("combobox", name="Station").select_option("archive")
        send.click()
        expect(dialog.get_by_text(re.compile(r"^\d+ files? sent$"))).to_be_visible()
    assert sent_uids(kept) == (
        wanted or {uid(*parts) for study in ((1, 1), (1, 2), (2, 3)) for parts in ((*study, 1), (*study, 2))}
    )


def test_what_is_refused_is_told_by_file_and_sent_again(page: Any, served: Served, tmp_path: Path) -> None:
    with small_station(pydicom.uid.ExplicitVRLittleEndian, status=0xA700) as (place, _):
        remember(served, place, "archive")
        page.goto(f"{served.url}/study/{STUDY}")
        page.get_by_role("button", name="Send this study to a station").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Send 2 files").click()
        expect(dialog.get_by_text("0 files sent, 2 not taken")).to_be_visible()
        refused = dialog.get_by_role("region", name="Files that were not sent")
        expect(refused.get_by_role("listitem").first).to_contain_text("out of resources")
    # It went away meanwhile.
    dialog.get_by_role("button", name="Send what was not sent").click()
    expect(dialog).to_contain_text("cannot be reached")
    expect(dialog).to_contain_text("Check host, port and firewall")
    post(served, "/stations/remove", name="archive")
    with station(tmp_path) as (place, kept):
        remember(served, place, "archive")
        dialog.get_by_role("button", name="Send what was not sent").click()
        expect(dialog.get_by_text("2 files sent", exact=True)).to_be_visible()
    assert len(kept) == 2


def test_without_a_station_the_dialog_says_where_to_add_one(page: Any, served: Served) -> None:
    page.goto(f"{served.url}/study/{STUDY}")
    page.get_by_role("button", name="Send this study to a station").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name=re.compile("^Send 2"))).to_be_disabled()
    dialog.get_by_role("link", name="Add one on the Library page").click()
    expect(page.get_by_role("form", name="Add a station")).to_be_visible()
    expect(dialog).not_to_be_visible()


# Versions


def test_the_versions_of_a_report_are_shown_where_it_is(page: Any, served: Served) -> None:
    page.goto(f"{served.url}/study/{STUDY}")
    report = page.get_by_role("article").filter(has_text="Report A00001")
    expect(report.locator(".status")).to_have_text("corrected")
    expect(report).to_contain_text("as of 2024-03-15 12:00:00")
    report.get_by_text("3 versions").click()
    versions = report.get_by_role("list", name="Versions of report A00001").get_by_role("listitem")
    expect(versions).to_have_count(3)
    expect(versions.nth(2)).to_contain_text("searched")
    expect(versions.nth(0)).not_to_contain_text("searched")
    expect(report.get_by_text("Perhaps an effusion")).to_have_count(0)
    versions.nth(0).get_by_role("button", name="Show the text of version 1").click()
    expect(versions.nth(0)).to_contain_text("Perhaps an effusion")
    versions.nth(0).get_by_role("button", name="Hide the text of version 1").click()
    expect(report.get_by_text("Perhaps an effusion")).to_have_count(0)


def test_a_report_that_was_cancelled_is_marked_in_its_study(page: Any, served: Served) -> None:
    page.goto(f"{served.url}/study/{WITHDRAWN}")
    report = page.get_by_role("article", name="Report A00002, cancelled")
    expect(report).to_contain_text("This report was cancelled: it is not searched")
    report.get_by_text("2 versions").click()
    report.get_by_role("button", name="Show the text of version 1").click()
    expect(report).to_contain_text("Wrong patient")
    expect(report.get_by_role("listitem").nth(1)).to_contain_text("cancelled")
    expect(report.get_by_role("button", name=re.compile("version 2"))).to_have_count(0)


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: `npm ci` in ui/")
@pytest.mark.parametrize("place", ["library", "dialog", "versions", "cancelled"])
def test_axe_finds_nothing_serious_and_nothing_is_too_wide(page: Any, served: Served, place: str) -> None:
    remember(served, "ARCHIVE@127.0.0.1:9", "W" * 40)
    addresses = {"library": "/library", "cancelled": f"/study/{WITHDRAWN}"}
    page.goto(served.url + addresses.get(place, f"/study/{STUDY}"))
    page.wait_for_load_state("networkidle")
    if place == "library":
        page.get_by_text("Own AE title, encryption").click()
        page.get_by_role("button", name=re.compile("^Ask whether")).click()
        expect(page.get_by_role("alert")).to_be_visible()
    elif place == "dialog":
        page.get_by_role("button", name="Send this study to a station").click()
        page.get_by_role("button", name="Send 2 files").click()
        expect(page.get_by_role("button", name="Send what was not sent")).to_be_visible()
    else:
        page.get_by_text(re.compile(r"^\d versions$")).click()
        page.get_by_role("button", name="Show the text of version 1").click()
    page.wait_for_timeout(300)
    check_by_axe(page)
    for width in (1280, 640):
        page.set_viewport_size({"width": width, "height": 720})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
