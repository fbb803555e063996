from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import checkpoints as made
import numpy as np
import pytest

from medsearch_desktop.image.drift import least_cosine, phantoms, self_check
from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.models import ModelSpec
from medsearch_desktop.image.preprocess import Preprocessing, to_tensor

INSTALL = "needs the export extra: pip install 'medsearch-desktop[export]'"
torch = pytest.importorskip("torch", reason=INSTALL)
pytest.importorskip("onnx", reason=INSTALL)

from medsearch_desktop.image.onnx_writer import build_model, read_network  # noqa: E402

RGB = Preprocessing(64, "squash", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = Preprocessing(64, "crop", (0.5,), (1 / 2048,), channels=1)


def as_spec(content: bytes, folder: Path, preprocessing: Preprocessing) -> ModelSpec:
    path = folder / "written.onnx"
    path.write_bytes(content)
    return ModelSpec("written", path, hashlib.sha256(content).hexdigest(), len(content), 1024, preprocessing)


@pytest.mark.parametrize(("channels", "head", "preprocessing"), [(3, True, RGB), (1, False, GREY), (1, True, GREY)])
def test_written_network_agrees_with_torch(
    tmp_path: Path, channels: int, head: bool, preprocessing: Preprocessing
) -> None:
    network = made.seeded(channels=channels, head=head)
    content = build_model(network, model_id="written", preprocessing=preprocessing)
    assert build_model(network, model_id="written", preprocessing=preprocessing) == content
    spec = as_spec(content, tmp_path, preprocessing)
    assert least_cosine(network, spec, phantoms(4)) > 0.99999
    assert self_check(spec) > 0.99999
    again = read_network(content)
    assert build_model(again, model_id="written", preprocessing=preprocessing) == content


def test_a_map_that_is_given_counts_like_the_networks_own(tmp_path: Path) -> None:
    with_map = made.seeded(head=True)
    without = copy.deepcopy(made.seeded())
    assert with_map.head is not None
    without.load_state_dict({k: v for k, v in with_map.state_dict().items() if not k.startswith("head.")})
    head = with_map.head.weight, with_map.head.bias
    expected = build_model(with_map, model_id="x", preprocessing=RGB)
    assert build_model(without, model_id="x", preprocessing=RGB, head=head) == expected
    assert build_model(without, model_id="x", preprocessing=RGB) != expected


def test_with_a_map_an_image_has_the_same_bits_alone_and_in_a_batch(tmp_path: Path) -> None:
    content = build_model(made.seeded(head=True), model_id="x", preprocessing=RGB)
    batch = np.stack([to_tensor(image, RGB) for image in phantoms(9)])
    spec = as_spec(content, tmp_path, RGB)
    expected = OnnxEncoder(spec, threads=1, batch_size=16).encode(batch)
    for threads, batch_size in ((1, 1), (2, 2), (2, 5), (4, 16)):
        vectors = OnnxEncoder(spec, threads=threads, batch_size=batch_size).encode(batch)
        np.testing.assert_array_equal(vectors, expected)
