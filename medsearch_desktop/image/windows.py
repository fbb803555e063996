"""The window of a frame whose header names none, by what its values mean.

CT numbers mean the same on every scanner, so the part of the body decides; PET values do once they are scaled by
weight and dose. For all else the range of the values decides, in `preprocess`.
Source: DICOM PS3.3 C.8.2.1 (CT), C.8.9 (PET); the usual windows of radiological reading rooms.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from medsearch_desktop.image.anatomy import body_part_of
from medsearch_desktop.image.dataset import Header
from medsearch_desktop.image.kinds import Look, kind_of
from medsearch_desktop.image.preprocess import Window

_SOFT_TISSUE = Window(40, 400)
# The first row whose words are in Body Part Examined counts. A chest that goes on into the abdomen is soft tissue.
_HOUNSFIELD = (
    (re.compile("ABDOMEN|PELVI|NECK|HEART|MEDIASTINUM"), _SOFT_TISSUE),
    (re.compile("CHEST|LUNG|THORAX"), Window(-600, 1500)),
    (re.compile("SPINE|SKULL|EXTREMITY|HIP|FEMUR|KNEE|TIBIA|LEG|ANKLE|FOOT|CALCANEUS|SHOULDER|CLAVICLE|HUMERUS|ARM|"
                "ELBOW|WRIST|HAND|FINGER|TOE|RIB|STERNUM|JAW|MANDIBLE|MAXILLA|SINUS|ORBIT|(?<![A-Z])EAR|IAC"),
     Window(500, 2000)),
    (re.compile("HEAD|BRAIN"), Window(40, 80)),
)  # fmt: skip
# Tissue takes up 0 to 3, tumours and brain more; above 7 all is dark.
_MOST_UPTAKE = 7.0
_DOSE_ITEM, _UNITS, _WEIGHT = 0x00540016, 0x00541001, 0x00101030
_DOSE, _HALF_LIFE, _INJECTED = 0x00181074, 0x00181075, 0x00181072
_SERIES_TIME, _CORRECTED_TO = 0x00080031, 0x00541102


def preset_window(header: Header, transform: Header) -> Window | None:
    """Return the window of a frame by its kind, None where its values alone can decide.

    `transform` is the part of the header that holds the rescaling of the frame.
    """
    # Without a rescaling the values have no unit.
    if transform.decimal(0x00281052) is None:
        return None
    kind = kind_of(header.uid(0x00080016), header.first(0x00080060).upper())
    return _PRESETS[kind.look](header)


def _by_body_part(header: Header) -> Window:
    part = body_part_of(header)
    return next((window for words, window in _HOUNSFIELD if words.search(part)), _SOFT_TISSUE)


def _by_uptake(header: Header) -> Window | None:
    units = header.first(_UNITS).upper()
    if units == "GML":
        return Window(_MOST_UPTAKE / 2, _MOST_UPTAKE, "LINEAR_EXACT")
    if units != "BQML":
        return None
    dose_item = header.item(_DOSE_ITEM)
    weight = header.decimal(_WEIGHT) or 0.0
    dose = (dose_item.decimal(_DOSE) if dose_item else None) or 0.0
    if dose_item is None or weight <= 0 or dose <= 0:
        return None
    if header.first(_CORRECTED_TO).upper() != "ADMIN":
        half_life = dose_item.decimal(_HALF_LIFE) or 0.0
        waited = _seconds(header.first(_SERIES_TIME)) - _seconds(dose_item.first(_INJECTED))
        if half_life <= 0 or not 0 <= waited < 86_400:
            return None
        dose *= 2.0 ** (-waited / half_life)
    # One unit of uptake is the dose spread over the body, a gram of which is taken for a millilitre.
    width = _MOST_UPTAKE * dose / (weight * 1000)
    return Window(width / 2, width, "LINEAR_EXACT")


def _seconds(time: str) -> float:
    match = re.match(r"(\d\d):?(\d\d):?(\d\d)", time)
    return int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]) if match else float("nan")


def _by_values(_: Header) -> None:
    return None


_PRESETS: dict[Look, Callable[[Header], Window | None]] = {
    Look.SPREAD: _by_values,
    Look.HOUNSFIELD: _by_body_part,
    Look.UPTAKE: _by_uptake,
}
