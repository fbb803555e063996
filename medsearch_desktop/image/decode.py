"""DICOM, PNG and JPEG bytes to metadata and 8-bit pixels.

    file ─► Source ─► Header (top-level elements, nothing behind the pixels is read)
                          ├─► Image          allow-listed tags only
                          └─► frame bytes ─► codec ─► stored values ─► preprocess.to_display

pydicom tells the elements apart, each codec is called directly; `dataset` and `codecs` say why no more
of pydicom is used.
Source: DICOM PS3.5 (encoding, 7 and Annex A), PS3.10 7.1 (file meta), PS3.3 C.7.6 and C.11 (pixels).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import BinaryIO

from medsearch_desktop.errors import (
    DecodeError,
    NoPixelsError,
    NotAPictureError,
    TruncatedFileError,
)
from medsearch_desktop.image.anatomy import body_part_of, side_of, view_of
from medsearch_desktop.image.dataset import Header, derive_uid, opened
from medsearch_desktop.image.frames import Frames, layout_of, rendering_of
from medsearch_desktop.image.keyslices import MOST_PLACED_FRAMES, select_frames
from medsearch_desktop.image.keyslices import key_slices as spread_evenly
from medsearch_desktop.image.kinds import Role, is_listed, kind_of
from medsearch_desktop.image.places import place_of
from medsearch_desktop.image.preprocess import Display, to_display
from medsearch_desktop.image.raster import decode_raster, open_raster, raster_record
from medsearch_desktop.image.video import VIDEO
from medsearch_desktop.records import Image

__all__ = ["Decoded", "decode", "frames_of", "read_tags", "select_frames"]

_SOP_CLASS, _ROWS = 0x00080016, 0x00280010
_MAX_INFLATED_HEADER = 1 << 24
# Inflating further than a header usually goes would take most of the time that tags take.
_USUAL_INFLATED_HEADER = 1 << 18


@dataclass(frozen=True)
class Decoded:
    """The images of one file and what to show of each; `displays[i]` belongs to `images[i]`.

    A display is uint8 of shape (H, W), or (H, W, 3) for colour; None where the pixels could not be
    decoded, and then `images[i].pixel_error` says why, and for a slice with a `place`, which was not drawn.
    """

    images: tuple[Image, ...]
    displays: tuple[Display | None, ...]


def decode(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str,
    sha256: str,
    max_frames: int,
    max_pixels: int,
    study_hint: str = "",
    frames: Sequence[int] | None = None,
    key_slices: int = 0,
) -> Decoded:
    """Return the metadata and display pixels of a DICOM, PNG or JPEG file.

    `name` stands for the file in messages and `sha256`, the digest of its content, for the
    identifiers it lacks. Raster files that share `study_hint` share a study. Of a multi-frame
    instance at most `max_frames` frames are decoded, as `select_frames` picks them, and no more than
    fit into `max_pixels` (rows x columns x samples) together; nothing is allocated for an image
    above that. `frames` names the frames, from 0, in place of that choice. Where only pixels fail, the
    images come back with `pixel_error`; if none of several frames can be decoded, one stands for all.
    With `key_slices` an instance takes part as its kind does: a slice of a volume is not drawn, up to that
    many of its frames come back with their `place`, for the series to choose among; what is no picture
    by its kind (a plan, a segmentation) raises NotAPictureError.
    Raises NotAnImageError, TruncatedFileError or NoPixelsError when there is nothing to index, and
    UnsupportedPixelsError for such a raster file. OSError of the disk passes through.
    """
    with opened(source, name) as file:
        if file.is_raster:
            image, display = decode_raster(file, sha256, study_hint, max_pixels)
            return Decoded((image,), (display,))
        header = Header.read(file, inflate_limit=2 * max_pixels + _MAX_INFLATED_HEADER)
        kind = kind_of(header.uid(_SOP_CLASS), header.first(0x00080060).upper())
        if key_slices and kind.role is Role.RECORD:
            raise NotAPictureError(f"it is not an image ({kind.name})", item=name, remedy="Its header is indexed")
        if header.pixels is None:
            uid = header.uid(_SOP_CLASS)
            if key_slices and uid and not is_listed(uid) and not header.word(_ROWS, 0):
                # Raw data, protocols and states of makers lie by the thousand among their images.
                raise NotAPictureError("it is not an image (another class)", item=name, remedy="Its header is indexed")
            raise NoPixelsError("the DICOM file holds no pixel data", item=name, remedy="Visual search leaves it out")
        drawn = not key_slices or kind.role is not Role.SLICE
        return _decode_dicom(header, sha256, max_frames if drawn else key_slices, max_pixels, frames, drawn=drawn)


def read_tags(source: str | os.PathLike[str] | BinaryIO, *, name: str, sha256: str = "", study_hint: str = "") -> Image:
    """Return the metadata of a DICOM, PNG or JPEG file without touching its pixels.

    DICOM files without pixels are read too. Of a multi-frame instance the record is that of the
    middle frame, which `decode` returns among others. Identifiers that the file lacks come from
    `sha256`. Raises NotAnImageError and TruncatedFileError.
    """
    with opened(source, name) as file:
        if file.is_raster:
            return raster_record(sha256, study_hint, open_raster(file))
        with suppress(TruncatedFileError):
            header = Header.read(file, inflate_limit=_USUAL_INFLATED_HEADER)
            if header.pixels or header.file is file:
                return _record(header, sha256)
        return _record(Header.read(file, inflate_limit=_MAX_INFLATED_HEADER), sha256)


def frames_of(image_ids: Sequence[str]) -> tuple[int, ...] | None:
    """Return the frames that image identifiers name, None for those of a single-frame instance."""
    return tuple(int(image_id.rpartition("#")[2]) - 1 for image_id in image_ids if "#" in image_id) or None


def _decode_dicom(
    header: Header, sha256: str, max_frames: int, max_pixels: int, chosen: Sequence[int] | None, *, drawn: bool
) -> Decoded:
    record = _record(header, sha256)
    images: list[Image] = []
    displays: list[Display | None] = []
    try:
        layout = layout_of(header, max_pixels)
        frames = Frames(header, layout, record.number_of_frames)
    except DecodeError as error:
        return Decoded((replace(record, pixel_error=_reason(error)),), (None,))
    if not (record.rows and record.columns):
        record = replace(record, rows=layout.rows, columns=layout.columns)
    if header.transfer_syntax in VIDEO:
        chosen = (0,)
    elif chosen is None:
        # What is not drawn takes no memory.
        most = max(1, min(max_frames, max_pixels // layout.count)) if drawn else max_frames
        chosen = _spread(header, record, most)
    for frame in chosen:
        image_id = f"{record.sop_instance_uid}#{frame + 1}" if record.number_of_frames > 1 else record.image_id
        image = replace(record, image_id=image_id, frame=frame)
        display = None
        try:
            if drawn:
                pixels, found = frames.read(frame)
                display = to_display(pixels, rendering_of(header, found, frame))
            else:
                frames.check(frame)
                image = replace(image, place=place_of(header, frame))
        except DecodeError as error:
            image = replace(image, pixel_error=_reason(error))
        displays.append(display)
        images.append(image)
    if all(image.pixel_error for image in images):
        middle = (image for image in images if image.frame == record.frame)
        images, displays = [next(middle, images[len(images) // 2])], [None]
    return Decoded(tuple(images), tuple(displays))


def _spread(header: Header, record: Image, most: int) -> Sequence[int]:
    """Return up to `most` frames of an instance: of a volume by where they lie, of all else by their order."""
    count = record.number_of_frames
    role = kind_of(record.sop_class_uid, record.modality).role
    if role is not Role.SLICE or not most < count <= MOST_PLACED_FRAMES:
        return select_frames(count, most)
    places = [place_of(header, frame) for frame in range(count)]
    return sorted(spread_evenly(places, [(frame, 0, "") for frame in range(count)], most))


def _reason(error: DecodeError) -> str:
    return f"{error.message}. {error.remedy}" if error.remedy else error.message


def _date(text: str) -> date | None:
    match = re.fullmatch(r"(\d{4})[.\-]?(\d\d)[.\-]?(\d\d)", text)
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


# Of some consoles, which write words where DICOM has letters.
_SEXES = {"MALE": "M", "FEMALE": "F", "OTHER": "O"}
_OLDEST = 150
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def _age(text: str, born: date | None, studied: date | None) -> float | None:
    match = re.fullmatch(r"(\d{1,3})([YMWD]?)", text)
    years = int(match[1]) * _YEARS[match[2] or "Y"] if match else None
    # 000Y and 999Y stand for an unknown age at some consoles; the day of birth tells whether it is one.
    if (years is None or years >= _OLDEST or text.lstrip("0") == "Y") and born and studied and born <= studied:
        birthdays = studied.year - born.year - ((studied.month, studied.day) < (born.month, born.day))
        years = birthdays if birthdays >= 2 else (studied - born).days / 365.25
    return round(years, 3) if years is not None and years < _OLDEST else None


def _record(header: Header, sha256: str) -> Image:
    instance = header.uid(0x00080018) or derive_uid("instance", sha256)
    frames = max(1, header.integer(0x00280008) or 1)
    frame = frames // 2 if frames > 1 and header.transfer_syntax not in VIDEO else 0
    modality = header.first(0x00080060).upper()
    study_date = _date(header.first(0x00080020))
    sex = header.first(0x00100040).upper()
    return Image(
        image_id=f"{instance}#{frame + 1}" if frames > 1 else instance,
        sop_instance_uid=instance,
        study_uid=header.uid(0x0020000D) or derive_uid("study", sha256),
        series_uid=header.uid(0x0020000E) or derive_uid("series", sha256),
        frame=frame,
        number_of_frames=frames,
        sop_class_uid=header.uid(0x00080016),
        transfer_syntax_uid=header.transfer_syntax,
        patient_id=header.text(0x00100020),
        patient_sex=_SEXES.get(sex, sex),
        patient_age=_age(header.first(0x00101010).upper(), _date(header.first(0x00100030)), study_date),
        accession_number=header.text(0x00080050),
        study_id=header.text(0x00200010),
        study_date=study_date,
        study_description=header.text(0x00081030),
        series_description=header.text(0x0008103E),
        series_number=header.integer(0x00200011),
        instance_number=header.integer(0x00200013),
        modality=modality,
        view_position=view_of(header, modality),
        body_part=body_part_of(header),
        laterality=side_of(header),
        manufacturer=header.text(0x00080070),
        rows=header.word(0x00280010, 0),
        columns=header.word(0x00280011, 0),
        bits_stored=header.word(0x00280101, 0),
        photometric_interpretation=header.first(0x00280004).upper(),
    )
