"""What sort of thing a DICOM instance is, and what follows from that: one table.

A row says how an instance takes part in search. An IMAGE is shown and has a vector, each frame of its own
up to a limit. A SLICE is part of a volume: its series has a few key slices with vectors, and their mean. A
RECORD is no picture: its header is indexed, its content is not shown.
Source: DICOM PS3.4 B.5 (SOP classes), PS3.3 C.7.3.1.1.1 (modalities).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """How an instance takes part in search."""

    IMAGE = "image"
    SLICE = "slice"
    RECORD = "record"


class Look(Enum):
    """Which window shows a frame whose header names none."""

    SPREAD = "the 0.5 to 99.5 percentiles of its values"
    HOUNSFIELD = "a window of Hounsfield units by body part"
    UPTAKE = "standardised uptake values from 0 up"


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: its name for people, its role, its window, and the SOP classes and modalities that it goes by.

    A class is written as what follows "1.2.840.10008.5.1.4.1.1."; one with a star at its end stands for all that begin
    so. Modalities count where the class is unknown or missing.
    """

    name: str
    role: Role
    look: Look = Look.SPREAD
    classes: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()


_STORAGE = "1.2.840.10008.5.1.4.1.1."

KINDS = (
    Kind("computed radiograph", Role.IMAGE, classes=("1",), modalities=("CR",)),
    Kind("digital radiograph", Role.IMAGE, classes=("1.1", "1.1.1"), modalities=("DX", "DR", "RG", "PX")),
    Kind("mammogram", Role.IMAGE, classes=("1.2", "1.2.1", "13.1.4", "13.1.5"), modalities=("MG",)),
    Kind("intra-oral radiograph", Role.IMAGE, classes=("1.3", "1.3.1"), modalities=("IO",)),
    Kind("CT", Role.SLICE, Look.HOUNSFIELD, classes=("2", "2.1", "2.2"), modalities=("CT",)),
    Kind("MR", Role.SLICE, classes=("4", "4.1", "4.3", "4.4"), modalities=("MR",)),
    Kind("PET", Role.SLICE, Look.UPTAKE, classes=("128", "128.1", "130"), modalities=("PT",)),
    Kind("volume of projections", Role.SLICE, classes=("13.1.1", "13.1.2", "13.1.3")),
    Kind("ultrasound", Role.IMAGE, classes=("3", "3.1", "6", "6.1", "6.2", "6.3"), modalities=("US", "IVUS")),
    Kind("nuclear medicine", Role.IMAGE, classes=("5", "20"), modalities=("NM",)),
    Kind("secondary capture", Role.IMAGE, classes=("7", "7.1", "7.2", "7.3", "7.4"), modalities=("SC", "OT")),
    Kind("angiography or fluoroscopy", Role.IMAGE, classes=("12.*",), modalities=("XA", "RF")),
    Kind("optical coherence tomography", Role.IMAGE, classes=("14.1", "14.2", "77.1.5.4"), modalities=("OCT", "OPT")),
    Kind("picture by visible light", Role.IMAGE, classes=("77.*",), modalities=("ES", "GM", "SM", "XC", "OP")),
    Kind("radiotherapy image", Role.IMAGE, classes=("481.1", "481.23", "481.24"), modalities=("RTIMAGE",)),
    Kind(
        "analysis of eye images", Role.RECORD, classes=("77.1.5.3", "77.1.5.8", "78.*", "79.*", "80.*", "81.*", "82.*")
    ),
    Kind("segmentation", Role.RECORD, classes=("66.4", "66.7", "66.8"), modalities=("SEG",)),
    Kind("registration or fiducials", Role.RECORD, classes=("66.1", "66.2", "66.3"), modalities=("REG", "FID")),
    Kind("surface or tracts", Role.RECORD, classes=("66.5", "66.6", "68.*")),
    Kind("raw data or mapping of values", Role.RECORD, classes=("66", "67", "30", "4.2"), modalities=("RWV",)),
    Kind("radiotherapy structures", Role.RECORD, classes=("481.3",), modalities=("RTSTRUCT",)),
    Kind("radiotherapy dose", Role.RECORD, classes=("481.2",), modalities=("RTDOSE",)),
    Kind("radiotherapy plan or record", Role.RECORD, classes=("481.*",), modalities=("RTPLAN", "RTRECORD")),
    Kind("presentation state", Role.RECORD, classes=("11.*",), modalities=("PR",)),
    Kind("structured report", Role.RECORD, classes=("88.*",), modalities=("SR",)),
    Kind("key object selection", Role.RECORD, classes=("88.59",), modalities=("KO",)),
    Kind("waveform", Role.RECORD, classes=("9.*",), modalities=("ECG", "HD", "EPS", "RESP", "AU", "EEG", "EMG")),
    Kind("encapsulated document", Role.RECORD, classes=("104.*",), modalities=("DOC", "M3D")),
    Kind("protocol, annotation or display", Role.RECORD, classes=("200.*", "201.*", "90.*", "91.*", "131")),
)
OTHER = Kind("image of another class", Role.IMAGE)


def _tables() -> tuple[dict[str, Kind], dict[str, Kind], dict[str, Kind]]:
    exact, families, modalities = dict[str, Kind](), dict[str, Kind](), dict[str, Kind]()
    for kind in KINDS:
        for number in kind.classes:
            family = number.endswith("*")
            place = families if family else exact
            if place.setdefault(_STORAGE + number.rstrip("*"), kind) is not kind:
                raise AssertionError(f"two kinds claim the class {number}")
        for modality in kind.modalities:
            if modalities.setdefault(modality, kind) is not kind:
                raise AssertionError(f"two kinds claim the modality {modality}")
    return exact, families, modalities


_EXACT, _FAMILIES, _MODALITIES = _tables()


def is_listed(sop_class_uid: str) -> bool:
    """Tell whether the table has a row for a SOP class."""
    return sop_class_uid in _EXACT or sop_class_uid.startswith(tuple(_FAMILIES))


def kind_of(sop_class_uid: str, modality: str) -> Kind:
    """Return the row of an instance: by its SOP class, else by its modality, else `OTHER`."""
    if sop_class_uid in _EXACT:
        return _EXACT[sop_class_uid]
    for beginning, kind in _FAMILIES.items():
        if sop_class_uid.startswith(beginning):
            return kind
    return _MODALITIES.get(modality, OTHER)
