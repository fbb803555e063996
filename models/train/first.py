"""Train the network that later recipes are compared with: the first recipe, on the training films alone.

    PYTHONPATH=models python -m train.first FILMS -o first.pt

The first weights were trained on all films, the development films among them, and cannot be judged on those. This
takes as many steps of the same kind without them: 2,678 of 32 films, at 128 and then at 160 pixels; AdamW at 2e-3 with
a cosine to zero; smooth L1 to the last features of an ImageNet network that sees the same varied film, cross-entropy
to the labels and to PA or AP, and the difference of the batch's cosines to those of that network's features. What it
writes is a state dict for `models/evaluate.py --weights`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from densenet121 import DIM, DenseNet121
from torch import Tensor, nn
from torch.nn import functional

from train import losses
from train.__main__ import sampling
from train.augment import Variation, as_input, vary
from train.efficientnet_lite import DIM as FEATURES
from train.films import LABELS, pixels, read_pool, split
from train.reference import Look, Targets, looker
from train.run import rate
from train.student import quickest

SEED = 20
DEV_SHARE = 0.15
BATCH = 32
# Steps from one line of progress to the next.
TOLD_EVERY = 100
# Side of the films, and up to which step.
PHASES = ((128, 2000), (160, 2678))
TEACHER_SIZE = 160
SHARES = {"Kermany": 0.39, "NIH": 0.60, "COVID sets": 0.01}
VARIATION = Variation(noise=0.0, blur_chance=0.0, erase_chance=0.0)
OPTIMISER = {"rate": 2e-3, "warmup": 100}


def standardisation(look: Look, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (1280,) of an ImageNet network's last features over films uint8 (n, S, S)."""
    features = torch.cat([look(part[:, None].float() / 255)[:, :FEATURES] for part in levels.split(64)])
    return features.mean(dim=0), features.std(dim=0) + 1e-3 * features.std()


def train(folder: Path, output: Path) -> None:
    """Train and write the state dict, in half precision.

    Raises OSError or ValueError for a pool that cannot be used, FileNotFoundError without the ImageNet weights.
    """
    films, _ = split(read_pool(folder), dev_share=DEV_SHARE)
    levels = torch.from_numpy(pixels(films, size=TEACHER_SIZE))
    targets, likely = Targets.of(films), sampling(films, SHARES)
    look = looker(0, size=TEACHER_SIZE)
    mean, deviation = standardisation(look, levels)
    torch.manual_seed(SEED)
    numbers, generator = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)
    network = DenseNet121().to(memory_format=torch.channels_last).train()
    heads = nn.ModuleList([nn.Linear(DIM, FEATURES), nn.Linear(DIM, len(LABELS)), nn.Linear(DIM, 1)])
    optimiser = torch.optim.AdamW([*network.parameters(), *heads.parameters()])
    total = PHASES[-1][1]
    for step in range(total):
        size = next(size for size, last in PHASES if step < last)
        chosen = torch.from_numpy(numbers.choice(len(films), BATCH, p=likely))
        varied = vary(levels[chosen], VARIATION, generator=generator)
        features = (look(varied)[:, :FEATURES] - mean) / deviation
        seen = functional.interpolate(varied, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        with quickest():
            maps = network.features(as_input(seen))
        pooled = torch.relu(maps.float()).mean(dim=(2, 3))
        guessed, logits, view = (head(pooled) for head in heads)
        vectors, reference = (functional.normalize(part, dim=1) for part in (pooled, features))
        known = targets.view_known[chosen]
        # PA or AP is one more label, masked where it is not known.
        said = torch.cat([targets.labels[chosen], targets.view[chosen, None]], dim=1)
        mask = torch.cat([targets.mask[chosen], known[:, None]], dim=1)
        loss = (
            functional.smooth_l1_loss(guessed, features)
            + 0.6 * losses.findings(torch.cat([logits, view], dim=1), said, mask)
            + 0.5 * losses.agreement(vectors, reference)
        )
        for group in optimiser.param_groups:
            group["lr"] = rate(step, total, OPTIMISER)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if (step + 1) % TOLD_EVERY == 0:
            print(f"step {step + 1} of {total}: loss {float(loss.detach()):.4f}", file=sys.stderr, flush=True)
    torch.save({name: value.half() for name, value in network.state_dict().items() if value.ndim}, output)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, help="folder of the pool: manifest.csv and its images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="state dict for evaluate.py")
    options = parser.parse_args(arguments)
    try:
        train(options.films, options.output)
    except (OSError, ValueError) as error:
        print(f"first: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
