"""What of the body an image shows, from which side and in which view: wherever a header says so.

Radiographs say it in plain attributes; mammograms of today code their view, and multi-frame instances keep region
and side in the functional groups of their frames.
Source: DICOM PS3.3 C.8.11.5 (positioning), C.7.6.16.2.8 (frame anatomy), PS3.16 CID 4014 (mammography).
"""

from __future__ import annotations

import re

from medsearch_desktop.image.dataset import Header

_CODE, _MEANING = 0x00080100, 0x00080104
_SHARED_GROUPS, _GROUPS, _FRAME_ANATOMY = 0x52009229, 0x52009230, 0x00209071

# Only projections have a view; a CT scout is "AP" too, and its slices are not.
_PROJECTIONS = frozenset(("CR", "DX", "DR", "RF", "XA", "MG", "RG", "PX", "IO"))
_VIEWS = tuple(
    (re.compile(pattern, re.IGNORECASE), view)
    for pattern, view in (
        (r"\bpa\b|postero-?\s?anterior", "PA"),
        (r"\bap\b|antero-?\s?posterior", "AP"),
        (r"\bmlo\b|medio-?\s?lateral oblique", "MLO"),
        (r"\bcc\b|cranio-?\s?caudal", "CC"),
        (r"\bll\b|\bleft lateral\b", "LL"),
        (r"\brl\b|\bright lateral\b", "RL"),
        (r"\blat\b|\blateral\b", "LATERAL"),
    )
)
# Views of the breast by their codes, of SNOMED CT and as they were before; the words beside them are of any language.
_BREAST_VIEWS = {
    code: view
    for view, codes in {
        "CC": ("399162004", "R-10242"),
        "MLO": ("399368009", "R-10226"),
        "ML": ("399260004", "R-10224"),
        "LM": ("399352003", "R-10228"),
        "LMO": ("399099002", "R-10230"),
        "FB": ("399196006", "R-10244"),
        "XCCL": ("399192008", "R-1024A"),
        "XCCM": ("399101009", "R-1024B"),
        "SIO": ("399188001", "R-102D0"),
        "ISO": ("441555000",),
    }.items()
    for code in codes
}
_SIDES = {"LEFT": "L", "RIGHT": "R", "BOTH": "B", "BILATERAL": "B", "UNPAIRED": "U"}


def view_of(header: Header, modality: str) -> str:
    """Return the view of a projection as it is stated, else by its code, else by the words around it; else nothing."""
    stated = header.first(0x00185101).upper()
    if stated or modality not in _PROJECTIONS:
        return stated
    code = header.item(0x00540220)
    if code and (view := _BREAST_VIEWS.get(code.first(_CODE).upper())):
        return view
    for words in (code.text(_MEANING) if code else "", header.text(0x0008103E), header.text(0x00181400)):
        for pattern, view in _VIEWS:
            if pattern.search(words.replace("_", " ")):
                return view
    return ""


def side_of(header: Header) -> str:
    """Return the side of an image, L, R, B (both) or U (unpaired) where it is written so, else of its first frame."""
    stated = (header.first(0x00200062) or header.first(0x00200060)).upper()
    if not stated and (frame := _frame_anatomy(header)):
        stated = frame.first(0x00209072).upper()
        # Every frame has to say something; of what has no sides that is no news.
        stated = "" if stated == "U" else stated
    return _SIDES.get(stated, stated)


def body_part_of(header: Header) -> str:
    """Return the part of the body in capitals: as it is stated, else the coded region of the image or of its frames."""
    if stated := header.first(0x00180015):
        return stated.upper()
    frame = header if 0x00082218 in header.elements else _frame_anatomy(header)
    region = frame.item(0x00082218) if frame else None
    return region.text(_MEANING).upper() if region else ""


def _frame_anatomy(header: Header) -> Header | None:
    # What all frames share first: to get at one frame's own, the groups of all have to be walked through.
    for groups in (_SHARED_GROUPS, _GROUPS):
        group = header.item(groups) if groups in header.elements else None
        if group and (anatomy := group.item(_FRAME_ANATOMY)):
            return anatomy
    return None
