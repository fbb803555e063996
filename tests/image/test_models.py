from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from medsearch_desktop.errors import ModelAlteredError, ModelError, ModelMissingError
from medsearch_desktop.image.models import MANIFEST, find_model, list_models, read_model, shipped_dir, verify

PREPROCESSING = {"size": 64, "resize": "crop", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def entry(folder: Path, **changes: Any) -> dict[str, Any]:
    content = b"not a network, but a file all the same"
    (folder / "own.onnx").write_bytes(content)
    fields = {
        "model_id": "own-64",
        "file": "own.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "dim": 256,
        "preprocessing": PREPROCESSING,
    }
    return {**fields, **changes}


def write_manifest(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / MANIFEST
    path.write_text(json.dumps({"format": 1, "models": list(entries)}), "utf-8")
    return path


def test_shipped_model_is_the_one_its_manifest_describes(tmp_path: Path) -> None:
    spec = find_model()
    verify(spec)
    assert spec.shipped
    assert spec.dim == 1024
    assert spec.preprocessing.size == 128
    assert spec.origin
    assert spec.licence
    assert spec in list_models(tmp_path)
    assert find_model(spec.model_id, extra_dir=tmp_path) == spec
    assert hashlib.sha256(read_model(spec)).hexdigest() == spec.sha256


def test_every_shipped_file_is_in_the_manifest(tmp_path: Path) -> None:
    listed = {spec.path.name for spec in list_models(tmp_path)}
    # That of regions is no model of a library's, and has a manifest of its own.
    listed.add(json.loads((shipped_dir() / "regions1.json").read_text("utf-8"))["file"])
    assert {path.name for path in shipped_dir().glob("*.onnx")} == listed


def test_user_models_follow_the_shipped_ones(tmp_path: Path) -> None:
    write_manifest(tmp_path, entry(tmp_path))
    deeper = tmp_path / "another"
    deeper.mkdir()
    write_manifest(deeper, entry(deeper, model_id="own-b"))
    specs = list_models(tmp_path)
    assert specs[0] == find_model()
    assert [spec.model_id for spec in specs[-2:]] == ["own-64", "own-b"]
    own = find_model("own-b", extra_dir=tmp_path)
    assert (own.shipped, own.dim, own.path) == (False, 256, deeper / "own.onnx")
    assert own.preprocessing.as_json() == PREPROCESSING
    verify(own)


def test_default_does_not_depend_on_the_users_folder(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{", "utf-8")
    assert find_model(extra_dir=tmp_path).shipped
    with pytest.raises(ModelError, match="cannot be read"):
        list_models(tmp_path)


def test_unknown_model_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=find_model().model_id) as caught:
        find_model("no-such", extra_dir=tmp_path)
    assert caught.value.item == "no-such"


def test_missing_file(tmp_path: Path) -> None:
    write_manifest(tmp_path, entry(tmp_path))
    (tmp_path / "own.onnx").unlink()
    with pytest.raises(ModelMissingError, match="Import the model again"):
        verify(find_model("own-64", extra_dir=tmp_path))


@pytest.mark.parametrize("place", [0, 20, -1])
def test_one_changed_bit_is_found(tmp_path: Path, place: int) -> None:
    write_manifest(tmp_path, entry(tmp_path))
    content = bytearray((tmp_path / "own.onnx").read_bytes())
    content[place] ^= 1
    (tmp_path / "own.onnx").write_bytes(content)
    with pytest.raises(ModelAlteredError, match="SHA-256"):
        verify(find_model("own-64", extra_dir=tmp_path))


def test_cut_off_file_is_found(tmp_path: Path) -> None:
    write_manifest(tmp_path, entry(tmp_path))
    (tmp_path / "own.onnx").write_bytes(b"not a")
    with pytest.raises(ModelAlteredError, match="5 bytes"):
        verify(find_model("own-64", extra_dir=tmp_path))


def test_unreadable_file_is_an_error_of_the_model(tmp_path: Path) -> None:
    write_manifest(tmp_path, entry(tmp_path))
    (tmp_path / "own.onnx").unlink()
    (tmp_path / "own.onnx").mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        verify(find_model("own-64", extra_dir=tmp_path))


@pytest.mark.parametrize("file", ["../own.onnx", "/etc/hostname", "a/b.onnx", "C:\\own.onnx", "", ".", ".."])
def test_a_manifest_reaches_no_file_outside_its_folder(tmp_path: Path, file: str) -> None:
    write_manifest(tmp_path, entry(tmp_path, file=file))
    with pytest.raises(ModelError, match="plain name"):
        list_models(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "ABC"},
        {"bytes": 0},
        {"bytes": "38"},
        {"dim": True},
        {"model_id": "two words"},
        {"preprocessing": {"size": 64}},
        {"preprocessing": 7},
        {"preprocessing": {**PREPROCESSING, "resize": "stretch"}},
    ],
)
def test_unsound_entry_names_the_manifest(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write_manifest(tmp_path, entry(tmp_path, **changes))
    with pytest.raises(ModelError, match="unsound") as caught:
        list_models(tmp_path)
    assert caught.value.item == str(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"format": 2, "models": []}', '{"format": 1}', '{"format": 1, "models": [7]}', "\xff"]
)
def test_damaged_manifest_names_itself(tmp_path: Path, text: str) -> None:
    path = tmp_path / MANIFEST
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError) as caught:
        list_models(tmp_path)
    assert caught.value.item == str(path)
    assert caught.value.remedy


def test_missing_key_is_named(tmp_path: Path) -> None:
    fields = entry(tmp_path)
    del fields["dim"]
    write_manifest(tmp_path, fields)
    with pytest.raises(ModelError, match="'dim' is missing"):
        list_models(tmp_path)


def test_two_models_of_one_name(tmp_path: Path) -> None:
    write_manifest(tmp_path, entry(tmp_path, model_id=find_model().model_id))
    with pytest.raises(ModelError, match="registered twice"):
        list_models(tmp_path)
