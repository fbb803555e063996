"""Where a frame lies in the patient, and how far apart its pixels are.

Source: DICOM PS3.3 C.7.6.2 (plane), C.7.6.16.2 (its functional groups), C.8.5.5 (ultrasound regions), 10.7.1.3.
"""

from __future__ import annotations

import math

from medsearch_desktop.image.dataset import Header
from medsearch_desktop.image.frames import group_of, groups_of
from medsearch_desktop.records import Place

_PIXEL_SPACING, _IMAGER_PIXEL_SPACING = 0x00280030, 0x00181164
# Values of Region Spatial Format and of Physical Units: a two-dimensional picture, centimetres.
_TWO_DIMENSIONAL, _CENTIMETRES = 1, 3
_MAX_REGIONS = 64


def place_of(header: Header, frame: int) -> Place:
    """Return where frame `frame`, from 0, lies; without a position where the header gives none."""
    groups = groups_of(header, frame)
    plane, turned = group_of(groups, 0x00209113) or header, group_of(groups, 0x00209116) or header
    corner, cosines = _numbers(plane, 0x00200032, 3), _numbers(turned, 0x00200037, 6)
    if corner is None or cosines is None:
        location = _numbers(header, 0x00201041, 1)
        return Place("", None if location is None else round(location[0], 2))
    (a, b, c), (d, e, f) = cosines[:3], cosines[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    position = sum(x * n for x, n in zip(corner, normal, strict=True))
    # Rounded, so that what scanners write in a last digit makes no plane of its own; adding 0 makes -0 a 0.
    return Place("\\".join(f"{round(value, 1) + 0:g}" for value in cosines), round(position, 2) + 0)


def spacing_of(header: Header, frame: int) -> tuple[tuple[float, float] | None, bool]:
    """Return the distance of rows and of columns in mm, None where it is not said, and whether it is at the detector.

    Of an ultrasound picture it is that of its two-dimensional regions, where all of them agree.
    """
    measures = group_of(groups_of(header, frame), 0x00289110) or header
    # Pixel Spacing may be calibrated, Imager Pixel Spacing never is.
    own, imager = _positive(measures, _PIXEL_SPACING), _positive(header, _IMAGER_PIXEL_SPACING)
    spacing = own or imager or _of_regions(header)
    return spacing, imager is not None and own in (None, imager)


def _of_regions(header: Header) -> tuple[float, float] | None:
    found = set()
    for index in range(_MAX_REGIONS):
        region = header.item(0x00186011, index)
        if region is None:
            break
        units = region.word(0x00186024, 0), region.word(0x00186026, 0)
        if region.word(0x00186012, 0) == _TWO_DIMENSIONAL and units == (_CENTIMETRES, _CENTIMETRES):
            found.add((abs(region.double(0x0018602E)) * 10, abs(region.double(0x0018602C)) * 10))
    if len(found) != 1:
        return None
    (spacing,) = found
    return spacing if all(0 < each < math.inf for each in spacing) else None


def _positive(header: Header, tag: int) -> tuple[float, float] | None:
    numbers = _numbers(header, tag, 2)
    return (numbers[0], numbers[1]) if numbers and min(numbers) > 0 else None


def _numbers(header: Header, tag: int, count: int) -> tuple[float, ...] | None:
    """Return the `count` finite numbers of a DS value, None where they are not that many."""
    try:
        numbers = tuple(float(part) for part in header.text(tag).replace(",", ".").split("\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None
