from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx_made as made
import pytest

from medsearch_desktop.errors import ModelError, ModelMissingError
from medsearch_desktop.image.models import MANIFEST, find_model, list_models, survey_models, user_dir, verify
from medsearch_desktop.image.registration import CARD, full_entry, read_card, register_model, remove_model


def own() -> list[str]:
    return [spec.model_id for spec in list_models() if not spec.shipped]


def test_a_model_comes_and_goes() -> None:
    spec = made.own_model(card=b"# Of a test")
    assert find_model("own-64") == spec
    verify(spec)
    assert read_card(spec) == b"# Of a test"
    assert full_entry(spec)["opset"] == 17
    assert sorted(path.name for path in spec.path.parent.iterdir()) == [CARD, MANIFEST, "own-64.onnx"]
    assert remove_model("own-64") == spec
    assert own() == []
    assert list(user_dir().iterdir()) == []
    with pytest.raises(ModelMissingError, match="Imported models are: none"):
        remove_model("own-64")


@pytest.mark.parametrize("model_id", ["", ".hidden", "a/b", "..", "two words", "a" * 129, "C:\\x", "naïve"])
def test_a_name_that_is_no_plain_name(model_id: str) -> None:
    with pytest.raises(ModelError, match="not a plain name"):
        made.own_model(model_id)


def test_a_name_that_is_taken() -> None:
    made.own_model()
    for model_id in ("own-64", "OWN-64", find_model().model_id):
        with pytest.raises(ModelError, match="registered already"):
            made.own_model(model_id)
    (user_dir() / "odd").mkdir()
    with pytest.raises(ModelError, match="is in the way"):
        made.own_model("odd")
    assert own() == ["own-64"]


def test_a_model_that_fails_its_check_leaves_nothing() -> None:
    def check(spec):
        verify(spec)
        raise ModelError("is not wanted")

    entry = full_entry(find_model()) | {"model_id": "own"}
    with pytest.raises(ModelError, match="is not wanted"):
        register_model(b"x", entry, check=check)
    assert list(user_dir().iterdir()) == []


def test_what_a_killed_import_left_is_no_model_and_goes_away() -> None:
    code = (
        "import os, pathlib, onnx_made\npathlib.Path.rename = lambda *_: os.kill(os.getpid(), 9)\nonnx_made.own_model()"
    )
    paths = os.pathsep.join([str(Path(made.__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, timeout=120)
    assert done.returncode == -9
    (left,) = user_dir().iterdir()
    assert (left / MANIFEST).is_file(), "killed at the last moment: all is written, nothing is in place"
    assert own() == []
    made.own_model()
    assert own() == ["own-64"]
    assert [path.name for path in user_dir().iterdir()] == ["own-64"]


def test_a_full_disk_leaves_nothing() -> None:
    pytest.importorskip("resource", reason="needs a system with file size limits, as Linux or macOS")
    code = (
        "import resource, sys, onnx_made\nfrom medsearch_desktop.errors import ModelError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: onnx_made.own_model()\nexcept ModelError as error: sys.exit(str(error))"
    )
    paths = os.pathsep.join([str(Path(made.__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "no model was registered" in done.stderr
    assert "the free space" in done.stderr
    assert list(user_dir().iterdir()) == []


def test_a_model_of_a_shared_manifest_is_removed_alone(tmp_path: Path) -> None:
    first = made.own_model("first", folder=tmp_path)
    entries = [full_entry(first), full_entry(first) | {"model_id": "second", "file": "second.onnx"}]
    (tmp_path / "second.onnx").write_bytes(first.path.read_bytes())
    (tmp_path / "first.onnx").write_bytes(first.path.read_bytes())
    remove_model("first", folder=tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 1, "models": entries, "kept": 7}), "utf-8")
    remove_model("first", folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, "second.onnx"]
    assert json.loads((tmp_path / MANIFEST).read_text("utf-8"))["kept"] == 7
    verify(find_model("second", extra_dir=tmp_path))


def test_a_shipped_model_stays_and_a_damaged_one_goes() -> None:
    with pytest.raises(ModelError, match="stays"):
        remove_model(find_model().model_id)
    spec = made.own_model()
    spec.path.unlink()
    remove_model("own-64")
    assert own() == []


def test_one_damaged_manifest_does_not_hide_the_others(tmp_path: Path) -> None:
    made.own_model("sound", folder=tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / MANIFEST).write_text("{", "utf-8")
    specs, problems = survey_models(tmp_path)
    assert "sound" in {spec.model_id for spec in specs}
    assert [problem.item for problem in problems] == [str(tmp_path / "broken" / MANIFEST)]
    assert find_model("sound", extra_dir=tmp_path).model_id == "sound"
    with pytest.raises(ModelError, match="cannot be read"):
        find_model("broken", extra_dir=tmp_path)
