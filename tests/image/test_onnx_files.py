from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_made as made
import pytest

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.embed import OnnxEncoder
from medsearch_desktop.image.imports import import_model
from medsearch_desktop.image.models import find_model, list_models, read_model
from medsearch_desktop.image.preprocess import to_tensor

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'medsearch-desktop[export]'")


def vectors(model_id: str, *, images: int = 3) -> np.ndarray:
    spec = find_model(model_id)
    random = np.random.default_rng(1)
    films = [random.integers(0, 256, (90, 80), dtype=np.uint8) for _ in range(images)]
    batch = np.stack([to_tensor(film, spec.preprocessing) for film in films])
    return OnnxEncoder(spec, threads=1, batch_size=8).encode(batch)


def test_a_sound_file_is_registered_as_it_is(tmp_path: Path) -> None:
    path = made.save(made.small(), tmp_path / "encoder.onnx")
    done = import_model(path)
    assert (done.kind, done.notes) == ("ONNX", ())
    assert read_model(find_model("encoder")) == path.read_bytes()
    spec = find_model("encoder")
    assert (spec.dim, spec.preprocessing.size, spec.preprocessing.channels) == (1024, 64, 3)
    assert spec.preprocessing.mean == (0.485, 0.456, 0.406)
    assert vectors("encoder").shape == (3, 1024)


def test_one_channel(tmp_path: Path) -> None:
    done = import_model(made.save(made.small(channels=1), tmp_path / "grey.onnx"))
    assert done.spec.preprocessing.as_json() == {
        "size": 64,
        "resize": "squash",
        "mean": [0.5],
        "std": [1 / 2048],
        "channels": 1,
    }
    assert vectors("grey").shape == (3, 1024)
    told = import_model(tmp_path / "grey.onnx", model_id="grey-unit", normalise="unit").spec.preprocessing
    assert (told.mean, told.std) == ((0.0,), (1.0,))


def test_any_size_needs_a_size(tmp_path: Path) -> None:
    path = made.save(made.small(height="h", width="w"), tmp_path / "free.onnx")
    with pytest.raises(ModelError, match="--size 224"):
        import_model(path)
    assert import_model(path, size=64).spec.preprocessing.size == 64
    with pytest.raises(ModelError, match="takes images of 64 x 64, not of 96"):
        import_model(made.save(made.small(), tmp_path / "fixed.onnx"), size=96)


def test_a_file_of_our_own_says_how_its_input_is_prepared() -> None:
    shipped = find_model()
    done = import_model(shipped.path, model_id="copy")
    assert (done.spec.preprocessing, done.spec.sha256, done.notes) == (shipped.preprocessing, shipped.sha256, ())
    np.testing.assert_array_equal(vectors("copy"), vectors(""))


def test_a_size_that_no_film_fills_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the side is from 32 to 2048"):
        import_model(made.save(made.small(height=5000, width=5000), tmp_path / "huge.onnx"))


def test_a_size_at_which_the_network_fails_is_told(tmp_path: Path) -> None:
    path = made.save(made.small(height="h", width="w"), tmp_path / "free.onnx")
    with pytest.raises(ModelError, match="failed on images of 40 x 40"):
        import_model(path, size=40)
    assert [spec for spec in list_models() if not spec.shipped] == []


def test_a_fixed_batch_is_made_free(tmp_path: Path) -> None:
    import_model(made.save(made.small(), tmp_path / "free.onnx"))
    done = import_model(made.save(made.small(batch=1), tmp_path / "fixed.onnx"))
    assert done.notes == ("its fixed batch was made free",)
    np.testing.assert_array_equal(vectors("fixed"), vectors("free"))


def test_a_fixed_batch_inside_the_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Export it again with a free batch"):
        import_model(made.save(made.small(batch=1, end="Reshape"), tmp_path / "stuck.onnx"))
    assert [spec for spec in list_models() if not spec.shipped] == []


def test_vectors_of_undeclared_length_are_measured(tmp_path: Path) -> None:
    done = import_model(made.save(made.small(declared=["n", "length"]), tmp_path / "vague.onnx"))
    assert done.notes == ("its vectors were declared to have 1024 values",)
    assert vectors("vague").shape == (3, 1024)
    with pytest.raises(ModelError):
        import_model(made.save(made.small(dim=512, declared=["n", "length"]), tmp_path / "vague512.onnx"))


