from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medsearch_desktop.errors import ModelAlteredError, ModelError, ModelMissingError
from medsearch_desktop.image.embed import ImageEncoder, OnnxEncoder
from medsearch_desktop.image.models import ModelSpec, find_model
from medsearch_desktop.image.preprocess import to_tensor

SIZE = 128


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder(find_model(), threads=2, batch_size=8)


@pytest.fixture(scope="module")
def batch() -> NDArray[np.float32]:
    """Eleven images: smooth, noisy, black, white and of other shapes; more than one batch of eight."""
    random = np.random.default_rng(20)
    ramp = np.tile(np.arange(256, dtype=np.uint8), (200, 1))
    images = [ramp, ramp.T, np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8)]
    images += [random.integers(0, 256, (170 + 9 * k, 250 - 7 * k), dtype=np.uint8) for k in range(4)]
    images += [np.clip(ramp * 0.5 + random.normal(60, 8, ramp.shape), 0, 255).astype(np.uint8) for _ in range(3)]
    return np.stack([to_tensor(image, find_model().preprocessing) for image in images])


def changed(spec: ModelSpec, folder: Path, content: bytes) -> ModelSpec:
    """Return a registry entry that describes `content` truly: what is wrong with it is not the checksum."""
    path = folder / "changed.onnx"
    path.write_bytes(content)
    return replace(spec, path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content), shipped=False)


def test_vectors_have_length_one_and_tell_images_apart(encoder: OnnxEncoder, batch: NDArray[np.float32]) -> None:
    vectors = encoder.encode(batch)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(batch), 1024)
    assert vectors.flags.c_contiguous
    assert encoder.dim == 1024
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=1e-6)
    cosines = vectors @ vectors.T
    assert cosines[0, 2] < 0.99
    assert cosines[2, 3] < 0.99


def test_encoder_is_an_image_encoder(encoder: OnnxEncoder) -> None:
    seam: ImageEncoder = encoder
    assert seam.model_id == find_model().model_id


def test_an_image_has_the_same_bits_alone_and_at_every_place(encoder: OnnxEncoder, batch: NDArray[np.float32]) -> None:
    alone = np.concatenate([encoder.encode(image[None]) for image in batch])
    for shift in range(8):
        together = encoder.encode(np.roll(batch, shift, axis=0))
        np.testing.assert_array_equal(np.roll(together, -shift, axis=0), alone)


@pytest.mark.parametrize(("threads", "batch_size"), [(1, 1), (1, 8), (2, 3), (4, 5), (3, 64)])
def test_neither_threads_nor_batches_change_a_bit(
    encoder: OnnxEncoder, batch: NDArray[np.float32], threads: int, batch_size: int
) -> None:
    other = OnnxEncoder(find_model(), threads=threads, batch_size=batch_size)
    np.testing.assert_array_equal(other.encode(batch), encoder.encode(batch))


def test_callers_in_threads_get_their_own_vectors(encoder: OnnxEncoder, batch: NDArray[np.float32]) -> None:
    expected = encoder.encode(batch)
    found: list[NDArray[np.float32] | None] = [None] * len(batch)

    def ask(place: int) -> None:
        found[place] = encoder.encode(batch[place : place + 1])

    callers = [threading.Thread(target=ask, args=(place,)) for place in range(len(batch))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    np.testing.assert_array_equal(np.concatenate([vector for vector in found if vector is not None]), expected)


def test_strided_and_empty_batches(encoder: OnnxEncoder, batch: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(encoder.encode(batch[::-2]), encoder.encode(batch)[::-2])
    assert encoder.encode(batch[:0]).shape == (0, 1024)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, SIZE, SIZE), np.float32),
        np.zeros((1, 1, SIZE, SIZE), np.float32),
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((1, 3, SIZE, SIZE - 1), np.float32),
        np.zeros((1, 3, 224, 224), np.float32),
        np.zeros((1, 3, SIZE, SIZE), np.float64),
        np.zeros((1, 3, SIZE, SIZE), np.uint8),
        np.zeros((1, 3, SIZE, SIZE), np.dtype(np.float32).newbyteorder()),
        np.float32(0),
        [[0.0]],
        None,
    ],
    ids=lambda wrong: f"{wrong.dtype}{wrong.shape}" if isinstance(wrong, np.ndarray) else type(wrong).__name__,
)
def test_wrong_batch_names_what_is_taken(encoder: OnnxEncoder, wrong: Any) -> None:
    with pytest.raises(ModelError, match=r"takes float32 \(n, 3, 128, 128\)"):
        encoder.encode(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_their_image(
    encoder: OnnxEncoder, batch: NDArray[np.float32], value: float
) -> None:
    spoilt = batch.copy()
    spoilt[9, 1, 80, 80] = value
    with pytest.raises(ModelError, match="image 9 of the batch"):
        encoder.encode(spoilt)


def test_overflow_inside_the_network_is_no_vector(encoder: OnnxEncoder, batch: NDArray[np.float32]) -> None:
    spoilt = batch.copy()
    spoilt[2] = np.float32(3e38)
    with pytest.raises(ModelError, match=r"image 2 .* without a direction"):
        encoder.encode(spoilt)


def test_altered_file_is_refused(tmp_path: Path) -> None:
    spec = find_model()
    copy = tmp_path / spec.path.name
    shutil.copyfile(spec.path, copy)
    with copy.open("r+b") as file:
        file.seek(spec.size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ModelAlteredError) as caught:
        OnnxEncoder(replace(spec, path=copy), threads=1, batch_size=1)
    assert str(copy) in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"gone\.onnx"):
        OnnxEncoder(replace(find_model(), path=tmp_path / "gone.onnx"), threads=1, batch_size=1)


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x08\x12\x00"], ids=["empty", "text", "hollow"])
def test_file_that_onnxruntime_refuses(tmp_path: Path, content: bytes) -> None:
    spec = changed(find_model(), tmp_path, content)
    with pytest.raises(ModelError, match="cannot load the model") as caught:
        OnnxEncoder(spec, threads=1, batch_size=1)
    assert caught.value.__cause__ is not None


