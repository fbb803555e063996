"""Words and an image in one question: reciprocal rank fusion, with each signal's share.

What a document must be (words, fields) is decided before; this decides the order. Scores of
BM25 and cosines have no common scale, ranks do (Cormack, Clarke and Buettcher, SIGIR 2009).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medsearch_desktop.records import Share

# The constant of the 2009 paper: large enough that the first ranks of one signal do not drown the other.
RANK_OFFSET = 60


def fuse(signals: Mapping[str, Sequence[tuple[int, float]]]) -> list[tuple[int, float, tuple[Share, ...]]]:
    """Return (doc_no, fused score, shares) of all documents that any signal ranks, best first.

    `signals` maps a name to (doc_no, score) pairs, best first, each document once. Documents of
    equal fused score stand in the order of their numbers.
    """
    parts: dict[int, list[tuple[str, float, int]]] = {}
    for name, ranking in signals.items():
        for rank, (doc_no, score) in enumerate(ranking, start=1):
            parts.setdefault(doc_no, []).append((name, score, rank))
    fused = []
    for doc_no, held in parts.items():
        total = sum(1 / (RANK_OFFSET + rank) for _, _, rank in held)
        shares = tuple(Share(name, score, rank, 1 / (RANK_OFFSET + rank) / total) for name, score, rank in held)
        fused.append((doc_no, total, shares))
    fused.sort(key=lambda item: (-item[1], item[0]))
    return fused
