"""What the student learns from beside labels: an ImageNet network's features, and findings read off them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train.augment import as_input
from train.efficientnet_lite import EfficientNetLite0, load_imagenet
from train.films import Film, label_mask, label_matrix

FOLDS = 5
# The penalty of the ridge regression, in units of squared standardised features.
RIDGE = 3000.0


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
    """What the ImageNet network knows of the films: `mean` and `deviation` (1280,) of its features, and how findings
    are read off them linearly, `reading` (folds, 1281, labels), film i by the fold `fold[i]` that has not seen it."""

    network: EfficientNetLite0
    mean: Tensor
    deviation: Tensor
    reading: Tensor
    fold: Tensor

    def features(self, grey: Tensor) -> Tensor:
        """Return the standardised features (n, 1280) of grey films (n, 1, S, S)."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features = self.network(as_input(grey)).float()
        return (features - self.mean) / self.deviation

    def findings(self, features: Tensor, chosen: Tensor) -> Tensor:
        """Return the linear reading (n, labels) of the features of the films `chosen`."""
        reading = self.reading[self.fold[chosen]]
        return torch.einsum("nd,ndl->nl", features, reading[:, :-1]) + reading[:, -1]


def make_reference(films: Tensor, targets: Targets, patients: list[str]) -> Reference:
    """Return the ImageNet network with its statistics and its linear reading of the training films (n, S, S).

    The reading is a ridge regression from standardised features to labels, one a collection, cross-fitted by patient:
    what the student is told of a film comes from other patients' labels.
    """
    network = load_imagenet().to(memory_format=torch.channels_last)
    plain = Reference(network, torch.zeros(1), torch.ones(1), torch.zeros(0), torch.zeros(0))
    features = torch.cat([plain.features(part[:, None].float() / 255) for part in films.split(64)])
    mean, deviation = features.mean(dim=0), features.std(dim=0) + 1e-3
    features = (features - mean) / deviation
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    fold = torch.tensor([numbers[patient] % FOLDS for patient in patients])
    groups = int(targets.group.max()) + 1
    readings = []
    for number in range(FOLDS):
        solved = torch.zeros(groups, features.shape[1] + 1, targets.labels.shape[1])
        for group in range(groups):
            rows = (fold != number) & (targets.group == group)
            if not rows.any():
                continue
            seen, said = features[rows], targets.labels[rows]
            middle, usual = seen.mean(dim=0), said.mean(dim=0)
            centred = (seen - middle).double()
            inner = centred.T @ centred + RIDGE * torch.eye(centred.shape[1], dtype=torch.float64)
            weights = torch.linalg.solve(inner, centred.T @ (said - usual).double()).float()
            solved[group, :-1], solved[group, -1] = weights, usual - middle @ weights
        readings.append(solved)
    # One index for fold and collection, so that a film has its own matrix.
    return Reference(network, mean, deviation, torch.stack(readings).flatten(0, 1), fold * groups + targets.group)
