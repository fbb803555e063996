"""Fuzzes the decoder with hypothesis: `make fuzz`; FUZZ_EXAMPLES sets how long.

Any bytes at all come to images, or to an error that says what is wrong with them; nothing else gets out.
"""

from __future__ import annotations

import io
import os
import random
import warnings

from fuzz.mutations import MUTATIONS, sound_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medsearch_desktop.errors import DecodeError
from medsearch_desktop.image.decode import decode, read_tags

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
SOUND = sound_files()
# A number in the report of a failure says as much as three kilobytes of bytes.
NUMBERS = st.integers(0, len(SOUND) - 1)
LONG = settings(max_examples=EXAMPLES, deadline=10_000, suppress_health_check=list(HealthCheck))


def told(error: DecodeError) -> None:
    assert error.message


def survives(data: bytes) -> None:
    with warnings.catch_warnings():
        # As the program does, which the rules of pytest undo.
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        _survives(data)


def _survives(data: bytes) -> None:
    for key_slices in (0, 12):
        try:
            decoded = decode(
                io.BytesIO(data), name="f", sha256="0" * 64, max_frames=3, max_pixels=1 << 22, key_slices=key_slices
            )
        except DecodeError as error:
            told(error)
            continue
        for image, display in zip(decoded.images, decoded.displays, strict=True):
            assert display is not None or image.pixel_error or image.place is not None
    try:
        read_tags(io.BytesIO(data), name="f")
    except DecodeError as error:
        told(error)


@given(NUMBERS, st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=8)), max_size=8))
@LONG
def test_bytes_written_over(number: int, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(SOUND[number])
    for place, value in changes:
        place %= len(content)
        content[place : place + len(value)] = value
    survives(bytes(content))


@given(NUMBERS, st.integers(0, 1 << 60), st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=3))
@LONG
def test_damage_on_damage(number: int, seed: int, changes: list) -> None:
    data, rng = SOUND[number], random.Random(seed)
    for change in changes:
        if len(data) > 200:
            data = change(data, rng)
    survives(data)


@given(st.binary(max_size=4000))
@LONG
def test_any_bytes(data: bytes) -> None:
    survives(b"\0" * 128 + b"DICM" + data)
