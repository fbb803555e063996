"""What training minimises: like films lie together, findings can be read off, and the teacher is followed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrast(vectors: Tensor, likeness: Tensor, *, temperature: float, allowed: Tensor) -> Tensor:
    """Return the supervised contrastive loss with graded positives (after Khosla et al. 2020, arXiv 2004.11362).

    `vectors` is (n, d) of length one; `likeness` (n, n) says how much two films should lie together, from 0 to 1;
    `allowed` (n, n) which pairs count at all. A film with no positive among the allowed is left out.
    """
    apart = ~torch.eye(len(vectors), dtype=torch.bool)
    allowed = allowed & apart
    logits = (vectors @ vectors.T / temperature).masked_fill(~allowed, -1e4)
    wanted = likeness * allowed
    totals = wanted.sum(dim=1)
    heard = totals > 0
    if not heard.any():
        return vectors.sum() * 0
    targets = wanted[heard] / totals[heard, None]
    return -(targets * functional.log_softmax(logits[heard], dim=1)).sum(dim=1).mean()


def findings(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy of each finding over the films whose source says yes or no to it; all (n, classes).

    Positives weigh no more than they are: weighted, the vectors retrieve worse, for probabilities are distorted.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (loss * mask).sum() / mask.sum().clamp(min=1)


def reading(logits: Tensor, read: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy of each finding to what another network's linear reading makes of it; all (n, classes).

    `read` estimates probabilities and may lie a little outside 0 to 1.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, read.clamp(0.0, 1.0), reduction="none")
    return (loss * mask).sum() / mask.sum().clamp(min=1)


def likeness(labels: Tensor) -> Tensor:
    """Return the Jaccard index of every two films' labels (n, n), 0 where neither has one."""
    shared = labels @ labels.T
    sizes = labels.sum(dim=1)
    return shared / (sizes[:, None] + sizes[None] - shared).clamp(min=1)


def agreement(vectors: Tensor, reference: Tensor) -> Tensor:
    """Return the mean squared difference of the batch's cosines from those of a teacher; both (n, d), length one."""
    return (vectors @ vectors.T - reference @ reference.T).square().mean()
