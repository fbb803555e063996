"""The network that is trained and exported, under the name by which the training code knows it."""

from __future__ import annotations

from medsearch_desktop.image.densenet import BLOCKS, DIM, DenseNet121, load_densenet121

__all__ = ["BLOCKS", "DIM", "DenseNet121", "load_densenet121"]
