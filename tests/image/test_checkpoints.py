from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints as made
import numpy as np
import pytest

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.normalisation import NORMALISATIONS

torch = pytest.importorskip("torch", reason="needs the export extra: pip install 'medsearch-desktop[export]'")

from medsearch_desktop.image.checkpoints import KINDS, read_checkpoint, recognise  # noqa: E402
from medsearch_desktop.image.densenet import build_network  # noqa: E402


def prefixed(prefix: str) -> Callable[[Any], dict[str, Any]]:
    return lambda network: {f"{prefix}{name}": value for name, value in network.state_dict().items()}


STYLES = [
    ("torchvision", made.torchvision, 3),
    ("torchvision", lambda network: made.torchvision(network, old=True), 3),
    ("torchvision", lambda network: {"state_dict": made.torchvision(network)}, 3),
    ("torchvision", lambda network: {f"module.{k}": v for k, v in made.torchvision(network).items()}, 3),
    ("torchvision", lambda network: {"step": torch.tensor(3), "state_dict": made.torchvision(network)}, 3),
    ("torchxrayvision", made.torchxrayvision, 1),
    ("CheXNet", made.chexnet, 3),
    ("MONAI", made.monai, 1),
    ("MONAI", made.monai, 3),
    ("plain", lambda network: network.state_dict(), 3),
    ("plain", made.bare, 3),
    ("plain", lambda network: {"model": made.bare(network), "epoch": 3}, 3),
    ("plain", lambda network: {"model_state_dict": prefixed("encoder.backbone.")(network)}, 3),
    ("plain", prefixed("net.0."), 3),
    ("plain, one channel", made.bare, 1),
]


@pytest.mark.parametrize(("kind", "style", "channels"), STYLES)
def test_a_checkpoint_is_recognised_with_every_weight_in_its_place(
    tmp_path: Path, kind: str, style: Callable[[Any], Any], channels: int
) -> None:
    network = made.seeded(channels=channels)
    found = recognise(read_checkpoint(made.save(style(network), tmp_path / "x.pt")), item="x.pt")
    assert (found.kind.name, found.channels) == (kind, channels)
    rebuilt, expected = build_network(found.state).state_dict(), network.state_dict()
    assert list(rebuilt) == list(expected)
    assert all(torch.equal(rebuilt[name], expected[name]) for name in expected if "num_batches" not in name)


def test_own_weights_with_a_map_are_recognised(tmp_path: Path) -> None:
    network = made.seeded(head=True)
    state = {name: value.half() for name, value in network.state_dict().items() if "num_batches" not in name}
    found = recognise(read_checkpoint(made.save(state, tmp_path / "own.pt")), item="own.pt")
    assert (found.kind.name, found.left_out) == ("MedSearch Desktop", ())
    rebuilt = build_network(found.state)
    assert rebuilt.head is not None
    assert network.head is not None
    assert torch.equal(rebuilt.head.weight, network.head.weight.half().float())


def test_a_classifier_is_left_out_and_told() -> None:
    found = recognise(made.torchxrayvision(made.seeded(channels=1)), item="x")
    assert found.left_out == ("classifier.weight", "classifier.bias", "op_threshs")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_has_a_scaling_that_is_known(kind: Any) -> None:
    assert kind.normalise in NORMALISATIONS
    assert kind.resize in ("squash", "crop")


def test_missing_and_unexpected_keys_are_named_and_counted() -> None:
    state = made.torchvision(made.seeded())
    for number in range(1, 7):
        name = f"features.denseblock1.denselayer{number}.conv1.weight"
        state[name.replace("conv1", "convolution")] = state.pop(name)
    with pytest.raises(ModelError) as caught:
        recognise(state, item="renamed.pt")
    assert "6 keys are missing (features.denseblock1.denselayer1.conv1.weight, " in str(caught.value)
    assert "6 keys are unexpected (features.denseblock1.denselayer1.convolution.weight, " in str(caught.value)
    assert " and 2 more)" in str(caught.value)
    assert caught.value.item == "renamed.pt"


def test_another_network_is_told_by_its_keys() -> None:
    state = {f"layer{block}.0.conv1.weight": torch.zeros(64, 64, 3, 3) for block in range(1, 5)}
    with pytest.raises(ModelError, match=r"keys are missing .* 4 keys are unexpected \(layer1\.0\.conv1\.weight"):
        recognise(state, item="resnet.pt")


