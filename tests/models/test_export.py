from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.models import find_model, list_models, read_model
from medsearch_desktop.image.preprocess import Preprocessing, to_tensor

INSTALL = "needs the export extra: pip install 'medsearch-desktop[export]'"
torch = pytest.importorskip("torch", reason=INSTALL)
pytest.importorskip("onnx", reason=INSTALL)

REPOSITORY = Path(__file__).resolve().parents[2]
TOLD = ["--origin", "A test", "--licence", "Apache-2.0"]


@pytest.fixture(scope="module")
def export() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "models"))
    try:
        return importlib.import_module("export")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def films() -> Path:
    root = Path(os.environ.get("MEDSEARCH_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = root / "cxr" / "images"
    if not folder.is_dir():
        pytest.skip(f"no radiographs at {folder}: set MEDSEARCH_TEST_DATA to the folder that holds cxr/")
    return folder


@pytest.fixture(scope="module")
def trained(export: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 state dict whose normalisations have statistics, as after some training."""
    torch.manual_seed(7)
    network = export.DenseNet121()
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("trained") / "network.pt"
    torch.save(network.state_dict(), path)
    return path


def run(export: ModuleType, weights: Path, output: Path, *more: str) -> int:
    status: int = export.main([str(weights), "-o", str(output), "--model-id", "test-64", "--size", "64", *more])
    return status


def cosines(export: ModuleType, images: list[Any]) -> Any:
    spec = find_model()
    batch = np.stack([to_tensor(image, spec.preprocessing) for image in images])
    vectors = OnnxEncoder(spec, threads=2, batch_size=8).encode(batch)
    with torch.no_grad():
        reference = export.read_network(read_model(spec))(torch.from_numpy(batch))
    reference = torch.nn.functional.normalize(reference.double(), dim=1).numpy()
    return (vectors * reference).sum(axis=1)


def test_shipped_model_agrees_with_torch_on_made_up_films(export: ModuleType) -> None:
    assert cosines(export, [export.phantom(seed) for seed in range(16)]).min() >= 0.99999


def test_shipped_model_agrees_with_torch_on_films(export: ModuleType, films: Path) -> None:
    assert cosines(export, export.checked_images(films)[:16]).min() >= 0.99999


def test_shipped_file_is_what_the_script_writes(export: ModuleType) -> None:
    spec = find_model()
    content = read_model(spec)
    network = export.read_network(content)
    again = export.build_model(network, model_id=spec.model_id, preprocessing=spec.preprocessing)
    assert hashlib.sha256(again).hexdigest() == spec.sha256


def test_export_of_new_weights(export: ModuleType, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    assert run(export, trained, folder / "new.onnx", *TOLD) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "new.onnx"]
    (spec,) = [spec for spec in list_models(folder) if not spec.shipped]
    assert (spec.model_id, spec.dim, spec.origin, spec.licence) == ("test-64", 1024, "A test", "Apache-2.0")
    assert spec.preprocessing == Preprocessing(size=64, resize="squash", mean=export.MEAN, std=export.STD)
    assert read_model(spec) == (folder / "new.onnx").read_bytes()
    assert spec.size < 14_700_000
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["default"] == "test-64"
    assert manifest["models"][0]["drift"]["images"] == 64
    assert manifest["models"][0]["drift"]["least_cosine"] >= 0.9999

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(export, trained, folder / "new.onnx") == 0, "origin and licence stay as they were"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_trained_weights_with_a_map_are_exported_with_it(export: ModuleType, trained: Path, tmp_path: Path) -> None:
    state = {name: v for name, v in torch.load(trained, weights_only=True).items() if "num_batches" not in name}
    state["head.weight"] = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(3)) / 32
    state["head.bias"] = torch.linspace(-1, 1, 1024)
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "mapped.pt")
    assert run(export, tmp_path / "mapped.pt", tmp_path / "mapped.onnx", *TOLD) == 0
    network = export.read_network((tmp_path / "mapped.onnx").read_bytes())
    assert torch.equal(network.head.weight, state["head.weight"].half().float())
    films = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        pooled = torch.relu(network.features(films)).mean(dim=(2, 3))
        expected = pooled @ network.head.weight.T + network.head.bias
        torch.testing.assert_close(network(films), expected)


def test_drifting_weights_are_refused(
    export: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(trained, weights_only=True)
    # Far below half precision's smallest number: stored so, the layer falls silent. The normalisation after it
    # makes up for the scale, so that torch computes what it did: deviation is then that of epsilon, 1e-5.
    state["features.conv0.weight"] *= 1e-8
    state["features.norm0.running_mean"] *= 1e-8
    state["features.norm0.running_var"] *= 1e-16
    state["features.norm0.weight"] *= 1e8 * 1e-5**0.5
    torch.save(state, tmp_path / "faint.pt")
    folder = tmp_path / "models"
    folder.mkdir()
    assert run(export, tmp_path / "faint.pt", folder / "new.onnx", *TOLD) == 1
    assert "not written" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_overflowing_weights_are_refused(
    export: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(trained, weights_only=True)
    state["features.conv0.weight"] *= 1e8
    torch.save(state, tmp_path / "loud.pt")
    assert run(export, tmp_path / "loud.pt", tmp_path / "new.onnx", *TOLD) == 1
    assert "not written" in capsys.readouterr().err
    assert not (tmp_path / "new.onnx").exists()


def test_weights_of_another_network_are_refused(export: ModuleType, trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained, weights_only=True)
    del state["features.norm5.weight"]
    torch.save(state, tmp_path / "other.pt")
    assert run(export, tmp_path / "other.pt", tmp_path / "new.onnx", *TOLD) == 1
    assert run(export, tmp_path / "none.pt", tmp_path / "new.onnx", *TOLD) == 1
    assert not (tmp_path / "new.onnx").exists()


def test_origin_and_licence_must_be_told(
    export: ModuleType, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(export, trained, tmp_path / "new.onnx") == 1
    assert "--licence" in capsys.readouterr().err


def test_model_card_names_the_shipped_file() -> None:
    spec = find_model()
    card = (REPOSITORY / "models" / "MODEL_CARD.md").read_text("utf-8")
    assert spec.model_id in card
    assert spec.path.name in card
    assert spec.sha256 in card
