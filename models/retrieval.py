"""How well vectors retrieve: films of the same findings, other patients, by cosine.

Every film is asked in turn; the answers are all other patients' films, nearest first. Measures, each from 0 to 1:

- average precision, where a film is relevant when it shares at least one label with the query;
- precision of the first 1, 5 and 10, with the same relevance;
- normalised discounted cumulative gain of the first 10 (Jarvelin and Kekalainen 2002), where a film's gain is the
  Jaccard index of its labels and the query's.

Intervals come from a bootstrap over patients: films of one patient are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEASURES = ("mAP", "P@1", "P@5", "P@10", "nDCG@10")
_DEPTH = 10


@dataclass(frozen=True, slots=True)
class Scores:
    """The measures of every query that has an answer: `values` is (queries, 5) in the order of `MEASURES`.

    `patients` (queries,) are numbers that say which queries belong together.
    """

    values: NDArray[np.float64]
    patients: NDArray[np.int64]

    def mean(self, measure: str) -> float:
        """Return the mean of one measure over the queries."""
        return float(self.values[:, MEASURES.index(measure)].mean())

    def interval(self, measure: str, *, rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of that mean, patients drawn with replacement."""
        column = self.values[:, MEASURES.index(measure)]
        sums = np.bincount(self.patients, column)
        counts = np.bincount(self.patients)
        sums, counts = sums[counts > 0], counts[counts > 0]
        drawn = np.random.default_rng(seed).integers(0, len(sums), (rounds, len(sums)))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)


def score(vectors: NDArray[np.floating], labels: NDArray[np.bool_], patients: Sequence[str]) -> Scores:
    """Return the measures of leave-one-patient-out retrieval.

    `vectors` is (n, d), of any length but zero, `labels` (n, classes), `patients` n names. Films without a label are
    left out, as are queries to which no film of another patient is relevant. Equal cosines stand in the given order.

    Raises ValueError when the lengths differ or a vector is zero or not finite.
    """
    if not len(vectors) == len(labels) == len(patients):
        raise ValueError(f"{len(vectors)} vectors, {len(labels)} label rows, {len(patients)} patients")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("a vector is zero or not finite")
    kept = labels.any(axis=1)
    unit = (vectors / lengths[:, None]).astype(np.float32)[kept]
    marks = labels[kept].astype(np.float32)
    _, numbers = np.unique(np.asarray(patients)[kept], return_inverse=True)
    shared = marks @ marks.T
    sizes = marks.sum(axis=1)
    gains = (shared / (sizes[:, None] + sizes[None] - shared)).astype(np.float64)
    cosines = unit @ unit.T
    discounts = 1 / np.log2(np.arange(2, _DEPTH + 2))
    rows, owners = [], []
    for query in range(len(unit)):
        others = numbers != numbers[query]
        gain = gains[query, others]
        relevant = gain > 0
        if not relevant.any():
            continue
        order = np.argsort(-cosines[query, others], kind="stable")
        hits = relevant[order]
        places = np.flatnonzero(hits)
        precision = np.arange(1, len(places) + 1) / (places + 1)
        first = gain[order[:_DEPTH]]
        best = -np.sort(-gain)[:_DEPTH]
        rows.append(
            (
                precision.mean(),
                hits[:1].mean(),
                hits[:5].mean(),
                hits[:_DEPTH].mean(),
                (first * discounts[: len(first)]).sum() / (best * discounts[: len(best)]).sum(),
            )
        )
        owners.append(numbers[query])
    return Scores(np.array(rows).reshape(-1, len(MEASURES)), np.array(owners, dtype=np.int64))
