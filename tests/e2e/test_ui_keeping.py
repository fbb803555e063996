"""The library kept current from its page: folders watched, receiving, and the library checked and set right."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates_made import make_certificate
from e2e.test_ui import Served, browser, expect, page, pytestmark, served
from makers import Film, dataset
from pynetdicom import AE

from medsearch_desktop.errors import StationError
from medsearch_desktop.sending import Line, Station, client_tls, echo

# The fixtures of the other tests of the interface, and what these are skipped for.
__all__ = ["browser", "page", "pytestmark", "served"]


def test_a_folder_is_kept_current_by_its_switch(
    page: Any, served: Served, tmp_path: Path, write_film: Callable[[Path, Film], Path]
) -> None:
    source = tmp_path / "ward"
    write_film(source / "a.dcm", Film(study=901, image=1, size=64))
    page.goto(f"{served.url}/library")
    page.get_by_role("textbox", name="Add a folder, by its whole path").fill(str(source))
    page.get_by_role("button", name="Add and index").click()
    folders = page.get_by_role("region", name="Folders").get_by_role("list").first
    row = folders.get_by_role("listitem").filter(has_text=str(source))
    expect(row).to_contain_text("1 files", timeout=120_000)
    switch = row.get_by_role("switch", name=f"Keep current with {source}")
    expect(switch).not_to_be_checked()
    switch.click()
    expect(switch).to_be_checked()
    expect(row).to_contain_text("is watched; last taken in at", timeout=60_000)
    write_film(source / "b.dcm", Film(study=901, image=2, size=64))
    expect(row).to_contain_text("2 files", timeout=120_000)
    expect(row).to_contain_text("1 indexed")
    # What the server does by itself does not fill the list of jobs.
    jobs = page.get_by_role("list", name="Jobs").get_by_role("listitem").filter(has_text=f"New in {source}")
    expect(jobs).to_have_count(0)
    source.rename(tmp_path / "away")
    expect(row).to_contain_text("its drive is away, and is waited for", timeout=60_000)
    (tmp_path / "away").rename(source)
    expect(row).to_contain_text("is watched", timeout=60_000)
    switch.click()
    expect(switch).not_to_be_checked()
    expect(row).not_to_contain_text("is watched")
    page.reload()
    expect(switch).not_to_be_checked()


def test_receiving_is_switched_on_counts_and_is_switched_off(page: Any, served: Served) -> None:
    page.goto(f"{served.url}/library")
    panel = page.get_by_role("region", name="Receiving")
    expect(panel).to_contain_text("It is off: nothing can be sent here.")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        panel.get_by_role("textbox", name="Port").fill(str(taken.getsockname()[1]))
        panel.get_by_role("button", name="Receive", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("Choose another port")
    panel.get_by_role("textbox", name="Port").fill("0")
    panel.get_by_role("textbox", name="AE title of this program").fill("WARD")
    panel.get_by_role("textbox", name="AE titles that may send").fill("CT 1, CT2")
    panel.get_by_role("button", name="Receive", exact=True).click()
    expect(panel).to_contain_text(re.compile(r"Receiving as WARD at 127\.0\.0\.1, port \d+, from this machine alone"))
    expect(page.get_by_role("alert")).to_have_count(0)
    ae = AE("CT 1")
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.1")
    association = ae.associate("127.0.0.1", served.ask("/api/receiver")["port"])
    assert association.is_established
    assert association.send_c_store(dataset(Film(study=902, size=64))).Status == 0
    association.release()
    expect(panel).to_contain_text("1 received")
    expect(panel).to_contain_text("1 indexed", timeout=120_000)
    panel.get_by_role("button", name="Receive no more").click()
    expect(panel).to_contain_text("It is off")
    # What was set is there for the next time.
    expect(panel.get_by_role("textbox", name="AE titles that may send")).to_have_value("CT 1, CT2")


def test_receiving_through_tls_is_switched_on(page: Any, served: Served, tmp_path: Path) -> None:
    authority = make_certificate(tmp_path, "hospital")
    own, modality = (str(make_certificate(tmp_path, name, issuer=authority[:2])[2]) for name in ("own", "modality"))
    page.goto(f"{served.url}/library")
    panel = page.get_by_role("region", name="Receiving")
    panel.get_by_role("textbox", name="Port").fill("0")
    panel.get_by_role("textbox", name="AE titles that may send").fill("")
    panel.get_by_text("Encryption").click()
    certificate = panel.get_by_role("textbox", name="Own certificate")
    panel.get_by_role("textbox", name="Authority whose certificates").fill(str(authority[2]))
    for wrong, told in (("own.pem", "is no whole path"), ("/none.pem", "the certificate cannot be used")):
        certificate.fill(wrong)
        panel.get_by_role("button", name="Receive", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text(told)
    certificate.fill(own)
    panel.get_by_role("button", name="Receive", exact=True).click()
    expect(panel).to_contain_text("from this machine alone, encrypted")
    tls = client_tls(authority=str(authority[2]), certificate=modality)
    echo(Line(Station("ANY", "127.0.0.1", served.ask("/api/receiver")["port"]), tls=tls))
    with pytest.raises(StationError):
        echo(Line(Station("ANY", "127.0.0.1", served.ask("/api/receiver")["port"]), seconds=5))
    panel.get_by_role("button", name="Receive no more").click()
    expect(certificate).to_have_value(own)
    # Without, so that the next test finds it as it was.
    certificate.fill("")
    panel.get_by_role("textbox", name="Authority whose certificates").fill("")
    panel.get_by_role("button", name="Receive", exact=True).click()
    expect(panel).to_contain_text("from this machine alone")
    panel.get_by_role("button", name="Receive no more").click()


def test_the_library_is_checked_and_what_is_wrong_is_shown_with_its_remedy(
    page: Any, served: Served, tmp_path: Path, write_film: Callable[[Path, Film], Path]
) -> None:
    gone = write_film(tmp_path / "more" / "a.dcm", Film(study=903, size=64))
    write_film(tmp_path / "more" / "b.dcm", Film(study=903, image=2, size=64))
    page.goto(f"{served.url}/library")
    page.get_by_role("textbox", name="Add a folder, by its whole path").fill(str(tmp_path / "more"))
    page.get_by_role("button", name="Add and index").click()
    jobs = page.get_by_role("list", name="Jobs").get_by_role("listitem")
    expect(jobs.filter(has_text=str(tmp_path / "more"))).to_have_attribute("data-state", "done", timeout=120_000)
    panel = page.get_by_role("region", name="Is everything sound?")
    panel.get_by_role("button", name="Check the library").click()
    expect(panel.get_by_role("status")).to_contain_text("sound; ", timeout=120_000)
    gone.unlink()
    panel.get_by_role("button", name="Check the library").click()
    table = panel.get_by_role("region", name="What is not sound")
    row = table.get_by_role("row").filter(has_text="file-gone")
    expect(row).to_contain_text("medsearch ingest FOLDER", timeout=120_000)
    expect(row.get_by_role("cell").nth(1)).to_have_text("1")
    expect(row).to_contain_text(str(gone))
    panel.get_by_role("button", name="Set it right").click()
    expect(panel.get_by_role("status")).to_contain_text("nothing was to be done", timeout=120_000)
