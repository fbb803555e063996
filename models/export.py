"""Turn trained weights into the ONNX file and manifest entry that MedSearch Desktop ships.

    python models/export.py WEIGHTS -o models/densenet121-first.onnx --model-id densenet121-first-160 --size 160

The graph is written node by node from the network of `densenet121.py`, not traced: that keeps its bytes
the same from run to run and from one torch release to the next. Convolution weights are stored in half
precision and widened by Cast nodes, which onnxruntime folds when it loads the file, as it does every
normalisation that follows a convolution; all arithmetic is in float32. A transition pools before its 1 x 1
convolution rather than after: the two commute, and it saves three quarters of that work.

Nothing is written unless onnxruntime and torch agree on every one of 64 images to a cosine of 0.9999.
Needs the `export` extra.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from densenet121 import BLOCKS, DIM, DenseLayer, DenseNet121, Transition, load_densenet121
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as Raster
from torch import nn

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.models import MANIFEST, MANIFEST_FORMAT, ModelSpec
from medsearch_desktop.image.preprocess import Preprocessing, to_tensor

OPSET = 17
# The intermediate representation that came with opset 17; onnx would otherwise write its own newest.
IR_VERSION = 8
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CHECKED_IMAGES = 64
LEAST_COSINE = 0.9999


class ExportRefusedError(Exception):
    """The exported network does not compute what the trained one does."""


class _Graph:
    """An ONNX graph in the making; every value carries the name of the node that makes it."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: torch.Tensor, *, always_half: bool = False) -> str:
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


