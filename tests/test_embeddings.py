"""Several models in one library: which is in use, changing it, and what holds when a model has gone."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import Film, dataset, register_model, uid, write_department

from medsearch_desktop import reembed
from medsearch_desktop.errors import (
    LibraryError,
    ModelAlteredError,
    ModelError,
    ModelMissingError,
)
from medsearch_desktop.image.models import find_model
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import IngestEvent, ModelRole, SwitchEvent

OWN = "own-64"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of twelve studies and a library that knows it by the shipped model."""
    folder = tmp_path_factory.mktemp("embeddings")
    write_department(folder / "source", studies=12)
    with open_library(folder / "library", create=True) as library:
        library.ingest([folder / "source"])
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def own(data: Path) -> Path:
    """The file of a second model."""
    return register_model(data, OWN)


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """A library of this test's own."""
    shutil.copytree(made / "library", tmp_path / "library")
    return tmp_path / "library"


def stored(library: Library, model_id: str) -> dict[int, bytes]:
    rows = library._database.read_arrays(
        "SELECT image_no, vector FROM vectors WHERE model_id = $m ORDER BY ALL", {"m": model_id}
    )
    assert len(set(rows["image_no"].tolist())) == len(rows["image_no"])
    return {no: np.asarray(v).tobytes() for no, v in zip(rows["image_no"].tolist(), rows["vector"], strict=True)}


def scores(library: Library, model: str = "") -> list[float]:
    return [hit.score for hit in library.similar(uid(1, 1, 1), k=50, model=model).hits]


def test_a_switch_embeds_everything_and_going_back_is_instant(path: Path, own: Path) -> None:
    shipped = find_model().model_id
    with open_library(path) as library:
        before = scores(library)
        steps: list[SwitchEvent] = []
        done = library.use_model(OWN, on_event=steps.append).join()
        assert (done.before, done.model_id, done.in_use, done.images, done.kept) == (shipped, OWN, True, 24, 0)
        assert (done.offline, done.failed, done.failures) == (0, 0, ())
        assert (steps[0].stage, steps[-1].stage, steps[-1].settled, steps[-1].total) == ("embedding", "done", 24, 24)
        assert [step.settled for step in steps] == sorted(step.settled for step in steps)
        assert library.similar(uid(1, 1, 1)).model_id == library.model_id == OWN
        after = scores(library)
        assert len(after) == len(before) == 23
        assert after != before
        assert library.totals().vectors == library.vectors.count == 24
        assert scores(library, shipped) == before
    with open_library(path, model=shipped) as library:
        assert library.model_id == OWN
        assert scores(library) == after
        back = library.use_model(shipped).join()
        assert (back.images, back.kept, back.in_use) == (0, 24, True)
        assert scores(library) == before
        roles = {held.model_id: (held.role, held.vectors) for held in library.models()}
        assert roles == {shipped: (ModelRole.IN_USE, 24), OWN: (ModelRole.KEPT, 24)}


def test_the_vectors_are_those_of_an_ingest_with_that_model(made: Path, path: Path, own: Path, tmp_path: Path) -> None:
    with open_library(path) as library:
        library.use_model(OWN)
        switched = [(hit.image_id, hit.score) for hit in library.similar(uid(1, 1, 1), k=50).hits]
    with open_library(tmp_path / "fresh", create=True, model=OWN) as library:
        library.ingest([made / "source"])
        assert library.model_id == OWN
        assert [(hit.image_id, hit.score) for hit in library.similar(uid(1, 1, 1), k=50).hits] == switched


def test_frames_are_those_that_were_indexed(tmp_path: Path, own: Path) -> None:
    ds = dataset(Film(size=32))
    ds.NumberOfFrames = 7
    ds.PixelData = np.random.default_rng(1).integers(0, 4096, (7, 32, 32), dtype=np.uint16).tobytes()
    (tmp_path / "source").mkdir()
    ds.save_as(tmp_path / "source" / "cine.dcm", enforce_file_format=True)
    with open_library(tmp_path / "library", create=True, max_frames=3) as library:
        library.ingest([tmp_path / "source"])
    with open_library(tmp_path / "library", max_frames=8) as library:
        done = library.use_model(OWN).join()
        assert (done.images, done.failed) == (3, 0)


