"""Video in DICOM: the first frame of a stream, where PyAV is installed.

PyAV's wheels hold FFmpeg with encoders under the GPL, so it is no dependency of this program: it is used where the
user has put it, in a process of its own (`aside`).
Source: DICOM PS3.5 8.2.5 to 8.2.8 and A.4.5 to A.4.11.
"""

from __future__ import annotations

import io
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import TruncatedFileError, UnsupportedPixelsError
from medsearch_desktop.image.aside import decode_aside, is_installed

_BASE = "1.2.840.10008.1.2.4."
_CODECS = {
    "MPEG-2 video": (100, 101),
    "H.264 video": (102, 103, 104, 105, 106),
    "HEVC video": (107, 108),
}
# Each as one fragment and, with .1 behind it, as several (those of HEVC are one).
VIDEO = {
    f"{_BASE}{number}{several}": name
    for name, numbers in _CODECS.items()
    for number in numbers
    for several in ("", ".1")
    if number < 107 or not several
}
# The containers of PS3.5 and the bare streams; nothing that could name another file or address.
_CONTAINERS = "mpegts,mov,mpeg,mpegvideo,h264,hevc"
_READERS = ("mpeg1video", "mpeg2video", "h264", "hevc")
# The index of an MP4 file may lie at its end; of a longer one the beginning is read.
MOST_BYTES = 1 << 28
# A stream may begin in the middle of a picture, with sound and tables before it, but not for long.
_MOST_PACKETS = 2000
_DAMAGED, _PLAY = "The file is damaged", "Open it in a video player"


def is_readable() -> bool:
    """Tell whether frames of video can be decoded here."""
    return is_installed("av")


def first_pixels(data: bytes, syntax: str, *, rows: int, columns: int) -> NDArray[np.uint8]:
    """Return the first frame of a stream, (rows, columns, 3) in RGB.

    Raises UnsupportedPixelsError where its size is not that of the header, and what `decode_aside` does.
    """
    name = VIDEO[syntax]
    pixels = decode_aside(name, data, most_samples=3 * rows * columns)
    if pixels.shape != (rows, columns, 3):
        size = " x ".join(map(str, pixels.shape[:2]))
        raise UnsupportedPixelsError(f"the {name} is {size} where the header says {rows} x {columns}", remedy=_DAMAGED)
    return cast(NDArray[np.uint8], pixels)


def first_frame(data: bytes, name: str, most_samples: int) -> NDArray[np.uint8]:
    """Return the first whole frame that a stream shows, (H, W, 3) in RGB; in this process.

    No more than so many packets are read, and no picture above `most_samples` is decoded.
    Raises UnsupportedPixelsError and TruncatedFileError.
    """
    import av

    # Its messages would go to where the answers of this process go.
    av.logging.set_level(av.logging.PANIC)
    options = {"format_whitelist": _CONTAINERS, "codec_whitelist": ",".join(_READERS), "protocol_whitelist": "none"}
    try:
        container: Any = av.open(io.BytesIO(data), options=options)
        with container:
            if not container.streams.video:
                raise UnsupportedPixelsError(f"the {name} holds no pictures", remedy=_DAMAGED)
            stream = container.streams.video[0]
            coder = stream.codec_context
            if coder.name not in _READERS:
                raise UnsupportedPixelsError(f"the {name} is in truth {coder.name}, which is not read", remedy=_DAMAGED)
            # Lines are coded in blocks of up to 64, also where the picture ends before.
            coder.options = {"max_pixels": str(most_samples // 3 + 64 * (1 << 15)), "threads": "1"}
            for packet in islice(container.demux(stream), _MOST_PACKETS):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    # A stream may be cut out of a longer one.
                    continue
                for frame in frames:
                    if frame.width * frame.height * 3 > most_samples:
                        size = f"{frame.height} x {frame.width}"
                        raise UnsupportedPixelsError(
                            f"the {name} is {size}, more than the header says", remedy=_DAMAGED
                        )
                    if not frame.is_corrupt:
                        return cast(NDArray[np.uint8], frame.to_ndarray(format="rgb24"))
    except av.error.FFmpegError as error:
        # What it says quotes the stream.
        raise UnsupportedPixelsError(f"the {name} is damaged, or larger than the header says", remedy=_PLAY) from error
    raise TruncatedFileError(
        f"the {name} ends before its first whole frame", remedy="Copy the file again from its origin"
    )
