"""The choice of an engine: by measurement, only among those that agree, remembered as long as nothing changes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsearch_desktop.config import Config, load_config
from medsearch_desktop.errors import ConfigError, ModelAlteredError, ModelError
from medsearch_desktop.image import engines
from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.engines import (
    EngineTrial,
    agreement,
    cache_file,
    fastest,
    films,
    open_encoder,
    try_engines,
)
from medsearch_desktop.image.models import ModelSpec, find_model
from medsearch_desktop.image.openvino_engine import OpenVinoEncoder, has_bfloat16

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="needs openvino: pip install 'medsearch-desktop[engine-openvino]'",
)
REFERENCE = EngineTrial("onnxruntime", "float32", 50.0, 50.0, 1.0)
FAST = EngineTrial("openvino", "bfloat16", 150.0, 200.0, 0.99998)
STRAYED = replace(FAST, cosine=0.9, refusal="its vectors stray")


def config(engine: str = "auto", **settings: Any) -> Config:
    return load_config({"engine": engine, "threads": 2, **settings})


@pytest.mark.parametrize(
    ("engine", "trials", "expected"),
    [
        ("auto", [REFERENCE], REFERENCE),
        ("auto", [REFERENCE, FAST], FAST),
        ("auto", [REFERENCE, STRAYED], REFERENCE),
        ("auto", [REFERENCE, replace(FAST, alone_per_s=52.0, batch_per_s=52.0)], REFERENCE),
        ("auto", [REFERENCE, replace(FAST, alone_per_s=20.0, batch_per_s=200.0)], "either"),
        ("onnxruntime", [REFERENCE, FAST], REFERENCE),
        ("openvino", [REFERENCE, replace(FAST, alone_per_s=1.0)], "either"),
    ],
)
def test_the_fastest_that_agrees_is_chosen(engine: str, trials: list[EngineTrial], expected: Any) -> None:
    assert fastest(trials, config(engine)) == (trials[1] if expected == "either" else expected)


def test_an_engine_that_is_named_but_refused_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"openvino cannot be used: in bfloat16, its vectors stray.*auto"):
        fastest([REFERENCE, STRAYED], config("openvino"))


def test_a_setting_that_is_no_engine_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="one of auto, onnxruntime, openvino"):
        config("tensorflow")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is not None, reason="needs a machine without openvino")
def test_without_openvino_nothing_is_measured_and_naming_it_says_how_to_install_it() -> None:
    assert isinstance(open_encoder(find_model(), config()), OnnxEncoder)
    assert not cache_file().exists()
    with pytest.raises(ModelError, match="engine-openvino"):
        open_encoder(find_model(), config("openvino"))


def test_onnxruntime_by_name_measures_nothing() -> None:
    assert isinstance(open_encoder(find_model(), config("onnxruntime")), OnnxEncoder)
    assert not cache_file().exists()


def test_films_are_the_same_at_every_call_and_differ_from_each_other() -> None:
    spec = find_model()
    np.testing.assert_array_equal(films(spec), films(spec))
    assert films(spec).shape == (8, 3, 128, 128)
    vectors = OnnxEncoder(spec, threads=2, batch_size=8).encode(films(spec))
    between = (vectors @ vectors.T)[~np.eye(8, dtype=bool)]
    # An engine that mixes up its images must not pass for one that agrees.
    assert between.max() < engines.LEAST_COSINE


def test_agreement_sees_one_image_that_strays() -> None:
    spec = find_model()
    encoder, batch = OnnxEncoder(spec, threads=2, batch_size=8), films(spec)
    expected = encoder.encode(batch)
    assert agreement(encoder, batch, expected) > 0.9999999
    assert agreement(encoder, batch, np.concatenate([expected[:6], expected[7:], expected[6:7]])) < 0.999


def test_an_altered_model_is_an_error_on_every_engine(tmp_path: Path) -> None:
    path = tmp_path / "altered.onnx"
    path.write_bytes(find_model().path.read_bytes()[:-1] + b"\x00")
    spec = replace(find_model(), path=path)
    for engine in ("auto", "onnxruntime"):
        with pytest.raises(ModelAlteredError):
            open_encoder(spec, config(engine))


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[EngineTrial]:
    """What the engines of this machine do, measured once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return try_engines(find_model(), config())


def test_a_trial_tells_speed_and_agreement(trials: list[EngineTrial]) -> None:
    assert (trials[0].engine, trials[0].precision, trials[0].cosine) == ("onnxruntime", "float32", 1.0)
    assert {trial.engine for trial in trials} == set(engines.installed_engines())
    for trial in trials:
        assert not trial.refusal
        assert trial.alone_per_s > 0
        assert trial.batch_per_s > 0
        assert engines.LEAST_COSINE <= trial.cosine <= 1


def remember(trials: list[EngineTrial], **changes: Any) -> None:
    """Write trials as of this machine, or of one that differs in `changes`."""
    conditions = engines._conditions(find_model(), config()) | changes
    entry = {"conditions": conditions, "trials": [asdict(trial) for trial in trials]}
    cache_file().parent.mkdir(parents=True, exist_ok=True)
    cache_file().write_text(json.dumps({"format": 1, "entries": [entry]}), "utf-8")


