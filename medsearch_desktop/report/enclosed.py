"""Documents inside the fields of a message: in base64 or hexadecimal, as RTF among the lines, whole or in pieces.

Engines put a PDF or RTF document not only where the standard has it (type ED) but into fields of text as well, and
cut long ones over several segments.
Source: HL7 v2.5.1, 2.A.24 (ED).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from medsearch_desktop.errors import ReportError

# "%PDF-" and "{\rtf" in base64, and the beginnings of others that do not go on from a piece before.
_PACKED = ("JVBERi0", "e1xydG")
_BEGINNINGS = (*_PACKED, "PGh0bW", "PCFET0", "PCFkb2", "UEsDB", "/9j/", "SUkq", "TU0A")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_LEAST_PACKED = 40
_RTF = "{\\rtf"
_BRACES = re.compile(r"\\[\\{}]|[{}]")


class Enclosed:
    """A document that began in one field and may go on in those behind it; `coding` is base64, hex, rtf or ""."""

    def __init__(self, content: str, coding: str) -> None:
        self._pieces = [content]
        self.coding = coding
        self._depth = _depth(content) if coding == "rtf" else 0

    def takes(self, content: str, coding: str) -> bool:
        """Take what stands in the next field when it goes on there; return whether it does."""
        if coding != self.coding or not self._is_open(content):
            return False
        self._pieces.append(content)
        self._depth += _depth(content) if coding == "rtf" else 0
        return True

    def _is_open(self, content: str) -> bool:
        if self.coding == "rtf":
            return self._depth > 0
        first, last = self._pieces[0].lstrip(), self._pieces[-1].rstrip()
        is_known = self.coding == "base64" and first.startswith(_PACKED) and not last.endswith("=")
        return is_known and _is_base64(content) and not content.lstrip().startswith(_BEGINNINGS)

    def text(self, attached: Callable[[bytes, str], str], *, item: str) -> str:
        """Return the text of the document, which `attached` reads. Raises ReportError."""
        if self.coding == "base64":
            whole = "".join("".join(self._pieces).split())
            try:
                data = base64.b64decode(whole, validate=True)
            except (binascii.Error, ValueError) as error:
                raise _unsound("base64", item) from error
        elif self.coding == "hex":
            try:
                data = bytes.fromhex("".join(self._pieces))
            except ValueError as error:
                raise _unsound("hexadecimal", item) from error
        else:
            data = "\n".join(self._pieces).encode("utf-8", "replace")
        return attached(data, item) if data.strip() else ""


def enclosed_in(text: str) -> Enclosed | None:
    """Return the document that a field of text begins to hold instead of text, or None where it is just that."""
    plain = text.lstrip()
    if plain.startswith(_RTF):
        return Enclosed(plain, "rtf")
    if plain.startswith(_PACKED) and len(plain) >= _LEAST_PACKED and _is_base64(plain):
        return Enclosed(plain, "base64")
    return None


def _is_base64(content: str) -> bool:
    return _BASE64.fullmatch("".join(content.split())) is not None


def _depth(rtf: str) -> int:
    marks = _BRACES.findall(rtf)
    return marks.count("{") - marks.count("}")


def _unsound(what: str, item: str) -> ReportError:
    return ReportError(f"carries a document that is no sound {what}", item=item, remedy="Export the message again")
