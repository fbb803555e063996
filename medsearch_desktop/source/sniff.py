"""What a file is, from its bytes: its kind and its SHA-256.

Names lie (a PACS exports DICOM as `IM0001`, a viewer writes junk into `.dcm`), so the content
decides and the name only says what was promised. The one exception is plain text: nothing in its
bytes tells a report from a log, so only the suffixes in `REPORT_SUFFIXES` are reports, and text
without a suffix is one when a line of it is headed like a report. Markdown, CSV, JSON, XML, HTML,
source code and logs are not.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct

from medsearch_desktop.errors import SourceError
from medsearch_desktop.records import FileKind
from medsearch_desktop.source.opening import open_regular, size_of

HEAD_BYTES = 4096

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
RASTER_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe"})
REPORT_SUFFIXES = frozenset({".txt", ".text", ".rpt", ".rtf"})
# Content alone tells these; named so, a file that is none of them is listed as a failure.
MESSAGE_SUFFIXES = frozenset({".hl7", ".pdf"})

# Text that archives of studies carry beside the reports; indexed, it would be found as a report.
_NOT_REPORTS = re.compile(
    r"(?:read[-_ ]?me|licen[sc]e|copying|notice|changelog|authors|requirements|cmakelists|robots"
    r"|manifest|(?:sha\d+|md5)(?:sums?)?|checksums?)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_HEADING = re.compile(
    r"^[^\w\n]*(?:findings?|impression|conclusions?|indications?|techniques?|comparison|examination|exam"
    r"|(?:clinical )?history|(?:clinical )?information|(?:final )?report)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
# Escape opens the character sets of ISO 2022, control-Z ends files that DOS wrote.
_CONTROLS = bytes(sorted(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b")))
_NO_TEXT = (b"%PDF-", b"PK\x03\x04")

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"

# Media Storage Directory Storage, PS3.4 annex A: a table of contents, no image.
_DICOMDIR_UID = re.compile(rb"UI..1\.2\.840\.10008\.1\.3\.10(?![\d.])", re.DOTALL)
_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()  # PS3.5 table 7.1-2
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # PS3.5 table 7.1-1
_UNDEFINED = 0xFFFFFFFF


def sniff(path: str | os.PathLike[str]) -> FileKind:
    """Return what the content of the file is, from its first `HEAD_BYTES` bytes.

    Raises SourceError when it cannot be read or is not a regular file.
    """
    name = os.fspath(path)
    try:
        with open_regular(name) as file:
            size = size_of(file)
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(name, error) from error
    return sniff_bytes(head, size=size, name=name)


def sniff_bytes(head: bytes, *, size: int, name: str) -> FileKind:
    """Return what a file of `size` bytes is that is called `name` and begins with `head`.

    `name` may have folders before it. Any bytes are accepted; `head` need not be longer than
    `HEAD_BYTES`.
    """
    if not head:
        return FileKind.OTHER
    if head[128:132] == b"DICM":
        return FileKind.OTHER if _DICOMDIR_UID.search(head, 132, 1024) else FileKind.DICOM
    if head.startswith((_PNG, _JPEG)):
        return FileKind.RASTER
    if head.startswith(b"DICM") or _is_bare_dicom(head, size):
        return FileKind.DICOM
    return FileKind.REPORT if _is_report(head, name) else FileKind.OTHER


def expected_kind(name: str) -> FileKind | None:
    """Return what the name of a file promises, or None when it promises nothing that is indexed."""
    base = os.path.basename(name)  # noqa: PTH119 - pathlib takes 20 times as long, once a file
    suffix = _suffix(base)
    if suffix in DICOM_SUFFIXES:
        return FileKind.DICOM
    if suffix in RASTER_SUFFIXES:
        return FileKind.RASTER
    if suffix in REPORT_SUFFIXES | MESSAGE_SUFFIXES and not _NOT_REPORTS.match(base):
        return FileKind.REPORT
    return None


def is_beside_reports(name: str) -> bool:
    """Whether a file is called as what archives carry beside their reports: a licence, a checksum, a note to read."""
    return _NOT_REPORTS.match(os.path.basename(name)) is not None  # noqa: PTH119 - as above


def broken_promise(name: str, kind: FileKind, *, size: int) -> str:
    """Return why a file is a failure and not just something else, or "".

    It is one when its name promises DICOM, a raster image or a report and its content is of no
    kind that is indexed. Content of another kind than promised is indexed as what it is.
    """
    promised = expected_kind(name)
    if kind is not FileKind.OTHER or promised is None:
        return ""
    if size == 0:
        return "the file is empty"
    what = {FileKind.DICOM: "DICOM", FileKind.RASTER: "PNG or JPEG", FileKind.REPORT: "plain text"}[promised]
    what = {".hl7": "an HL7 message", ".pdf": "PDF"}.get(_suffix(name), what)
    return f"named {_suffix(name)}, but the content is not {what}"


def digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the file's content, lower-case hexadecimal; reads it in pieces.

    Raises SourceError when it cannot be read to its end or is not a regular file.
    """
    name = os.fspath(path)
    try:
        with open_regular(name) as file:
            # It takes any file, which its own declaration does not say.
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise unreadable(name, error) from error


