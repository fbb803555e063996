"""Instances received by C-STORE, counted by another implementation: dcmtk's storescu.

    python -m tests.benchmarks receive receive-indexing

`medsearch receive --no-ingest` runs as a user starts it. From each of several associations at once, storescu sends
its own films; it counts the answers of status 0x0000. Afterwards every instance that was so acknowledged has to
be a file of the spool with the pixels that were sent. The clock runs from the first association to the last release,
and every file was forced to the disk before its answer.

`receive-indexing` sends twice as many to a `medsearch receive` that has what comes taken in by a `medsearch serve` that
owns the library: the second half, which is timed, comes while the first is being indexed. In the end every instance
that was acknowledged has to be in the library, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom

from tests.makers import Film, dataset, uid

Row = tuple[str, str, str]
_ACCEPTED = re.compile(rb"Received Store Response \(Success\)")


def measure(work: Path, *, films: int = 500, associations: int = 4, size: int = 360, rounds: int = 3) -> dict[str, Any]:
    """Return how many instances a second were accepted in each round, and how many of them were lost."""
    storescu = _storescu()
    sources = [_write(work / f"films-{films}-{n}", patient=n + 1, films=films, size=size) for n in range(associations)]
    found = [_round(work / f"round-{number}", storescu, sources) for number in range(rounds)]
    bytes_each = next(sources[0].iterdir()).stat().st_size
    return {
        "films": films * associations,
        "associations": associations,
        "kilobytes_each": round(bytes_each / 1000),
        "per_second": [round(each["accepted"] / each["seconds"], 1) for each in found],
        "acknowledged": sum(each["accepted"] for each in found),
        "lost": sum(each["lost"] for each in found),
        "fsync_ms": round(_fsync_ms(work), 2),
    }


def rows(result: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    rates = result["per_second"]
    what = (
        f"C-STORE, {result['films']} CR images of {result['kilobytes_each']} kB, {result['associations']} associations"
    )
    return [
        (
            what,
            f"{statistics.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f}); {result['lost']} lost of"
            f" {result['acknowledged']} acknowledged",
            ">= 100 images/s, none lost",
        )
    ]


def measure_indexing(
    work: Path, *, films: int = 1000, associations: int = 4, size: int = 360, rounds: int = 3
) -> dict[str, Any]:
    """Return how many instances a second were accepted while others were indexed, and how many of all were lost."""
    storescu = _storescu()
    sources = [
        _write(work / f"films-{films}-{n}", patient=n + 1, films=films, size=size) for n in range(2 * associations)
    ]
    found = [_indexing_round(work / f"round-{number}", storescu, sources) for number in range(rounds)]
    return {
        "films": films * associations,
        "associations": associations,
        "per_second": [round(each["accepted"] / each["seconds"], 1) for each in found],
        "beside": [round(each["beside"], 2) for each in found],
        "all_indexed_per_second": [round(each["sent"] / each["all_seconds"], 1) for each in found],
        "acknowledged": sum(each["sent"] for each in found),
        "lost": sum(each["lost"] for each in found),
    }


def indexing_rows(result: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    rates, beside, indexed = result["per_second"], result["beside"], result["all_indexed_per_second"]
    what = f"C-STORE, {result['films']} CR images, {result['associations']} associations, while as many are indexed"
    return [
        (
            what,
            f"{statistics.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f}), an ingest beside it"
            f" {statistics.median(beside):.0%} of that time; {statistics.median(indexed):.0f} images/s from the first"
            f" association to all searchable; {result['lost']} lost of {result['acknowledged']} acknowledged",
            "none lost",
        )
    ]


def _storescu() -> str:
    storescu = shutil.which("storescu")
    if storescu is None:
        raise SystemExit("dcmtk's storescu is needed as the sender (apt-get install dcmtk)")
    return storescu


def _write(folder: Path, *, patient: int, films: int, size: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ds = dataset(Film(patient=patient, size=size))
    plain = np.frombuffer(ds.PixelData, np.uint16)
    for image in range(1, films + 1):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(patient, 1, image)
        ds.InstanceNumber = image
        # Each another film, without being drawn anew.
        ds.PixelData = np.roll(plain, image).tobytes()
        ds.save_as(folder / f"{image}.dcm", enforce_file_format=True)
    return folder


def _round(work: Path, storescu: str, sources: list[Path]) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = [sys.executable, "-m", "medsearch_desktop", "receive", "--json", "--no-ingest", "--port", "0"]
    command += ["--library", str(work / "library"), "--spool", str(work / "spool"), "--reserve", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        port = json.loads(receiver.stdout.readline())["port"]
        logs = [work / f"{number}.log" for number in range(len(sources))]
        seconds = _send_all(storescu, port, sources, logs)
        receiver.send_signal(signal.SIGTERM)
        receiver.communicate(timeout=60)
    accepted = _accepted(logs)
    lost = max(0, accepted - _whole(work / "spool", sources))
    shutil.rmtree(work)
    return {"accepted": accepted, "lost": lost, "seconds": seconds}


def _indexing_round(work: Path, storescu: str, sources: list[Path]) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    medsearch = [sys.executable, "-m", "medsearch_desktop"]
    serve = [*medsearch, "serve", "--library", str(work / "library"), "--port", "0"]
    receive = [*medsearch, "receive", "--json", "--port", "0", "--library", str(work / "library")]
    receive += ["--spool", str(work / "spool"), "--reserve", "0"]
    logs = [work / f"{number}.log" for number in range(len(sources))]
    half = len(sources) // 2
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        headers = {"Authorization": f"Bearer {told['token']}"}
        with (
            (work / "told.jsonl").open("w") as output,
            subprocess.Popen(receive, stdout=output) as receiver,
            httpx.Client(base_url=told["url"], headers=headers, timeout=60, trust_env=False) as client,
        ):
            _until(lambda: (work / "told.jsonl").read_text().endswith("\n"))
            port = json.loads((work / "told.jsonl").read_text().splitlines()[0])["port"]
            begun = time.perf_counter()
            _send_all(storescu, port, sources[:half], logs[:half])
            _until(lambda: _is_indexing(client))
            looks: list[bool] = []
            seconds = _send_all(storescu, port, sources[half:], logs[half:], lambda: looks.append(_is_indexing(client)))
            sent = _accepted(logs)
            _until(lambda: client.get("/api/status").json()["totals"]["images"] >= sent, seconds=1800)
            all_seconds = time.perf_counter() - begun
            images = client.get("/api/status").json()["totals"]["images"]
            receiver.send_signal(signal.SIGTERM)
            receiver.wait(60)
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    found = {
        "accepted": _accepted(logs[half:]),
        "sent": sent,
        "lost": max(0, sent - min(images, _whole(work / "spool", sources))),
        "seconds": seconds,
        "beside": sum(looks) / max(1, len(looks)),
        "all_seconds": all_seconds,
    }
    shutil.rmtree(work)
    return found


def _is_indexing(client: httpx.Client) -> bool:
    return any(job["state"] == "running" for job in client.get("/api/jobs").json()["jobs"])


def _until(is_so: Callable[[], bool], *, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"it did not come to that within {seconds:.0f} s")
        time.sleep(0.05)


def _send_all(
    storescu: str, port: int, sources: list[Path], logs: list[Path], look: Callable[[], None] | None = None
) -> float:
    """Send every folder by an association of its own, all at once, and return how many seconds that took."""
    begun = time.perf_counter()
    senders = [_send(storescu, port, source, log) for source, log in zip(sources, logs, strict=True)]
    if look is not None:
        while any(sender.poll() is None for sender in senders):
            look()
            time.sleep(0.5)
    for sender in senders:
        sender.wait()
    return time.perf_counter() - begun


def _accepted(logs: list[Path]) -> int:
    return sum(len(_ACCEPTED.findall(log.read_bytes())) for log in logs)


def _whole(spool: Path, sources: list[Path]) -> int:
    """Count the instances sent that lie in the spool with the pixels that were sent."""
    kept = {ds.SOPInstanceUID: ds.PixelData for ds in map(pydicom.dcmread, spool.glob("*/*.dcm"))}
    sent = (pydicom.dcmread(path) for source in sources for path in source.iterdir())
    return sum(kept.get(ds.SOPInstanceUID) == ds.PixelData for ds in sent)


def _send(storescu: str, port: int, source: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [storescu, "-v", "+sd", "--max-send-pdu", "131072", "-aet", "BENCH", "127.0.0.1", str(port), str(source)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _fsync_ms(folder: Path) -> float:
    """Return how long this disk takes to have a file of that size for good, in milliseconds."""
    times = []
    for number in range(20):
        begun = time.perf_counter()
        descriptor = os.open(folder / f"fsync-{number}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, bytes(256_000))
        os.fsync(descriptor)
        os.close(descriptor)
        times.append(1000 * (time.perf_counter() - begun))
        (folder / f"fsync-{number}").unlink()
    return statistics.median(times)
