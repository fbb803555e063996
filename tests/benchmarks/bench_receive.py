"""Instances received by C-STORE, counted by another implementation: dcmtk's storescu.

    python -m tests.benchmarks receive

`medsearch receive --no-ingest` runs as a user starts it. From each of several associations at once, storescu sends
its own films; it counts the answers of status 0x0000. Afterwards every instance that was so acknowledged has to
be a file of the spool with the pixels that were sent. The clock runs from the first association to the last release,
and every file was forced to the disk before its answer.
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
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from tests.makers import Film, dataset, uid

Row = tuple[str, str, str]
_ACCEPTED = re.compile(rb"Received Store Response \(Success\)")


def measure(work: Path, *, films: int = 500, associations: int = 4, size: int = 360, rounds: int = 3) -> dict[str, Any]:
    """Return how many instances a second were accepted in each round, and how many of them were lost."""
    storescu = shutil.which("storescu")
    if storescu is None:
        raise SystemExit("dcmtk's storescu is needed as the sender (apt-get install dcmtk)")
    sources = [_write(work / f"films-{n}", patient=n + 1, films=films, size=size) for n in range(associations)]
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
        begun = time.perf_counter()
        logs = [work / f"{number}.log" for number in range(len(sources))]
        senders = [_send(storescu, port, source, log) for source, log in zip(sources, logs, strict=True)]
        for sender in senders:
            sender.wait()
        seconds = time.perf_counter() - begun
        receiver.send_signal(signal.SIGTERM)
        receiver.communicate(timeout=60)
    accepted = sum(len(_ACCEPTED.findall(log.read_bytes())) for log in logs)
    kept = {ds.SOPInstanceUID: ds.PixelData for ds in map(pydicom.dcmread, (work / "spool").glob("*/*.dcm"))}
    sent = [pydicom.dcmread(path) for source in sources for path in source.iterdir()]
    whole = sum(kept.get(ds.SOPInstanceUID) == ds.PixelData for ds in sent)
    shutil.rmtree(work)
    return {"accepted": accepted, "lost": max(0, accepted - whole), "seconds": seconds}


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
