"""What of a library may bear on where some reports belong: by this much the database leaves out all else.

A directory of a million images takes a minute and a gigabyte; of the few that a report may name or lie with, nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from medsearch_desktop.source.joining import (
    COUNTED_NAME,
    FOLDERS_READ,
    STUDY_FOLDER,
    ImageRow,
    ReportKeys,
    folded,
    image_stems,
    nearest_folders,
    patient_key,
    report_stems,
    stem_of,
    study_key,
)

# Behind these the beginning of a file's name may be the name of a report.
NAME_SEPARATORS = " _-."


@dataclass(frozen=True, slots=True)
class Sought:
    """By what studies may answer to some reports, all in small letters but for UIDs and folders.

    `study_uids`, `accession_numbers`, `study_ids` and `patient_ids` as studies may spell them; `study_folders` are
    names of folders that stand for a StudyID, `folders` whole paths without a separator at their end, `names` the
    beginnings of file names up to the first of `NAME_SEPARATORS`.
    """

    study_uids: frozenset[str]
    accession_numbers: frozenset[str]
    study_ids: frozenset[str]
    patient_ids: frozenset[str]
    study_folders: frozenset[str]
    folders: frozenset[str]
    names: frozenset[str]


def sought(reports: Iterable[ReportKeys]) -> Sought:
    """Return what `StudyDirectory.find` may look up of these reports; rather too much than too little."""
    uids, accessions, study_ids, patients = set[str](), set[str](), set[str](), set[str]()
    folders, names = set[str](), set[str]()
    for keys in reports:
        for each in (keys.stated, keys.named):
            uids.update(each.study_uids)
            accessions.update(map(folded, each.accession_numbers))
            study_ids.update(map(study_key, each.study_ids))
        if keys.study_date:
            patients.update(map(patient_key, keys.patient_ids))
        if keys.folder:
            folders |= {keys.folder.rstrip(os.sep), os.path.join(keys.folder, keys.stem).rstrip(os.sep)}  # noqa: PTH118
        if keys.stem:
            names.update(beginning(stem) for stem in report_stems(keys.stem) if not COUNTED_NAME.fullmatch(stem))
    numbered = {f"s{each}" for each in study_ids if each.isdigit()}
    return Sought(
        study_uids=frozenset(uids),
        accession_numbers=frozenset(accessions),
        study_ids=frozenset(study_ids | numbered),
        patient_ids=frozenset(patients | {f"p{each}" for each in patients if each.isdigit()}),
        study_folders=frozenset(numbered),
        folders=frozenset(folders),
        names=frozenset(names),
    )


def beginning(name: str) -> str:
    """Return a name up to its first separator."""
    for separator in NAME_SEPARATORS:
        name = name.partition(separator)[0]
    return name


def keys_of_report(keys: ReportKeys) -> set[int]:
    """Return a number for each entry of a directory of studies that decides where a report belongs.

    A report that was not joined need not be looked at again before an image with one of these (`keys_of_image`)
    comes, changes or goes, or a report in its folder goes.
    """
    found = set[tuple[str, ...]]()
    for each in (keys.stated, keys.named):
        found.update(("study", uid) for uid in each.study_uids)
        found.update(("accession", folded(number)) for number in each.accession_numbers)
        found.update(("id", study_key(study_id)) for study_id in each.study_ids)
    if keys.study_date:
        found.update(("patient", patient_key(each), keys.study_date) for each in keys.patient_ids)
    if keys.folder:
        found |= {("folder", keys.folder), ("folder", os.path.join(keys.folder, keys.stem))}  # noqa: PTH118
    if keys.stem:
        found.update(("name", stem) for stem in report_stems(keys.stem) if not COUNTED_NAME.fullmatch(stem))
    return set(map(_number, found))


def keys_of_image(row: ImageRow) -> set[int]:
    """Return a number for each entry that an image has in a directory of studies (`StudyDirectory`)."""
    folder, base = os.path.split(row.path)
    match = STUDY_FOLDER.fullmatch(os.path.basename(folder))  # noqa: PTH119
    study_id = study_key(row.study_id) or (match[1] if match else "")
    found = {("study", row.study_uid), *(("folder", near) for near in nearest_folders(folder, FOLDERS_READ))}
    found.update(("name", stem) for stem in image_stems(stem_of(base)))
    if accession := folded(row.accession_number):
        found.add(("accession", accession))
    if study_id:
        found.add(("id", study_id))
    keys = set(map(_number, found))
    if row.study_date:
        keys.add(_number(("patient", patient_key(row.patient_id), row.study_date)))
    return keys


def _number(key: tuple[str, ...]) -> int:
    # Two that come to the same number by chance cost a look that was not needed, once in a while.
    spelled = "\0".join(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(spelled, digest_size=8).digest(), "big", signed=True)
