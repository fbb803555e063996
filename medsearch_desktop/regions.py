"""Asking by a region of an image: the points of every image, kept up to date, and the images with the most like region.

Points are made of thumbnails, after an ingest and apart from it, so that ingest is no slower and the source files
need not be there. Images whose points are missing cannot be answers yet; without any, `ask` says so by None.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import MedSearchError, ModelError, StorageFullError
from medsearch_desktop.image.preprocess import check_region, thumbnail
from medsearch_desktop.image.products import PointProducts
from medsearch_desktop.image.regions import (
    GRID,
    REGION_ID,
    SCALE,
    Rectangle,
    RegionEncoder,
    RegionQuery,
    ask_by,
    has_marks,
    read_picture,
    striking_points,
)
from medsearch_desktop.quarantine import Quarantine
from medsearch_desktop.records import IngestEvent
from medsearch_desktop.search.regions import best, boxes, in_pixels, likeness
from medsearch_desktop.store.catalogue import ImageRow
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.regions import RegionStore
from medsearch_desktop.store.vectors import VectorIndex
from medsearch_desktop.workbench import Workbench, neither_image_nor_file

COMMAND = "`medsearch regions`"
# A commit waits for the disk; an ingest that begins meanwhile waits for this many images, about a second.
_IMAGES_AT_ONCE = 32
UNMARKED = "nothing in the region is among what is most unusual in its image: what is found may be like it by chance"
# Images whose points are compared in float32 at once: 17 MB of them.
_COMPARED_AT_ONCE = 512

OnEvent = Callable[[IngestEvent], None]


@dataclass(frozen=True, slots=True)
class RegionSummary:
    """What was indexed for asking by region.

    `images` got their points, `skipped` have no picture at the moment or ended the program twice, `stopped` tells
    that some were left.
    """

    images: int = 0
    skipped: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the object that `medsearch regions --json` prints."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RegionsFound:
    """Image numbers, by how many deviations each stands out, where (x, y, width, height), and sizes, in pixels.

    `nothing_close` when the image that was asked by is, as a whole, further from even the nearest of those that may be
    answers than 98 in 100 images of the library are from their nearest neighbour: it is of another kind.
    """

    numbers: NDArray[np.int64]
    scores: NDArray[np.float32]
    regions: tuple[Rectangle, ...]
    sizes: tuple[tuple[int, int], ...]
    nothing_close: bool
    notes: tuple[str, ...] = ()


class Regions:
    """The regions of one library; safe to use from several threads.

    `folder` is that of their files. `picture_of` returns an image's thumbnail, drawn anew where it is missing, or None
    where there is none.
    An image whose picture ended the program twice by the book of `quarantine` is left out until that is forgiven.
    """

    def __init__(
        self,
        database: Database,
        *,
        folder: Path,
        workbench: Workbench,
        picture_of: Callable[[str], bytes | None],
        quarantine: Quarantine,
    ) -> None:
        self._store = RegionStore(database, REGION_ID, folder=folder)
        self._workbench = workbench
        self._config = workbench.config
        self._picture_of = picture_of
        self.quarantine = quarantine
        self._loading = threading.Lock()
        self._encoder: RegionEncoder | None = None
        self._products: PointProducts | None = None

    def count(self) -> int:
        """Count the images that can be found by region."""
        return self._store.count()

    def index(
        self,
        *,
        turn: threading.Lock,
        on_event: OnEvent | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> RegionSummary:
        """Give every image its points that has a picture and none yet; see `Library.index_regions`.

        `turn` is held for as long as images must not change, and let go of in between.
        """
        started, after = time.monotonic(), -1
        self._store.catch_up()
        images = skipped = 0
        total = self._store.count_lacking()
        while total and not (stop is not None and stop()):
            with turn:
                batch = self._store.lacking(after=after, limit=_IMAGES_AT_ONCE)
                if not batch:
                    return RegionSummary(images, skipped, time.monotonic() - started)
                done = self._index_batch(batch)
            # A lock is not fair: without a pause whoever waits for their turn would hardly ever get it.
            time.sleep(0.001)
            after = batch[-1][0]
            images, skipped = images + done, skipped + len(batch) - done
            if on_event is not None:
                settled, seconds = images + skipped, time.monotonic() - started
                on_event(
                    IngestEvent("region", total=max(total, settled), settled=settled, images=images, seconds=seconds)
                )
        return RegionSummary(images, skipped, time.monotonic() - started, stopped=bool(total))

    def ask(
        self,
        image: str,
        roi: Rectangle,
        *,
        row: ImageRow | None,
        data: bytes | None,
        whole: Callable[[], NDArray[np.float32]],
        index: VectorIndex,
        k: int,
        allowed: NDArray[np.int64] | None,
    ) -> RegionsFound | str:
        """Return the `k` images with the region most like `roi`, best first, or why that cannot be told.

        `image` is one of the library, of `row`, which is then no answer itself, or a file with the content `data`,
        where it is none on disk. `whole` returns the vector of the whole image, to be compared with those of `index`.
        `allowed` restricts the answer to those image numbers.
        Raises MedSearchError for a region that is not inside the image, DecodeError, and whatever `whole` raises.
        """
        count = self.count()
        if not count:
            return f"no image's regions are indexed yet, {COMMAND} does it"
        try:
            encoder, products = self._open()
            picture, (width, height) = self._picture(image, roi, row, data)
            places = encoder.maps([picture])[0]
            asked = ask_by(places, roi, width=width, height=height)
            rounded = products.asked_by(asked)
            numbers, rough = self._store.compare(rounded.likeness, threads=self._config.thread_count)
        except ModelError as error:
            return f"regions cannot be compared here: {error}"
        wanted = np.ones(len(numbers), np.bool_) if allowed is None else np.isin(numbers, allowed)
        if row is not None:
            wanted &= numbers != row.image_no
        near = _whole_likeness(index, whole(), numbers)
        known = near[wanted & np.isfinite(near)]
        far = not wanted.any() or (len(known) > 0 and float(known.max()) < index.isolation())
        first, scores = best(
            rough,
            near,
            numbers=numbers,
            wanted=wanted,
            k=k,
            share=asked.share,
            error=rounded.error,
            exactly=lambda chosen: self._likeness(asked, numbers[chosen], rough[chosen]),
        )
        numbers = numbers[first]
        notes = [] if has_marks(places, roi, width=width, height=height) else [UNMARKED]
        if lacking := self._store.count_lacking():
            notes.append(
                f"{lacking} of {count + lacking} images are left out: their regions are not indexed yet,"
                f" {COMMAND} does it"
            )
        return self._located(asked, numbers, scores, far, tuple(notes))

    def _likeness(
        self, asked: RegionQuery, numbers: NDArray[np.int64], rough: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return how like the points of images are to a region; what is gone meanwhile keeps its rough likeness."""
        result, place_of = rough.copy(), {no: place for place, no in enumerate(numbers.tolist())}
        for start in range(0, len(numbers), _COMPARED_AT_ONCE):
            block = self._store.of(numbers[start : start + _COMPARED_AT_ONCE].tolist())
            places = [place_of[no] for no in block.numbers.tolist()]
            result[places] = likeness(asked, block.vectors, scale=SCALE)
        return result

    def _located(
        self,
        asked: RegionQuery,
        numbers: NDArray[np.int64],
        scores: NDArray[np.float32],
        far: bool,
        notes: tuple[str, ...],
    ) -> RegionsFound:
        block, shapes = self._store.of(numbers.tolist()), self._store.shapes(numbers.tolist())
        found = boxes(asked, block.places, block.vectors, scale=SCALE, grid=GRID)
        box_of = dict(zip(block.numbers.tolist(), found, strict=True))
        # What was removed since the scan has neither.
        kept = [place for place, no in enumerate(numbers.tolist()) if no in box_of and no in shapes]
        regions = tuple(in_pixels(box_of[no], *shapes[no]) for no in numbers[kept].tolist())
        sizes = tuple(shapes[no] for no in numbers[kept].tolist())
        return RegionsFound(numbers[kept], scores[kept], regions, sizes, far, notes)

    def _picture(
        self, image: str, roi: Rectangle, row: ImageRow | None, data: bytes | None
    ) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Return an image as its thumbnail shows it, and its own (width, height)."""
        if row is not None and (shape := self._store.shapes([row.image_no]).get(row.image_no)) is not None:
            check_region(roi, *shape)
            if (picture := self._picture_of(row.image_id)) is not None:
                return read_picture(picture, name=row.image_id), shape
        if row is None and data is None and not Path(image).is_file():
            raise neither_image_nor_file(image)
        pixels = self._workbench.display(row.path if row else image, image_id=row.image_id if row else None, data=data)
        height, width = pixels.shape[:2]
        check_region(roi, width, height)
        return read_picture(thumbnail(pixels, size=self._config.thumbnail_size), name=image), (width, height)

    def _index_batch(self, batch: list[tuple[int, str]]) -> int:
        numbers, pictures = [], []
        drawn = self.quarantine.look_ahead(
            self._drawn, batch, path_of=lambda image: image[1], refuse=lambda *_: None, threads=1, ahead=1
        )
        for (number, _), picture in zip(batch, drawn, strict=True):
            if picture is not None:
                numbers.append(number)
                pictures.append(picture)
        if not numbers:
            return 0
        encoder, size = self._open()[0], self._config.batch_size
        points = [
            striking_points(places)
            for start in range(0, len(pictures), size)
            for places in encoder.maps(pictures[start : start + size])
        ]
        return self._store.add(
            numbers, np.stack([each.places for each in points]), np.stack([each.vectors for each in points])
        )

    def _drawn(self, image: tuple[int, str]) -> NDArray[np.uint8] | None:
        image_id = image[1]
        try:
            data = self._picture_of(image_id)
            return read_picture(data, name=image_id) if data is not None else None
        except StorageFullError:
            raise
        except MedSearchError:
            # Its file is away or broken and so is its thumbnail: it is tried again the next time.
            return None

    def _open(self) -> tuple[RegionEncoder, PointProducts]:
        with self._loading:
            if self._encoder is None or self._products is None:
                self._encoder, self._products = RegionEncoder(threads=self._config.thread_count), PointProducts()
            return self._encoder, self._products


def _whole_likeness(index: VectorIndex, vector: NDArray[np.float32], numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosines of whole images to a vector, in the order of `numbers`; NaN where an image has none."""
    result = np.full(len(numbers), np.nan, np.float32)
    held, cosines = index.exact(vector, index.count)
    if len(held):
        order = np.argsort(held)
        place = np.minimum(np.searchsorted(held, numbers, sorter=order), len(held) - 1)
        same = held[order[place]] == numbers
        result[same] = cosines[order[place]][same]
    return result
