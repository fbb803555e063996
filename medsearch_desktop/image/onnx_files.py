"""Anyone's ONNX file -> the bytes of a model that the encoder runs, or the reason why it does not.

What a file says is read and checked here before onnxruntime sees it: its ends, its weights, its operators.
A file is changed only where it must be: weights that lie beside it come into it, a fixed batch becomes free.

Needs the package onnx: whoever imports this file does so at the point of use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, numpy_helper

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.preprocess import Preprocessing

# One ONNX file, a protocol buffer, cannot be larger.
MAX_BYTES = (2 << 30) - 1
DIM = 1024

# What onnxruntime brings itself; any other domain needs a library that the program does not load.
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "ai.onnx.preview"}
_REAL = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
_EXPORT = "Export it again, with one float32 input (n, channels, height, width) and one output (n, 1024)"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What an ONNX file holds: the bytes to register and the form of the images that it takes.

    `size` is None where height and width are free. `preprocessing` is the one that this program wrote into
    the file, if it did. `changes` tells what `content` has that the file had not.
    """

    content: bytes
    channels: int
    size: int | None
    preprocessing: Preprocessing | None
    changes: tuple[str, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Return the model in an ONNX file, with the weights that lie in files beside it.

    Raises ModelError when it cannot be read, has weights that are missing or not numbers, operators that
    onnxruntime lacks, or is not a network from images (n, 1 or 3, H, H) to vectors (n, 1024).
    """
    item = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError("is larger than 2 GiB", item=item, remedy="A DenseNet121 has 14 to 32 MB")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", item=item) from error
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError("is not a whole ONNX file", item=item, remedy="Copy or download it again") from error
    if not model.graph.node:
        raise ModelError("is not an ONNX file with a network in it", item=item, remedy=_EXPORT)
    changes = []
    _check_operators(model, item)
    if _load_external(model, path):
        changes.append("the weights beside it were put into it")
    _check_weights(model, item)
    channels, size = _check_input(model, item)
    _check_output(model, item)
    changes += _mend_ends(model)
    if changes:
        content = model.SerializeToString(deterministic=True)
    return OnnxFile(content, channels, size, _own_preprocessing(model), tuple(changes))


def _check_operators(model: onnx.ModelProto, item: str) -> None:
    known = _DOMAINS | {function.domain for function in model.functions}
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in known})
    if foreign:
        names = ", ".join(name if name.isprintable() else ascii(name) for name in foreign[:4])
        raise ModelError(
            f"uses operators that onnxruntime does not have: {names}",
            item=item,
            remedy="Export it again with standard operators only",
        )


def _load_external(model: onnx.ModelProto, path: Path) -> bool:
    item, folder = str(path), path.parent.resolve()
    places = set()
    for tensor in _tensors(model):
        if external_data_helper.uses_external_data(tensor):
            places.add(next((entry.value for entry in tensor.external_data if entry.key == "location"), ""))
    if not places:
        return False
    total = path.stat().st_size
    for place in sorted(places):
        # A file name in a file from elsewhere must not reach what lies outside its own folder.
        beside = (folder / place).resolve()
        if not place or folder not in beside.parents:
            raise ModelError(f"asks for weights outside its folder: {place!r}", item=item, remedy=_EXPORT)
        if not beside.is_file():
            raise ModelError(
                f"its weights are in {place!r}, which is not beside it", item=item, remedy="Copy all its files together"
            )
        total += beside.stat().st_size
    if total > MAX_BYTES:
        raise ModelError("has more than 2 GiB of weights", item=item, remedy="A DenseNet121 has 14 to 32 MB")
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"its weights beside it cannot be read ({_line(error)})", item=item, remedy="Copy all its files together"
        ) from error
    return True


def _check_weights(model: onnx.ModelProto, item: str) -> None:
    for tensor in _tensors(model):
        if tensor.data_type not in _REAL:
            continue
        try:
            values = numpy_helper.to_array(tensor).astype(np.float64)
        except (ValueError, TypeError, onnx.checker.ValidationError) as error:
            raise ModelError(
                f"its weight {_name(tensor)} is damaged ({_line(error)})", item=item, remedy="Copy or download it again"
            ) from error
        # A single infinite number is a bound, as of Clip; an array of weights has none.
        if np.isnan(values).any() or (values.size > 1 and np.isinf(values).any()):
            raise ModelError(
                f"its weight {_name(tensor)} has values that are not finite",
                item=item,
                remedy="Its training or its export broke off: take another file",
            )


def _check_input(model: onnx.ModelProto, item: str) -> tuple[int, int | None]:
    given = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in given]
    if len(inputs) != 1:
        raise ModelError(f"has {len(inputs)} inputs instead of one", item=item, remedy=_EXPORT)
    kind = inputs[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        found = TensorProto.DataType.Name(kind.elem_type) if kind.elem_type else "nothing known"
        raise ModelError(f"takes {found} instead of FLOAT (float32)", item=item, remedy=_EXPORT)
    dims = _dims(kind)
    if len(dims) != 4:
        raise ModelError(f"takes {_form(dims)} instead of (n, channels, height, width)", item=item, remedy=_EXPORT)
    channels, height, width = dims[1:]
    if channels not in (1, 3):
        last = ": the channels come last" if width in (1, 3) else ""
        raise ModelError(f"takes {_form(dims)}, not 1 or 3 channels{last}", item=item, remedy=_EXPORT)
    sides = {side for side in (height, width) if isinstance(side, int)}
    if len(sides) > 1:
        raise ModelError(f"takes images of {width} x {height}, not squares", item=item, remedy=_EXPORT)
    return int(channels), sides.pop() if sides else None


def _check_output(model: onnx.ModelProto, item: str) -> None:
    outputs = model.graph.output
    if len(outputs) != 1:
        raise ModelError(f"has {len(outputs)} outputs instead of one", item=item, remedy=_EXPORT)
    kind = outputs[0].type.tensor_type
    if kind.elem_type not in (0, TensorProto.FLOAT):
        found = TensorProto.DataType.Name(kind.elem_type)
        raise ModelError(f"gives {found} instead of FLOAT (float32)", item=item, remedy=_EXPORT)
    dims = _dims(kind) or [None, None]
    if len(dims) != 2 or (isinstance(dims[1], int) and dims[1] != DIM):
        raise ModelError(f"gives {_form(dims)} instead of (n, {DIM})", item=item, remedy=_EXPORT)


def _mend_ends(model: onnx.ModelProto) -> list[str]:
    given = {tensor.name for tensor in model.graph.initializer}
    source = next(value for value in model.graph.input if value.name not in given).type.tensor_type.shape.dim[0]
    target = model.graph.output[0].type.tensor_type
    dims = _dims(target)
    changes = []
    if isinstance(_dim(source), int) or (dims and isinstance(dims[0], int)):
        changes.append("its fixed batch was made free")
    if len(dims) != 2 or dims[1] != DIM:
        changes.append(f"its vectors were declared to have {DIM} values")
    if changes:
        source.dim_param = "batch"
        target.elem_type = TensorProto.FLOAT
        del target.shape.dim[:]
        target.shape.dim.add().dim_param = "batch"
        target.shape.dim.add().dim_value = DIM
        # Shapes inside the graph were computed for the batch that it had.
        del model.graph.value_info[:]
    return changes


def _own_preprocessing(model: onnx.ModelProto) -> Preprocessing | None:
    for entry in model.metadata_props:
        if entry.key == "preprocessing" and model.producer_name == "medsearch-desktop":
            try:
                return Preprocessing.from_json(json.loads(entry.value))
            except (ValueError, ModelError):
                return None
    return None


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from (sparse.values for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def _dims(kind: Any) -> list[int | str | None]:
    return [_dim(dim) for dim in kind.shape.dim]


def _dim(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _form(dims: list[int | str | None]) -> str:
    return f"({', '.join('?' if dim is None else str(dim)[:20] for dim in dims)})"


def _name(tensor: onnx.TensorProto) -> str:
    return ascii(tensor.name[:100])


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
