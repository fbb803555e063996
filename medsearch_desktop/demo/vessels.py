"""Vessels and bronchi that branch outwards from a hilum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.demo.anatomy import Sheet

Tree = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Straight pieces (n, 2, 2), each a start and an end, and their widths (n), in centimetres."""

ROOTS = ((72.0, 0.50), (48.0, 0.46), (20.0, 0.40), (-8.0, 0.46), (-36.0, 0.56), (-58.0, 0.62), (-76.0, 0.80))
"""Direction in degrees above the horizontal, away from the midline, and width in centimetres of the lobar trunks."""


def branches(
    rng: np.random.Generator,
    origin: tuple[float, float],
    side: int,
    *,
    upper: float = 1.0,
    roots: Sequence[tuple[float, float]] = ROOTS,
    finest: float = 0.075,
) -> Tree:
    """Return the pieces of a tree, finest first.

    `side` is -1 for the patient's right lung, drawn on the left, and 1 for the left; `upper` scales
    the width of the trunks that rise.
    """
    angle = np.radians([root[0] + rng.normal(0, 5) for root in roots])
    width = np.array([root[1] * (upper if root[0] > 10 else 1.0) for root in roots])
    at = np.column_stack([origin[0] + rng.normal(0, 0.25, len(roots)), origin[1] + rng.normal(0, 0.5, len(roots))])
    pieces, widths = [], []
    for _ in range(14):
        length = rng.uniform(0.9, 1.6, len(angle))
        to = at + np.column_stack([side * np.cos(angle) * length, -np.sin(angle) * length])
        pieces.append(np.stack([at, to], axis=1))
        widths.append(width)
        forks = rng.random(len(angle)) < 0.55
        swing = np.radians(rng.uniform(22, 52, len(angle))) * np.where(rng.random(len(angle)) < 0.5, -1, 1)
        angle = np.concatenate([angle + rng.normal(0, 0.13, len(angle)) - 0.12 * swing, (angle + swing)[forks]])
        width = np.concatenate([width * 0.875, (width * 0.7)[forks]])
        at = np.concatenate([to, to[forks]])
        alive = width > finest
        angle, width, at = angle[alive], width[alive], at[alive]
        if not len(angle):
            break
    every = np.concatenate(widths)
    order = np.argsort(every, kind="stable")
    return np.concatenate(pieces)[order], every[order]


def draw_branches(sheet: Sheet, tree: Tree, *, gain: float = 1.0, thickest: float = 1.0) -> None:
    """Draw `tree`, the fine pieces first, each as bright as it is thick, with `thickest` cm drawn as 1."""
    lines, widths = tree
    sheet.strokes(lines, widths * gain, np.minimum(1.0, widths * gain / thickest))
