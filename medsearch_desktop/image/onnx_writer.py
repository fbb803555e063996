"""Network -> ONNX: the graph of a DenseNet121, written node by node from the network of `densenet.py`.

Writing instead of tracing keeps the bytes the same from run to run and from one torch release to the next.
Convolution weights are stored in half precision and widened by Cast nodes, which onnxruntime folds when it
loads the file, as it does every normalisation that follows a convolution; all arithmetic is in float32. A
transition pools before its 1 x 1 convolution rather than after: the two commute, and it saves three
quarters of that work.

Needs the `export` extra: whoever imports this file does so at the point of use.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from medsearch_desktop.image.densenet import BLOCKS, DIM, DenseLayer, DenseNet121, Transition, build_network
from medsearch_desktop.image.preprocess import Preprocessing

OPSET = 17
# The intermediate representation that came with opset 17; onnx would otherwise write its own newest.
IR_VERSION = 8

_Layer = TypeVar("_Layer", bound=nn.Module)


class _Graph:
    """An ONNX graph in the making; every value carries the name of the node that makes it."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Tensor, *, always_half: bool = False) -> str:
        # A normalisation's statistics may lie outside the range of half precision; its rounding must be free.
        wide = value.detach().numpy().astype(np.float32)
        with np.errstate(over="ignore"):
            half = wide.astype(np.float16)
        if not always_half and not np.array_equal(half.astype(np.float32), wide):
            self.initializers.append(numpy_helper.from_array(wide, name))
            return name
        self.initializers.append(numpy_helper.from_array(half, f"{name}.half"))
        return self.add("Cast", [f"{name}.half"], name, to=TensorProto.FLOAT)

    def convolve(self, value: str, name: str, layer: nn.Conv2d) -> str:
        weight = self.constant(f"{name}.weight", layer.weight, always_half=True)
        return self.add(
            "Conv",
            [value, weight],
            name,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[int(pad) for pad in layer.padding] * 2,
        )

    def normalise(self, value: str, name: str, layer: nn.BatchNorm2d) -> str:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        parts = {
            "weight": layer.weight,
            "bias": layer.bias,
            "running_mean": layer.running_mean,
            "running_var": layer.running_var,
        }
        constants = [self.constant(f"{name}.{part}", tensor) for part, tensor in parts.items()]
        normalised = self.add("BatchNormalization", [value, *constants], name, epsilon=layer.eps)
        return self.add("Relu", [normalised], f"{name}.relu")

    def dense_layer(self, value: str, name: str, layer: DenseLayer) -> str:
        new = self.normalise(value, f"{name}.norm1", layer.norm1)
        new = self.convolve(new, f"{name}.conv1", layer.conv1)
        new = self.normalise(new, f"{name}.norm2", layer.norm2)
        new = self.convolve(new, f"{name}.conv2", layer.conv2)
        return self.add("Concat", [value, new], name, axis=1)

    def transition(self, value: str, name: str, layer: Transition) -> str:
        value = self.normalise(value, f"{name}.norm", layer.norm)
        value = self.add("AveragePool", [value], f"{name}.pool", kernel_shape=[2, 2], strides=[2, 2])
        return self.convolve(value, f"{name}.conv", layer.conv)

    def map(self, value: str, output: str, weight: Tensor, bias: Tensor) -> str:
        constants = [self.constant("head.weight", weight, always_half=True), self.constant("head.bias", bias)]
        return self.add("Gemm", [value, *constants], output, transB=1)


def _layer(network: DenseNet121, name: str, kind: type[_Layer]) -> _Layer:
    layer = network.features.get_submodule(name)
    assert isinstance(layer, kind)
    return layer


def build_model(
    network: DenseNet121,
    *,
    model_id: str,
    preprocessing: Preprocessing,
    head: tuple[Tensor, Tensor] | None = None,
) -> bytes:
    """Return an ONNX model of the network: `images` (batch, channels, height, width) to `embedding` (batch, 1024).

    Both are float32; batch, height and width are free, which costs nothing in speed. The embedding is not
    normalised. `head` is the weight (1024, 1024) and the bias (1024) of an affine map after the pooling; by
    default it is the network's own, if that has one. The same network gives the same bytes. `model_id` and
    `preprocessing` go into the metadata.

    Raises onnx.checker.ValidationError when the graph is unsound.
    """
    if head is None and network.head is not None:
        head = network.head.weight, network.head.bias
    graph = _Graph()
    stem = _layer(network, "conv0", nn.Conv2d)
    value = graph.convolve("images", "conv0", stem)
    value = graph.normalise(value, "norm0", _layer(network, "norm0", nn.BatchNorm2d))
    value = graph.add("MaxPool", [value], "pool0", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for block, count in enumerate(BLOCKS, start=1):
        for layer in range(1, count + 1):
            name = f"denseblock{block}.denselayer{layer}"
            value = graph.dense_layer(value, name, _layer(network, name, DenseLayer))
        if block < len(BLOCKS):
            name = f"transition{block}"
            value = graph.transition(value, name, _layer(network, name, Transition))
    value = graph.normalise(value, "norm5", _layer(network, "norm5", nn.BatchNorm2d))
    value = graph.add("GlobalAveragePool", [value], "pool5")
    if head is None:
        graph.add("Flatten", [value], "embedding", axis=1)
    else:
        value = graph.add("Flatten", [value], "flatten", axis=1)
        graph.map(value, "embedding", *head)
    shape: list[str | int | None] = ["batch", stem.in_channels, "height", "width"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "densenet121",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIM])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="medsearch-desktop",
    )
    helper.set_model_props(
        model, {"model_id": model_id, "preprocessing": json.dumps(preprocessing.as_json(), sort_keys=True)}
    )
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def read_network(content: bytes) -> DenseNet121:
    """Return the network that `build_model` wrote, with the very weights of the file, in evaluation mode.

    Raises RuntimeError when a weight is missing, unknown or of another shape.
    """
    state = {}
    for weight in onnx.load_model_from_string(content).graph.initializer:
        name = weight.name.removesuffix(".half")
        name = name if name.startswith("head.") else f"features.{name}"
        state[name] = torch.from_numpy(numpy_helper.to_array(weight).astype(np.float32))
    return build_network(state)
