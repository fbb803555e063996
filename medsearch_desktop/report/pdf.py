"""The text layer of PDF files, read in a process of its own that is bounded in memory and time.

The only file that imports pypdf. A crafted file of a few kilobytes can keep any PDF library busy for
hours or fill the memory; here it costs its own process, and the next file gets a new one.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from medsearch_desktop.errors import ReportError

MARK = b"%PDF-"
MAX_PAGES = 500
MAX_SECONDS = 8.0
_MEMORY = 1 << 30
# Whatever a library keeps of the files it has read goes with the process.
_FILES_PER_WORKER = 500
_LENGTH = struct.Struct("!I")
_REMEDY = "Print it to a new PDF file, or export the report as plain text"
_REASONS = {
    "pages": f"has more than {MAX_PAGES} pages",
    "locked": "is a PDF file that a password locks",
    "long": "holds more text than a report may have",
    "memory": f"takes more than {_MEMORY >> 20} MiB of memory to be read",
    "damaged": "is a PDF file that cannot be read",
}
_TRAILING = re.compile(r"[ \t]+(?=\n|\Z)")


def pdf_text(data: bytes, *, name: str, max_characters: int, max_seconds: float = MAX_SECONDS) -> str:
    """Return the text of a PDF file, its pages after each other with a blank line between.

    Raises ReportError when it has no text layer, is locked, damaged, of more than `MAX_PAGES` pages or
    `max_characters`, or takes longer than `max_seconds` or more than 1 GiB of memory.
    """
    with _USING:
        text, problem = _worker().read(data, max_characters=max_characters, max_seconds=max_seconds)
    if problem == "slow":
        raise ReportError(f"takes more than {max_seconds:g} s to be read", item=name, remedy=_REMEDY)
    if problem:
        raise ReportError(_REASONS[problem], item=name, remedy=_REMEDY)
    if not text.strip():
        raise ReportError(
            "has no text layer: its pages are pictures",
            item=name,
            remedy="It needs text recognition (OCR), which other programs do; ingest their output",
        )
    return _TRAILING.sub("", text)


class _Worker:
    """The other process; one file at a time, each a length and bytes in, a length and JSON out."""

    def __init__(self) -> None:
        self.done = 0
        self._process = subprocess.Popen(
            _command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )

    @property
    def is_usable(self) -> bool:
        return self._process.poll() is None and self.done < _FILES_PER_WORKER

    def read(self, data: bytes, *, max_characters: int, max_seconds: float) -> tuple[str, str]:
        """Return (text, what is wrong: a key of `_REASONS`, "slow" or "")."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.done += 1
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(max_seconds, stop)
        timer.start()
        try:
            self._process.stdin.write(_LENGTH.pack(max_characters) + _LENGTH.pack(len(data)) + data)
            self._process.stdin.flush()
            answer = _taken(self._process.stdout)
        except OSError:
            answer = None
        finally:
            timer.cancel()
        if answer is None:
            self.close()
            return "", "slow" if late.is_set() else "memory"
        row = json.loads(answer)
        return row["text"], row["problem"]

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
            atexit.register(close_worker)
        _current = _Worker()
    return _current


def close_worker() -> None:
    """End the other process, if there is one; the next file starts it again."""
    global _current
    with _USING:
        if _current is not None:
            _current.close()
            _current = None


def _command() -> list[str]:
    # A frozen program is its own interpreter. -P: nothing is imported from the folder that the user stands in.
    own = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-P", "-m", "medsearch_desktop"]
    return [*own, "pdf-worker"]


def _environment() -> dict[str, str]:
    package = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package}


def _taken(source: IO[bytes]) -> bytes | None:
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = source.read(length)
    return data if len(data) == length else None


def serve_pdf() -> int:
    """Be the other process: read files from standard input until it ends."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        # Windows has no such limits; time still ends what grows.
        pass
    answers = sys.stdout.buffer
    # What a library prints must not stand between the answers.
    sys.stdout = sys.stderr
    while (head := sys.stdin.buffer.read(_LENGTH.size)) and len(head) == _LENGTH.size:
        (limit,) = _LENGTH.unpack(head)
        data = _taken(sys.stdin.buffer)
        if data is None:
            break
        try:
            text, problem = _read(data, limit)
        except MemoryError:
            text, problem = "", "memory"
        answer = json.dumps({"text": text, "problem": problem}).encode("ascii")
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()
        if problem == "memory":
            # What is left of it may be in any state.
            return 1
    return 0


def _read(data: bytes, limit: int) -> tuple[str, str]:
    from pypdf import PdfReader
    from pypdf.errors import FileNotDecryptedError

    pages: list[str] = []
    size = 0
    try:
        reader: Any = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            return "", "locked"
        if len(reader.pages) > MAX_PAGES:
            return "", "pages"
        for page in reader.pages:
            pages.append(page.extract_text())
            size += len(pages[-1])
            if size > limit:
                return "", "long"
    except MemoryError:
        raise
    except FileNotDecryptedError:
        return "", "locked"
    except Exception:  # noqa: BLE001 - of a damaged file pypdf raises nearly any type; nothing else runs here
        return "", "damaged"
    return "\n\n".join(page.encode("utf-8", "replace").decode("utf-8") for page in pages), ""
