"""The character sets that HL7 version 2 messages name, to the codecs that read them.

Source: HL7 v2.5.1, 2.15.9.18 (MSH-18) and table 0211.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

_NAMED = {
    "": "",
    "ASCII": "",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "ISO IR6": "",
    "ISO IR13": "iso2022_jp_ext",
    "ISO IR14": "iso2022_jp_ext",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_2",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
}
# Of several sets the one whose escapes switch between the others, the widest first: what stands there first is plain.
_SWITCHING = ("ISO IR159", "ISO IR87", "ISO IR14", "ISO IR13")
_LATIN = re.compile(r"(?:8859/|ISO[ _-]?8859-)(\d{1,2})")
# Python knows these as encodings of text. No message is in them, and some change what is plain.
_NO_CHARSETS = frozenset(("unicode_escape", "raw_unicode_escape", "idna", "punycode", "utf_7", "undefined"))
# Between the two halves of Latin-1 lie controls that nobody writes, and the quotes and dashes of Windows.
_WINDOWS = re.compile(rb"[\x80-\x9f]")


def decode_message(raw: bytes, declared: Sequence[str]) -> tuple[str, str]:
    """Return the text of a message whose MSH-18 has these repetitions, and the codec that read it.

    A set that is unknown or wrong counts as none: UTF-8 then, or else what Windows writes. So does a set of single
    bytes where all of the message is sound UTF-8, which no other text of more than ASCII happens to be.
    """
    names = [name.strip().upper() for name in declared] or [""]
    charset = next((name for name in _SWITCHING if name in names), names[0])
    encoding = _NAMED.get(charset, "")
    if match := _LATIN.fullmatch(charset):
        if not raw.isascii() and _is_utf_8(raw):
            return raw.decode("utf-8"), "utf-8"
        encoding = "cp1252" if match[1] == "1" and _WINDOWS.search(raw) else f"iso8859-{match[1]}"
    elif charset and charset not in _NAMED:
        encoding = charset.lower()
    for candidate in (encoding, "utf-8", "cp1252"):
        try:
            name = codecs.lookup(candidate).name if candidate else ""
            text = raw.decode(name) if name and name.replace("-", "_") not in _NO_CHARSETS else ""
        except (UnicodeError, LookupError, ValueError):
            continue
        # A set in which its own beginning reads otherwise is not the one it is in.
        if name and text.startswith(raw[:4].decode("latin-1")):
            return text, name
    return raw.decode("latin-1"), "latin-1"


def _is_utf_8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def decode_bytes(data: bytes, encoding: str) -> str:
    """Return what the hexadecimal escape of a message in `encoding` stands for."""
    return data.decode("cp1252" if encoding == "iso8859-1" else encoding, "replace")
