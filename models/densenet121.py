"""DenseNet121 as a feature extractor, in torch.

Written from Huang, Liu, van der Maaten, Weinberger: "Densely Connected Convolutional Networks",
CVPR 2017 (arXiv 1608.06993): the -BC variant with growth 32, four dense blocks of 6, 12, 24 and 16
layers, bottlenecks of four times the growth and a compression of one half. Layers carry the names
under which checkpoints of this network are commonly published (`features.denseblock1.denselayer1.
norm1` and so on), so that such a state dict loads strictly.

torch is needed to train and export; what is installed on a workstation never imports this file.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

GROWTH = 32
BOTTLENECK = 4 * GROWTH
BLOCKS = (6, 12, 24, 16)
STEM = 64
DIM = 1024


class DenseLayer(nn.Module):
    """One layer of a dense block: what came in, with `GROWTH` new channels appended."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK)
        self.conv2 = nn.Conv2d(BOTTLENECK, GROWTH, kernel_size=3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        narrow = self.conv1(torch.relu(self.norm1(maps)))
        new = self.conv2(torch.relu(self.norm2(narrow)))
        return torch.cat((maps, new), dim=1)


class Transition(nn.Module):
    """Between two dense blocks: half the channels, half the height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        shrunk: Tensor = self.pool(self.conv(torch.relu(self.norm(maps))))
        return shrunk


class DenseNet121(nn.Module):
    """The network without a classifier: images (n, 3, H, W) to embeddings (n, 1024), not normalised.

    H and W are at least 32. Values are grey 0..1 after mean and deviation of the model's preprocessing.
    """

    def __init__(self) -> None:
        super().__init__()
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        stages["conv0"] = nn.Conv2d(3, STEM, kernel_size=7, stride=2, padding=3, bias=False)
        stages["norm0"] = nn.BatchNorm2d(STEM)
        stages["relu0"] = nn.ReLU()
        stages["pool0"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = STEM
        for block, layers in enumerate(BLOCKS, start=1):
            dense: OrderedDict[str, nn.Module] = OrderedDict()
            for layer in range(1, layers + 1):
                dense[f"denselayer{layer}"] = DenseLayer(channels)
                channels += GROWTH
            stages[f"denseblock{block}"] = nn.Sequential(dense)
            if block < len(BLOCKS):
                stages[f"transition{block}"] = Transition(channels)
                channels //= 2
        stages["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(stages)

    def forward(self, batch: Tensor) -> Tensor:
        return torch.relu(self.features(batch)).mean(dim=(2, 3))


def load_densenet121(weights: Path) -> DenseNet121:
    """Return the network with the weights of a state dict file, in float32 and evaluation mode.

    Half-precision values are widened, which is exact. The file is read without running any code in it.

    Raises OSError when the file cannot be read, RuntimeError when a layer is missing, unknown or of another shape.
    """
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = DenseNet121()
    network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    )
    return network.eval()