def test_cut_off_network_is_refused(tmp_path: Path) -> None:
    whole = find_model()
    spec = changed(whole, tmp_path, whole.path.read_bytes()[:-1000])
    with pytest.raises(ModelError):
        OnnxEncoder(spec, threads=1, batch_size=1)


def test_network_of_another_form_is_refused() -> None:
    with pytest.raises(ModelError, match="vectors \\(n, 512\\)"):
        OnnxEncoder(replace(find_model(), dim=512), threads=1, batch_size=1)


def tiny_network(folder: Path, *, batch: str | int = "batch", side: str | int = "side", rows: int = -1) -> ModelSpec:
    """Return a registered network whose vector is the three channel means, reshaped to (rows, 3)."""
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'medsearch-desktop[export]'")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["means"]),
            helper.make_node("Reshape", ["means", "shape"], ["vector"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", real, [batch, 3, side, side])],
        [helper.make_tensor_value_info("vector", real, ["batch", 3])],
        [helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [rows, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return replace(changed(find_model(), folder, model.SerializeToString()), model_id="tiny", dim=3)


def test_another_network_of_that_form_is_taken(tmp_path: Path, batch: NDArray[np.float32]) -> None:
    vectors = OnnxEncoder(tiny_network(tmp_path, side=SIZE), threads=1, batch_size=4).encode(batch)
    means = batch.mean(axis=(2, 3), dtype=np.float64)
    np.testing.assert_allclose(vectors, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("form", [{"batch": 1}, {"side": 224}])
def test_network_of_fixed_batch_or_other_size_is_refused(tmp_path: Path, form: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=r"is not a network from images \(n, 3, 128, 128\)"):
        OnnxEncoder(tiny_network(tmp_path, **form), threads=1, batch_size=1)


def test_failure_inside_onnxruntime_is_translated(
    tmp_path: Path, batch: NDArray[np.float32], capfd: pytest.CaptureFixture[str]
) -> None:
    spec = tiny_network(tmp_path, rows=1)
    with pytest.raises(ModelError, match="the network failed on images of 128 x 128") as caught:
        OnnxEncoder(spec, threads=1, batch_size=2).encode(batch)
    assert "onnxruntime" in type(caught.value.__cause__).__module__
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_zero_vector_is_refused(tmp_path: Path, batch: NDArray[np.float32]) -> None:
    spoilt = batch.copy()
    spoilt[5] = 0
    with pytest.raises(ModelError, match=r"image 5 .* without a direction"):
        OnnxEncoder(tiny_network(tmp_path), threads=1, batch_size=2).encode(spoilt)


@pytest.mark.parametrize("options", [{"threads": 0, "batch_size": 8}, {"threads": 2, "batch_size": 0}])
def test_no_threads_or_no_batch(options: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="at least 1 thread"):
        OnnxEncoder(find_model(), **options)


ENCODE_ONCE = """
import numpy as np
from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.models import find_model
encoder = OnnxEncoder(find_model(), threads=1, batch_size=1)
print(encoder.encode(np.zeros((1, 3, 128, 128), np.float32)).tobytes().hex())
"""


def run_alone(home: Path) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    elsewhere = {"HOME": home, "USERPROFILE": home, "LOCALAPPDATA": home, "APPDATA": home, "TMPDIR": home, "TEMP": home}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    # A user's own setting must not bring it back.
    environ |= {name: str(path) for name, path in elsewhere.items()} | {"ORT_DISABLE_TELEMETRY": "0"}
    return subprocess.run(
        [sys.executable, "-B", "-c", ENCODE_ONCE], env=environ, capture_output=True, text=True, timeout=120, check=True
    )


def test_onnxruntime_leaves_no_trace_and_is_silent(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ran = run_alone(home)
    # Its telemetry begins with a device identifier and a queue of events in the user's cache folder.
    assert [str(path) for path in home.rglob("*")] == []
    assert ran.stderr == ""


def test_two_processes_give_the_same_bits(encoder: OnnxEncoder, tmp_path: Path) -> None:
    black = encoder.encode(np.zeros((1, 3, SIZE, SIZE), np.float32))
    assert run_alone(tmp_path / "home").stdout.strip() == black.tobytes().hex()


def test_importing_the_encoder_does_not_load_onnxruntime() -> None:
    code = "import sys, medsearch_desktop.image.embed; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