def build_model(network: DenseNet121, *, model_id: str, preprocessing: Preprocessing) -> bytes:
    """Return an ONNX model of the network: `images` (batch, 3, height, width) to `embedding` (batch, 1024).

    Both are float32; batch, height and width are free, which costs nothing in speed. The embedding is not
    normalised. The same network gives the same bytes. `model_id` and `preprocessing` go into the metadata.

    Raises onnx.checker.ValidationError when the graph is unsound.
    """
    graph = _Graph()
    layers = network.features
    value = graph.convolve("images", "conv0", layers.get_submodule("conv0"))
    value = graph.normalise(value, "norm0", layers.get_submodule("norm0"))
    value = graph.add("MaxPool", [value], "pool0", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for block, count in enumerate(BLOCKS, start=1):
        for layer in range(1, count + 1):
            name = f"denseblock{block}.denselayer{layer}"
            value = graph.dense_layer(value, name, layers.get_submodule(name))
        if block < len(BLOCKS):
            value = graph.transition(value, f"transition{block}", layers.get_submodule(f"transition{block}"))
    value = graph.normalise(value, "norm5", layers.get_submodule("norm5"))
    value = graph.add("GlobalAveragePool", [value], "pool5")
    graph.add("Flatten", [value], "embedding", axis=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "densenet121",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
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
    return model.SerializeToString(deterministic=True)


def read_network(content: bytes) -> DenseNet121:
    """Return the network that `build_model` wrote, with the very weights of the file, in evaluation mode.

    Raises RuntimeError when a weight is missing, unknown or of another shape.
    """
    model = onnx.load_model_from_string(content)
    state = {
        f"features.{weight.name.removesuffix('.half')}": torch.from_numpy(
            numpy_helper.to_array(weight).astype(np.float32)
        )
        for weight in model.graph.initializer
    }
    network = DenseNet121()
    # Kept by torch while training, without a meaning for what is computed.
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(counters | state)
    return network.eval()


def phantom(seed: int, *, side: int = 256) -> NDArray[np.uint8]:
    """Return a made-up chest film, uint8 (side, side): body, two lungs, a heart, ribs, perhaps an opacity, noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]

    def disc(center: tuple[float, float], radii: tuple[float, float]) -> NDArray[np.float64]:
        distance = np.hypot((x - center[0]) / radii[0], (y - center[1]) / radii[1])
        return np.asarray(1 / (1 + np.exp(14 * (distance - 1))))

    shift, breath = random.normal(0, 0.05), random.uniform(0.8, 1.15)
    film = 0.75 * disc((shift, 0.1), (0.95, 1.1))
    for center in (-0.42, 0.42):
        film -= random.uniform(0.4, 0.6) * disc((center + shift, -0.05), (0.3, 0.62 * breath))
    film += random.uniform(0.2, 0.4) * disc((0.12 + shift, 0.25), (random.uniform(0.2, 0.4), 0.32))
    film += 0.05 * np.sin(26 * (y + 0.3 * np.abs(x) ** 1.5)) * disc((shift, 0), (0.85, 0.8))
    if seed % 2:
        film += 0.35 * disc((random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5)), (random.uniform(0.05, 0.2),) * 2)
    film = np.clip(film + random.normal(0, 0.02, film.shape), 0, 1) ** random.uniform(0.7, 1.4)
    return np.asarray(film * 255, dtype=np.uint8)


def checked_images(films: Path | None) -> list[NDArray[np.uint8]]:
    """Return the grey images of the drift check: phantoms, and for half of them films of a folder when one is given.

    Raises FileNotFoundError when the folder holds no PNG or JPEG file.
    """
    if films is None:
        return [phantom(seed) for seed in range(CHECKED_IMAGES)]
    paths = sorted(path for path in films.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise FileNotFoundError(f"{films}: holds no PNG or JPEG file")
    wanted = CHECKED_IMAGES // 2
    chosen = paths[:: max(1, len(paths) // wanted)][:wanted]
    images = [np.asarray(Raster.open(path).convert("L")) for path in chosen]
    return images + [phantom(seed) for seed in range(CHECKED_IMAGES - len(images))]


def least_cosine(network: DenseNet121, spec: ModelSpec, images: list[NDArray[np.uint8]]) -> float:
    """Return the lowest cosine between the vectors of torch and of the program's own encoder, over the images.

    Raises ModelError when the encoder refuses the file.
    """
    encoder = OnnxEncoder(spec, threads=os.cpu_count() or 1, batch_size=8)
    batch = np.stack([to_tensor(image, spec.preprocessing) for image in images])
    vectors = encoder.encode(batch)
    with torch.no_grad():
        reference = torch.cat([network(part) for part in torch.from_numpy(batch).split(8)])
    reference = nn.functional.normalize(reference.double(), dim=1)
    return float((torch.from_numpy(vectors).double() * reference).sum(dim=1).min())


def export(
    weights: Path,
    output: Path,
    *,
    model_id: str,
    size: int = 160,
    origin: str = "",
    licence: str = "",
    films: Path | None = None,
) -> dict[str, Any]:
    """Write the ONNX file of a state dict and its entry in the manifest beside it; return the entry.

    `origin` and `licence` stay as an earlier entry of this model has them when they are empty. The first
    model of a manifest becomes its default. Neither file is touched when the check fails.

    Raises ExportRefusedError when the vectors drift or when origin or licence are not known.
    """
    preprocessing = Preprocessing(size=size, resize="squash", mean=MEAN, std=STD)
    path = output.parent / MANIFEST
    manifest = json.loads(path.read_text("utf-8")) if path.exists() else {"format": MANIFEST_FORMAT, "models": []}
    before = next((entry for entry in manifest["models"] if entry["model_id"] == model_id), {})
    origin, licence = origin or before.get("origin", ""), licence or before.get("licence", "")
    if not origin or not licence:
        raise ExportRefusedError(
            f"{model_id}: say where the weights come from and under what licence (--origin, --licence)"
        )

    network = load_densenet121(weights)
    content = build_model(network, model_id=model_id, preprocessing=preprocessing)
    digest = hashlib.sha256(content).hexdigest()
    images = checked_images(films)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        draft = Path(folder) / output.name
        draft.write_bytes(content)
        spec = ModelSpec(model_id, draft, digest, len(content), DIM, preprocessing)
        try:
            cosine = least_cosine(network, spec, images)
        except ModelError as error:
            raise ExportRefusedError(f"{output}: not written, {error}") from error
        if not cosine >= LEAST_COSINE:
            raise ExportRefusedError(f"{output}: not written, a vector drifts (cosine {cosine:.6f} < {LEAST_COSINE})")
        draft.replace(output)
    entry = {
        "model_id": model_id,
        "file": output.name,
        "sha256": digest,
        "bytes": len(content),
        "dim": DIM,
        "architecture": "DenseNet121",
        "preprocessing": preprocessing.as_json(),
        "origin": origin,
        "licence": licence,
        "opset": OPSET,
        # Rounded down: the last digits differ between processors, and the manifest should not.
        "drift": {"images": len(images), "least_cosine": math.floor(min(cosine, 1.0) * 1e5) / 1e5},
    }
    manifest["models"] = [other for other in manifest["models"] if other["model_id"] != model_id] + [entry]
    manifest.setdefault("default", model_id)
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return entry


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="torch state dict of DenseNet121")
    parser.add_argument("-o", "--output", type=Path, required=True, help="ONNX file; its folder holds the manifest")
    parser.add_argument("--model-id", required=True, help="name of the vectors' space; a new one for every change")
    parser.add_argument("--size", type=int, default=160, help="side of the model's input (%(default)s)")
    parser.add_argument("--origin", default="", help="where the weights come from, for the manifest")
    parser.add_argument("--licence", default="", help="under what terms they may be used, for the manifest")
    parser.add_argument("--films", type=Path, help="folder of images that take part in the drift check")
    options = vars(parser.parse_args(arguments))
    try:
        entry = export(options.pop("weights"), options.pop("output"), **options)
    except (ExportRefusedError, OSError, RuntimeError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(json.dumps(entry, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
