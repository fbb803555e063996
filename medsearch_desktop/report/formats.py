"""The bytes of a report file to its text: encodings, mark-up, control characters, line ends.

Plain text, RTF and HTML; what this file returns is the text that is stored, so every offset into a report
counts its characters.
"""

from __future__ import annotations

import codecs
import re

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.markup import RTF_MARK, rtf_text, without_markup

# Longest first: the mark of UTF-32 little-endian begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAGIC = (
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "an archive or an office document"),
    (b"\x1f\x8b", "a compressed file"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"II*\x00", "an image"),
    (b"MM\x00*", "an image"),
    (b"SQLite format 3", "a database"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\x00", "a program"),
)
_REMEDY = "Export the report as plain text"
_SAMPLE = 65_536
# English and Western European text keeps non-ASCII bytes rare; above this share the encoding has to be guessed.
_WESTERN_SHARE = 0.12
_CONTROL_SHARE = 0.02
_NEW_LINES = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile("[\x00\ufeff\u00ad\u200b\u2060]")
_CONTROLS = re.compile("[\x01-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
# Typesetting: PDF files have them for two or three letters, and no word of a question is written so.
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def read_text(data: bytes, *, name: str, max_bytes: int, markup: bool = True) -> tuple[str, str]:
    """Return the text of a report file and the name of the codec that decoded it.

    The mark-up of RTF and HTML is taken out, unless `markup` is false.
    Line ends become `\\n`, characters without a sign (NUL, byte-order marks, soft hyphens) are left
    out, other control characters become spaces. `name` is the file's, for messages.
    Raises ReportError when the file is larger than `max_bytes`, empty, or not text.
    """
    if len(data) > max_bytes:
        raise ReportError(
            f"{len(data)} bytes, more than the {max_bytes} that a report may have",
            item=name,
            remedy="Raise the setting max_report_bytes, or split the file",
        )
    if not data.strip(b"\x00 \t\r\n\x0b\x0c"):
        raise ReportError("is empty", item=name, remedy="Export the report again")
    plain = data.removeprefix(codecs.BOM_UTF8).lstrip()
    if plain.startswith(RTF_MARK):
        return _filled(rtf_text(plain, name=name), name=name), "latin-1"
    kind = _binary_kind(data)
    if kind:
        raise ReportError(f"is {kind}, not plain text", item=name, remedy=_REMEDY)
    encoding = _encoding(data)
    try:
        if encoding is None:
            raise ReportError("is not text in any encoding known here", item=name, remedy=_REMEDY)
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ReportError(f"is not text in {encoding}", item=name, remedy=_REMEDY) from error
    if _is_junk(text[:_SAMPLE]):
        raise ReportError("holds binary data, not text", item=name, remedy=_REMEDY)
    return _filled(without_markup(text) if markup else text, name=name), encoding


def _filled(text: str, *, name: str) -> str:
    text = clean_text(text)
    if not text.strip():
        raise ReportError("is empty", item=name, remedy="Export the report again")
    return text


def clean_text(text: str) -> str:
    """Return a text as it is stored: lines end in `\\n`, no ligatures, control or invisible characters are in it."""
    text = _NEW_LINES.sub("\n", text).translate(_LIGATURES)
    text = _INVISIBLE.sub("", text)
    text = _CONTROLS.sub(" ", text)
    # No database takes these, and no encoder writes them.
    return _LONE_SURROGATES.sub("\ufffd", text)


def _binary_kind(data: bytes) -> str:
    if data[128:132] == b"DICM":
        return "a DICOM file"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "")


def _encoding(data: bytes) -> str | None:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    wide = _wide_encoding(data)
    if wide:
        return wide
    if _decodes(data, "utf-8", partial=False):
        return "utf-8"
    high = sum(byte >= 0x80 for byte in data[:_SAMPLE])
    if high <= _WESTERN_SHARE * min(len(data), _SAMPLE):
        # The five bytes that cp1252 leaves free are controls in Latin-1.
        return "cp1252" if _decodes(data, "cp1252", partial=False) else "latin-1"
    if b"\x00" in data[:_SAMPLE]:
        return None
    return _guessed(data)


def _wide_encoding(data: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 form that the places of the NUL bytes tell, if they do."""
    sample = data[: _SAMPLE - _SAMPLE % 4]
    if sample.count(0) < len(sample) // 4 or len(sample) < 4:
        return None
    shares = [sample[offset::4].count(0) / max(1, len(sample[offset::4])) for offset in range(4)]
    if min(shares[2], shares[3]) > 0.9 and shares[0] < 0.3:
        return "utf-32-le"
    if min(shares[0], shares[1]) > 0.9 and shares[3] < 0.3:
        return "utf-32-be"
    even, odd = (shares[0] + shares[2]) / 2, (shares[1] + shares[3]) / 2
    if odd > 0.6 and even < 0.2:
        return "utf-16-le"
    if even > 0.6 and odd < 0.2:
        return "utf-16-be"
    return None


def _decodes(data: bytes, encoding: str, *, partial: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, final=not partial)
    except UnicodeDecodeError:
        return False
    return True


def _guessed(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE], steps=5, chunk_size=512).best()
    if best is None or not _decodes(data, best.encoding, partial=True):
        return None
    return best.encoding


def _is_junk(text: str) -> bool:
    controls = len(_CONTROLS.findall(text)) + text.count("\x00") // 2
    return controls > max(2, _CONTROL_SHARE * len(text))
