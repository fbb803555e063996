"""What the drawn department knows about itself: findings, films, studies, and the file that holds them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

DRAWN_FINDINGS = ("Effusion", "Cardiomegaly", "Pneumothorax", "Nodule", "Consolidation", "Edema")
"""The findings that are drawn, by their ChestX-ray14 names."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a study.

    `name` is one of `DRAWN_FINDINGS`, `side` the patient's "left" or "right", "bilateral", or empty
    for the heart; `size` is "small", "moderate" or "large"; `place` is "upper", "middle" or "lower"
    where the finding has a lobe or zone, else empty.
    """

    name: str
    side: str = ""
    size: str = "moderate"
    place: str = ""


@dataclass(frozen=True, slots=True)
class FindingOnFilm:
    """A finding as one film shows it; `box` is (x, y, width, height) in pixels of that film."""

    name: str
    side: str
    size: str
    place: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FilmTruth:
    """One image: where it lies below the demo folder, and what was drawn into it."""

    sop_instance_uid: str
    study_uid: str
    path: str
    view: str
    transfer_syntax_uid: str
    photometric_interpretation: str
    findings: tuple[FindingOnFilm, ...]


@dataclass(frozen=True, slots=True)
class StudyTruth:
    """One study: its identifiers, its findings, and what its report says.

    `stated` maps ChestX-ray14 names to "present", "absent", "uncertain" or "historical"; a name
    that the report never mentions is missing from it. Every drawn finding is stated as present.
    """

    study_uid: str
    study_id: str
    patient_id: str
    accession_number: str
    study_date: str
    sex: str
    age: int
    report: str
    style: str
    findings: tuple[Finding, ...]
    stated: dict[str, str]

    @property
    def finding_names(self) -> tuple[str, ...]:
        """The names of what was drawn, each once, in the order of `DRAWN_FINDINGS`."""
        names = {finding.name for finding in self.findings}
        return tuple(name for name in DRAWN_FINDINGS if name in names)

    def stated_as(self, assertion: str) -> tuple[str, ...]:
        """Return the names that the report states as `assertion`, sorted."""
        return tuple(sorted(name for name, value in self.stated.items() if value == assertion))


@dataclass(frozen=True, slots=True)
class DemoTruth:
    """Everything that was built: the arguments, the studies, their films, and each file's size in bytes.

    `files` maps paths below the demo folder to sizes, `truth.json` itself left out.
    """

    version: int
    seed: int
    size: int
    studies: tuple[StudyTruth, ...]
    films: tuple[FilmTruth, ...]
    files: dict[str, int]

    def films_of(self, study_uid: str) -> tuple[FilmTruth, ...]:
        """Return the films of one study, in the order in which they were taken."""
        return tuple(film for film in self.films if film.study_uid == study_uid)

    def to_json(self) -> str:
        """Return the content of `truth.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def read_truth(text: str) -> DemoTruth:
    """Return the truth that `DemoTruth.to_json` wrote.

    Raises ValueError when the text is something else, or names a file outside its own folder.
    """
    try:
        content = json.loads(text)
        truth = DemoTruth(
            version=int(content["version"]),
            seed=int(content["seed"]),
            size=int(content["size"]),
            studies=tuple(_study(item) for item in content["studies"]),
            films=tuple(_film(item) for item in content["films"]),
            files={str(path): int(size) for path, size in content["files"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a truth file of the demo") from error
    # A rebuild deletes what the old file lists: a tampered list must not reach out of the folder.
    for path in truth.files:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path or ":" in path:
            raise ValueError("not a truth file of the demo")
    return truth


def _study(item: dict[str, Any]) -> StudyTruth:
    findings = tuple(Finding(**finding) for finding in item["findings"])
    return StudyTruth(**{**item, "findings": findings})


def _film(item: dict[str, Any]) -> FilmTruth:
    findings = tuple(FindingOnFilm(**{**finding, "box": tuple(finding["box"])}) for finding in item["findings"])
    return FilmTruth(**{**item, "findings": findings})
