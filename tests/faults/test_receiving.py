"""What is sent while things break: kill -9, a process that stands still, a disk that fails, a drive that is pulled.

Whatever its sender was told 0x0000 of is in the library in the end, once. `make test` kills a few times;
MEDSEARCH_FAULTS=200, as `make faults` sets it, as often as it says.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from faults.broken_disk import Breaking, Rule, needs_breaking
from faults.mounts import needs_mount
from makers import Film, dataset
from pynetdicom import AE, Association
from running import Running, command
from servers import Served, served

from medsearch_desktop.library import open_library

LYING = "[0-9a-f][0-9a-f]/*.dcm"
CR = "1.2.840.10008.5.1.4.1.1.1"
FAULTS = int(os.environ.get("MEDSEARCH_FAULTS", "12"))
KILLS = max(2, FAULTS // 4)
STILL = 60.0 if FAULTS >= 100 else 3.0
SEED = int(os.environ.get("MEDSEARCH_FAULTS_SEED", "6"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 + 120 * KILLS)]


class Sender:
    """One association that sends films of one study, and what it was told of each."""

    def __init__(self, port: int, study: int, *, films: int = 100_000, timeout: float = 30.0, size: int = 128) -> None:
        self.accepted: list[str] = []
        self.refused: list[int] = []
        self.broken = False
        self.enough = threading.Event()
        self._films = [Film(patient=study, study=study, image=image, size=size) for image in range(1, films + 1)]
        self._port, self._timeout = port, timeout
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        entity = AE()
        entity.dimse_timeout = entity.network_timeout = entity.acse_timeout = self._timeout
        entity.add_requested_context(CR)
        association = entity.associate("127.0.0.1", self._port)
        connection = association.dul.socket.socket if association.is_established else None
        try:
            self._send_over(association)
        finally:
            if self.broken and connection is not None:
                # pynetdicom leaves it open where nobody answers any more.
                connection.close()

    def _send_over(self, association: Association) -> None:
        for film in self._films:
            if self.enough.is_set():
                break
            if not association.is_established:
                self.broken = True
                return
            ds = dataset(film)
            try:
                status = association.send_c_store(ds)
            except (RuntimeError, ValueError):
                self.broken = True
                return
            if "Status" not in status:
                self.broken = True
                return
            if status.Status == 0:
                self.accepted.append(str(ds.SOPInstanceUID))
            else:
                self.refused.append(status.Status)
        association.release()

    def join(self) -> Sender:
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self


@contextmanager
def receiving(library: Path, *more: str, environ: dict[str, str] | None = None) -> Iterator[tuple[Running, int]]:
    arguments = ["receive", "--library", str(library), "--port", "0", "--reserve", "0", *more]
    with command(*arguments, environ=environ, group=True) as running:
        yield running, running.event("listening")["port"]


def held(library: Path) -> Counter[str]:
    """What is in a library by SOP Instance UID; everything fits together."""
    with open_library(library) as opened:
        assert opened.failures() == []
        report = opened.health.verify(files=True)
        assert report.ok, report.as_json()
        return Counter(uid for (uid,) in opened._database.read("SELECT sop_instance_uid FROM images"))


def is_whole(library: Path, accepted: set[str]) -> None:
    found = held(library)
    assert accepted <= set(found)
    assert set(found.values()) <= {1}


def until(is_so, *, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def settled(running: Running, spool: Path) -> None:
    """Wait until all is taken in that lies in the spool, to which nobody sends any more."""
    lying = len(list(spool.glob(LYING)))
    # What could not be read at first is `updated` when it can.
    running.until(lambda lines: sum(line.get("indexed", 0) + line.get("updated", 0) for line in lines) >= lying)


def test_kill_9_while_it_receives_and_indexes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    library = tmp_path / "library"
    accepted: set[str] = set()
    for round_ in range(KILLS):
        with receiving(library) as (running, port):
            senders = [Sender(port, 1 + 2 * round_ + n) for n in range(2)]
            until(lambda senders=senders: all(len(sender.accepted) > 1 for sender in senders))
            # While the first is being taken in, which begins after three seconds, too.
            time.sleep(rng.uniform(0.0, 6.0))
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait(60)
            accepted.update(uid for sender in senders for uid in sender.join().accepted)
    spool = library / "received"
    # What the last launch left is taken in by the next one, without being asked to.
    with receiving(library) as (running, _):
        running.until(lambda lines: any(line["event"] == "batch" for line in lines), seconds=300)
        assert running.end() == 0
    assert len(accepted) > 2 * KILLS
    is_whole(library, accepted)
    assert len(list(spool.glob(LYING))) == held(library).total()


def parts(study: int, folder: Path) -> Iterator[bytes]:
    """A body of STOW that never ends, each part a film, with a pause in the midst of each."""
    for image in range(1, 10_000):
        path = folder / f"{study}-{image}.dcm"
        dataset(Film(patient=study, study=study, image=image, size=96)).save_as(path, enforce_file_format=True)
        content = path.read_bytes()
        yield b"--frontier\r\nContent-Type: application/dicom\r\n\r\n" + content[:9000]
        time.sleep(0.01)
        yield content[9000:] + b"\r\n"
        path.unlink()


def store(client: httpx.Client, body: bytes | Iterator[bytes]) -> list[str]:
    """Send by STOW-RS and return what is acknowledged as stored."""
    kind = 'multipart/related; type="application/dicom"; boundary=frontier'
    answer = client.post("/dicomweb/studies", content=body, headers={"Content-Type": kind})
    told = answer.json()
    return [item["00081155"]["Value"][0] for item in told.get("00081199", {}).get("Value", [])]


def request(folder: Path, study: int, films: int) -> bytes:
    made = parts(study, folder)
    body = b"".join(next(made) for _ in range(2 * films))
    made.close()
    return body + b"--frontier--\r\n"


def test_kill_9_of_a_server_in_the_midst_of_a_stream_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    library = tmp_path / "library"
    accepted: set[str] = set()
    for round_ in range(max(2, KILLS // 2)):
        with served(library, "--port", "0") as server, server.client() as client, server.client() as other:
            accepted.update(store(client, request(tmp_path, 100 + round_, 3)))
            broken: list[str] = []

            def stream(client: httpx.Client = other, study: int = 200 + round_, broken: list[str] = broken) -> None:
                try:
                    store(client, parts(study, tmp_path))
                except httpx.TransportError as error:
                    broken.append(type(error).__name__)

            thread = threading.Thread(target=stream)
            thread.start()
            accepted.update(store(client, request(tmp_path, 300 + round_, 2)))
            time.sleep(rng.uniform(0.0, 3.0))
            server.process.kill()
            server.process.wait(60)
            thread.join(60)
            assert broken
    with served(library, "--port", "0") as server:
        # Nobody sends anything, or asks for it to be taken in.
        until(lambda: accepted <= in_library(server), seconds=300)
        assert server.end() == 0
    is_whole(library, accepted)
    assert len(accepted) == 5 * max(2, KILLS // 2)


def in_library(server: Served) -> set[str]:
    with server.client() as client:
        answer = client.get("/api/search", params={"q": "view:PA", "k": 200}).json()
        return {image.partition("#")[0] for hit in answer["hits"] for image in hit["image_ids"]}


def test_a_receiver_that_stood_still_goes_on_and_its_senders_wait(tmp_path: Path) -> None:
    library = tmp_path / "library"
    # Longer than it stands still: else its silence ends the associations, as it should.
    with receiving(library, "--idle", "300") as (running, port):
        senders = [Sender(port, 1 + n, films=40, timeout=STILL + 60) for n in range(2)]
        until(lambda: all(len(sender.accepted) >= 5 for sender in senders))
        os.killpg(running.process.pid, signal.SIGSTOP)
        time.sleep(STILL)
        stood = [len(sender.accepted) for sender in senders]
        time.sleep(0.5)
        assert [len(sender.accepted) for sender in senders] == stood
        os.killpg(running.process.pid, signal.SIGCONT)
        accepted = {uid for sender in senders for uid in sender.join().accepted}
        assert len(accepted) == 80
        settled(running, library / "received")
        assert running.end() == 0
    is_whole(library, accepted)


def test_a_sender_that_does_not_wait_fails_cleanly(tmp_path: Path) -> None:
    library = tmp_path / "library"
    with receiving(library) as (running, port):
        impatient = Sender(port, 1, timeout=6.0)
        until(lambda: len(impatient.accepted) >= 3)
        os.killpg(running.process.pid, signal.SIGSTOP)
        impatient.join()
        assert impatient.broken
        os.killpg(running.process.pid, signal.SIGCONT)
        again = Sender(port, 1, films=len(impatient.accepted) + 2).join()
        assert not again.broken
        assert not again.refused
        settled(running, library / "received")
        assert running.end() == 0
    is_whole(library, {*impatient.accepted, *again.accepted})
    assert list((library / "received" / ".incoming").iterdir()) == []


def test_a_server_that_stood_still_answers_and_takes_what_was_sent(tmp_path: Path) -> None:
    library = tmp_path / "library"
    with served(library, "--port", "0") as server, server.client() as client:
        client.timeout = httpx.Timeout(STILL + 120)
        body, told = request(tmp_path, 1, 5), []
        thread = threading.Thread(target=lambda: told.extend(store(client, body)))
        server.process.send_signal(signal.SIGSTOP)
        thread.start()
        time.sleep(STILL)
        assert told == []
        server.process.send_signal(signal.SIGCONT)
        thread.join(120)
        assert len(told) == 5
        until(lambda: set(told) <= in_library(server))
        # And once more while it takes them in.
        told.extend(store(client, request(tmp_path, 2, 5)))
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        server.process.send_signal(signal.SIGCONT)
        until(lambda: set(told) <= in_library(server))
        assert server.end() == 0
    is_whole(library, set(told))


# The first three in the short run.
SPOOL_FAULTS = [
    pytest.param("write", "/.incoming/", errno.EIO, 20, id="write"),
    pytest.param("fsync", "/received/", errno.EIO, 20, id="fsync"),
    pytest.param("write", "/.incoming/", 0, 20, id="half"),
    pytest.param("write", "/.incoming/", errno.ENOSPC, 20, id="full"),
    pytest.param("open", "/.incoming/", errno.EIO, 20, id="open"),
    pytest.param("read", "/received/.incoming/", errno.EIO, 20, id="read"),
]


@needs_breaking
@pytest.mark.parametrize(("calls", "part", "code", "first"), SPOOL_FAULTS[: 3 if FAULTS < 50 else None])
def test_a_spool_whose_disk_fails_acknowledges_only_what_it_holds(
    tmp_path: Path, calls: str, part: str, code: int, first: int
) -> None:
    library = tmp_path / "library"
    with open_library(library, create=True):
        pass
    breaking = Breaking(tmp_path, Rule(calls, part, code, first))
    with receiving(library, environ=breaking.environ) as (running, port):
        one = Sender(port, 1, films=30).join()
        assert breaking["failed"]
        # Each way of failing is one that a sender knows of, and it does not take long.
        assert code == 0 or one.broken or one.refused
        assert set(one.refused) <= {0xA700, 0xC000}
        lying = {path.name[:-4] for path in (library / "received").glob(LYING)}
        assert set(one.accepted) <= lying
        # The disk is well again, and its sender tries again.
        breaking["off"] = 1
        two = Sender(port, 1, films=30).join()
        assert not two.broken
        assert len(two.accepted) == 30
        settled(running, library / "received")
        assert running.end() == 0
    is_whole(library, {*one.accepted, *two.accepted})
    assert held(library).total() == 30


@needs_mount
def test_a_spool_whose_drive_goes_away_takes_nothing_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    library, kept, spool = tmp_path / "library", tmp_path / "kept", tmp_path / "spool"
    kept.mkdir()
    spool.mkdir()
    subprocess.run(["mount", "--bind", kept, spool], check=True)
    try:
        with receiving(library, "--spool", str(spool)) as (running, port):
            sender = Sender(port, 1)
            until(lambda: len(sender.accepted) >= 10)
            # Before the first of it is taken in.
            subprocess.run(["umount", "-l", spool], check=True)
            until(lambda: sender.refused or sender.broken)
            accepted = list(sender.accepted)
            time.sleep(5)
            assert list(spool.iterdir()) == []
            late = Sender(port, 2, films=3).join()
            assert late.broken or late.refused
            assert late.accepted == []
            subprocess.run(["mount", "--bind", kept, spool], check=True)
            until(lambda: len(sender.accepted) > len(accepted) or sender.broken)
            again = Sender(port, 3, films=3).join()
            assert len(again.accepted) == 3
            sender.enough.set()
            sender.join()
            settled(running, spool)
            assert running.end() == 0
        is_whole(library, {*sender.accepted, *again.accepted})
    finally:
        subprocess.run(["umount", "-l", spool], check=False, capture_output=True)
