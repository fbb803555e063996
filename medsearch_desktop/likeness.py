"""Image numbers and scores to what an answer by likeness shows of each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.records import VisualHit
from medsearch_desktop.regions import RegionsFound
from medsearch_desktop.store.cards import Card
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.fulltext import FulltextIndex
from medsearch_desktop.store.thumbnails import Thumbnails


def visual_hits(
    catalogue: Catalogue,
    fulltext: FulltextIndex,
    thumbnails: Thumbnails,
    *,
    series_of: Callable[[NDArray[np.int64]], Mapping[int, str]],
    numbers: NDArray[np.int64],
    scores: NDArray[np.float32],
    expected: Sequence[float] | None = None,
    regions: RegionsFound | None = None,
) -> tuple[VisualHit, ...]:
    """Return the hits of images `numbers` with their `scores`, in that order; what is gone meanwhile is left out.

    `expected` holds one share an image where a match meter was measured, `regions` what was found of the same images.
    `series_of` returns the series of those that are slices of volumes.
    """
    rows = catalogue.images(numbers)
    series = series_of(numbers)
    packed = fulltext.study_cards(row.study_uid for row in rows.values())
    cards = {study_uid: Card.unpack(card) for study_uid, card in packed.items()}
    hits = []
    for place, (number, score) in enumerate(zip(numbers.tolist(), scores.tolist(), strict=True)):
        # An index that a full disk kept from learning may still know what is gone.
        if (row := rows.get(number)) is None:
            continue
        card = cards.get(row.study_uid)
        hits.append(
            VisualHit(
                image_id=row.image_id,
                score=score,
                study_uid=row.study_uid,
                report_id=card.report_id if card else None,
                modality=row.modality,
                view_position=row.view_position,
                study_date=card.study_date if card else None,
                path=row.path,
                thumbnail=str(thumbnails.path(row.image_id)),
                impression=card.impression if card else "",
                expected=expected[place] if expected is not None else None,
                patient_sex=card.patient_sex if card else "",
                patient_age=card.patient_age if card else None,
                modalities=card.modalities if card else (),
                study_description=card.study_description if card else "",
                region=regions.regions[place] if regions is not None else None,
                size=regions.sizes[place] if regions is not None else None,
                series_uid=series.get(number, ""),
            )
        )
    return tuple(hits)
