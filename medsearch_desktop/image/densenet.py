"""DenseNet121 as a feature extractor, in torch.

Written from Huang, Liu, van der Maaten, Weinberger: "Densely Connected Convolutional Networks",
CVPR 2017 (arXiv 1608.06993): the -BC variant with growth 32, four dense blocks of 6, 12, 24 and 16
layers, bottlenecks of four times the growth and a compression of one half. Layers carry the names
under which checkpoints of this network are commonly published (`features.denseblock1.denselayer1.
norm1` and so on), so that such a state dict loads strictly.

torch is needed to train, to export and to import checkpoints, never to search: whoever imports this file
does so at the point of use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
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
    """The network without a classifier: images (n, channels, H, W) to embeddings (n, 1024), not normalised.

    H and W are at least 32. Values are grey 0..1 after mean and deviation of the model's preprocessing.
    With `head`, a learned affine map of the 1024 pooled values to as many is the last step.
    """

    def __init__(self, *, channels: int = 3, head: bool = False) -> None:
        super().__init__()
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        stages["conv0"] = nn.Conv2d(channels, STEM, kernel_size=7, stride=2, padding=3, bias=False)
        stages["norm0"] = nn.BatchNorm2d(STEM)
        stages["relu0"] = nn.ReLU()
        stages["pool0"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        width = STEM
        for block, layers in enumerate(BLOCKS, start=1):
            dense: OrderedDict[str, nn.Module] = OrderedDict()
            for layer in range(1, layers + 1):
                dense[f"denselayer{layer}"] = DenseLayer(width)
                width += GROWTH
            stages[f"denseblock{block}"] = nn.Sequential(dense)
            if block < len(BLOCKS):
                stages[f"transition{block}"] = Transition(width)
                width //= 2
        stages["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(stages)
        self.head = nn.Linear(DIM, DIM) if head else None

    def forward(self, batch: Tensor) -> Tensor:
        pooled = torch.relu(self.features(batch)).mean(dim=(2, 3))
        if self.head is None:
            return pooled
        mapped: Tensor = self.head(pooled)
        return mapped


def build_network(state: Mapping[str, Tensor]) -> DenseNet121:
    """Return the network that a state dict describes, in float32 and evaluation mode.

    `state` holds `features.*` and, where the network has a head, `head.weight` (1024, 1024) and `head.bias`
    (1024). Half-precision values are widened, which is exact. The counters that torch keeps while training
    (`num_batches_tracked`) may be missing: they have no part in what is computed.

    Raises RuntimeError when a layer is missing, unknown or of another shape.
    """
    stem = state.get("features.conv0.weight")
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
    # Without memory of its own: weights that are replaced at once need no random values first.
    with torch.device("meta"):
        network = DenseNet121(channels=channels, head=any(name.startswith("head.") for name in state))
    counters = {name: torch.tensor(0) for name in network.state_dict() if name.endswith("num_batches_tracked")}
    wide = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    network.load_state_dict(counters | wide, assign=True)
    network.eval()
    return network


def load_densenet121(weights: Path) -> DenseNet121:
    """Return the network with the weights of a state dict file, as `build_network` does.

    The file is read without running any code in it.

    Raises OSError when the file cannot be read, RuntimeError when a layer is missing, unknown or of another shape.
    """
    return build_network(torch.load(weights, map_location="cpu", weights_only=True))
