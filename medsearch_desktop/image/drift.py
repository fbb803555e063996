"""Does a model compute what it should: it is shown made-up films, alone, together, and beside the trained network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.models import ModelSpec
from medsearch_desktop.image.preprocess import to_tensor

if TYPE_CHECKING:
    from medsearch_desktop.image.densenet import DenseNet121

CHECKED_IMAGES = 64
LEAST_COSINE = 0.9999

# Seeds and sides of the phantoms of a self-check, and how far apart their vectors are at least, in one value.
_SELF_CHECKED = ((1, 256), (2, 200), (5, 320))
_LEAST_SPREAD = 1e-6


def phantom(seed: int, *, side: int = 256) -> NDArray[np.uint8]:
    """Return a made-up chest film, uint8 (side, side): body, two lungs, a heart, ribs, perhaps an opacity, noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]

    def disc(center: tuple[float, float], radii: tuple[float, float]) -> NDArray[np.float64]:
        distance = np.hypot((x - center[0]) / radii[0], (y - center[1]) / radii[1])
        return np.asarray(1 / (1 + np.exp(14 * (distance - 1))))

    shift, breath = random.normal(0, 0.05), random.uniform(0.8, 1.15)
    film = 0.75 * disc((shift, 0.1), (0.95, 1.1))
    for center in (-0.42, 0.42):
        film -= random.uniform(0.4, 0.6) * disc((center + shift, -0.05), (0.3, 0.62 * breath))
    film += random.uniform(0.2, 0.4) * disc((0.12 + shift, 0.25), (random.uniform(0.2, 0.4), 0.32))
    film += 0.05 * np.sin(26 * (y + 0.3 * np.abs(x) ** 1.5)) * disc((shift, 0), (0.85, 0.8))
    if seed % 2:
        film += 0.35 * disc((random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5)), (random.uniform(0.05, 0.2),) * 2)
    film = np.clip(film + random.normal(0, 0.02, film.shape), 0, 1) ** random.uniform(0.7, 1.4)
    return np.asarray(film * 255, dtype=np.uint8)


def phantoms(count: int = CHECKED_IMAGES) -> list[NDArray[np.uint8]]:
    """Return that many different phantoms, the same ones each time."""
    return [phantom(seed) for seed in range(count)]


def least_cosine(network: DenseNet121, spec: ModelSpec, images: Sequence[NDArray[np.uint8]]) -> float:
    """Return the lowest cosine between the vectors of torch and of the program's own encoder, over the images.

    NaN when a vector of torch has no direction. Needs torch.

    Raises ModelError when the encoder refuses the file.
    """
    import torch

    encoder = OnnxEncoder(spec, threads=os.cpu_count() or 1, batch_size=8)
    batch = np.stack([to_tensor(image, spec.preprocessing) for image in images])
    vectors = encoder.encode(batch)
    with torch.no_grad():
        parts = [network(torch.from_numpy(batch[start : start + 8])) for start in range(0, len(batch), 8)]
        reference = torch.cat(parts).double()
    reference = reference / reference.norm(dim=1, keepdim=True)
    return float((torch.from_numpy(vectors).double() * reference).sum(dim=1).min())


def self_check(spec: ModelSpec, *, threads: int = 1) -> float:
    """Return the lowest cosine between vectors of a few phantoms made alone and made together.

    Shows that a model loads, that it gives vectors with a direction, and that the vector of an image does
    not depend on its company.

    Raises ModelMissingError or ModelAlteredError when the file is not the manifest's, ModelError when the
    encoder refuses it, when the cosine is below 0.9999, or when all images get the same vector.
    """
    encoder = OnnxEncoder(spec, threads=threads, batch_size=len(_SELF_CHECKED))
    batch = np.stack([to_tensor(phantom(seed, side=side), spec.preprocessing) for seed, side in _SELF_CHECKED])
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode(image[None]) for image in batch])
    cosine = float((together.astype(np.float64) * alone).sum(axis=1).min())
    if not cosine >= LEAST_COSINE:
        raise ModelError(
            f"gives an image another vector in a batch than alone (cosine {cosine:.6f} < {LEAST_COSINE})",
            item=spec.model_id,
            remedy="Export the network again, with a free batch and in evaluation mode",
        )
    if float(np.ptp(together, axis=0).max()) < _LEAST_SPREAD:
        raise ModelError(
            "gives every image the same vector",
            item=spec.model_id,
            remedy="Check its weights and how its input is to be scaled (--normalise)",
        )
    return cosine
