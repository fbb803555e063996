"""Checkpoint -> the state dict of our own network: a published DenseNet121 is recognised by its keys.

One table, `KINDS`, says how each kind is recognised, how its keys are renamed, which of them the embedding
does not need, and how its input is prepared. Files are read without running any code in them.

Needs torch: whoever imports this file does so at the point of use.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.densenet import DenseNet121

MAX_BYTES = 2 << 30
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")

_PARTS = r"(?:conv0|norm0|denseblock[1-4]|transition[1-3]|norm5)\."
# Done to every kind: a network trained on several processors at once, and the names of before 2018.
_RENAMES = ((r"^module\.", ""), (r"(\.denselayer\d+\.(?:layers\.)?(?:norm|conv))\.([12])\.", r"\1\2."))
_STEM = "features.conv0.weight"
_SHOWN_KEYS = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table of checkpoints.

    `signs` are patterns that each must be found in a line "key shape" of the file, for example
    `features.conv0.weight 64x3x7x7`. `renames` turn its keys into ours, `beside` finds those that the
    embedding does not need. The rest is the preprocessing that its makers use, where nothing else is asked.
    """

    name: str
    signs: tuple[str, ...]
    normalise: str
    resize: str
    size: int = 224
    renames: tuple[tuple[str, str], ...] = ()
    beside: str = r"^classifier\."


# The first that fits is taken; the last fits everything.
KINDS = (
    Kind(
        "MedSearch Desktop",
        (r"^features\.conv0\.weight ", r"^head\.weight 1024x1024$", r"^head\.bias 1024$"),
        "imagenet",
        "squash",
        size=160,
    ),
    Kind(
        "MONAI",
        (r"^features\.denseblock1\.denselayer1\.layers\.norm1\.weight ",),
        "unit",
        "squash",
        renames=((r"\.layers\.", "."),),
        beside=r"^class_layers\.",
    ),
    Kind(
        "CheXNet",
        (r"^densenet121\.features\.conv0\.weight ",),
        "imagenet",
        "crop",
        renames=((r"^densenet121\.", ""),),
    ),
    Kind(
        "torchxrayvision",
        (r"^features\.conv0\.weight 64x1x7x7$", r"^(?:classifier\.|op_threshs )"),
        "xrv",
        "crop",
        beside=r"^(?:classifier\.|op_threshs$)",
    ),
    Kind("torchvision", (r"^features\.conv0\.weight ", r"^classifier\."), "imagenet", "crop"),
    Kind(
        "plain, one channel",
        (r"(?:^|\.)conv0\.weight 64x1x7x7$",),
        "xrv",
        "squash",
        renames=((rf"^(?:[\w-]+\.)*?(?={_PARTS})", "features."),),
        beside=r"(?:^|\.)(?:classifier|fc|head|class_layers|op_threshs)(?:\.|$)",
    ),
    Kind(
        "plain",
        (),
        "imagenet",
        "squash",
        renames=((rf"^(?:[\w-]+\.)*?(?={_PARTS})", "features."),),
        beside=r"(?:^|\.)(?:classifier|fc|head|class_layers)(?:\.|$)",
    ),
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a checkpoint turned out to be: its kind, its channels (1 or 3), and the state dict of our network.

    `left_out` are the keys, as the file has them, that the embedding does not need.
    """

    kind: Kind
    channels: int
    state: dict[str, Tensor]
    left_out: tuple[str, ...]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file that torch wrote, alone or under one of the usual names.

    Only tensors and plain containers are read. Whatever else a file asks for is refused, not run.

    Raises ModelError when the file cannot be read, is not whole, asks to run code, or holds no state dict.
    """
    item = str(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", item=item) from error
    if size > MAX_BYTES:
        raise ModelError(f"is larger than {MAX_BYTES >> 30} GiB", item=item, remedy=_STATE_DICT)
    try:
        # torch stores without compression: what would unpack to more was not written by it.
        unpacked = _unpacked_bytes(path)
        with warnings.catch_warnings():
            # Of old forms of the file: what counts is whether its tensors can be read.
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True) if unpacked <= MAX_BYTES else None
    except pickle.UnpicklingError as error:
        raise _refused(error, item) from error
    # A damaged file makes torch raise whatever stands at the place of the damage.
    except Exception as error:
        raise ModelError(
            f"is not a whole torch checkpoint ({_line(error)})", item=item, remedy="Copy or download it again"
        ) from error
    if unpacked > MAX_BYTES:
        raise ModelError(f"unpacks to more than {MAX_BYTES >> 30} GiB", item=item, remedy=_STATE_DICT)
    return _state_dict(value, item)


_STATE_DICT = "Save the weights alone: torch.save(model.state_dict(), FILE)"


def _unpacked_bytes(path: Path) -> int:
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist())


