"""Which DICOM files hold reports, by their SOP class: known without pydicom, which takes a fifth of a second to import.

Source: DICOM PS3.4 annex B.5 (storage SOP classes).
"""

from __future__ import annotations

SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
PDF_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"
# Structured reports too, but nobody's reading of an image: a log of a procedure, marks of a detection program, a list
# of references, doses and contrast media planned and given, an implant's plan, how it was acquired.
_NO_REPORTS = frozenset(f"{SR_CLASSES}{number}" for number in (40, 50, 59, 65, *range(67, 72), *range(73, 77)))


def may_hold_report(sop_class_uid: str) -> bool:
    """Whether DICOM files of that class hold what somebody read in images."""
    return sop_class_uid == PDF_CLASS or (sop_class_uid.startswith(SR_CLASSES) and sop_class_uid not in _NO_REPORTS)
