"""`medsearch model`, command by command, with checkpoints under each publisher's keys."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints as made
import numpy as np
import onnx_made
import pytest

from medsearch_desktop.image.drift import phantoms
from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.models import MANIFEST, find_model, list_models, user_dir
from medsearch_desktop.image.preprocess import to_tensor
from medsearch_desktop.serve.cli import main

INSTALL = "needs the export extra: pip install 'medsearch-desktop[export]'"
SIZE = "64"


def ask(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> Any:
    """Run `medsearch model ... --json` and return what it printed."""
    capsys.readouterr()
    assert main(["model", *map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command that fails, show that the shipped model is left as the only one, and return the message."""
    capsys.readouterr()
    assert main(["model", *map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert [spec for spec in list_models() if not spec.shipped] == []
    return captured.err


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("onnx", reason=INSTALL)
    return pytest.importorskip("torch", reason=INSTALL)


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("kind", "style", "options", "resize", "scaling"),
    [
        ("torchvision", lambda net: made.torchvision(net, old=True), {}, "crop", IMAGENET),
        ("torchxrayvision", made.torchxrayvision, {"channels": 1}, "crop", ([0.5], [1 / 2048])),
        ("CheXNet", made.chexnet, {}, "crop", IMAGENET),
        ("MONAI", made.monai, {"channels": 1}, "squash", ([0.0], [1.0])),
        ("plain", lambda net: {"model": made.bare(net)}, {}, "squash", IMAGENET),
        ("MedSearch Desktop", lambda net: net.state_dict(), {"head": True}, "squash", IMAGENET),
    ],
)
def test_an_imported_checkpoint_gives_the_vectors_of_torch(
    torch: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    style: Callable[[Any], Any],
    options: dict[str, Any],
    resize: str,
    scaling: tuple[list[float], list[float]],
) -> None:
    network = made.seeded(**options)
    file = made.save(style(network), tmp_path / "weights.pt")
    told = ["--name", "own", "--origin", "Made here", "--licence", "MIT", "--size", SIZE]
    answer = ask(capsys, "import", file, *told)
    assert (answer["model_id"], answer["kind"], answer["shipped"]) == ("own", kind, False)
    assert (answer["origin"], answer["licence"]) == ("Made here", "MIT")
    prepared = answer["preprocessing"]
    assert (prepared["size"], prepared["resize"], (prepared["mean"], prepared["std"])) == (64, resize, scaling)

    spec = find_model("own")
    batch = np.stack([to_tensor(image, spec.preprocessing) for image in phantoms(4)])
    vectors = OnnxEncoder(spec, threads=1, batch_size=4).encode(batch)
    with torch.no_grad():
        reference = torch.nn.functional.normalize(network(torch.from_numpy(batch)), dim=1).numpy()
    assert (vectors * reference).sum(axis=1).min() > 0.9999
    assert len({vector.tobytes() for vector in vectors}) == 4
    entry = json.loads((spec.path.parent / MANIFEST).read_text("utf-8"))["models"][0]
    assert entry["drift"]["least_cosine"] >= 0.9999
    assert entry["source"]["kind"] == kind


def test_torchxrayvision_sees_what_its_makers_show_it(torch: Any, tmp_path: Path) -> None:
    file = made.save(made.torchxrayvision(made.seeded(channels=1)), tmp_path / "xrv.pt")
    assert main(["model", "import", str(file)]) == 0
    prepared = find_model("xrv").preprocessing
    assert prepared.size == 224
    levels = np.arange(256, dtype=np.uint8).repeat(224).reshape(256, 224)[:224]
    expected = (np.float32(levels) / 255 * 2048 - 1024)[None]
    np.testing.assert_allclose(to_tensor(levels, prepared), expected, atol=1e-3)


def test_an_imported_model_embeds(torch: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = made.save(made.monai(made.seeded(channels=1)), tmp_path / "monai.pt")
    assert main(["model", "import", str(file), "--size", SIZE]) == 0
    from PIL import Image as Raster

    Raster.fromarray(phantoms(1)[0]).save(tmp_path / "film.png")
    monkeypatch.setenv("MEDSEARCH_MODEL", "monai")
    capsys.readouterr()
    assert main(["embed", str(tmp_path / "film.png"), "-o", str(tmp_path / "out.npz")]) == 0
    stored = np.load(tmp_path / "out.npz")
    assert (stored["vectors"].shape, str(stored["model_id"])) == ((1, 1024), "monai")
    assert main(["doctor", "--library", str(tmp_path / "none")]) == 0
    assert "monai: its file is the one of the manifest" in capsys.readouterr().out
    assert main(["model", "remove", "monai"]) == 1
    assert "is the model that the settings name" in capsys.readouterr().err
    (row,) = [row for row in ask(capsys, "list") if row["default"]]
    assert (row["model_id"], row["channels"]) == ("monai", 1)


def test_a_checkpoint_whose_export_drifts_is_refused(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = made.torchvision(made.seeded())
    # Below half precision's smallest number, made up for by the normalisation that follows, but only in torch.
    faint = {name: value.clone() for name, value in state.items()}
    faint["features.conv0.weight"] *= 1e-8
    faint["features.norm0.running_mean"] *= 1e-8
    faint["features.norm0.running_var"] *= 1e-16
    faint["features.norm0.weight"] *= 1e8 * 1e-5**0.5
    assert "drifts from the original" in refused(
        capsys, "import", made.save(faint, tmp_path / "faint.pt"), "--size", SIZE
    )
    loud = {**state, "features.conv0.weight": state["features.conv0.weight"] * 1e8}
    assert "its export" in refused(capsys, "import", made.save(loud, tmp_path / "loud.pt"), "--size", SIZE)


def test_a_hostile_checkpoint_runs_nothing(torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class RunsCode:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "it-ran"),)

    file = made.save({"state_dict": RunsCode()}, tmp_path / "hostile.pt")
    message = refused(capsys, "import", file)
    assert re.search(r"asks to run \w+\.mkdir", message)
    assert "torch.save(model.state_dict(), FILE)" in message
    assert not (tmp_path / "it-ran").exists()


def test_a_checkpoint_with_too_little_is_refused(torch: Any, tmp_path: Path, capsys: Any) -> None:
    state = made.torchvision(made.seeded())
    del state["features.norm5.weight"]
    message = refused(capsys, "import", made.save(state, tmp_path / "less.pt"))
    assert "1 key is missing (features.norm5.weight)" in message


def test_an_import_that_is_killed_leaves_the_registry_as_it_was(torch: Any, tmp_path: Path) -> None:
    file = made.save(made.torchvision(made.seeded()), tmp_path / "weights.pt")
    # At the last moment: all is written, nothing is in place.
    code = (
        "import os, pathlib, sys; from medsearch_desktop.serve.cli import main\n"
        "pathlib.Path.rename = lambda *_: os.kill(os.getpid(), 9)\n"
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "model", "import", str(file), "--size", "224"]
    died = subprocess.run(command, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert list(user_dir().glob(".import-*/*.onnx"))
    assert [spec for spec in list_models() if not spec.shipped] == []
    assert main(["model", "verify"]) == 0
    assert main(["model", "import", str(file), "--size", SIZE]) == 0
    assert [path.name for path in user_dir().iterdir()] == ["weights"]


def test_list_tells_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    onnx_made.own_model()
    shipped, own = ask(capsys, "list")
    assert {"model_id", "default", "role", "vectors", "shipped", "dim", "size", "origin", "licence", "sha256"} <= set(
        own
    )
    assert (shipped["default"], shipped["shipped"], shipped["role"]) == (True, True, "")
    assert (own["model_id"], own["default"], own["shipped"], own["dim"], own["size"]) == (
        "own-64",
        False,
        False,
        1024,
        64,
    )
    assert main(["model", "list"]) == 0
    out = capsys.readouterr().out
    for fact in ("own-64", "the one of new libraries", "Apache-2.0", "A test", own["sha256"]):
        assert fact in out


def test_a_damaged_manifest_is_told_and_hides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    onnx_made.own_model()
    (user_dir() / "broken").mkdir()
    (user_dir() / "broken" / MANIFEST).write_text("{", "utf-8")
    assert main(["model", "list", "--json"]) == 0
    captured = capsys.readouterr()
    assert [row["model_id"] for row in json.loads(captured.out)][1:] == ["own-64"]
    assert "broken" in captured.err
    verdicts = ask(capsys, "verify", status=1)
    assert [verdict["ok"] for verdict in verdicts] == [True, True, False]
    assert "Mend or remove" in verdicts[2]["problem"]


def test_verify_looks_at_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    for model_id in ("altered", "sound", "gone"):
        onnx_made.own_model(model_id)
    altered = find_model("altered").path
    altered.write_bytes(altered.read_bytes()[:-1] + b"\0")
    find_model("gone").path.unlink()
    verdicts = {verdict["model_id"]: verdict for verdict in ask(capsys, "verify", status=1)}
    assert {name: verdict["ok"] for name, verdict in verdicts.items()} == {
        find_model().model_id: True,
        "altered": False,
        "gone": False,
        "sound": True,
    }
    assert "SHA-256" in verdicts["altered"]["problem"]
    assert "Import the model again" in verdicts["gone"]["problem"]
    assert ask(capsys, "verify", "sound") == [{"model_id": "sound", "ok": True, "problem": ""}]
    assert ask(capsys, "verify", "gone", status=1)[0]["ok"] is False
    assert main(["model", "verify", "none"]) == 1
    assert "Registered are: " in capsys.readouterr().err


def test_a_bundle_goes_from_one_user_to_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_made.own_model(card=b"# Card")
    bundle = tmp_path / "own.msmodel"
    sent = ask(capsys, "export", "own-64", "-o", bundle)
    assert sent["signer"] == ask(capsys, "key")["fingerprint"]
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "other"))
    message = refused(capsys, "import", bundle)
    assert f"--trust {sent['signer']}" in message
    got = ask(capsys, "import", bundle, "--trust", sent["signer"])
    assert (got["model_id"], got["signer"], got["licence"]) == ("own-64", sent["signer"], "Apache-2.0")
    assert ask(capsys, "key")["fingerprint"] != sent["signer"]
    assert ask(capsys, "remove", "own-64") == {"model_id": "own-64", "removed": True}
    assert main(["model", "import", str(bundle)]) == 0
    out = capsys.readouterr().out
    groups = " ".join(sent["signer"][start : start + 4] for start in range(0, 40, 4))
    for fact in (got["sha256"], "A test", "Apache-2.0", groups):
        assert fact in out


def test_the_shipped_model_can_be_carried_but_not_removed(tmp_path: Path, capsys: Any) -> None:
    ask(capsys, "export", find_model().model_id, "-o", tmp_path / "shipped.msmodel")
    assert "registered already" in refused(capsys, "import", tmp_path / "shipped.msmodel")
    assert "stays" in refused(capsys, "remove", find_model().model_id)


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["import"], ["export", "x"], ["import", "x", "--size", "many"]]
)
def test_wrong_usage_is_exit_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["model", *arguments])
    assert stop.value.code == 2


def test_a_folder_of_models_that_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(user_dir(), ignore_errors=True)
    user_dir().parent.mkdir(parents=True, exist_ok=True)
    user_dir().write_text("a file where the folder should be", "utf-8")
    pytest.importorskip("onnx", reason=INSTALL)
    path = onnx_made.save(onnx_made.small(), tmp_path / "small.onnx")
    assert "no model was registered" in refused(capsys, "import", path)
