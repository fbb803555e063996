"""The text of DICOM values, in the character set that they are in, which is not always the one that is declared.

Source: DICOM PS3.3 C.12.1.1.2 (Specific Character Set), PS3.5 6.1 and annexes H to K.
"""

from __future__ import annotations

import codecs
import re

from pydicom.charset import CODES_TO_ENCODINGS, decode_bytes, default_encoding, python_encoding
from pydicom.valuerep import TEXT_VR_DELIMS

_REGISTERED = re.compile(r"ISO[ _-]?(?:2022[ _-])?IR[ _-]?(\d+)")
# Names that are none of DICOM's, and yet leave no doubt. Others that Python knows are no character sets at all.
_OTHERWISE_NAMED = re.compile(
    r"UTF-?8|ISO[ _-]?8859[ _-]\d+|GBK|GB2312|BIG5|SHIFT[_-]?JIS|EUC[_-](JP|KR)|KOI8-R|(CP|WINDOWS-)125\d"
)
_LATIN = frozenset(python_encoding[f"ISO_IR {number}"] for number in (100, 101, 109, 110, 148))


def decoded_text(value: bytes, character_set: bytes) -> str:
    """Return a value as text without control characters and surrounding blanks.

    `character_set` is the value of Specific Character Set. No bytes raise an error; those that fit no set are taken
    for Latin-1.
    """
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii").strip("\0 \t\r\n")
    encodings = [_encoding(term) for term in character_set.decode("ascii", "ignore").split("\\")]
    if b"\x1b" in value:
        # Any known escape sequence tells its character set, declared or not. That of GB 2312 is left in.
        known = [encodings[0], *CODES_TO_ENCODINGS.values()]
        text = decode_bytes(value, known, TEXT_VR_DELIMS).replace("\x1b$)A", "")
    else:
        # UTF-8 behind a missing or wrong declaration is common and is never Latin by chance: "Ã¼" is no syllable.
        declared = [encoding for encoding in encodings if encoding != default_encoding]
        first = ["utf_8"] if encodings[0] in _LATIN else []
        text = _decoded(value, (*first, *declared, "utf_8", "latin_1"))
    return "".join(c for c in text if c.isprintable()).strip()


def _encoding(term: str) -> str:
    term = term.strip("\0 ").upper()
    if registered := _REGISTERED.fullmatch(term):
        number = registered[1]
        # Without code extensions Korean is not defined, and is written so all the same.
        known = python_encoding.get(f"ISO_IR {number}") or python_encoding.get(f"ISO 2022 IR {number}")
        return known or default_encoding
    if term not in python_encoding and _OTHERWISE_NAMED.fullmatch(term):
        try:
            return codecs.lookup(term).name
        except LookupError:
            return default_encoding
    return python_encoding.get(term, default_encoding)


def _decoded(value: bytes, encodings: tuple[str, ...]) -> str:
    for encoding in encodings:
        try:
            return value.decode(encoding)
        except UnicodeDecodeError:
            continue
    return value.decode("latin_1")