def test_a_deeper_densenet_is_told_by_its_layers() -> None:
    state = made.torchvision(made.seeded())
    state["features.denseblock3.denselayer25.norm1.weight"] = torch.zeros(1024)
    with pytest.raises(ModelError, match=r"1 key is unexpected \(features\.denseblock3\.denselayer25"):
        recognise(state, item="densenet169.pt")


def test_another_number_of_channels_is_told() -> None:
    with pytest.raises(ModelError, match="takes images of 4 channels, and only 1 and 3"):
        recognise(made.torchvision(made.seeded(channels=4)), item="x")


def test_two_networks_in_one_file_are_told() -> None:
    network = made.seeded()
    both = {**prefixed("student.")(network), **prefixed("teacher.")(network)}
    with pytest.raises(ModelError, match="more than one network: teacher"):
        recognise(both, item="x")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("features.conv0.weight", lambda value: value[:, :, :5, :5], r"64x3x5x5, a DenseNet121 has 64x3x7x7"),
        ("features.norm5.bias", lambda value: value * float("nan"), "not finite"),
        ("features.transition2.conv.weight", lambda value: value / 0, "not finite"),
        ("features.norm0.weight", lambda value: value.int(), "not a plain array"),
        ("features.norm0.weight", lambda value: value.to_sparse(), "not a plain array"),
    ],
)
def test_a_wrong_weight_is_named(name: str, change: Callable[[Any], Any], message: str) -> None:
    state = made.torchvision(made.seeded())
    state[name] = change(state[name])
    with pytest.raises(ModelError, match=rf"{re.escape(name)} .*{message}"):
        recognise(state, item="x")


def test_what_a_key_says_is_not_sent_to_the_terminal() -> None:
    state = {**made.torchvision(made.seeded()), "features.\x1b[2J": torch.zeros(1)}
    with pytest.raises(ModelError) as caught:
        recognise(state, item="x")
    assert "\x1b" not in str(caught.value)


class RunsCode:
    """What a hostile file holds: opened without care, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("where", ["state", "alone", "old form", "protocol 0", "protocol 4"])
def test_a_file_that_wants_to_run_code_is_refused_and_runs_none(tmp_path: Path, where: str) -> None:
    mark, path = tmp_path / "it-ran", tmp_path / "hostile.pt"
    hostile = RunsCode(mark)
    if where == "state":
        made.save({"state_dict": {**made.torchvision(made.seeded()), "x": hostile}}, path)
    elif where == "old form":
        made.save({"state_dict": hostile}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(hostile, protocol=int(where[-1]) if where != "alone" else 2))
    with pytest.raises(ModelError, match=r"torch\.save\(model\.state_dict\(\), FILE\)"):
        read_checkpoint(path)
    assert not mark.exists()
    # The files are what they are said to be: opened without care, they do run.
    if where in ("alone", "protocol 4"):
        pickle.loads(path.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize("new", [True, False])
def test_a_whole_module_is_refused_with_the_remedy(tmp_path: Path, new: bool) -> None:
    path = made.save(made.seeded(), tmp_path / "module.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(ModelError, match=r"asks to run medsearch_desktop\.image\.densenet\.DenseNet121") as caught:
        read_checkpoint(path)
    assert "torch.save(model.state_dict(), FILE)" in caught.value.remedy


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.5, 0.99, 0.99999])
def test_a_cut_off_checkpoint_is_refused(tmp_path: Path, new: bool, share: float) -> None:
    state = {"features.conv0.weight": torch.zeros(64, 3, 7, 7), "features.norm0.weight": torch.zeros(5000)}
    path = made.save(state, tmp_path / "whole.pt", _use_new_zipfile_serialization=new)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"is not a (whole )?torch checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3}, {"state_dict": {}}, {"model": {"model": {"model": {}}}}, 7])
def test_a_file_without_weights_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ModelError, match="holds no state dict"):
        read_checkpoint(made.save(value, tmp_path / "x.pt"))


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    random = np.random.default_rng(0)
    for _ in range(300):
        path.write_bytes(b"\x80\x02" + random.bytes(60))
        with pytest.raises(ModelError):
            read_checkpoint(path)
