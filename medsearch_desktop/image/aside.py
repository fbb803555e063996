"""Decoders in a process of their own, bounded in memory and time: those whose libraries cannot be bounded from without.

What JPEG XL and video claim in front of their pixels is checked like all else, but either may hold further pictures
that no check from outside sees, and the libraries that read them are large. A hostile file costs that process, and
the next one gets a new one; it is started for the first such file and stays.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import DecodeError, TruncatedFileError, UnsupportedPixelsError

# Interpreter and codec, and what they take for each sample: libjxl counts in floats, several times over.
_MEMORY, _MEMORY_PER_SAMPLE = 1 << 29, 32
# Ten times what either decoder takes on one core.
_SECONDS, _SAMPLES_PER_SECOND = 20.0, 1_000_000
# Whatever a library keeps of the frames it has read goes with the process.
_FRAMES_PER_WORKER = 2000
_LENGTHS = struct.Struct("!IQ")
_REMEDY = "Convert the file to an uncompressed transfer syntax"


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
    with _USING:
        return _worker().decode(form, data, most_samples, seconds)


class _Worker:
    """The other process; one frame at a time: a head in JSON and bytes in, the same out."""

    def __init__(self) -> None:
        self.done = 0
        self._process = subprocess.Popen(
            _command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )

    @property
    def is_usable(self) -> bool:
        return self._process.poll() is None and self.done < _FRAMES_PER_WORKER

    def decode(self, form: str, data: bytes, most: int, seconds: float) -> NDArray[Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.done += 1
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            _send(self._process.stdin, {"form": form, "most": most}, data)
            answer = _received(self._process.stdout)
        except OSError:
            answer = None
        except BaseException:
            # Interrupted between asking and answer: the next would be given this one's.
            self.close()
            raise
        finally:
            timer.cancel()
        if answer is None:
            self.close()
            problem = f"more than {seconds:.0f} s" if late.is_set() else "more memory than it may, or ends its decoder"
            raise UnsupportedPixelsError(f"decoding the {form} frame takes {problem}", remedy=_REMEDY)
        head, samples = answer
        if head["message"]:
            error = TruncatedFileError if head["is_truncated"] else UnsupportedPixelsError
            raise error(head["message"], remedy=head["remedy"])
        # Writable, as what a codec of this process gives is.
        return np.frombuffer(bytearray(samples), head["dtype"]).reshape(head["shape"])

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                # What was still to be written has nowhere to go.
                continue
        self._process.wait()


_USING = threading.Lock()
_current: _Worker | None = None


def _worker() -> _Worker:
    global _current
    if _current is None or not _current.is_usable:
        if _current is not None:
            _current.close()
        else:
            atexit.register(close_decoder)
        _current = _Worker()
    return _current


def close_decoder() -> None:
    """End the other process, if there is one; the next frame starts it again."""
    global _current
    with _USING:
        if _current is not None:
            _current.close()
            _current = None


def _command() -> list[str]:
    # A frozen program is its own interpreter. -P: nothing is imported from the folder that the user stands in.
    own = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-P", "-m", "medsearch_desktop"]
    return [*own, "frame-worker"]


def _environment() -> dict[str, str]:
    package = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH", "")
    # Each thread of numpy's would claim memory that none of them uses.
    return {
        **os.environ,
        "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package,
        "OPENBLAS_NUM_THREADS": "1",
    }


def _send(target: IO[bytes], head: dict[str, Any], data: bytes) -> None:
    coded = json.dumps(head).encode("ascii")
    target.write(_LENGTHS.pack(len(coded), len(data)) + coded)
    target.write(data)
    target.flush()


def _received(
    source: IO[bytes], prepare: Callable[[dict[str, Any], int], None] | None = None
) -> tuple[dict[str, Any], bytes] | None:
    """Return head and bytes, or None where they end early; `prepare` is told the head and their number before."""
    lengths = source.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head_length, length = _LENGTHS.unpack(lengths)
    coded = source.read(head_length)
    if len(coded) < head_length:
        return None
    head = json.loads(coded)
    if prepare is not None:
        prepare(head, length)
    data = source.read(length)
    return (head, data) if len(data) == length else None


def serve_frames() -> int:
    """Be the other process: decode what comes from standard input until it ends."""
    # Ctrl-C is for the program that asked, which still wants its answer; its end is seen by its pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = sys.stdout.buffer
    # What a library prints must not stand between the answers.
    sys.stdout = sys.stderr
    while asked := _received(sys.stdin.buffer, _bound):
        head, data = asked
        try:
            samples = _decoded(head["form"], data, head["most"])
        except DecodeError as error:
            _send(answers, _problem(error), b"")
        except MemoryError:
            message = f"decoding the {head['form']} frame takes more memory than it may"
            _send(answers, _problem(UnsupportedPixelsError(message)), b"")
        except Exception as error:  # noqa: BLE001 - the codecs document no exceptions; nothing else runs here
            message = f"the {head['form']} frame is not decodable ({error})"[:200]
            _send(answers, _problem(UnsupportedPixelsError(message)), b"")
        else:
            form = {"message": "", "dtype": samples.dtype.str, "shape": samples.shape}
            _send(answers, form, samples.tobytes())
    return 0


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


def _bound(head: dict[str, Any], length: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = _MEMORY + length + head["most"] * _MEMORY_PER_SAMPLE
        # The soft limit alone: the next frame may need more.
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    except (ImportError, ValueError, OSError):
        # Windows has no such limits; time still ends what grows.
        return
