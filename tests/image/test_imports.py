"""Files that are refused before their weights matter; what needs torch is tried through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx_made as made
import pytest

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.imports import import_model
from medsearch_desktop.image.models import find_model, list_models, user_dir


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"hello", "is neither a torch checkpoint nor an ONNX file nor a bundle"),
        (b"<html>not found</html>", "is neither"),
        (b"cos\nsystem\n(S'true'\ntR.", "is neither"),
    ],
)
def test_a_file_that_is_nothing_of_the_kind(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "weights.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        import_model(path)
    assert caught.value.item == str(path)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        import_model(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 31}, "the side is from 32 to 2048"),
        ({"size": 4000}, "the side is from 32 to 2048"),
        ({"normalise": "other"}, "is none of imagenet, xrv, unit"),
        ({"trust": "ab" * 20}, "not a bundle"),
        ({"model_id": "../x"}, "not a plain name"),
        ({"model_id": find_model().model_id}, "registered already"),
    ],
)
def test_an_option_out_of_range(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x08\x08")
    with pytest.raises(ModelError, match=message):
        import_model(path, **options)


@pytest.mark.parametrize(
    ("name", "expected"), [("Enc oder (1).onnx", "Enc-oder-1"), ("...onnx", "model"), ("é.onnx", "model")]
)
def test_a_name_is_made_of_the_files(tmp_path: Path, name: str, expected: str) -> None:
    pytest.importorskip("onnx", reason="needs onnx: pip install 'medsearch-desktop[export]'")
    path = tmp_path / name
    path.write_bytes(made.small().SerializeToString())
    if path.suffix != ".onnx":
        pytest.skip("such a name has no ending here")
    assert import_model(path).spec.model_id == expected


@pytest.mark.parametrize(
    ("missing", "file", "head", "message"),
    [
        ("torch", "x.pt", b"\x80\x02", "torch is not installed. Run pip install 'medsearch-desktop[export]'"),
        ("onnx", "x.pt", b"\x80\x02", "onnx is not installed. Run pip install 'medsearch-desktop[export]'"),
        ("onnx", "x.onnx", b"\x08\x08", "onnx is not installed. Run pip install onnx"),
    ],
)
def test_a_missing_package_is_named_with_its_installation(
    tmp_path: Path, missing: str, file: str, head: bytes, message: str
) -> None:
    if missing == "onnx" and file == "x.pt":
        pytest.importorskip("torch", reason="needs the export extra: pip install 'medsearch-desktop[export]'")
    path = tmp_path / file
    path.write_bytes(head)
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from medsearch_desktop.serve.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "model", "import", str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert message in done.stderr


def test_bundles_need_neither_torch_nor_onnx(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from pathlib import Path\nimport onnx_made\nfrom medsearch_desktop.serve.cli import main\n"
        "onnx_made.own_model()\n"
        "for words in (['export', 'own-64', '-o', sys.argv[1]], ['remove', 'own-64'], ['import', sys.argv[1]]):\n"
        "    assert main(['model', *words]) == 0\n"
        "sys.exit(main(['model', 'verify', 'own-64']))"
    )
    paths = os.pathsep.join([str(Path(made.__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "own.msmodel")],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert (user_dir() / "own-64").is_dir()
    assert "own-64" in {spec.model_id for spec in list_models()}
