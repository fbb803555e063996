"""Decoders in a process of their own, bounded in memory and time: those whose libraries cannot be bounded from without.

What JPEG XL and video claim in front of their pixels is checked like all else, but either may hold further pictures
that no check from outside sees, and the libraries that read them are large.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.bounded import Helper, Message, answer_questions
from medsearch_desktop.errors import DecodeError, TruncatedFileError, UnsupportedPixelsError

# Interpreter and codec, and what they take for each sample: libjxl counts in floats, several times over.
_MEMORY, _MEMORY_PER_SAMPLE = 1 << 29, 32
# Ten times what either decoder takes on one core.
_SECONDS, _SAMPLES_PER_SECOND = 20.0, 1_000_000
_REMEDY = "Convert the file to an uncompressed transfer syntax"
HELPER = Helper("frame-worker", most=2000)


def is_installed(package: str) -> bool:
    """Tell whether a package that decodes can be imported here, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:
        return False


def decode_aside(form: str, data: bytes, *, most_samples: int, max_seconds: float | None = None) -> NDArray[Any]:
    """Return the samples of one frame as its decoder gives them; `form` is "JPEG XL" or what `VIDEO` calls a syntax.

    `most_samples` is what the frame may hold; memory and time follow from it, the latter unless `max_seconds` is given.
    Raises TruncatedFileError and UnsupportedPixelsError.
    """
    seconds = max_seconds or _SECONDS + most_samples / _SAMPLES_PER_SECOND
    try:
        head, samples = HELPER.ask({"form": form, "most": most_samples}, data, seconds=seconds)
    except TimeoutError as error:
        raise UnsupportedPixelsError(
            f"decoding the {form} frame takes more than {seconds:.0f} s", remedy=_REMEDY
        ) from error
    except MemoryError as error:
        raise UnsupportedPixelsError(
            f"decoding the {form} frame takes more memory than it may, or ends its decoder", remedy=_REMEDY
        ) from error
    if head["message"]:
        kind = TruncatedFileError if head["is_truncated"] else UnsupportedPixelsError
        raise kind(head["message"], remedy=head["remedy"])
    # Writable, as what a codec of this process gives is.
    return np.frombuffer(bytearray(samples), head["dtype"]).reshape(head["shape"])


def serve_frames() -> int:
    """Be the other process: decode frames until nobody asks any more."""
    return answer_questions(_answer, lambda head, length: _MEMORY + length + head["most"] * _MEMORY_PER_SAMPLE)


def _answer(head: dict[str, Any], data: bytes) -> Message:
    try:
        samples = _decoded(head["form"], data, head["most"])
    except DecodeError as error:
        return _problem(error), b""
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the codecs document no exceptions; nothing else runs here
        return _problem(UnsupportedPixelsError(f"the {head['form']} frame is not decodable ({error})"[:200])), b""
    return {"message": "", "dtype": samples.dtype.str, "shape": samples.shape}, samples.tobytes()


def _problem(error: DecodeError) -> dict[str, Any]:
    truncated = isinstance(error, TruncatedFileError)
    return {"message": error.message, "remedy": error.remedy or _REMEDY, "is_truncated": truncated}


def _decoded(form: str, data: bytes, most: int) -> NDArray[Any]:
    if form == "JPEG XL":
        from medsearch_desktop.image.jpeg_xl import jpeg_xl_samples

        samples = jpeg_xl_samples(data)
    else:
        from medsearch_desktop.image.video import first_frame

        samples = first_frame(data, form, most)
    if math.prod(samples.shape) > most:
        raise UnsupportedPixelsError(f"the {form} frame has more than {most} samples")
    return samples
