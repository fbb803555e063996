"""`medsearch receive` and `medsearch watch` as a user starts them: indexed, told as JSON, ended by a signal, killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from makers import Film, dataset, write_department
from pynetdicom import AE
from running import command
from servers import served

from medsearch_desktop.library import open_library

CR = "1.2.840.10008.5.1.4.1.1.1"
# `MEDSEARCH_KILLS=200` runs as many as are wanted.
KILLS = int(os.environ.get("MEDSEARCH_KILLS", "3"))

# Sends until the connection breaks, and prints the identifier of each instance whose answer was 0x0000.
SENDER = """
import sys
sys.path.insert(0, sys.argv[1])
from makers import Film, dataset
from pynetdicom import AE
ae = AE()
# Now and then it does not notice that the other end has gone, and waits for an answer as long as that.
ae.dimse_timeout = ae.network_timeout = 20
ae.add_requested_context("1.2.840.10008.5.1.4.1.1.1")
association, image = ae.associate("127.0.0.1", int(sys.argv[2])), 0
while association.is_established:
    image += 1
    ds = dataset(Film(study=1 + int(sys.argv[3]), image=image, size=300))
    try:
        if association.send_c_store(ds).get("Status") == 0:
            print(ds.SOPInstanceUID, flush=True)
    except (RuntimeError, ValueError):
        break
"""


def indexed(lines: list[dict[str, Any]]) -> int:
    return sum(line["indexed"] for line in lines if line["event"] == "batch")


def test_what_is_sent_is_indexed_and_can_be_asked_for(tmp_path: Path) -> None:
    library = tmp_path / "library"
    with command("receive", "--library", str(library), "--port", "0", "--reserve", "0") as running:
        port = running.event("listening")["port"]
        ae = AE()
        ae.add_requested_context(CR)
        association = ae.associate("127.0.0.1", port)
        assert [association.send_c_store(dataset(Film(image=n))).Status for n in (1, 2, 2)] == [0, 0, 0]
        association.release()
        running.until(lambda lines: indexed(lines) == 2)
        assert running.end() == 0
        assert running.lines[-1]["counts"]["received"] == 2
        assert running.lines[-1]["counts"]["duplicates"] == 1
        assert "Test^Patient" not in json.dumps(running.lines)
    with open_library(library) as opened:
        assert opened.search("view:PA").total == 1
        assert [(root, files) for root, _, files in opened.holdings.sources()] == [(str(library / "received"), 2)]


def test_a_server_that_owns_the_library_takes_what_is_received(tmp_path: Path) -> None:
    library = tmp_path / "library"
    with served(library) as server, server.client() as client:
        with command("receive", "--library", str(library), "--port", "0", "--reserve", "0") as running:
            port = running.event("listening")["port"]
            ae = AE()
            ae.add_requested_context(CR)
            association = ae.associate("127.0.0.1", port)
            assert association.send_c_store(dataset(Film())).Status == 0
            association.release()
            running.until(lambda lines: indexed(lines) == 1)
            assert running.end(signal.SIGINT) == 0
        assert client.get("/api/search", params={"q": "view:PA"}).json()["total"] == 1


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """As long as the sender was told 0x0000, the instance is in the library at the end, once."""
    dice = random.Random(3)
    spool, acknowledged = tmp_path / "spool", set()
    for round_ in range(KILLS):
        with command("receive", "--library", str(tmp_path / "library"), "--port", "0", "--spool", str(spool),
                     "--no-ingest", "--reserve", "0") as running:  # fmt: skip
            port = running.event("listening")["port"]
            senders = [
                subprocess.Popen(
                    [sys.executable, "-c", SENDER, str(Path(__file__).parents[1]), str(port), str(round_ * 10 + n)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for n in range(2)
            ]
            # The first two answers have come; a random moment after them is meant.
            for sender in senders:
                assert sender.stdout is not None
                acknowledged.update(sender.stdout.readline().strip() for _ in range(2))
            time.sleep(dice.uniform(0.0, 1.5))
            running.process.kill()
            for sender in senders:
                acknowledged.update(sender.communicate(timeout=180)[0].split())
    assert len(acknowledged) > 2 * KILLS
    assert "" not in acknowledged
    with open_library(tmp_path / "library", create=True) as library:
        summary = library.ingest([spool], metadata_only=True)
        assert summary.failed == summary.duplicates == 0
        rows = library._database.read("SELECT sop_instance_uid FROM images")
    assert len(rows) == len({uid for (uid,) in rows})
    assert acknowledged <= {uid for (uid,) in rows}


def test_a_watched_folder_is_kept_current(tmp_path: Path) -> None:
    source, library = tmp_path / "source", tmp_path / "library"
    write_department(source, studies=2)
    with command("watch", str(source), "--library", str(library), "--still", "0.5") as running:
        running.until(lambda lines: indexed(lines) == 6)
        # Moved in as a whole: a file on which this test pauses for half a second would be taken half written.
        made = write_department(tmp_path / "made", studies=1, first=3)
        (made / "files" / "p00000002").rename(source / "files" / "p00000002")
        running.until(lambda lines: indexed(lines) == 9)
        film = next(source.rglob("image1.dcm"))
        film.rename(film.with_name("renamed.dcm"))
        running.until(lambda lines: any(line.get("updated") for line in lines))
        shutil.rmtree(next(source.rglob("s50000003")))
        running.until(lambda lines: sum(line.get("removed", 0) for line in lines) == 2)
        assert running.end() == 0
    with open_library(library) as opened:
        assert (opened.totals().images, opened.totals().reports) == (4, 3)
        assert [(root, files) for root, _, files in opened.holdings.sources()] == [(str(source), 7)]
        again = opened.ingest([source])
        assert (again.indexed, again.updated, again.removed, again.failed) == (0, 0, 0, 0)
