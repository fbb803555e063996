"""What the student learns from beside labels: ImageNet networks' features, and findings read off them."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.augment import as_input
from train.efficientnet_lite import load_imagenet
from train.films import Film, label_mask, label_matrix, pixels

# The network that looks at each varied film: its variant, the side of the films (below it, its features lose much
# though the student's may be smaller) and the values of its description.
VARIANT, SIZE, DIM = 0, 160, 4048
FOLDS = 5
# The penalty of the ridge regression, in units of the sum of squared standardised features of one film.
RIDGE = 1.0

Look = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Targets:
    """What the training films are to be taken for, as tensors of n rows."""

    labels: Tensor
    mask: Tensor
    group: Tensor
    view: Tensor
    view_known: Tensor

    @classmethod
    def of(cls, films: list[Film]) -> Targets:
        """Return the targets of films."""
        groups = sorted({film.group for film in films})
        return cls(
            torch.from_numpy(label_matrix(films)).float(),
            torch.from_numpy(label_mask(films)).float(),
            torch.tensor([groups.index(film.group) for film in films]),
            torch.tensor([float(film.view == "PA") for film in films]),
            torch.tensor([float(bool(film.view)) for film in films]),
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """What ImageNet networks know of the training films.

    `look` describes films (n, 1, S, S) as (n, 4048), `mean` and `deviation` (4048,) standardise that, and `reading`
    (folds x collections, 4049, labels) reads findings off it, film i by `fold[i]`, which has not seen it. `still`
    (films, labels) was read off the unvaried films by several networks, and is on average `usual` (folds x
    collections, labels).
    """

    look: Look
    mean: Tensor
    deviation: Tensor
    reading: Tensor
    fold: Tensor
    still: Tensor
    usual: Tensor

    def features(self, grey: Tensor) -> Tensor:
        """Return the standardised features (n, 4048) of grey films (n, 1, S, S)."""
        return (self.look(grey) - self.mean) / self.deviation

    def findings(self, features: Tensor, chosen: Tensor) -> Tensor:
        """Return how likely each finding (n, labels) is, by the features of the films `chosen` as they look varied
        and by the readings of the unvaried films, half and half."""
        reading = self.reading[self.fold[chosen]]
        varied = torch.einsum("nd,ndl->nl", features, reading[:, :-1]) + reading[:, -1]
        return (varied + self.still[chosen]) / 2

    def vectors(self, features: Tensor, findings: Tensor, chosen: Tensor) -> Tensor:
        """Return vectors of length one (n, 4048 + labels) that say half what films look like, half what is found."""
        parts = [functional.normalize(part, dim=1) for part in (features, findings - self.usual[self.fold[chosen]])]
        return torch.cat(parts, dim=1) / 2**0.5


def make_reference(
    films: list[Film], targets: Targets, levels: Tensor, *, still: list[list[int]], cache: Path | None = None
) -> Reference:
    """Return what the ImageNet networks make of the training films, whose `levels` are (n, 160, 160).

    `still` names the networks whose readings of the unvaried films are averaged: variant and side of the films, among
    them the one that looks at varied films too. Readings are ridge regressions from standardised features to labels,
    one a collection, cross-fitted by patient: what the student is told of a film comes from other patients' labels.
    With `cache`, a folder, the features are kept there.

    Raises FileNotFoundError when a package of ImageNet weights is not installed, ValueError when `still` lacks
    the network that looks at varied films.
    """
    if [VARIANT, SIZE] not in still:
        raise ValueError(f"the recipe's `still` lacks [{VARIANT}, {SIZE}], the network that looks at varied films")
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(film.patient_id for film in films))}
    parts = torch.tensor([numbers[film.patient_id] % FOLDS for film in films])
    # One index for fold and collection, so that a film has its own matrix.
    fold = parts * (int(targets.group.max()) + 1) + targets.group
    stills = []
    for variant, size in still:
        shown = levels if size == SIZE else torch.from_numpy(pixels(films, size=size, cache=cache))
        features = _described(films, shown, variant=variant, cache=cache)
        mean, deviation = features.mean(dim=0), features.std(dim=0)
        deviation = deviation + 1e-3 * features.std()
        features = (features - mean) / deviation
        reading = _read(features, targets, parts)
        stills.append(_apply(features, reading, fold))
        if [variant, size] == [VARIANT, SIZE]:
            varied = mean, deviation, reading
    averaged = torch.stack(stills).mean(dim=0)
    usual = torch.zeros(len(varied[2]), averaged.shape[1])
    for number in fold.unique().tolist():
        usual[number] = averaged[fold == number].mean(dim=0)
    return Reference(looker(VARIANT, size=SIZE), *varied, fold, averaged, usual)


def looker(variant: int, *, size: int, batch: int = 16) -> Look:
    """Return what describes grey films (n, 1, S, S) by an ImageNet network: (n, d), float32.

    OpenVINO runs it where it is installed, else torch, to the same values but for the last digits.
    """
    network = load_imagenet(variant)
    network.forward = network.description  # type: ignore[method-assign]
    if importlib.util.find_spec("openvino") is None:
        network = network.to(memory_format=torch.channels_last)

        def plainly(grey: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([network(as_input(part)) for part in grey.split(batch)])

        return plainly
    from medsearch_desktop.image.openvino_engine import import_openvino

    openvino = import_openvino()
    shape = [batch, 3, size, size]
    with warnings.catch_warnings():
        # OpenVINO converts by torch's tracing, which torch means to retire.
        warnings.simplefilter("ignore", DeprecationWarning)
        model = openvino.convert_model(network, example_input=torch.zeros(shape))
    model.reshape(shape)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def quickly(grey: Tensor) -> Tensor:
        found = []
        for part in grey.split(batch):
            # The compiled model takes whole batches: a short one is filled up with its first film.
            full = torch.cat([part, part[:1].expand(batch - len(part), -1, -1, -1)])
            found.append(torch.from_numpy(compiled(as_input(full).contiguous().numpy())[0][: len(part)].copy()))
        return torch.cat(found)

    return quickly


def _described(films: list[Film], levels: Tensor, *, variant: int, cache: Path | None) -> Tensor:
    size = levels.shape[-1]
    name = hashlib.sha256("\n".join(film.image_id for film in films).encode()).hexdigest()[:16]
    kept = cache / f"described-{variant}-{size}-{name}.npy" if cache else None
    if kept and kept.exists():
        return torch.from_numpy(np.load(kept))
    look = looker(variant, size=size)
    features = torch.cat([look(part[:, None].float() / 255) for part in levels.split(64)])
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, features.numpy())
    return features


def _read(features: Tensor, targets: Targets, parts: Tensor) -> Tensor:
    """Return the regressions, one for each fold and collection: (folds x collections, d + 1, labels)."""
    groups = int(targets.group.max()) + 1
    penalty = RIDGE * features.shape[1]
    readings = torch.zeros(FOLDS * groups, features.shape[1] + 1, targets.labels.shape[1])
    for number in range(FOLDS):
        for group in range(groups):
            rows = (parts != number) & (targets.group == group)
            if not rows.any():
                continue
            seen, said = features[rows], targets.labels[rows]
            middle, usual = seen.mean(dim=0), said.mean(dim=0)
            centred = (seen - middle).double()
            # There are more features than films of a collection: solved in the films' space.
            inner = centred @ centred.T + penalty * torch.eye(len(centred), dtype=torch.float64)
            weights = (centred.T @ torch.linalg.solve(inner, (said - usual).double())).float()
            readings[number * groups + group, :-1] = weights
            readings[number * groups + group, -1] = usual - middle @ weights
    return readings


def _apply(features: Tensor, readings: Tensor, fold: Tensor) -> Tensor:
    found = torch.zeros(len(features), readings.shape[2])
    for number in fold.unique().tolist():
        rows = fold == number
        found[rows] = features[rows] @ readings[number, :-1] + readings[number, -1]
    return found
