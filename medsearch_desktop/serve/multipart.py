"""The parts of a multipart body as they come, without holding one: what STOW-RS sends.

Source: RFC 2046 5.1 (multipart), RFC 2387 (multipart/related).
"""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser

from medsearch_desktop.errors import RequestError

_MOST_HEADER_BYTES = 16 << 10
_MOST_BOUNDARY = 200


class Parts:
    """Tells parts apart: `feed` yields a part's headers, then its content in pieces, then None at its end."""

    def __init__(self, boundary: str) -> None:
        self._mark = b"\r\n--" + boundary.encode("latin-1")
        # The first boundary need not stand behind a line's end.
        self._left = bytearray(b"\r\n")
        self._state = "before"
        # Of the line's end between headers and content.
        self._skip = 0

    @property
    def ended(self) -> bool:
        """Whether the last boundary has come."""
        return self._state == "ended"

    def feed(self, piece: bytes) -> Iterator[Message | bytes | None]:
        """Yield what a piece of the body completes. Raises RequestError."""
        left = self._left
        left += piece
        while True:
            if self._state in ("before", "content"):
                at = left.find(self._mark)
                # Of what may be the beginning of a boundary nobody knows yet.
                sure = at if at >= 0 else max(0, len(left) - len(self._mark) + 1)
                skip = min(self._skip, sure)
                self._skip -= skip
                if self._state == "content" and sure > skip:
                    yield bytes(left[skip:sure])
                del left[:sure]
                if at < 0:
                    return
                del left[: len(self._mark)]
                if self._state == "content":
                    yield None
                self._state = "boundary"
            elif self._state == "boundary":
                if left.startswith(b"--"):
                    self._state = "ended"
                    continue
                at = left.find(b"\r\n")
                if at < 0 and len(left) < _MOST_BOUNDARY:
                    return
                if at < 0 or left[:at].strip(b" \t"):
                    raise RequestError("the body's parts cannot be told apart", item="boundary")
                # The line's end stays: headers may be none at all.
                del left[:at]
                self._state = "headers"
            elif self._state == "headers":
                at = left.find(b"\r\n\r\n")
                if at < 0 and len(left) < _MOST_HEADER_BYTES:
                    return
                if not 0 <= at < _MOST_HEADER_BYTES:
                    raise RequestError("the headers of a part are too long", item="part")
                headers = BytesHeaderParser().parsebytes(bytes(left[2 : at + 2]))
                # Where there is no content at all, its boundary begins with this very line's end.
                del left[: at + 2]
                self._state, self._skip = "content", 2
                yield headers
            else:
                left.clear()
                return


def boundary_of(content_type: str, *, kind: str) -> str:
    """Return the boundary of multipart/related content whose root is of media type `kind`, or "" for any other."""
    message = Message()
    message["content-type"] = content_type
    if message.get_content_type() != "multipart/related":
        return ""
    try:
        root, boundary = message.get_param("type", ""), message.get_param("boundary", "")
    except (TypeError, ValueError):
        # Parameters said to continue others in no order that there is.
        return ""
    if not isinstance(root, str) or not isinstance(boundary, str) or root.lower() not in ("", kind):
        return ""
    return boundary if len(boundary) <= _MOST_BOUNDARY and boundary.isascii() else ""
