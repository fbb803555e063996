"""The usual scalings of grey levels, by the name under which a user asks for one."""

from __future__ import annotations

# Mean and deviation of grey levels from 0 to 1: of three channels, and of a single one.
NORMALISATIONS: dict[str, dict[int, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    # Of the photographs of ImageNet; for one channel the mean over the colours, as is usual.
    "imagenet": {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))},
    # torchxrayvision's range from -1024 to 1024.
    "xrv": {3: ((0.5,) * 3, (1 / 2048,) * 3), 1: ((0.5,), (1 / 2048,))},
    # As it is, from 0 to 1.
    "unit": {3: ((0.0,) * 3, (1.0,) * 3), 1: ((0.0,), (1.0,))},
}
