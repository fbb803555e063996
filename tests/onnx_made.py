"""Small ONNX networks from images to 1,024 values, sound and unsound, and a model of the user that needs no package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.image.models import ModelSpec, find_model, read_model
from medsearch_desktop.image.registration import register_model


def small(
    *,
    batch: Any = "n",
    channels: Any = 3,
    height: Any = 64,
    width: Any = 64,
    dim: int = 1024,
    declared: Any = ...,
    end: str = "Flatten",
    domain: str = "",
    weight: Any = None,
    input_type: str = "FLOAT",
) -> Any:
    """Return a network: means over a grid of 2 x 2 parts, mapped to `dim` values by seeded weights."""
    import onnx
    from onnx import helper, numpy_helper

    maps = channels if isinstance(channels, int) else 3
    if weight is None:
        weight = np.random.default_rng(5).normal(size=(dim, maps, 2, 2)).astype(np.float32)
    real = getattr(onnx.TensorProto, input_type)
    nodes = [
        helper.make_node("AveragePool", ["images"], ["parts"], kernel_shape=[32, 32], strides=[32, 32]),
        helper.make_node("Conv", ["parts", "weight"], ["maps"], kernel_shape=[2, 2]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
    ]
    weights = [numpy_helper.from_array(weight, "weight")]
    if end == "Flatten":
        nodes.append(helper.make_node("Flatten", ["pooled"], ["vector"]))
    elif end == "Reshape":
        nodes.append(helper.make_node("Reshape", ["pooled", "shape"], ["vector"]))
        weights.append(numpy_helper.from_array(np.array([1, dim], np.int64), "shape"))
    else:
        nodes.append(helper.make_node(end, ["pooled"], ["vector"], domain=domain))
    shape = [batch, dim] if declared is ... else declared
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", real, [batch, channels, height, width])],
        [helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, shape)],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def save(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def own_model(model_id: str = "own-64", *, card: bytes | None = None, folder: Path | None = None) -> ModelSpec:
    """Register the shipped network as a model of the user that sees films at 64 pixels."""
    shipped = find_model()
    preprocessing = {**shipped.preprocessing.as_json(), "size": 64}
    entry = {"model_id": model_id, "file": f"{model_id}.onnx", "dim": 1024, "preprocessing": preprocessing}
    told = {"origin": "A test", "licence": "Apache-2.0", "opset": 17}
    return register_model(read_model(shipped), {**entry, **told}, check=lambda _: {}, card=card, folder=folder)
