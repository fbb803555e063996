"""Turn trained weights into the ONNX file and manifest entry that MedSearch Desktop ships.

    python models/export.py WEIGHTS -o models/densenet121-cxr1.onnx --model-id densenet121-cxr1-128 --size 128

WEIGHTS is a torch state dict of the network of `medsearch_desktop.image.densenet`, with `head.weight` and
`head.bias` where it has a learned affine map of the vector. How the file is written, and why so, is told in
`medsearch_desktop.image.onnx_writer`.

Nothing is written unless onnxruntime and torch agree on every one of 64 images to a cosine of 0.9999.
Needs the `export` extra.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.densenet import BLOCKS, DIM, DenseNet121, load_densenet121
from medsearch_desktop.image.drift import CHECKED_IMAGES, LEAST_COSINE, least_cosine, phantom, phantoms
from medsearch_desktop.image.models import MANIFEST, MANIFEST_FORMAT, ModelSpec
from medsearch_desktop.image.onnx_writer import OPSET, build_model, read_network
from medsearch_desktop.image.preprocess import Preprocessing

__all__ = ["BLOCKS", "DenseNet121", "build_model", "export", "main", "phantom", "read_network"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ExportRefusedError(Exception):
    """The exported network does not compute what the trained one does."""


def checked_images(films: Path | None) -> list[NDArray[np.uint8]]:
    """Return the grey images of the drift check: phantoms, and for half of them films of a folder when one is given.

    Raises FileNotFoundError when the folder holds no PNG or JPEG file.
    """
    if films is None:
        return phantoms()
    paths = sorted(path for path in films.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise FileNotFoundError(f"{films}: holds no PNG or JPEG file")
    wanted = CHECKED_IMAGES // 2
    chosen = paths[:: max(1, len(paths) // wanted)][:wanted]
    images = [np.asarray(Raster.open(path).convert("L")) for path in chosen]
    return images + phantoms(CHECKED_IMAGES - len(images))


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