def _refused(error: pickle.UnpicklingError, item: str) -> ModelError:
    text = str(error)
    wanted = re.search(r"GLOBAL (\S+)", text)
    if not wanted and not re.search("unrecognized function|Unsupported class|Can only|Can not", text):
        return ModelError(f"is not a torch checkpoint ({_line(error)})", item=item, remedy=_STATE_DICT)
    return ModelError(
        f"asks to run {wanted[1] if wanted else 'code'} when it is opened, which is refused: only weights are read",
        item=item,
        remedy=f"{_STATE_DICT}, on a machine where you trust what the file runs",
    )


def _state_dict(value: object, item: str) -> dict[str, Tensor]:
    held: Mapping[Any, Any] = value if isinstance(value, Mapping) else {}
    # Wrapped weights come first: beside them there may be tensors that count steps.
    for _ in range(3):
        inner = next((held[name] for name in WRAPPERS if isinstance(held.get(name), Mapping)), None)
        if inner is None:
            break
        held = inner
    tensors = {str(key): entry for key, entry in held.items() if isinstance(entry, Tensor)}
    if tensors:
        return tensors
    raise ModelError("holds no state dict", item=item, remedy=_STATE_DICT)


def recognise(state: Mapping[str, Tensor], *, item: str) -> Recognised:
    """Return which kind of DenseNet121 checkpoint a state dict is, under our keys.

    `item` names the file in errors.

    Raises ModelError when keys are missing or unknown, a weight is of another shape or not a number, or
    the network takes neither one nor three channels.
    """
    ours = {_renamed(name, _RENAMES): name for name in state}
    lines = [f"{name} {_shape(state[theirs])}" for name, theirs in ours.items()]
    kind = next(kind for kind in KINDS if all(any(re.search(sign, line) for line in lines) for sign in kind.signs))
    found: dict[str, str] = {}
    left_out: list[str] = []
    for name, theirs in ours.items():
        renamed = _renamed(name, kind.renames)
        if re.search(kind.beside, renamed):
            left_out.append(theirs)
        elif renamed in found:
            raise ModelError(
                f"holds more than one network: {_shown(theirs)} and {_shown(found[renamed])} are both {renamed}",
                item=item,
                remedy="Save the state dict of one of them",
            )
        elif not name.endswith("num_batches_tracked"):
            found[renamed] = theirs
    stem = state[found[_STEM]] if _STEM in found else None
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
    if channels not in (1, 3):
        raise ModelError(
            f"its network takes images of {channels} channels, and only 1 and 3 are known", item=item, remedy=_ANOTHER
        )
    with torch.device("meta"):
        layers = DenseNet121(channels=channels, head="head.weight" in found).state_dict()
    expected = {name: value for name, value in layers.items() if not name.endswith("num_batches_tracked")}
    missing = [name for name in expected if name not in found]
    unknown = [theirs for name, theirs in found.items() if name not in expected]
    if missing or unknown:
        parts = [_listed(missing, "missing"), _listed(unknown, "unexpected")]
        raise ModelError(
            f"is not a DenseNet121 checkpoint: {' and '.join(part for part in parts if part)}",
            item=item,
            remedy=_ANOTHER,
        )
    ordered = {name: state[found[name]] for name in expected}
    for name, value in ordered.items():
        _check_weight(name, value, expected[name], item)
    return Recognised(kind, channels, ordered, tuple(left_out))


_ANOTHER = "Use a DenseNet121 as torchvision, torchxrayvision, CheXNet or MONAI publish it, or an ONNX file"


def _check_weight(name: str, value: Tensor, expected: Tensor, item: str) -> None:
    if value.shape != expected.shape:
        raise ModelError(
            f"{name} is of shape {_shape(value)}, a DenseNet121 has {_shape(expected)}", item=item, remedy=_ANOTHER
        )
    if value.layout != torch.strided or value.is_meta or value.is_quantized or not value.is_floating_point():
        raise ModelError(
            f"{name} is not a plain array of floating-point numbers", item=item, remedy="Save the model unquantised"
        )
    if not bool(torch.isfinite(value.float()).all()):
        raise ModelError(
            f"{name} has values that are not finite", item=item, remedy="Its training broke off: take an earlier one"
        )


def _renamed(name: str, renames: Collection[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"


def _listed(names: list[str], what: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    verb = "key is" if len(names) == 1 else "keys are"
    return f"{len(names)} {verb} {what} ({', '.join(map(_shown, names[:_SHOWN_KEYS]))}{more})"


def _shown(name: str) -> str:
    # Keys come from the file: a terminal must not obey them.
    return name[:100] if name.isprintable() else ascii(name[:100])


def _line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:120]
