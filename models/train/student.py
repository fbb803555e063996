"""The network in training: DenseNet121, a linear map to what is shipped as the vector, and the heads of the losses."""

from __future__ import annotations

import torch
from densenet121 import DIM, DenseNet121
from torch import Tensor, nn

from train.films import LABELS
from train.reference import DIM as TEACHER_DIM


def quickest() -> torch.autocast:
    """Return the context in which convolutions run in bfloat16 where the processor has it, else in float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(torch.cpu.get_capabilities().get("avx512_bf16")))


class Student(nn.Module):
    """DenseNet121 with its training heads; images (n, 3, S, S) in."""

    def __init__(self) -> None:
        super().__init__()
        self.network = DenseNet121()
        # What every film has in common says nothing about which are alike: centred before the map.
        self.centre = nn.BatchNorm1d(DIM, affine=False)
        self.map = nn.Linear(DIM, DIM)
        self.to_teacher = nn.Linear(DIM, TEACHER_DIM)
        self.to_findings = nn.Linear(DIM, len(LABELS))
        self.to_view = nn.Linear(DIM, 1)

    def pooled(self, batch: Tensor) -> Tensor:
        """Return the plain embeddings of images: (n, 1024), float32."""
        features = self.network.features(batch)
        return torch.relu(features.float()).mean(dim=(2, 3))

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return vectors, guessed features and logits of plain embeddings."""
        return self.map(self.centre(pooled)), self.to_teacher(pooled), self.to_findings(pooled)