def beside(folder: Path, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "split.onnx"
    onnx.save_model(
        made.small(), path, save_as_external_data=True, location="split.data", size_threshold=0, convert_attribute=True
    )
    return path


def test_weights_beside_the_file_come_into_it(tmp_path: Path) -> None:
    path = beside(tmp_path / "both")
    done = import_model(path)
    assert done.notes == ("the weights beside it were put into it",)
    (path.parent / "split.data").unlink()
    import_model(made.save(made.small(), tmp_path / "whole.onnx"))
    np.testing.assert_array_equal(vectors("split"), vectors("whole"))
    with pytest.raises(ModelError, match=r"its weights are in 'split\.data', which is not beside it"):
        import_model(path, model_id="again")


@pytest.mark.parametrize("place", ["../secret", "/etc/hostname", "", "a/../../secret"])
def test_weights_outside_the_folder_are_not_read(tmp_path: Path, place: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(100_000))
    path = beside(tmp_path / "inner")
    model = onnx.load_model(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = place
    made.save(model, path)
    with pytest.raises(ModelError, match="asks for weights outside its folder"):
        import_model(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    path = beside(tmp_path / "inner")
    (tmp_path / "secret").write_bytes(bytes(100_000))
    (path.parent / "split.data").unlink()
    (path.parent / "split.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="asks for weights outside its folder"):
        import_model(path)


def test_weights_beside_the_file_that_are_cut_off(tmp_path: Path) -> None:
    path = beside(tmp_path / "cut")
    data = path.parent / "split.data"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ModelError, match="weight"):
        import_model(path)


def spoilt(value: float) -> np.ndarray:
    weight = np.ones((1024, 3, 2, 2), np.float32)
    weight[7, 1, 0, 1] = value
    return weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 512}, r"gives \(n, 512\) instead of \(n, 1024\)"),
        ({"declared": ["n", 1024, 1, 1]}, r"gives \(n, 1024, 1, 1\) instead"),
        ({"channels": 4}, "not 1 or 3 channels"),
        ({"channels": "c"}, "not 1 or 3 channels"),
        ({"channels": 64, "width": 3}, "the channels come last"),
        ({"height": 64, "width": 96}, "not squares"),
        ({"input_type": "FLOAT16"}, "takes FLOAT16 instead of FLOAT"),
        ({"end": "Secret", "domain": "com.example"}, r"operators that onnxruntime does not have: com\.example\.Secret"),
        ({"weight": spoilt(np.nan)}, "its weight 'weight' has values that are not finite"),
        ({"weight": spoilt(np.inf)}, "its weight 'weight' has values that are not finite"),
        ({"weight": np.zeros((1024, 3, 2, 2), np.float32)}, "without a direction"),
        ({"weight": np.ones((1024, 2, 2, 2), np.float32)}, "the network failed|cannot load"),
    ],
)
def test_an_unsound_network_is_refused_and_nothing_is_registered(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = made.save(made.small(**options), tmp_path / "unsound.onnx")
    with pytest.raises(ModelError, match=message):
        import_model(path)
    assert [spec for spec in list_models() if not spec.shipped] == []
    assert vectors("").shape == (3, 1024), "the old model goes on"


def test_more_inputs_or_outputs_are_refused(tmp_path: Path) -> None:
    model = made.small()
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(ModelError, match="has 2 inputs instead of one"):
        import_model(made.save(model, tmp_path / "x.onnx"))
    model = made.small()
    model.graph.output.append(onnx.helper.make_tensor_value_info("maps", onnx.TensorProto.FLOAT, None))
    with pytest.raises(ModelError, match="has 2 outputs instead of one"):
        import_model(made.save(model, tmp_path / "x.onnx"))


def test_a_bound_may_be_infinite(tmp_path: Path) -> None:
    model = made.small()
    model.graph.node[-1].output[0] = "flat"
    model.graph.node.append(onnx.helper.make_node("Clip", ["flat", "low"], ["vector"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(-np.inf, np.float32), "low"))
    assert import_model(made.save(model, tmp_path / "bound.onnx")).spec.model_id == "bound"


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    content = made.small().SerializeToString()
    random = np.random.default_rng(3)
    for length in [1, 5, 60, 200, *random.integers(1, len(content), 20)]:
        path = tmp_path / "cut.onnx"
        path.write_bytes(content[: int(length)])
        with pytest.raises(ModelError):
            import_model(path)
    for seed in range(50):
        path.write_bytes(b"\x08" + np.random.default_rng(seed).bytes(80))
        with pytest.raises(ModelError):
            import_model(path)
    assert [spec for spec in list_models() if not spec.shipped] == []