def test_images_of_an_unfinished_switch_are_asked_with_either_model_and_never_mix(path: Path, own: Path) -> None:
    shipped = find_model().model_id
    with open_library(path, batch_size=2, threads=1) as library:
        old = stored(library, shipped)
        switch_steps: list[int] = []

        def stop_early(event: SwitchEvent) -> None:
            switch_steps.append(event.settled)
            if library.switch is not None and len(switch_steps) > 6:
                library.switch.cancel()

        done = library.use_model(OWN, on_event=stop_early).join()
        assert not done.in_use
        assert 0 < done.images < 24
        assert library.model_id == shipped
        assert scores(library) == scores(library, shipped)
        partly = library.similar(uid(1, 1, 1), k=50, model=OWN)
        assert partly.model_id == OWN
        assert len(partly.hits) == done.images - 1
        assert f"{done.images} images of 24" in partly.notes[0]
        assert stored(library, shipped) == old
        roles = {held.model_id: held.role for held in library.models()}
        assert roles == {shipped: ModelRole.IN_USE, OWN: ModelRole.NEXT}
        # Nothing in one index is of the other model, and equal bytes would be a coincidence.
        assert set(stored(library, OWN).values()).isdisjoint(old.values())
        again = library.use_model(OWN).join()
        assert (again.images, again.kept, again.in_use) == (24 - done.images, done.images, True)
        assert stored(library, shipped) == old
        for model_id in (OWN, shipped):
            index = library._embeddings.index_of(model_id)
            for number, vector in stored(library, model_id).items():
                assert index.vectors_of(np.array([number]))[0].tobytes() == vector


def test_in_the_background_questions_are_answered_and_an_ingest_is_caught_up_with(
    made: Path, path: Path, own: Path, tmp_path: Path
) -> None:
    shipped = find_model().model_id
    write_department(tmp_path / "more", studies=4, first=100)
    with open_library(path, batch_size=2) as library:
        before = scores(library)
        reached, go_on = threading.Event(), threading.Event()

        def wait(event: SwitchEvent) -> None:
            if event.settled >= 4:
                reached.set()
                go_on.wait(300)

        switch = library.use_model(OWN, on_event=wait, background=True)
        assert reached.wait(60)
        assert switch.running
        assert (library.model_id, scores(library)) == (shipped, before)
        assert switch.event.settled >= 4
        assert library.search("effusion").total > 0
        with pytest.raises(LibraryError, match="under way"):
            library.use_model(shipped)
        with pytest.raises(LibraryError, match="under way"):
            library.drop_model(OWN)
        assert library.ingest([tmp_path / "more"]).images == 8
        go_on.set()
        done = switch.join(120)
        assert done.in_use
        assert done.images == 32
        assert library.model_id == OWN
        assert library.waiting_images() == 0
        assert library.vectors.count == 32


def test_closing_ends_a_switch_that_goes_on_another_time(path: Path, own: Path) -> None:
    library = open_library(path, batch_size=1, threads=1)
    reached = threading.Event()

    def wait_to_be_told(event: SwitchEvent) -> None:
        if event.settled and library.switch is not None:
            reached.set()
            library.switch.stop.wait(60)

    switch = library.use_model(OWN, on_event=wait_to_be_told, background=True)
    assert reached.wait(60)
    library.close()
    assert not switch.running
    done = switch.join()
    assert not done.in_use
    with open_library(path) as library:
        assert library.use_model(OWN).join().kept == done.images


@pytest.mark.parametrize("background", [False, True])
def test_what_cannot_be_loaded_is_told_at_once_and_changes_nothing(path: Path, data: Path, background: bool) -> None:
    register_model(data, "broken", content=b"not a network")
    with open_library(path) as library:
        before = library.models()
        with pytest.raises(ModelError, match="cannot load"):
            library.use_model("broken", background=background)
        assert library.models() == before
        assert library.similar(uid(1, 1, 1)).hits


def test_an_error_in_the_background_reaches_whoever_joins(path: Path, own: Path) -> None:
    def fail(event: SwitchEvent) -> None:
        if event.settled:
            raise LibraryError("the disk has gone")

    with open_library(path) as library:
        with pytest.raises(LibraryError, match="the disk has gone"):
            library.use_model(OWN, on_event=fail, background=True).join(60)
        assert library.model_id == find_model().model_id
        assert library.switch is not None
        assert not library.switch.running
        assert library.use_model(OWN).join().in_use


