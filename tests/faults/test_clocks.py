"""Clocks that are set by a day, either way, while the real program runs: no change is hidden, nobody is thrown out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from faults.broken_disk import Breaking, needs_breaking
from held import Held
from makers import Film, dataset, write_department
from pynetdicom import AE
from running import command
from servers import served

from medsearch_desktop.library import open_library
from medsearch_desktop.serve.owner import Owner

DAY = 86_400
CR = "1.2.840.10008.5.1.4.1.1.1"


@pytest.mark.slow
@needs_breaking
@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forwards", "backwards"])
def test_an_ingest_during_which_the_clock_is_set_hides_no_change(tmp_path: Path, jump: int) -> None:
    source, path = write_department(tmp_path / "source", studies=4, size=64), tmp_path / "library"
    breaking, held = Breaking(tmp_path), Held(tmp_path, "s50000002/image1")
    command = [*held.line, "ingest", "--json", "--library", str(path), str(source)]
    with subprocess.Popen(command, env=breaking.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        # Now it reads.
        held.until_reached(process)
        breaking["clock"] = jump
        held.go_on()
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert b"Traceback" not in err
    assert breaking["asked"] > 0
    assert json.loads(out)["indexed"] == 12
    # Changed since, by a clock that is right again: of the same size, for the text, so that the time alone says it.
    report = min(source.rglob("s*.txt"))
    changed = report.read_text("utf-8").replace("effusion", "effUsion").replace("pneumothorax", "pneumothOrax")
    report.write_text(changed, "utf-8")
    film = min(source.rglob("image1.dcm"))
    dataset(Film(patient=9, study=9, size=64)).save_as(film, enforce_file_format=True)
    with open_library(path) as library:
        summary = library.ingest([source])
        assert (summary.updated, summary.unchanged, summary.failed, summary.removed) == (2, 10, 0, 0)
        assert library._database.read("SELECT text FROM reports WHERE path = $p", {"p": str(report)}) == [(changed,)]
        again = library.ingest([source])
        assert again.unchanged == 12
        assert library.health.verify(files=True).ok
    lines = (path / "medsearch.log").read_text("utf-8").splitlines()
    assert len([line for line in lines if "ingest ended" in line]) == 3


@pytest.mark.slow
@needs_breaking
def test_a_server_whose_clock_is_set_keeps_its_logins_deadlines_and_owner(tmp_path: Path) -> None:
    source, path = write_department(tmp_path / "source", studies=1, size=64), tmp_path / "library"
    breaking = Breaking(tmp_path)
    with served(path, "--port", "0", **breaking.environ) as server, server.client() as client:
        for jump in (DAY, -DAY, 0):
            address = client.post("/api/login").json()["path"]
            breaking["clock"] = jump
            # Good for once within its minute, whatever the clock says.
            with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as window:
                assert window.get(address).status_code in (200, 303)
                assert window.get(address).status_code == 401
                assert window.get("/api/status").status_code == 200
            assert client.get("/api/status").status_code == 200
            job = client.post("/api/jobs", json={"paths": [str(source)]}).json()
            end = time.monotonic() + 300
            while (state := client.get(f"/api/jobs/{job['job_id']}").json()["state"]) != "done":
                assert state in ("waiting", "running")
                assert time.monotonic() < end
                time.sleep(0.1)
            asked = subprocess.run(
                [sys.executable, "-m", "medsearch_desktop", "search", "--library", str(path), "--json", "view:PA"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert asked.returncode == 0, asked.stderr
        assert breaking["asked"] > 0
        assert server.end() == 0


@pytest.mark.slow
@needs_breaking
def test_a_receiver_whose_clock_is_set_ends_no_association_and_still_ends_silent_ones(tmp_path: Path) -> None:
    with open_library(tmp_path / "library", create=True):
        pass
    breaking = Breaking(tmp_path)
    arguments = ["--library", str(tmp_path / "library"), "--port", "0", "--reserve", "0", "--no-ingest", "--idle", "8"]
    with command("receive", *arguments, environ=breaking.environ) as running:
        port = running.event("listening")["port"]
        entity = AE()
        entity.add_requested_context(CR)
        association = entity.associate("127.0.0.1", port)
        for image, jump in enumerate((0, DAY, 2 * DAY, -DAY, 0), start=1):
            breaking["clock"] = jump
            # Whatever waits looks at the clock now and then.
            time.sleep(0.5)
            assert association.is_established
            assert association.send_c_store(dataset(Film(image=image, size=64))).Status == 0
        breaking["clock"] = -DAY
        ended = threading.Event()
        threading.Thread(target=lambda: (_until_ended(association), ended.set()), daemon=True).start()
        assert ended.wait(120)
        assert running.end() == 0
    assert len(list((tmp_path / "library" / "received").glob("*/*.dcm"))) == 5


def _until_ended(association) -> None:
    while association.is_established:
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system keeps the time of a beginning")
def test_the_owner_of_a_library_is_known_after_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil reckons when a process began from when the machine did, and that moves with the clock."""
    own = Owner.of_this_process("http://127.0.0.1:9", "token")
    booted = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted + 7)
    monkeypatch.setattr(psutil._pslinux, "BOOT_TIME", booted + 7, raising=False)
    assert own.alive
    assert not Owner(own.url, own.token, own.pid, own.began + 1000).alive
    assert not Owner(own.url, own.token, 1, own.began).alive
