"""Random variation of films within what a department produces: position, exposure, sharpness, noise, cropped edges.

No mirror image: it would put the heart on the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Variation:
    """How far films are varied: `turn` in degrees, `shift` and `zoom` and `stretch` as shares, `gamma` and
    `contrast` as factors' logarithms, `noise` in grey levels from 0 to 1, the rest as probabilities."""

    turn: float = 8.0
    shift: float = 0.07
    zoom: float = 0.15
    stretch: float = 0.08
    gamma: float = 0.35
    contrast: float = 0.25
    noise: float = 0.03
    blur_chance: float = 0.25
    erase_chance: float = 0.25
    mirror_chance: float = 0.0


def vary(films: Tensor, variation: Variation, *, generator: torch.Generator) -> Tensor:
    """Return varied films: uint8 (n, S, S) to grey float32 (n, 1, S, S) from 0 to 1; each film by its own draw."""
    count, size = films.shape[0], films.shape[-1]

    def draw(spread: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * spread

    def chance(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    grey = films[:, None].float() / 255
    angle = draw(math.radians(variation.turn))
    scale, stretch = torch.exp(draw(variation.zoom)), torch.exp(draw(variation.stretch))
    mirror = 1 - 2 * chance(variation.mirror_chance).float()
    rows = [
        torch.stack((mirror * scale * stretch * angle.cos(), -scale * angle.sin(), draw(2 * variation.shift)), dim=1),
        torch.stack((mirror * scale * angle.sin(), scale / stretch * angle.cos(), draw(2 * variation.shift)), dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(grey.shape), align_corners=False)
    grey = functional.grid_sample(grey, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # Some films reach a department at a quarter of their detail.
    blurred = chance(variation.blur_chance)
    if blurred.any():
        low = max(32, int(size * (0.35 + 0.4 * float(torch.rand(1, generator=generator)))))
        small = functional.interpolate(grey[blurred], size=(low, low), mode="bilinear", antialias=True)
        grey[blurred] = functional.interpolate(small, size=(size, size), mode="bilinear")
    grey = grey.clamp(1e-4, 1) ** torch.exp(draw(variation.gamma))[:, None, None, None]
    middle = grey.mean(dim=(2, 3), keepdim=True)
    grey = middle + (grey - middle) * torch.exp(draw(variation.contrast))[:, None, None, None]
    grey = grey + draw(0.08)[:, None, None, None]
    grey = grey + variation.noise * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(
        grey.shape, generator=generator
    )
    for index in chance(variation.erase_chance).nonzero().flatten().tolist():
        height, width = (int(size * (0.1 + 0.25 * float(torch.rand(1, generator=generator)))) for _ in range(2))
        top = int(torch.randint(size - height, (1,), generator=generator))
        left = int(torch.randint(size - width, (1,), generator=generator))
        grey[index, :, top : top + height, left : left + width] = torch.rand(1, generator=generator)
    return grey.clamp(0, 1)


def as_input(grey: Tensor) -> Tensor:
    """Return grey levels (n, 1, S, S) as a network's input (n, 3, S, S), channels last."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((grey - mean) / std).contiguous(memory_format=torch.channels_last)