def test_what_is_remembered_is_not_measured_again() -> None:
    made_up = [REFERENCE, replace(FAST, alone_per_s=123.4)]
    remember(made_up)
    assert try_engines(find_model(), config()) == made_up


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "0" * 64},
        {"processor": "another"},
        {"threads": 3},
        {"engines": {"onnxruntime": "1.0"}},
        {"preprocessing": {}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_was_measured_under_other_conditions_does_not_count(changes: dict[str, Any]) -> None:
    now = engines._conditions(find_model(), config())
    assert changes.keys() <= now.keys()
    remember([REFERENCE], **changes)
    assert engines._recall(now) is None
    engines._remember(now, [REFERENCE, FAST])
    assert engines._recall(now) == [REFERENCE, FAST]
    # Both are kept: two numbers of threads in turns would otherwise be measured at every start.
    assert engines._recall(now | changes) == [REFERENCE]


def test_conditions_are_those_of_the_model_and_the_settings() -> None:
    spec = find_model()
    now = engines._conditions(spec, config())
    assert now != engines._conditions(spec, config(threads=3))
    assert now != engines._conditions(replace(spec, sha256="0" * 64), config())
    assert now != engines._conditions(replace(spec, preprocessing=replace(spec.preprocessing, size=224)), config())
    assert now == engines._conditions(spec, config("onnxruntime", batch_size=3))


def test_what_was_refused_is_tried_again_when_asked_to() -> None:
    remember([REFERENCE, STRAYED])
    assert try_engines(find_model(), config()) == [REFERENCE, STRAYED]
    assert try_engines(find_model(), config(), retry_refused=True)[0] != REFERENCE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"format": 1}',
        b'{"format": 2, "entries": []}',
        b'{"format": 1, "entries": [1]}',
        b'{"format": 1, "entries": [{"conditions": {}, "trials": []}]}',
        b'{"format": 1, "entries": [{"conditions": {}, "trials": [{"engine": "openvino"}]}]}',
        json.dumps(
            {"format": 1, "entries": [{"conditions": {}, "trials": [asdict(REFERENCE) | {"cosine": float("nan")}]}]}
        ).encode(),
    ],
    ids=range(10),
)
def test_a_damaged_cache_is_as_good_as_none(content: bytes) -> None:
    cache_file().parent.mkdir(parents=True, exist_ok=True)
    cache_file().write_bytes(content)
    assert engines._entries() == []
    engines._remember({"threads": 1}, [REFERENCE])
    assert engines._recall({"threads": 1}) == [REFERENCE]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file where the folder should be: root may write into a read-only folder.
    (tmp_path / "cache").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engines._remember({"threads": 1}, [REFERENCE])
    assert engines._recall({"threads": 1}) is None


def test_the_cache_stays_small_and_leaves_no_drafts() -> None:
    for threads in range(20):
        engines._remember({"threads": threads}, [REFERENCE])
    assert len(engines._entries()) == 16
    assert engines._recall({"threads": 19}) == [REFERENCE]
    assert engines._recall({"threads": 0}) is None
    assert [path.name for path in cache_file().parent.iterdir()] == ["engines.json"]


@needs_openvino
def test_auto_opens_what_the_trials_say() -> None:
    remember([REFERENCE, replace(FAST, precision="float32")])
    chosen = open_encoder(find_model(), config())
    assert isinstance(chosen, OpenVinoEncoder)
    assert (chosen.precision, chosen.batch_size) == ("float32", 8)
    remember([REFERENCE, STRAYED])
    assert isinstance(open_encoder(find_model(), config()), OnnxEncoder)
    with pytest.raises(ModelError, match="its vectors stray"):
        open_encoder(find_model(), config("openvino"))


def cancelling_network(folder: Path, *, last: str = "Identity", domain: str = "") -> ModelSpec:
    """Return a network of small differences between channels: bfloat16 has nothing between 1 and 1 + 1/128."""
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'medsearch-desktop[export]'")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.zeros((32, 3, 1, 1), np.float32)
    for place in range(32):
        weights[place, place % 3] = 1
        weights[place, (place + 1) % 3] = -1 - (place % 3) / 128 + 0.003 * (place * 7 % 5 - 2)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "weights"], ["differences"], kernel_shape=[1, 1]),
            helper.make_node("GlobalAveragePool", ["differences"], ["means"]),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node(last, ["flat"], ["vector"], domain=domain),
        ],
        "cancelling",
        [helper.make_tensor_value_info("images", real, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("vector", real, ["batch", 32])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    path = folder / "cancelling.onnx"
    path.write_bytes(content)
    return replace(
        find_model(),
        model_id="cancelling",
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        dim=32,
        preprocessing=replace(find_model().preprocessing, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    )


@needs_openvino
def test_an_engine_that_cannot_load_the_model_is_refused_and_never_in_the_way(tmp_path: Path) -> None:
    # An echo of onnxruntime's own, which no other engine knows.
    spec = cancelling_network(tmp_path, last="SampleOp", domain="com.microsoft")
    refused = [trial for trial in try_engines(spec, config()) if trial.engine == "openvino"]
    assert refused
    assert all("openvino cannot load the model" in trial.refusal for trial in refused)
    assert isinstance(open_encoder(spec, config()), OnnxEncoder)
    with pytest.raises(ModelError, match="Set engine to auto"):
        open_encoder(spec, config("openvino"))
    # As when something breaks after the measurement.
    remember([REFERENCE, FAST], model=spec.sha256, preprocessing=spec.preprocessing.as_json())
    assert isinstance(open_encoder(spec, config()), OnnxEncoder)
    with pytest.raises(ModelError, match="openvino cannot load the model"):
        open_encoder(spec, config("openvino"))


@needs_openvino
def test_a_precision_that_makes_another_model_is_refused_and_the_next_one_tried(tmp_path: Path) -> None:
    if not has_bfloat16():
        pytest.skip("this processor has no bfloat16: needs AVX512_BF16 or AMX")
    trials = {(trial.engine, trial.precision): trial for trial in try_engines(cancelling_network(tmp_path), config())}
    assert "stray" in trials["openvino", "bfloat16"].refusal
    assert trials["openvino", "bfloat16"].cosine < 0.999
    assert trials["openvino", "float32"].refusal == ""
