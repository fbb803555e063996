"""Make the network that search by region looks with: the lower half of a shipped DenseNet121, and a whitening map.

    python models/regions.py FILMS -o models/regions1.onnx

FILMS is a pool as `train/films.py` describes it. The network is cut behind its second dense block, where one value
stands for a patch of some 8 pixels of a 256 x 256 film and still tells a small round shadow from a rib. Behind the cut
comes one 1 x 1 convolution: it takes away the mean of those 512 values over the training films and turns what is left
into their 128 strongest principal components, each of variance one. How long such a vector is then says how unusual
its place is among all places of all films, and its direction in which way.

The same films and network give the same bytes on the same kind of processor. Needs the `export` extra.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as Raster
from train.films import Film, read_pool, split

from medsearch_desktop.image.models import find_model, read_model
from medsearch_desktop.image.preprocess import Preprocessing, to_tensor

CUT = "transition2.norm.relu"
VALUES = 128
SIZE = 256
FILMS = 400
# Places of each film that the map is fitted on; all 1,024 of it are much the same.
PLACES = 60
DEV_SHARE = 0.15
# Films of 64 pixels, enlarged, have nothing to see at the scale that this is about.
TOO_COARSE = frozenset({"nih1000_64px"})


def cut(content: bytes, output: str) -> onnx.ModelProto:
    """Return the part of a network that its inner value `output` is computed by, with that as its one output."""
    whole = onnx.load_model_from_string(content)
    makers = {name: node for node in whole.graph.node for name in node.output}
    wanted, needed = [output], set()
    while wanted:
        name = wanted.pop()
        if name in makers and name not in needed:
            wanted += makers[name].input
        needed.add(name)
    nodes = [node for node in whole.graph.node if needed & set(node.output)]
    weights = [weight for weight in whole.graph.initializer if weight.name in needed]
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "regions", list(whole.graph.input), [result], weights)
    return helper.make_model(
        graph, opset_imports=whole.opset_import, ir_version=whole.ir_version, producer_name="medsearch-desktop"
    )


def fit(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight (VALUES, c) and bias (VALUES,) of the map that whitens `values` (n, c)."""
    wide = values.astype(np.float64)
    mean = wide.mean(axis=0)
    strength, axes = np.linalg.eigh(np.cov(wide, rowvar=False))
    weight = (axes[:, ::-1][:, :VALUES] / np.sqrt(strength[::-1][:VALUES])).T
    # An eigenvector's sign is the library's whim.
    weight *= np.sign(weight[np.arange(VALUES), np.abs(weight).argmax(axis=1)])[:, None]
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def sample(films: list[Film], network: onnx.ModelProto, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the network's values at random places of films, (films * PLACES, c)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    found = []
    for film in films:
        with Raster.open(film.path) as raster:
            tensor = to_tensor(np.asarray(raster.convert("L")), preprocessing)
        (values,) = session.run(None, {"images": tensor[None]})
        flat = values[0].reshape(values.shape[1], -1).T
        found.append(flat[rng.integers(0, len(flat), PLACES)])
    return np.concatenate(found)


def build(films: list[Film], content: bytes, preprocessing: Preprocessing) -> bytes:
    """Return the ONNX file of the lower half of a network and the map that is fitted behind it on `films`."""
    model = cut(content, CUT)
    weight, bias = fit(sample(films, model, preprocessing))
    graph = model.graph
    half = numpy_helper.from_array(weight[:, :, None, None].astype(np.float16), "whiten.weight.half")
    graph.initializer.extend([half, numpy_helper.from_array(bias, "whiten.bias")])
    graph.node.extend(
        [
            helper.make_node("Cast", ["whiten.weight.half"], ["whiten.weight"], to=TensorProto.FLOAT),
            helper.make_node("Conv", [CUT, "whiten.weight", "whiten.bias"], ["places"], kernel_shape=[1, 1]),
        ]
    )
    del graph.output[:]
    shape = ["batch", VALUES, "rows", "columns"]
    graph.output.append(helper.make_tensor_value_info("places", TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)
    made: bytes = model.SerializeToString(deterministic=True)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, help="folder of the pool: manifest.csv and its images")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the ONNX file; what describes it goes beside it, as .json"
    )
    options = parser.parse_args(arguments)
    spec = find_model()
    preprocessing = Preprocessing(SIZE, "squash", spec.preprocessing.mean, spec.preprocessing.std)
    try:
        pool = split(read_pool(options.films), dev_share=DEV_SHARE)[0]
    except (OSError, ValueError) as error:
        print(f"regions: {error}", file=sys.stderr)
        return 1
    films = [film for film in pool if film.group == "NIH" and film.source not in TOO_COARSE]
    chosen = [films[place] for place in np.random.default_rng(0).permutation(len(films))[:FILMS]]
    content = build(chosen, read_model(spec), preprocessing)
    options.output.write_bytes(content)
    entry = {
        "model_id": options.output.stem,
        "file": options.output.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "dim": VALUES,
        "preprocessing": preprocessing.as_json(),
        "origin": f"Dense blocks 1 and 2 of {spec.model_id}; whitened on {len(chosen)} of the films it was trained on",
        "licence": spec.licence,
    }
    options.output.with_suffix(".json").write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(entry, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
