"""Marked-up text to plain text: RTF documents, HTML pages and fragments.

The only file that imports striprtf. What comes out is cleaned before it is stored, so no offset ever
counts a tag.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Callable

from medsearch_desktop.errors import ReportError

RTF_MARK = b"{\\rtf"
# The engine looks ahead along one line for links and fonts, again at each of them: a line of a megabyte must not cost
# the square of it. A line break here means nothing in RTF.
_LINK_FIELD = re.compile(r"\\fldinst(?=\s?\{)")
_ANOTHER = re.compile(r"(?<=\})[\s\0]*(?=\{\\rtf)")
_CODE_PAGE = re.compile(r"\\ansicpg(\d{1,6})")
_FONT = re.compile(r"(?<!\\)(?=\\f\d)")
_TAG = re.compile(r"<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9]{0,15})\b[^<>]{0,2000}>|<![^<>]{0,2000}>")
_TELLING = re.compile(
    r"</(?:p|div|span|b|i|u|em|strong|font|table|tr|td|th|ul|ol|li|h[1-6]|html|body|pre|a|center)\s*>"
    r"|<(?:br|hr)\s*/?>|<(?:!doctype\s+html|html|p)\b[^<>]{0,200}>",
    re.IGNORECASE,
)
_ENTITY = re.compile(
    r"&(?:nbsp|amp|lt|gt|quot|apos|deg|micro|plusmn|[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,5});", re.IGNORECASE
)
_UNSEEN = frozenset({"script", "style", "title"})
_NEW_LINE = frozenset(
    {"p", "div", "br", "hr", "tr", "li", "ul", "ol", "table", "pre", "h1", "h2", "h3", "h4", "h5", "h6"}
)
_CELLS = frozenset({"td", "th"})
_BLANKS = re.compile(r"[ \t\xa0]+")
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")


def rtf_text(data: bytes, *, name: str) -> str:
    """Return the text of an RTF document, its paragraphs on lines of their own; pictures and links are left out.

    Raises ReportError when it is damaged.
    """
    from striprtf import striprtf

    convert: Callable[..., str] = striprtf.rtf_to_text
    source = _FONT.sub("\n", _LINK_FIELD.sub("\\\\fldinst\n", _seven_bits(data)))
    source = _CODE_PAGE.sub(_known_code_page, source)
    try:
        # The engine ends with the first document, where a sender may have put one behind the other.
        return "\n".join(convert(document, errors="replace") for document in _ANOTHER.split(source))
    except (ValueError, OverflowError, LookupError, TypeError) as error:
        raise ReportError(
            "is an RTF document that cannot be read", item=name, remedy="Export the report as plain text"
        ) from error


def _known_code_page(match: re.Match[str]) -> str:
    try:
        codecs.lookup(f"cp{match[1]}")
    except LookupError:
        # As of a document that names none.
        return "\\ansicpg1252"
    return match[0]


def _seven_bits(data: bytes) -> str:
    """Return a document in ASCII alone, as RTF has to be: other bytes as what its own escapes say."""
    # Behind \bin their number counts.
    if data.isascii() or b"\\bin" in data:
        return data.decode("latin-1")
    try:
        return re.sub(r"[^\x00-\x7f]", lambda match: _unicode_escape(match[0]), data.decode("utf-8"))
    except UnicodeDecodeError:
        # Bytes of the code page that the document names.
        return re.sub(r"[^\x00-\x7f]", lambda match: f"\\'{ord(match[0]):02x}", data.decode("latin-1"))


def _unicode_escape(character: str) -> str:
    units = character.encode("utf-16-le", "replace")
    codes = (int.from_bytes(units[at : at + 2], "little", signed=True) for at in range(0, len(units), 2))
    return "".join(f"{{\\uc1\\u{code}?}}" for code in codes)


def without_markup(text: str) -> str:
    """Return a text without the tags of HTML and with its entities decoded; other text comes back as it is.

    Paragraphs, rows and line breaks become line breaks, scripts and styles are left out. A lone `<`
    is no tag.
    """
    if _TELLING.search(text):
        text = _tidy(_without_tags(text))
    return html.unescape(text) if _ENTITY.search(text) else text


def _without_tags(text: str) -> str:
    kept: list[str] = []
    position, unseen = 0, ""
    for match in _TAG.finditer(text):
        if not unseen:
            kept.append(text[position : match.start()])
        position = match.end()
        name = (match.group("name") or "").lower()
        if unseen:
            unseen = "" if name == unseen and match.group("end") else unseen
        elif name in _UNSEEN and not match.group("end"):
            unseen = name
        elif name in _NEW_LINE:
            kept.append("\n\n" if name in ("p", "div", "table") else "\n")
        elif name in _CELLS:
            kept.append(" ")
    if not unseen:
        kept.append(text[position:])
    return "".join(kept)


def _tidy(text: str) -> str:
    lines = "\n".join(_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip()
