"""What a message states of the report it carries: which report it is, how far along, when, and of which study.

Text files state nothing in this sense; DICOM structured reports, HL7 messages, FHIR resources and rows of tables do.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class ReportStatus(StrEnum):
    """How far along one version of a report is."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    CORRECTED = "corrected"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Statement:
    """What a message states of its report.

    Versions of one report share one of `names`, which are told apart by their letters, not their
    case; without names the report is told by its file alone and has no versions. `number` is what
    people call it. `effective` is when this version came to be so and `sent` when the message was
    made, both "YYYY-MM-DDTHH:MM:SS" with whatever fraction follows, UTC where the message names a
    zone, "" where it tells none. `study_date` is "YYYY-MM-DD" or "". `position` is the report's place
    in its file, from 0.
    """

    status: ReportStatus = ReportStatus.FINAL
    names: tuple[str, ...] = ()
    number: str = ""
    effective: str = ""
    sent: str = ""
    position: int = 0
    study_uids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()
    study_ids: tuple[str, ...] = ()
    patient_ids: tuple[str, ...] = ()
    study_date: str = ""

    def as_json(self) -> str:
        """Return it as `from_json` takes it."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Statement:
        """Return the statement that `as_json` was called on."""
        row = json.loads(text)
        row = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
        return cls(**{**row, "status": ReportStatus(row["status"])})


@dataclass(frozen=True, slots=True)
class Written:
    """One report as a file holds it: its text, the codec that decoded it, and what is stated of it.

    The text is "" only in a cancellation.
    """

    text: str
    encoding: str = "utf-8"
    stated: Statement | None = None


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a report; `is_current` where it is the one that is searched."""

    version_no: int
    report_id: str
    path: str
    position: int
    status: ReportStatus
    effective: str
    sent: str
    text: str
    is_current: bool
