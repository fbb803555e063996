"""The training films: which there are, who is held out, and their pixels at one size.

A pool is a folder with `manifest.csv` (image_id, file, source, licence_class, patient_id, view, labels and more) and
the JPEG files that it names. Patients are dealt to training or development by a hash of their name, so that a film's
side never depends on which other films there are.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
LABELS = (*FINDINGS, "Normal", "COVID-19", "Pneumonia-bacterial", "Pneumonia-viral")
# Sources of one collection label the same things and are judged together.
GROUPS = {"nih1000_64px": "NIH", "nih_darkcovid": "NIH", "nih_starter": "NIH", "kermany": "Kermany"}
OTHER_GROUP = "COVID sets"
# What each collection says of a film; silence on anything else is not a "no".
_LABELLED = {
    "NIH": {*FINDINGS, "Normal"},
    "Kermany": {"Normal", "Pneumonia", "Pneumonia-bacterial", "Pneumonia-viral"},
    OTHER_GROUP: {"Normal", "Pneumonia", "COVID-19"},
}


@dataclass(frozen=True, slots=True)
class Film:
    """One radiograph of the pool; `view` is "PA", "AP" or empty, `group` the collection that labelled it."""

    image_id: str
    path: Path
    source: str
    group: str
    licence_class: str
    patient_id: str
    view: str
    labels: frozenset[str]


def read_pool(folder: Path) -> list[Film]:
    """Return the films of a pool in the order of its manifest.

    Raises OSError when the manifest cannot be read, ValueError when it lacks a column or names an unknown label.
    """
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    films = []
    for row in rows:
        try:
            labels = frozenset(label for label in row["labels"].split("|") if label)
            film = Film(
                row["image_id"],
                folder / row["file"],
                row["source"],
                GROUPS.get(row["source"], OTHER_GROUP),
                row["licence_class"],
                row["patient_id"],
                row["view"][:2] if row["view"][:2] in ("PA", "AP") else "",
                labels,
            )
        except KeyError as error:
            raise ValueError(f"{folder / 'manifest.csv'}: has no column {error}") from error
        if unknown := labels - set(LABELS):
            raise ValueError(f"{folder / 'manifest.csv'}: {film.image_id} has the unknown label {min(unknown)}")
        films.append(film)
    return films


def split(films: list[Film], *, dev_share: float, licence_class: str = "open") -> tuple[list[Film], list[Film]]:
    """Return the films to train on and those held out for development, no patient in both.

    Only films of `licence_class` are trained on; the development films are of any, for they only measure.
    """
    held_out = {patient for patient in {film.patient_id for film in films} if _place(patient) < dev_share}
    training = [film for film in films if film.patient_id not in held_out and film.licence_class == licence_class]
    return training, [film for film in films if film.patient_id in held_out]


def _place(patient: str) -> float:
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") / 2**64


def pixels(films: list[Film], *, size: int, cache: Path | None = None) -> NDArray[np.uint8]:
    """Return the films squashed to (n, size, size) grey levels, as the program's own preprocessing resizes them.

    With `cache`, a folder, the array is kept there under a name that depends on the films and the size.
    """
    name = hashlib.sha256("\n".join([str(size), *(film.image_id for film in films)]).encode()).hexdigest()[:16]
    kept = cache / f"films-{size}-{name}.npy" if cache else None
    if kept and kept.exists():
        return np.asarray(np.load(kept))
    levels = np.empty((len(films), size, size), dtype=np.uint8)
    for index, film in enumerate(films):
        with Raster.open(film.path) as raster:
            levels[index] = raster.convert("L").resize((size, size), Raster.Resampling.BILINEAR, reducing_gap=3.0)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(".draft.npy")
        np.save(draft, levels)
        draft.replace(kept)
    return levels


def label_matrix(films: list[Film]) -> NDArray[np.bool_]:
    """Return (n, labels): which of `LABELS` each film has."""
    return np.array([[label in film.labels for label in LABELS] for film in films], dtype=bool).reshape(-1, len(LABELS))


def label_mask(films: list[Film]) -> NDArray[np.bool_]:
    """Return (n, labels): of which of `LABELS` each film's source says yes or no; nothing where it gives no label."""
    return np.array(
        [[bool(film.labels) and label in _LABELLED[film.group] for label in LABELS] for film in films], dtype=bool
    ).reshape(-1, len(LABELS))
