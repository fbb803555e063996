"""Images near an image, a series or a region: from what is asked by to what an answer shows of each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.embeddings import Embeddings
from medsearch_desktop.errors import MedSearchError, NotFoundError
from medsearch_desktop.records import VisualAnswer, VisualHit
from medsearch_desktop.regions import Regions, RegionsFound
from medsearch_desktop.search.meter import Meter, Meters
from medsearch_desktop.search.visual import Nearest
from medsearch_desktop.store.cards import Card
from medsearch_desktop.store.catalogue import Catalogue, ImageRow
from medsearch_desktop.store.fulltext import FulltextIndex
from medsearch_desktop.store.thumbnails import Thumbnails
from medsearch_desktop.store.vectors import VectorIndex
from medsearch_desktop.volumes import Volumes
from medsearch_desktop.workbench import Region, neither_image_nor_file


class Likeness:
    """Answers by likeness for one library; safe to use from several threads."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        fulltext: FulltextIndex,
        thumbnails: Thumbnails,
        embeddings: Embeddings,
        meters: Meters,
        volumes: Volumes,
        regions: Regions,
    ) -> None:
        self._catalogue = catalogue
        self._fulltext = fulltext
        self._thumbnails = thumbnails
        self._embeddings = embeddings
        self._meters = meters
        self._volumes = volumes
        self._regions = regions

    def near(
        self,
        image: str,
        *,
        k: int,
        roi: Region | None,
        allowed: NDArray[np.int64] | None,
        model_id: str,
        data: bytes | None,
    ) -> VisualAnswer:
        """Return what `Library.similar` does; `allowed` restricts the answer to those image numbers."""
        index = self._embeddings.index_of(model_id)
        notes = self._notes(model_id, index)
        row = self._catalogue.image(image) if data is None else None
        if data is None and row is None and self._volumes.has_series(image):
            near = self._near_series(index, image, roi, model_id, k=k, allowed=allowed)
            hits = self._hits(near.numbers, near.scores)
            return VisualAnswer(image, model_id, hits, nothing_close=near.nothing_close, notes=notes)
        if roi is not None:
            found = self._regions.ask(
                image,
                roi,
                row=row,
                data=data,
                whole=lambda: self.vector(image, model_id=model_id, data=data)[0],
                index=index,
                k=k,
                allowed=allowed,
            )
            if isinstance(found, RegionsFound):
                hits = self._hits(found.numbers, found.scores, regions=found)
                return VisualAnswer(
                    image, model_id, hits, nothing_close=found.nothing_close, notes=(*notes, *found.notes)
                )
            notes = (*notes, f"the region alone was compared with whole images: {found}")
        vector, known = self.vector(image, model_id=model_id, roi=roi, data=data)
        without = known.image_no if known and roi is None else None
        near = self._volumes.nearest(index, vector, k=k, allowed=allowed, without=without)
        # Whole images were measured, not parts of them.
        meter = self._meters.of(model_id) if roi is None else None
        hits = self._hits(near.numbers, near.scores, expected=meter.expected(near.scores).tolist() if meter else None)
        shares = [hit.expected for hit in hits if hit.expected is not None]
        return VisualAnswer(
            image,
            model_id,
            hits,
            nothing_close=near.nothing_close or not _is_promising(meter, near.scores),
            expected=sum(shares) / len(shares) if shares else None,
            chance=meter.curve.chance if meter else None,
            notes=notes,
        )

    def vector(
        self, image: str, *, model_id: str, roi: Region | None = None, data: bytes | None = None
    ) -> tuple[NDArray[np.float32], ImageRow | None]:
        """Return the vector of an image of the library, of a file, or of `data`, and its row if it is of the library.

        Raises NotFoundError, SourceError, DecodeError, ModelError.
        """
        if data is not None:
            return self._embeddings.vector(image, model_id=model_id, roi=roi, data=data), None
        row = self._catalogue.image(image)
        if row is None:
            if not Path(image).is_file():
                raise neither_image_nor_file(image)
            return self._embeddings.vector(image, model_id=model_id, roi=roi), None
        if roi is None:
            with suppress(KeyError):
                return self._embeddings.index_of(model_id).vectors_of(np.array([row.image_no]))[0], row
        return self._embeddings.vector(row.path, model_id=model_id, image_id=row.image_id, roi=roi), row

    def is_promising(self, model_id: str, scores: NDArray[np.float32]) -> bool:
        """Whether the best of `scores` is worth more than chance, as far as the match meter was measured."""
        return _is_promising(self._meters.of(model_id), scores)

    def _near_series(
        self,
        index: VectorIndex,
        series_uid: str,
        roi: Region | None,
        model_id: str,
        *,
        k: int,
        allowed: NDArray[np.int64] | None,
    ) -> Nearest:
        if roi is not None:
            raise MedSearchError("a series has no region", item=series_uid, remedy="Give one of its images")
        try:
            return self._volumes.nearest_to_series(index, series_uid, model_id, k=k, allowed=allowed)
        except KeyError:
            raise NotFoundError(
                "no image of this series has a vector", item=series_uid, remedy="`medsearch ingest` makes them"
            ) from None

    def _notes(self, model_id: str, index: VectorIndex) -> tuple[str, ...]:
        notes = []
        if model_id != self._embeddings.model_id:
            images = self._catalogue.totals().images
            notes.append(f"{index.count} images of {images} have a vector of the model {model_id}")
        if why := self._meters.note(model_id, images=index.count):
            notes.append(f"the match meter is out of date: {why}; `medsearch model calibrate` measures it anew")
        return tuple(notes)

    def _hits(
        self,
        numbers: NDArray[np.int64],
        scores: NDArray[np.float32],
        *,
        expected: Sequence[float] | None = None,
        regions: RegionsFound | None = None,
    ) -> tuple[VisualHit, ...]:
        """Return what an answer shows of images `numbers`, in that order; what is gone meanwhile is left out.

        `expected` holds one share an image where a match meter was measured, `regions` what was found of the same
        images.
        """
        rows = self._catalogue.images(numbers)
        series = self._volumes.series_of(numbers)
        packed = self._fulltext.study_cards(row.study_uid for row in rows.values())
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
                    thumbnail=str(self._thumbnails.path(row.image_id)),
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


def _is_promising(meter: Meter | None, scores: NDArray[np.float32]) -> bool:
    """Whether the best of an answer is more likely to share a finding than any image; without a meter, yes."""
    return meter is None or not len(scores) or meter.above_chance(float(scores[0]))
