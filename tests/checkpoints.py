"""DenseNet121 checkpoints under the keys of each publisher, made from one seeded network."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any


@cache
def seeded(seed: int = 7, *, channels: int = 3, head: bool = False) -> Any:
    """Return a network whose normalisations have statistics, as after some training; it is not to be changed."""
    import torch

    from medsearch_desktop.image.densenet import DenseNet121

    torch.manual_seed(seed)
    network = DenseNet121(channels=channels, head=head)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return network.eval()


def old_names(name: str) -> str:
    """Return a key as torchvision wrote it before 2018: `norm.1` for `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name)


def torchvision(network: Any, *, old: bool = False) -> dict[str, Any]:
    import torch

    state = {old_names(name) if old else name: value for name, value in network.state_dict().items()}
    if old:
        state = {name: value for name, value in state.items() if "num_batches" not in name}
    return {**state, "classifier.weight": torch.zeros(1000, 1024), "classifier.bias": torch.zeros(1000)}


def torchxrayvision(network: Any) -> dict[str, Any]:
    import torch

    classifier = {"classifier.weight": torch.zeros(18, 1024), "classifier.bias": torch.zeros(18)}
    return {**network.state_dict(), **classifier, "op_threshs": torch.full((18,), 0.5)}


def chexnet(network: Any) -> dict[str, Any]:
    import torch

    state = {f"module.densenet121.{old_names(name)}": value for name, value in network.state_dict().items()}
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    state["module.densenet121.classifier.0.weight"] = torch.zeros(14, 1024)
    state["module.densenet121.classifier.0.bias"] = torch.zeros(14)
    return {"epoch": 7, "best_loss": 0.5, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


def monai(network: Any) -> dict[str, Any]:
    import torch

    state = {re.sub(r"(denselayer\d+)\.", r"\1.layers.", name): v for name, v in network.state_dict().items()}
    return {**state, "class_layers.out.weight": torch.zeros(2, 1024), "class_layers.out.bias": torch.zeros(2)}


def bare(network: Any) -> dict[str, Any]:
    return {name.removeprefix("features."): value for name, value in network.state_dict().items()}


def save(value: Any, path: Path, **options: Any) -> Path:
    import torch

    torch.save(value, path, **options)
    return path


def film(*, channels: int = 3, size: int = 64, count: int = 2) -> Any:
    """Return made-up films (count, channels, size, size), scaled from -1 to 1."""
    import numpy as np
    import torch

    from medsearch_desktop.image.drift import phantoms
    from medsearch_desktop.image.preprocess import Preprocessing, to_tensor

    plain = Preprocessing(size, "squash", (0.5,) * channels, (0.5,) * channels, channels)
    return torch.from_numpy(np.stack([to_tensor(image, plain) for image in phantoms(count)]))
