"""Pieces of a message to one text: lines in their order, under headings that the sections are found by.

Messages say in codes which part of a report a piece is of; a text says it in headings. What already
begins with its heading is left as it is.
"""

from __future__ import annotations

import re

# LOINC, RadLex's panel of report sections: https://loinc.org/81215-6, and DICOM PS3.16 context groups 7001 and 6100.
_BY_CODE = {
    "59776-5": "FINDINGS",
    "18782-3": "FINDINGS",
    "121070": "FINDINGS",
    "121071": "FINDINGS",
    "19005-8": "IMPRESSION",
    "121072": "IMPRESSION",
    "121073": "IMPRESSION",
    "121076": "IMPRESSION",
    "121077": "IMPRESSION",
    "55109-3": "IMPRESSION",
    "18785-6": "INDICATION",
    "121109": "INDICATION",
    "55752-0": "HISTORY",
    "11329-0": "HISTORY",
    "121060": "HISTORY",
    "121062": "INDICATION",
    "18834-2": "COMPARISON",
    "55110-1": "IMPRESSION",
    "111412": "FINDINGS",
    "121068": "COMPARISON",
    "55111-9": "TECHNIQUE",
    "121064": "TECHNIQUE",
    "121065": "TECHNIQUE",
    "18783-1": "RECOMMENDATION",
    "121074": "RECOMMENDATION",
    "121075": "RECOMMENDATION",
    "55107-7": "ADDENDUM",
    "121078": "IMPRESSION",
    # HL7 v2.5.1 7.4.2.3: suffixes of OBX-3.
    "IMP": "IMPRESSION",
    "GDT": "FINDINGS",
    "ADT": "ADDENDUM",
    "REC": "RECOMMENDATION",
    "TCM": "TECHNIQUE",
}
_BY_NAME = {
    "finding": "FINDINGS",
    "findings": "FINDINGS",
    "impression": "IMPRESSION",
    "impressions": "IMPRESSION",
    "conclusion": "IMPRESSION",
    "conclusions": "IMPRESSION",
    "indication": "INDICATION",
    "indications": "INDICATION",
    "reason for study": "INDICATION",
    "reason for exam": "INDICATION",
    "history": "HISTORY",
    "clinical history": "HISTORY",
    "clinical information": "HISTORY",
    "comparison": "COMPARISON",
    "comparisons": "COMPARISON",
    "technique": "TECHNIQUE",
    "examination": "EXAMINATION",
    "recommendation": "RECOMMENDATION",
    "recommendations": "RECOMMENDATION",
    "addendum": "ADDENDUM",
}
_NO_LETTERS = re.compile(r"[^a-z]+")


def heading_of(code: str, name: str) -> str:
    """Return the heading of a part by its code or else its name, "" where neither names one."""
    return _BY_CODE.get(code.upper()) or _BY_NAME.get(" ".join(_NO_LETTERS.sub(" ", name.lower()).split()), "")


class Composer:
    """Puts the pieces of one report together, at most `limit` characters of them."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._lines: list[str] = []
        self._size = 0
        self._heading = ""
        self.is_full = False

    def add(self, text: str, *, heading: str = "") -> None:
        """Append a piece on lines of its own, under `heading` where another one held so far; "" goes on as it was."""
        text = text.rstrip()
        if not text.strip():
            # An empty piece is a blank line of the report, and ends no part of it.
            if self._lines and self._lines[-1]:
                self._lines.append("")
            return
        if heading and heading != self._heading:
            self._heading = heading
            if not text.lstrip().upper().startswith(heading):
                text = f"{heading}:\n{text}" if "\n" in text else f"{heading}: {text}"
            if self._lines:
                text = f"\n{text}"
        self._size += len(text) + 1
        self.is_full = self.is_full or self._size > self._limit
        if not self.is_full:
            self._lines.append(text)

    def text(self) -> str:
        """Return all of it, "" where nothing was added."""
        return "\n".join(self._lines).strip("\n")
