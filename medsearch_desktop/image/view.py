"""One frame of a file for a viewer: its stored values, or the picture that a window makes of them.

The same steps as those that thumbnails and vectors are made by; only the window may be another.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster

from medsearch_desktop.errors import MedSearchError, NotFoundError, UnsupportedPixelsError
from medsearch_desktop.image.dataset import Header, Source, opened
from medsearch_desktop.image.frames import Frames, layout_of, rendering_of
from medsearch_desktop.image.places import spacing_of
from medsearch_desktop.image.preprocess import Rendering, Window, looked_up, stored_values, to_display
from medsearch_desktop.image.raster import decode_raster

_MAX_INFLATED_HEADER = 1 << 24


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """The values of one grey frame as its header means them, before any window.

    `values` is uint16 or int16 of shape (rows, columns), little-endian; value x `slope` + `intercept` is in the
    unit of the modality. Where a table stands for these two, it has been applied. `window` is the
    header's (centre, width) in that unit, None where it has none. `dark_is_high` asks for inversion at the end.
    `spacing` is the distance of rows and of columns in mm, None where it is not said; `at_detector` when it is measured
    there (PS3.3 C.8.7.1: Imager Pixel Spacing), so that a thing in the body is smaller than it measures.
    """

    values: NDArray[np.uint16] | NDArray[np.int16]
    bits_stored: int
    slope: float
    intercept: float
    window: tuple[float, float] | None
    dark_is_high: bool
    spacing: tuple[float, float] | None
    at_detector: bool


def stored_frame(path: str, *, frame: int, max_pixels: int, source: str | BinaryIO | None = None) -> StoredFrame:
    """Return the stored values of frame `frame`, from 0, of a DICOM file.

    `source` is its content where it is no file on disk; `path` is then its name in messages.
    Raises UnsupportedPixelsError for colour, floats, more than 16 bits and files without a header,
    NotFoundError for a frame that is not there, DecodeError likewise as `decode`; OSError passes through.
    """
    with opened(path if source is None else source, path) as file:
        if file.is_raster:
            raise UnsupportedPixelsError("it is a picture, not DICOM", item=path, remedy="Ask for the rendered frame")
        header = _header(file, max_pixels)
        pixels, rendering = _read(file, header, frame, max_pixels)
    if pixels.ndim != 2 or pixels.dtype.kind not in "ui" or rendering.bits_stored > 16 or rendering.palette is not None:
        raise UnsupportedPixelsError(
            "only grey values of up to 16 bits are given as they are stored",
            item=path,
            remedy="Ask for the rendered frame",
        )
    values, slope, intercept = stored_values(pixels, rendering), rendering.slope, rendering.intercept
    signed = rendering.signed
    if rendering.modality_lut is not None:
        values, slope, intercept, signed = looked_up(values, rendering.modality_lut), 1.0, 0.0, False
    window = rendering.window
    spacing, at_detector = spacing_of(header, frame)
    return StoredFrame(
        np.ascontiguousarray(values.astype("<i2" if signed else "<u2")),
        rendering.bits_stored,
        slope,
        intercept,
        (window.center, window.width) if window is not None and window.usable else None,
        rendering.dark_is_high,
        spacing,
        at_detector,
    )


def picture_of_frame(
    path: str,
    *,
    frame: int,
    max_pixels: int,
    window: tuple[float, float] | None = None,
    source: str | BinaryIO | None = None,
) -> bytes:
    """Return a lossless 8-bit PNG of frame `frame`, from 0, of a DICOM, PNG or JPEG file.

    `window` is (centre, width) in the unit of the modality; without one the header's, or else the range of
    the values, decides. `source` as for `stored_frame`. Raises MedSearchError for a window that DICOM does not
    define or where there is no header, NotFoundError for a frame that is not there, DecodeError as `decode`;
    OSError passes through.
    """
    asked = Window(*window) if window is not None else None
    if asked is not None and not asked.usable:
        raise MedSearchError(
            f"a window of width {asked.width:g} around {asked.center:g} shows nothing",
            remedy="Give finite numbers and a width of 1 or more",
        )
    with opened(path if source is None else source, path) as file:
        if file.is_raster:
            if asked is not None or frame:
                raise MedSearchError("a picture that is not DICOM has no window and one frame", item=path)
            _, display = decode_raster(file, "", "", max_pixels)
        else:
            pixels, rendering = _read(file, _header(file, max_pixels), frame, max_pixels)
            if asked is not None:
                rendering = replace(rendering, window=asked, voi_lut=None)
            display = to_display(pixels, rendering)
    buffer = io.BytesIO()
    # Level 1 takes a third of the default's time for a tenth more bytes; they only travel within this machine.
    Raster.fromarray(display).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _header(file: Source, max_pixels: int) -> Header:
    return Header.read(file, inflate_limit=2 * max_pixels + _MAX_INFLATED_HEADER)


def _read(file: Source, header: Header, frame: int, max_pixels: int) -> tuple[NDArray[np.generic], Rendering]:
    if header.pixels is None:
        raise UnsupportedPixelsError("the DICOM file holds no pixel data", item=file.name)
    count = max(1, header.integer(0x00280008) or 1)
    if not 0 <= frame < count:
        raise NotFoundError(f"the image has {count} frames, {frame + 1} is none of them", item=file.name)
    try:
        pixels, found = Frames(header, layout_of(header, max_pixels), count).read(frame)
        return pixels, rendering_of(header, found, frame)
    except UnsupportedPixelsError as error:
        error.item = error.item or file.name
        raise
