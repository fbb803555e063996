"""Messages that were damaged at random: read or refused with a reason, without a crash and without a hang.

The environment variable MUTATIONS sets how many of each format; 1000 is the full run.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import messages_made as made
import pytest

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.documents import Limits, read_documents
from medsearch_desktop.report.pdf import HELPER
from medsearch_desktop.statements import Written

COUNT = int(os.environ.get("MUTATIONS", "40"))
LIMITS = Limits(report=200_000, file=4_000_000)
TEXT = "FINDINGS: Large left pleural effusion. No pneumothorax, oedème.\nIMPRESSION: Left effusion."
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")

SEEDS: dict[str, bytes] = {
    "hl7": made.hl7(*TEXT.split("\n"), after=["ZDS|1.2.3.4.5^^Application^DICOM"]) + made.hl7("Two.", filler="2"),
    "fhir": made.as_bytes(
        made.bundle(
            made.diagnostic_report(TEXT, conclusion="Effusion.", result=[{"reference": "Observation/o"}]),
            {"resourceType": "Observation", "id": "o", "code": {"text": "x"}, "valueString": "y"},
        )
    ),
    "sr": made.saved(made.sr(before=["1.2.3"])),
    "text": TEXT.encode(),
    "csv": f'report_id,accession,findings\n1,A1,"{TEXT}"\n2,A2,Clear.\n'.encode(),
    "rtf": rb"{\rtf1\ansi FINDINGS: Effusion.\par No \'e9 nodule.}",
    "pdf": made.pdf(*TEXT.split("\n")),
}


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((1, 7, 100))]
    return data[:start] + part * rng.choice((2, 50, 5000)) + data[start:]


def leave_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 4, 40)) :]


def put_in(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    odd = rng.choice(
        (b"\0", b"\xff" * 8, b"[" * 3000, b'{"a":' * 3000, b"\\X", b"|^~\\&", b"\r\r\n", b"\xf0\x9f", rng.randbytes(64))
    )
    return data[:start] + odd + data[start:]


def swap(data: bytes, rng: random.Random) -> bytes:
    one, two = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[two:] + data[one:two] + data[:one]


def huge_length(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    start = rng.randrange(max(1, len(data) - 4))
    changed[start : start + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"))
    return bytes(changed)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut, flip, repeat, leave_out, put_in, swap, huge_length,
)  # fmt: skip


@pytest.mark.parametrize("form", SEEDS)
def test_a_damaged_file_is_read_or_refused_with_a_reason(form: str) -> None:
    rng = random.Random(form)
    outcomes = {"read": 0, "refused": 0}
    try:
        for number in range(COUNT):
            data = SEEDS[form]
            for _ in range(rng.choice((1, 1, 2, 4))):
                data = rng.choice(MUTATIONS)(data, rng) or b" "
            began = time.monotonic()
            try:
                found = list(read_documents(data, name=f"{form}.{'csv' if form == 'csv' else 'x'}", limits=LIMITS))
            except ReportError as error:
                found = [error]
            # On a busy machine the clock runs on; a hang takes minutes.
            assert time.monotonic() - began < 60, (form, number)
            for each in found:
                if isinstance(each, ReportError):
                    assert each.message, (form, number)
                    assert each.item, (form, number)
                    assert "effusion" not in str(each).lower(), (form, number)
                else:
                    assert isinstance(each, Written), (form, number)
                    each.text.encode("utf-8")
                    outcomes["read"] += 1
            outcomes["refused"] += any(isinstance(each, ReportError) for each in found)
    finally:
        HELPER.close()
    # Damage that nothing notices, or that nothing survives, would show a mistake here.
    assert outcomes["read"] or form == "pdf"
    assert outcomes["refused"] or form in ("text", "rtf")