def test_a_film_that_is_away_holds_nothing_up_and_comes_after(tmp_path: Path, own: Path) -> None:
    shipped = find_model().model_id
    source = write_department(tmp_path / "source", studies=4)
    away, changed = sorted(source.rglob("image2.dcm"))[:2]
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        away.rename(tmp_path / "away.dcm")
        # Another picture than the one that the library shows: an ingest has to see it first.
        changed.write_bytes(changed.read_bytes() + b"\0\0")
        done = library.use_model(OWN).join()
        assert done.in_use
        assert (done.images, done.offline, done.failed) == (6, 1, 1)
        assert {failure.path for failure in done.failures} == {str(away), str(changed)}
        assert (library.waiting_images(), library.unembedded()) == (2, [])
        # The old model still finds what the new one has not seen.
        assert str(away) in {hit.path for hit in library.similar(uid(2, 4, 1), k=50, model=shipped).hits}
        assert str(away) not in {hit.path for hit in library.similar(uid(2, 4, 1), k=50).hits}

        (tmp_path / "away.dcm").rename(away)
        events: list[IngestEvent] = []
        summary = library.ingest([source], on_event=events.append)
        assert (summary.updated, summary.caught_up) == (1, 1)
        assert events[-1].stage == "vector"
        assert library.waiting_images() == 0
        assert str(away) in {hit.path for hit in library.similar(uid(2, 4, 1), k=50).hits}
        assert library.ingest([source]).caught_up == 0
        assert library.vectors.count == 8


def test_a_film_that_cannot_be_decoded_is_listed_and_tried_again_when_asked(tmp_path: Path, own: Path) -> None:
    source = write_department(tmp_path / "source", studies=2)
    large = source / "large.dcm"
    dataset(Film(study=9, size=128)).save_as(large, enforce_file_format=True)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
    with open_library(tmp_path / "library", max_pixels=10_000) as library:
        done = library.use_model(OWN).join()
        assert (done.in_use, done.images, done.failed) == (True, 4, 1)
        (failure,) = done.failures
        assert failure.path == str(large)
        assert library.unembedded() == [failure]
    with open_library(tmp_path / "library") as library:
        assert library.ingest([source]).caught_up == 0
        assert library.waiting_images() == 1
        assert library.use_model(OWN).join().images == 1
        assert (library.waiting_images(), library.unembedded()) == (0, [])
        large.unlink()
        library.ingest([source])
        assert library.vectors.count == library.totals().vectors == 4


def test_a_fault_of_the_program_costs_one_film(path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = reembed.decode

    def at_fault(*args: Any, **options: Any) -> Any:
        if options["name"].endswith("image1.dcm"):
            raise ZeroDivisionError("Test^Patient")
        return real(*args, **options)

    monkeypatch.setattr(reembed, "decode", at_fault)
    with open_library(path) as library:
        total = library.totals().images
        done = library.use_model(OWN).join()
        assert done.in_use
        assert done.failed > 0
        assert done.images + done.failed == total
        assert all("(ZeroDivisionError at reembed.py:" in failure.reason for failure in done.failures)


def test_what_only_its_header_is_known_of_waits_for_an_ingest(tmp_path: Path, own: Path) -> None:
    source = write_department(tmp_path / "source", studies=2)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source], metadata_only=True)
        done = library.use_model(OWN).join()
        assert (done.images, done.failed, done.in_use) == (0, 0, True)
        assert library.ingest([source]).images == 4
        assert library.vectors.count == 4
        assert stored(library, find_model().model_id) == {}


def test_dropping_a_model(path: Path, own: Path) -> None:
    shipped = find_model().model_id
    with open_library(path) as library:
        with pytest.raises(ModelError, match="in use"):
            library.drop_model(shipped)
        with pytest.raises(ModelError, match="nothing of this model"):
            library.drop_model(OWN)
        library.use_model(OWN)
        scores(library, shipped)
        assert library.drop_model(shipped) == 24
        assert stored(library, shipped) == {}
        assert [held.model_id for held in library.models()] == [OWN]
        assert not (path / "indexes" / f"vectors-{shipped}").exists()
        with pytest.raises(ModelError, match=f"There are vectors of: {OWN}"):
            library.similar(uid(1, 1, 1), model=shipped)
        assert library.use_model(shipped).join().images == 24


def test_a_library_keeps_its_model_whatever_the_setting_says(made: Path, path: Path, own: Path) -> None:
    shipped = find_model().model_id
    for setting in (OWN, "no-such-model"):
        with open_library(path, model=setting) as library:
            assert library.model_id == library.model.model_id == shipped
            assert len(scores(library)) == 23