def unreadable(path: str, error: OSError | ValueError) -> SourceError:
    """Return the SourceError for a path that the operating system would not read."""
    return SourceError(
        f"cannot be read ({os_reason(error)})", item=path, remedy="Check that it is there and may be read"
    )


def os_reason(error: OSError | ValueError) -> str:
    """Return the operating system's words for an error, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _suffix(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - pathlib takes 20 times as long, once a file
    # The last number of a UID (1.2.840.113619.7) and the end of a sentence are no suffixes.
    return "" if suffix[1:].isdigit() or not suffix[1:].isalnum() else suffix


def _is_bare_dicom(head: bytes, size: int) -> bool:
    if len(head) < 8:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack_from(f"{order}HH", head)
        # A data set starts with its file meta information or with group 0008 (ACR-NEMA did too).
        if (group == 0x0002 and element <= 0x0102) or (group == 0x0008 and element <= 0x0070):
            return any(_chains(head, size, order=order, explicit=explicit) for explicit in (True, False))
    return False


def _chains(head: bytes, size: int, *, order: str, explicit: bool) -> bool:
    """Whether the first three elements (fewer when the file ends) have tags that rise and lengths that fit."""
    offset, previous, sound = 0, -1, 0
    while sound < 3:
        if offset == size:
            return sound >= 2
        if offset + 12 > len(head):
            # The file ends here, or the value before is of kilobytes.
            return sound >= 2 and offset + 8 <= size
        group, element = struct.unpack_from(f"{order}HH", head, offset)
        tag = group << 16 | element
        if tag <= previous:
            return False
        if sound >= 2 and previous >> 16 == 0x0002 and group != 0x0002:
            # Behind the meta information the data set may change its encoding.
            return True
        previous = tag
        vr = head[offset + 4 : offset + 6]
        if not explicit:
            (length,) = struct.unpack_from(f"{order}I", head, offset + 4)
            offset += 8
        elif vr in _SHORT_VRS:
            (length,) = struct.unpack_from(f"{order}H", head, offset + 6)
            offset += 8
        elif vr in _LONG_VRS:
            (length,) = struct.unpack_from(f"{order}I", head, offset + 8)
            offset += 12
        else:
            return False
        sound += 1
        if length == _UNDEFINED:
            return sound >= 2
        if length % 2 or offset + length > size:
            return False
        offset += length
    return True


def _is_report(head: bytes, name: str) -> bool:
    base = os.path.basename(name)  # noqa: PTH119 - pathlib takes 20 times as long, once a file
    suffix = _suffix(base)
    if (suffix and suffix not in REPORT_SUFFIXES) or _NOT_REPORTS.match(base):
        return False
    text = _as_text(head)
    return bool(text) if suffix else _HEADING.search(text) is not None


def _as_text(head: bytes) -> str:
    """Return the head as some text when it is text in any encoding, else ""."""
    if head.startswith(_NO_TEXT):
        return ""
    codec = _utf_16(head)
    if codec:
        text = head[: len(head) // 2 * 2].decode(codec, "replace")
        strange = sum(
            1 for character in text if character == "\ufffd" or (character < " " and character not in "\t\n\r\f")
        )
        return text if strange <= 1 + len(text) // 100 else ""
    # Some systems pad records with zeros.
    plain = head.rstrip(b"\0")
    if b"\0" in plain:
        return ""
    controls = len(plain) - len(plain.translate(None, _CONTROLS))
    return plain.decode("latin-1") if controls <= 1 + len(plain) // 100 and plain.strip() else ""


def _utf_16(head: bytes) -> str:
    if head.startswith(b"\xff\xfe"):
        return "utf-16-le"
    if head.startswith(b"\xfe\xff"):
        return "utf-16-be"
    pairs = len(head) // 2
    if pairs < 4:
        return ""
    high, low = head[0::2].count(0), head[1::2].count(0)
    if low > 0.6 * pairs and high == 0:
        return "utf-16-le"
    return "utf-16-be" if high > 0.6 * pairs and low == 0 else ""
