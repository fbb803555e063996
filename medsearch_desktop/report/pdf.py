"""The text layer of PDF files, read in a process of its own that is bounded in memory and time.

The only file that imports pypdf.
"""

from __future__ import annotations

import io
import re
from typing import Any

from medsearch_desktop.bounded import Helper, Message, answer_questions
from medsearch_desktop.errors import ReportError

MARK = b"%PDF-"
MAX_PAGES = 500
_MARK_WITHIN = 1024 + len(MARK)
MAX_SECONDS = 8.0
_MEMORY = 1 << 30
_REMEDY = "Print it to a new PDF file, or export the report as plain text"
_REASONS = {
    "pages": f"has more than {MAX_PAGES} pages",
    "locked": "is a PDF file that a password locks",
    "long": "holds more text than a report may have",
    "damaged": "is a PDF file that cannot be read",
}
_TRAILING = re.compile(r"[ \t]+(?=\n|\Z)")
HELPER = Helper("pdf-worker", most=500)


def is_pdf(head: bytes, name: str = "") -> bool:
    """Whether a file that begins so is PDF: white space may stand before its mark, and in one named so anything.

    Source: ISO 32000-1, annex H.3, note 13: readers look for the mark in the first 1,024 bytes.
    """
    at = head[:_MARK_WITHIN].find(MARK)
    return at >= 0 and (name.lower().endswith(".pdf") or not head[:at].strip(b"\xef\xbb\xbf\0 \t\r\n\f"))


def pdf_text(data: bytes, *, name: str, max_characters: int, max_seconds: float = MAX_SECONDS) -> str:
    """Return the text of a PDF file, its pages after each other with a blank line between.

    Raises ReportError when it has no text layer, is locked, damaged, of more than `MAX_PAGES` pages or
    `max_characters`, or takes longer than `max_seconds` or more than 1 GiB of memory.
    """
    try:
        head, coded = HELPER.ask({"most": max_characters}, data, seconds=max_seconds)
    except TimeoutError as error:
        raise ReportError(f"takes more than {max_seconds:g} s to be read", item=name, remedy=_REMEDY) from error
    except MemoryError as error:
        raise ReportError(
            f"takes more than {_MEMORY >> 20} MiB of memory to be read", item=name, remedy=_REMEDY
        ) from error
    if head["problem"]:
        raise ReportError(_REASONS[head["problem"]], item=name, remedy=_REMEDY)
    text = coded.decode("utf-8")
    if not text.strip():
        raise ReportError(
            "has no text layer: its pages are pictures",
            item=name,
            remedy="It needs text recognition (OCR), which other programs do; ingest their output",
        )
    return _TRAILING.sub("", text)


def _fields(reader: Any) -> str:
    """Return what was filled into a form, which is no part of its pages: a field a line."""
    try:
        filled = reader.get_form_text_fields() if "/AcroForm" in reader.trailer["/Root"] else {}
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as below; a broken form leaves its pages as they are
        return ""
    return "\n".join(f"{name}: {value}" for name, value in filled.items() if isinstance(value, str) and value.strip())


def serve_pdf() -> int:
    """Be the other process: read files until nobody asks any more."""
    return answer_questions(_answer, lambda *_: _MEMORY)


def _answer(head: dict[str, Any], data: bytes) -> Message:
    text, problem = _read(data, head["most"])
    return {"problem": problem}, text.encode("utf-8")


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
        if fields := _fields(reader):
            pages.append(fields)
            if size + len(fields) > limit:
                return "", "long"
    except MemoryError:
        raise
    except FileNotDecryptedError:
        return "", "locked"
    except Exception:  # noqa: BLE001 - of a damaged file pypdf raises nearly any type; nothing else runs here
        return "", "damaged"
    return "\n\n".join(page.encode("utf-8", "replace").decode("utf-8") for page in pages), ""
