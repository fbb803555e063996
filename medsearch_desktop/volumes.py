"""The volumes of one library: choosing their key slices, their mean vectors, and questions by and for a series.

A series of CT, MR or PET has hundreds of slices that look alike. A few of them, evenly spaced, have a vector,
and the series has the mean of these; what a question finds of a series is one answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.image.keyslices import key_slices
from medsearch_desktop.records import Failure
from medsearch_desktop.search.visual import Nearest, nearest
from medsearch_desktop.store.stacks import SERIES_AT_ONCE, Stacks
from medsearch_desktop.store.vectors import VectorIndex

# Slices of one series fill the first places of an answer; it is asked for more until there are enough series.
_MOST_ASKED = 16_384


@dataclass(frozen=True, slots=True)
class Settled:
    """What settling the volumes did: images that got a vector, and files whose slices cannot be shown."""

    embedded: int
    failures: tuple[Failure, ...]


class Volumes:
    """Keeps the series of a library that are volumes; safe to use from several threads."""

    def __init__(self, stacks: Stacks, *, wanted: int) -> None:
        self._stacks = stacks
        self._wanted = wanted

    def settle(self, model_id: str, embed: Callable[[], int], *, stop: threading.Event) -> Settled:
        """Choose the key slices of all series that have changed, have `embed` embed what lacks a vector, average.

        A chosen slice that turns out not to be decodable makes room for another. What was done when `stop`
        is set is kept, and the rest is done the next time.
        """
        embedded, failures = 0, list[Failure]()
        while not stop.is_set():
            self.choose(stop)
            embedded += embed()
            failed = self._stacks.give_up(model_id)
            failures += failed
            if not failed:
                break
        if not stop.is_set():
            self._stacks.average(model_id)
        return Settled(embedded, tuple(failures))

    def choose(self, stop: threading.Event | None = None) -> None:
        """Choose the key slices of every series that has changed since they were chosen."""
        unsettled = self._stacks.unsettled(self._wanted)
        for start in range(0, len(unsettled), SERIES_AT_ONCE):
            if stop is not None and stop.is_set():
                return
            among = dict(unsettled[start : start + SERIES_AT_ONCE])
            chosen: list[int] = []
            for slices in self._stacks.slices_of(list(among)).values():
                numbers = [each.number for each in slices]
                places = key_slices([each.place for each in slices], numbers, self._wanted)
                chosen += [slices[index].image_no for index in places]
            self._stacks.choose(chosen, among=among)

    def average(self, model_id: str) -> None:
        """Make the mean vectors of a model that are missing or out of date."""
        self._stacks.average(model_id)

    def has_series(self, name: str) -> bool:
        """Whether the library has a series of that SeriesInstanceUID."""
        return self._stacks.has_series(name)

    def series_of(self, image_nos: NDArray[np.int64]) -> dict[int, str]:
        """Return the series of those images that are slices of a volume, by image number."""
        return self._stacks.series_of(image_nos)

    def nearest(
        self,
        index: VectorIndex,
        query: NDArray[np.float32],
        *,
        k: int,
        allowed: NDArray[np.int64] | None = None,
        without: int | None = None,
    ) -> Nearest:
        """Return the `k` nearest as `search.visual.nearest` does, of each volume the best slice alone.

        With `without`, a slice, no other slice of its series is an answer either.
        """
        own = self.series_of(np.array([without], np.int64)).get(without, "") if without is not None else ""
        asked = k
        while True:
            found = nearest(index, query, k=asked, allowed=allowed, without=without)
            kept = self._one_a_series(found, own)
            if len(kept) >= k or len(found.numbers) < asked or asked >= _MOST_ASKED:
                break
            asked *= 4
        kept = kept[:k]
        close = bool(kept) and (not own or float(found.scores[kept[0]]) >= index.isolation())
        return Nearest(found.numbers[kept], found.scores[kept], found.nothing_close or not close)

    def _one_a_series(self, found: Nearest, own: str) -> list[int]:
        series = self.series_of(found.numbers)
        seen, kept = {own} - {""}, []
        for place, number in enumerate(found.numbers.tolist()):
            uid = series.get(number, "")
            if uid and uid in seen:
                continue
            seen.add(uid)
            kept.append(place)
        return kept

    def nearest_to_series(
        self, index: VectorIndex, series_uid: str, model_id: str, *, k: int, allowed: NDArray[np.int64] | None = None
    ) -> Nearest:
        """Return the `k` nearest to a series, without its own images.

        Of a volume that are other volumes, mean to mean, each by its middle key slice. Of other series they are
        images, nearest to the mean of its own. `allowed` restricts the answer to series with one of those images.
        Raises KeyError when no image of it has a vector.
        """
        mean = self._stacks.mean(series_uid, model_id)
        if mean is None:
            return self._nearest_to_mean(index, series_uid, k=k, allowed=allowed)
        names, scores = list[str](), list[float]()
        for uids, means in self._stacks.means(model_id):
            cosines = means @ mean
            best = np.argsort(-cosines, kind="stable")
            if allowed is None:
                best = best[: k + 1]
            names += [uids[place] for place in best]
            scores += cosines[best].tolist()
        ranked = sorted((-score, uid) for score, uid in zip(scores, names, strict=True) if uid != series_uid)
        if allowed is not None:
            passing = self._stacks.series_among(allowed)
            ranked = [(score, uid) for score, uid in ranked if uid in passing]
        ranked = ranked[:k]
        middle = self._stacks.middle_slices([uid for _, uid in ranked])
        ranked = [(score, uid) for score, uid in ranked if uid in middle]
        numbers = np.array([middle[uid] for _, uid in ranked], np.int64)
        near = np.array([-score for score, _ in ranked], np.float32)
        return Nearest(numbers, near, not len(near) or float(near[0]) < index.isolation())

    def _nearest_to_mean(
        self, index: VectorIndex, series_uid: str, *, k: int, allowed: NDArray[np.int64] | None
    ) -> Nearest:
        own = self._stacks.images_of_series(series_uid)
        held = own[~np.isin(own, index.lacks(own))]
        if not len(held):
            raise KeyError(series_uid)
        total = index.vectors_of(held).astype(np.float64).sum(axis=0)
        mean = (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)
        found = self.nearest(index, mean, k=k + len(held), allowed=allowed)
        others = np.flatnonzero(~np.isin(found.numbers, own))[:k]
        close = len(others) > 0 and float(found.scores[others[0]]) >= index.isolation()
        return Nearest(found.numbers[others], found.scores[others], not close)