def test_a_new_library_begins_with_the_model_of_the_setting(tmp_path: Path, own: Path) -> None:
    with open_library(tmp_path / "library", create=True, model=OWN) as library:
        assert library.model_id == OWN
    with open_library(tmp_path / "library") as library:
        assert library.model_id == OWN
    with pytest.raises(ModelMissingError, match="no-such-model"):
        open_library(tmp_path / "other", create=True, model="no-such-model")
    assert not (tmp_path / "other").exists()


def test_a_library_from_before_has_the_model_of_its_vectors(path: Path, own: Path) -> None:
    with open_library(path) as library:
        library._database.write("DROP TABLE models")
        library._database.write("DROP TABLE unembedded")
        library._database.write("DROP TABLE curves")
        library._database.write("DELETE FROM migrations WHERE number = 2")
    with open_library(path, model=OWN) as library:
        assert library.model_id == find_model().model_id
        assert len(scores(library)) == 23


def test_a_model_that_has_gone_leaves_what_is_stored(made: Path, tmp_path: Path, data: Path, own: Path) -> None:
    source = write_department(tmp_path / "source", studies=4)
    with open_library(tmp_path / "library", create=True, model=OWN) as library:
        library.ingest([source])
        before = scores(library)
    shutil.rmtree(own.parent)
    film = min(source.rglob("*.dcm"))
    with open_library(tmp_path / "library") as library:
        assert library.model_id == OWN
        assert library.search("effusion").total > 0
        assert library.search(f"effusion like:{uid(1, 1, 1)}").total > 0
        assert scores(library) == before
        remedy = f"`medsearch model use ID` .*{find_model().model_id}"
        for ask in (
            lambda: library.similar(film),
            lambda: library.similar(uid(1, 1, 1), roi=(0, 0, 32, 32)),
            lambda: library.model,
        ):
            with pytest.raises(ModelMissingError, match=remedy):
                ask()
        # Nothing to embed, nothing amiss; then headers alone; then pixels.
        assert library.ingest([source]).unchanged == 12
        write_department(source, studies=1, first=50)
        assert library.ingest([source], metadata_only=True).indexed == 3
        with pytest.raises(ModelMissingError, match=remedy):
            library.ingest([source])
        library.use_model(find_model().model_id)
        assert library.ingest([source]).failed == 0
        assert library.vectors.count == 10


def test_a_file_that_is_missing_or_altered_is_told(path: Path, own: Path) -> None:
    content = own.read_bytes()
    altered = bytearray(content)
    altered[1000] ^= 1
    own.write_bytes(altered)
    with open_library(path) as library, pytest.raises(ModelAlteredError):
        library.use_model(OWN)
    own.write_bytes(content)
    with open_library(path) as library:
        assert library.use_model(OWN).join().in_use
    own.unlink()
    with open_library(path) as library:
        film = library.catalogue.image(uid(1, 1, 1))
        assert film is not None
        with pytest.raises(ModelMissingError, match=r"Import the model again.*medsearch model use ID"):
            library.similar(film.path)
        assert scores(library)


def test_another_file_of_the_same_name_is_another_model(path: Path, data: Path, own: Path) -> None:
    with open_library(path) as library:
        library.use_model(OWN)
    content = own.read_bytes()
    shutil.rmtree(own.parent)
    # Bytes behind the graph, in a field that no reader knows: the same network, and no one could tell.
    register_model(data, OWN, content=content + b"\xfa\x3f\x01x")
    with open_library(path) as library:
        film = library.catalogue.image(uid(1, 1, 1))
        assert film is not None
        with pytest.raises(ModelAlteredError, match="another file"):
            library.similar(film.path)
        with pytest.raises(ModelAlteredError, match="another file"):
            library.use_model(OWN)
        assert scores(library)


def test_a_model_of_another_length_is_refused(path: Path, data: Path, own: Path) -> None:
    manifest = own.parent / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"dim": 1024', '"dim": 512'), "utf-8")
    with open_library(path) as library, pytest.raises(ModelError, match="512 values, a library holds 1024"):
        library.use_model(OWN)


def test_a_damaged_registry_does_not_keep_the_shipped_model_from_being_used(path: Path, own: Path) -> None:
    (own.parent / "manifest.json").write_text("{", "utf-8")
    with open_library(path) as library:
        film = library.catalogue.image(uid(1, 1, 1))
        assert film is not None
        assert library.similar(film.path).hits
