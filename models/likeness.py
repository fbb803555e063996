"""The sum that asking by region does for every image of a library, as an ONNX graph of whole numbers.

    python -m models.likeness -o medsearch_desktop/image/data/likeness1.onnx

Nothing in it is learnt. onnxruntime multiplies unsigned by signed bytes on what a processor has for that (VNNI, AMX),
a fifth of the time of the same sum in float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from onnx import TensorProto, helper

OPSET = 17
# The intermediate representation that came with opset 17; onnx would otherwise write its own newest.
IR_VERSION = 8


def build() -> bytes:
    """Return the graph: points (n, p, d) uint8, asked (d, m) int8 and weights (m,) to likeness (n,) float32.

    An image's likeness is the weighted sum of the largest product of its points with each vector that asks.
    """
    nodes = [
        helper.make_node("MatMulInteger", ["points", "asked"], ["products"]),
        helper.make_node("ReduceMax", ["products"], ["best"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["best"], ["best.float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["best.float", "weights"], ["likeness"]),
    ]
    inputs = [
        helper.make_tensor_value_info("points", TensorProto.UINT8, ["n", "p", "d"]),
        helper.make_tensor_value_info("asked", TensorProto.INT8, ["d", "m"]),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["m"]),
    ]
    outputs = [helper.make_tensor_value_info("likeness", TensorProto.FLOAT, ["n"])]
    graph = helper.make_graph(nodes, "likeness", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def main(arguments: list[str] | None = None) -> int:
    """Write the graph to a file."""
    parser = argparse.ArgumentParser(description="Write the graph that compares points.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.parse_args(arguments).output.write_bytes(build())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
