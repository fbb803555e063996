"""OpenVINO keeps the contract of onnxruntime's encoder, and its Python package is kept from reporting."""

from __future__ import annotations

import hashlib
import importlib.util
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
from medsearch_desktop.image.engines import films
from medsearch_desktop.image.models import ModelSpec, find_model
from medsearch_desktop.image.openvino_engine import OpenVinoEncoder, Precision, has_bfloat16

# Not importorskip: importing it the plain way is what must never happen, in tests neither.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="needs openvino: pip install 'medsearch-desktop[engine-openvino]'",
)

SIZE = 128


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    if request.param == "bfloat16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16: needs AVX512_BF16 or AMX")
    return "bfloat16" if request.param == "bfloat16" else "float32"


@pytest.fixture(scope="module")
def encoder(precision: Precision) -> OpenVinoEncoder:
    return OpenVinoEncoder(find_model(), threads=2, batch_size=8, precision=precision)


@pytest.fixture(scope="module")
def batch() -> NDArray[np.float32]:
    """Eleven films: more than one batch of eight, and not a multiple of two streams."""
    return films(find_model(), 11)


def test_vectors_are_those_of_the_model(encoder: OpenVinoEncoder, batch: NDArray[np.float32]) -> None:
    seam: ImageEncoder = encoder
    vectors = seam.encode(batch)
    expected = OnnxEncoder(find_model(), threads=2, batch_size=8).encode(batch)
    assert vectors.dtype == np.float32
    assert vectors.shape == (11, 1024)
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=1e-6)
    least = 0.9999 if encoder.precision == "bfloat16" else 0.9999999
    assert (vectors.astype(np.float64) * expected).sum(axis=1).min() > least
    # Otherwise a network that gives all images one vector would agree as well.
    assert (expected @ expected.T).min() < 0.99


def test_an_image_has_the_same_bits_alone_and_at_every_place(
    encoder: OpenVinoEncoder, batch: NDArray[np.float32]
) -> None:
    alone = np.concatenate([encoder.encode(image[None]) for image in batch])
    for shift in range(4):
        together = encoder.encode(np.roll(batch, shift, axis=0))
        np.testing.assert_array_equal(np.roll(together, -shift, axis=0), alone)


@pytest.mark.parametrize(("threads", "batch_size"), [(1, 1), (1, 8), (3, 5)])
def test_neither_threads_nor_batches_change_a_bit(
    encoder: OpenVinoEncoder, batch: NDArray[np.float32], threads: int, batch_size: int
) -> None:
    other = OpenVinoEncoder(find_model(), threads=threads, batch_size=batch_size, precision=encoder.precision)
    np.testing.assert_array_equal(other.encode(batch), encoder.encode(batch))


def test_callers_in_threads_get_their_own_vectors(encoder: OpenVinoEncoder, batch: NDArray[np.float32]) -> None:
    expected = encoder.encode(batch)
    found: list[NDArray[np.float32] | None] = [None] * len(batch)

    def ask(place: int) -> None:
        # Singles and pairs go through different requests.
        found[place] = encoder.encode(batch[place : place + 1 + place % 2])[:1]

    callers = [threading.Thread(target=ask, args=(place,)) for place in range(len(batch))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    np.testing.assert_array_equal(np.concatenate([vector for vector in found if vector is not None]), expected)


def test_strided_and_empty_batches(encoder: OpenVinoEncoder, batch: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(encoder.encode(batch[::-2]), encoder.encode(batch)[::-2])
    assert encoder.encode(batch[:0]).shape == (0, 1024)


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, SIZE, SIZE), np.float32), np.zeros((1, 3, SIZE, SIZE), np.float64), None], ids=str
)
def test_wrong_batch_names_what_is_taken(encoder: OpenVinoEncoder, wrong: Any) -> None:
    with pytest.raises(ModelError, match=r"takes float32 \(n, 3, 128, 128\)"):
        encoder.encode(wrong)


def test_values_that_are_not_finite_name_their_image(encoder: OpenVinoEncoder, batch: NDArray[np.float32]) -> None:
    spoilt = batch.copy()
    spoilt[9, 1, 80, 80] = np.nan
    with pytest.raises(ModelError, match="image 9 of the batch"):
        encoder.encode(spoilt)


def test_values_that_would_overflow_inside_the_network_name_their_image(
    encoder: OpenVinoEncoder, batch: NDArray[np.float32]
) -> None:
    spoilt = batch.copy()
    spoilt[2, 0, 0, 0] = np.float32(-3e38)
    with pytest.raises(ModelError, match=r"image 2 of the batch has values beyond 1e\+06"):
        encoder.encode(spoilt)


def open_plain(spec: ModelSpec) -> OpenVinoEncoder:
    return OpenVinoEncoder(spec, threads=1, batch_size=1, precision="float32")


def changed(folder: Path, content: bytes) -> ModelSpec:
    path = folder / "changed.onnx"
    path.write_bytes(content)
    return replace(
        find_model(), path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content), shipped=False
    )


def test_altered_or_missing_file_is_refused(tmp_path: Path) -> None:
    spec = find_model()
    copy = tmp_path / spec.path.name
    with pytest.raises(ModelMissingError, match=copy.name):
        open_plain(replace(spec, path=copy))
    shutil.copyfile(spec.path, copy)
    with copy.open("r+b") as file:
        file.write(b"\x00")
    with pytest.raises(ModelAlteredError, match=copy.name):
        open_plain(replace(spec, path=copy))


# The path of a file is no model either: bytes are never taken for a name.
@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x08\x12\x00", os.fsencode(__file__)])
def test_file_that_openvino_refuses(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match="openvino cannot load the model") as caught:
        open_plain(changed(tmp_path, content))
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)
    assert "Import the model again" in str(caught.value)


def test_cut_off_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="openvino cannot load the model"):
        open_plain(changed(tmp_path, find_model().path.read_bytes()[:-1000]))


def test_network_of_another_form_is_refused() -> None:
    with pytest.raises(ModelError, match="vectors \\(n, 512\\)"):
        open_plain(replace(find_model(), dim=512))


@pytest.mark.parametrize("options", [{"threads": 0, "batch_size": 8}, {"threads": 2, "batch_size": 0}])
def test_no_threads_or_no_batch(options: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="at least 1 thread"):
        OpenVinoEncoder(find_model(), precision="float32", **options)


ENCODE_ONCE = """
import socket, subprocess, sys
def refuse(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.posix_spawn", "urllib.")):
        print(event, arguments)
sys.addaudithook(refuse)
import numpy as np
from medsearch_desktop.image.models import find_model
from medsearch_desktop.image.openvino_engine import OpenVinoEncoder
encoder = OpenVinoEncoder(find_model(), threads=1, batch_size=1, precision="float32")
encoder.encode(np.zeros((1, 3, 128, 128), np.float32))
print(*[name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module])
"""


def test_openvino_reports_nothing_and_leaves_no_trace(tmp_path: Path) -> None:
    elsewhere = dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "TMPDIR", "TEMP"), str(tmp_path))
    # It keeps still by itself where CI is set: that must not be what makes this test pass.
    dropped = ("XDG_", "ORT_", "CI", "TF_BUILD", "JENKINS_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | elsewhere
    ran = subprocess.run(
        [sys.executable, "-B", "-c", ENCODE_ONCE], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    assert ran.stdout.strip() == ""
    assert ran.stderr == ""
    assert [str(path) for path in tmp_path.rglob("*")] == []


def test_importing_the_engine_does_not_load_openvino() -> None:
    code = "import sys, medsearch_desktop.image.engines; sys.exit('openvino' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
