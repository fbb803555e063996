"""PNG and JPEG files to their record and display pixels."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image as Raster
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from medsearch_desktop.errors import (
    DecodeError,
    NotAnImageError,
    TruncatedFileError,
    UnsupportedPixelsError,
)
from medsearch_desktop.image.codecs import Jpeg
from medsearch_desktop.image.dataset import PNG, Source, derive_uid
from medsearch_desktop.image.preprocess import Display, Rendering, to_display
from medsearch_desktop.records import Image


def open_raster(file: Source) -> JpegImageFile | PngImageFile:
    """Return a picture whose pixels are still on disk."""
    file.file.seek(0)
    try:
        # The plug-ins themselves: Image.open warns above 89 million pixels, where `max_pixels` is our limit.
        return (PngImageFile if file.head.startswith(PNG) else Jpeg)(file.file)
    except Exception as error:
        # Pillow lets struct, zlib, key and index errors of damaged headers through.
        raise _damaged(file, error) from error


def _damaged(file: Source, error: Exception) -> DecodeError:
    remedy = "Copy the file again from its origin"
    if "truncated" in str(error).lower() or isinstance(error, EOFError | struct.error | IndexError):
        return TruncatedFileError("the picture ends before its header says it does", item=file.name, remedy=remedy)
    return NotAnImageError(f"the picture is damaged ({error})"[:200], item=file.name, remedy=remedy)


def _turn(raster: Raster.Image) -> int:
    """Return the EXIF orientation, 1 to 8, as far as the header in front of the pixels gives it."""
    exif = bytes(raster.info.get("exif", b"")).removeprefix(b"Exif\0\0")
    order = ">" if exif.startswith(b"MM") else "<"
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        entries = (struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * i) for i in range(count))
        turn = next((value for tag, form, _, value in entries if (tag, form) == (0x0112, 3)), 1)
    except struct.error:
        # A broken camera header is no reason to lose the picture.
        return 1
    return int(turn) if 1 <= turn <= 8 else 1


def raster_record(sha256: str, study_hint: str, raster: Raster.Image) -> Image:
    grey = raster.mode in ("1", "L", "LA") or raster.mode.startswith("I")
    instance = derive_uid("instance", sha256)
    rows, columns = (raster.width, raster.height) if _turn(raster) >= 5 else (raster.height, raster.width)
    return Image(
        image_id=instance,
        sop_instance_uid=instance,
        study_uid=derive_uid("study of", study_hint) if study_hint else derive_uid("study", sha256),
        series_uid=derive_uid("series", sha256),
        rows=rows,
        columns=columns,
        bits_stored=16 if raster.mode.startswith("I") else 8,
        photometric_interpretation="MONOCHROME2" if grey else "RGB",
    )


def decode_raster(file: Source, sha256: str, study_hint: str, max_pixels: int) -> tuple[Image, Display]:
    raster = open_raster(file)
    samples = len(raster.getbands())
    if raster.width * raster.height * samples > max_pixels:
        raise UnsupportedPixelsError(
            f"the image of {raster.height} x {raster.width} x {samples} samples passes the limit of {max_pixels}",
            item=file.name,
            remedy="Raise the setting max_pixels",
        )
    record = raster_record(sha256, study_hint, raster)
    turn = _turn(raster)
    try:
        raster.load()
        display = _raster_display(raster)
    except Exception as error:
        raise _damaged(file, error) from error
    quarter, mirrored = {1: (0, 0), 2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (3, 0), 7: (1, 1), 8: (1, 0)}[turn]
    display = np.rot90(display, quarter)
    return record, np.ascontiguousarray(display[:, ::-1] if mirrored else display)


def _raster_display(raster: Raster.Image) -> Display:
    if raster.mode.startswith("I"):
        deep = np.asarray(raster)
        return to_display(deep.astype(np.uint16), Rendering(bits_stored=16))
    if raster.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in raster.info:
        # What lies behind a transparent pixel is as dark as the background of a radiograph.
        grey = raster.mode in ("1", "L", "LA", "La")
        layer = raster.convert("RGBA")
        raster = Raster.alpha_composite(Raster.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
        return np.array(raster.convert("L" if grey else "RGB"))
    return np.array(raster.convert("L" if raster.mode in ("1", "L") else "RGB"))
