"""A file that ends the program while it is embedded anew, read as a slice or looked at for its regions ends it twice.

The processes are real and die of a signal; what makes them die is a decoder that crashes with one file.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from makers import register_model, uid, write_department
from volumes_made import slice_uid, write_series

from medsearch_desktop.image.models import find_model
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.quarantine import IN_HAND, REASON, Quarantine

OWN = "own-64"
# The program as it is, but for one function that crashes with one name as a codec written in C does.
CHILD = """
import signal, sys
from importlib import import_module
from medsearch_desktop.serve.cli import main
module, function, bomb, *arguments = sys.argv[1:]
place = import_module("medsearch_desktop." + module)
sound = getattr(place, function)
def crash(data, **more):
    if more["name"] == bomb:
        # In this very thread: a signal to the process may find another one, and this one go on for a while.
        signal.raise_signal(signal.SIGSEGV)
    return sound(data, **more)
setattr(place, function, crash)
sys.exit(main(arguments))
"""


def medsearch(library: Path, *arguments: str, crash: tuple[str, str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, *crash, *arguments, "--json", "--library", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def third_time(library: Path, *arguments: str, crash: tuple[str, str, str]) -> dict:
    """Have it die twice, and return what it says the third time."""
    for _ in range(2):
        assert medsearch(library, *arguments, crash=crash).returncode == -signal.SIGSEGV
    done = medsearch(library, *arguments, crash=crash)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(library.glob(f"{IN_HAND}*"))
    return json.loads(done.stdout)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A library of six films, closed."""
    write_department(tmp_path / "source", studies=3, size=64)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([tmp_path / "source"])
    return tmp_path / "library"


def path_of(library: Library, image_id: str) -> str:
    row = library.catalogue.image(image_id)
    assert row is not None
    return row.path


@pytest.mark.slow
def test_a_switch_to_another_model_comes_to_its_end(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(films.parent / "data"))
    register_model(films.parent / "data", OWN)
    with open_library(films) as library:
        bomb = path_of(library, uid(1, 2, 1))
    summary = third_time(films, "model", "use", OWN, crash=("reembed", "decode", bomb))
    assert (summary["in_use"], summary["failed"]) == (True, 1)
    # Some may have been committed before it died.
    assert summary["images"] + summary["kept"] == 5
    ((path, reason),) = [failure.values() for failure in summary["failures"]]
    assert path == bomb
    assert reason.startswith("ended the program twice")
    # An ingest that follows does not touch it, and whoever asks for the model again has it tried again.
    assert medsearch(films, "ingest", str(films.parent / "source"), crash=("reembed", "decode", bomb)).returncode == 0
    with open_library(films) as library:
        assert [failure.path for failure in library.unembedded()] == [bomb]
        assert library.use_model(OWN).summary.images == 1
        assert library.unembedded() == []
    with open_library(films) as library:
        assert library.health.verify().ok


@pytest.mark.slow
def test_another_slice_stands_for_one_that_ends_the_program(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", 1, 23)
    bomb = paths[11]
    arguments = ("ingest", str(tmp_path / "in"))
    with open_library(tmp_path / "library", create=True):
        pass
    summary = third_time(tmp_path / "library", *arguments, crash=("reembed", "decode", str(bomb)))
    assert [failure["path"] for failure in summary["failures"]] == [str(bomb)]
    fourth = medsearch(tmp_path / "library", *arguments, crash=("reembed", "decode", str(bomb)))
    assert fourth.returncode == 0
    with open_library(tmp_path / "library") as library:
        assert [failure.path for failure in library.failures()] == [str(bomb)]
        assert library.vectors.count == library.config.key_slices
        assert library.health.verify().ok
        assert library.retry_failures().failed == 0
        assert library.failures() == []
        assert library.similar(slice_uid(1, 11), k=1).model_id == find_model().model_id


@pytest.mark.slow
@pytest.mark.parametrize("missing", [False, True], ids=["its-thumbnail", "its-file"])
def test_regions_are_indexed_but_for_the_image_that_ends_the_program(films: Path, missing: bool) -> None:
    image_id = uid(1, 2, 1)
    crash = ("regions", "read_picture", image_id)
    with open_library(films) as library:
        if missing:
            # Drawn anew of its file, which is what then ends the program.
            library.thumbnails.remove([image_id])
            crash = ("image.decode", "decode", path_of(library, image_id))
    summary = third_time(films, "regions", crash=crash)
    assert (summary["skipped"], summary["stopped"]) == (1, False)
    # A server does it by itself after each ingest: it is not tried again each time.
    again = medsearch(films, "regions", crash=crash)
    assert again.returncode == 0
    assert json.loads(again.stdout)["skipped"] == 1
    with open_library(films) as library:
        bomb = path_of(library, image_id)
        assert [(failure.path, failure.reason) for failure in library.failures()] == [(bomb, REASON)]
        assert library.retry_failures().failed == 0
        assert library.failures() == []
        assert library.index_regions().images == 1
        assert library.index_regions().skipped == 0


def test_passes_that_run_at_once_keep_books_of_their_own(tmp_path: Path) -> None:
    one, other = Quarantine(tmp_path, "one"), Quarantine(tmp_path, "other")

    def through(book: Quarantine, names: list[str]):
        return book.look_ahead(str, names, path_of=str, refuse=lambda name, why: why, threads=1, ahead=1)

    first, second = through(one, ["/a", "/b"]), through(other, ["/c", "/d"])
    assert (next(first), next(second)) == ("/a", "/c")
    assert len(list(tmp_path.iterdir())) == 2
    assert list(first) == ["/b"]
    # The end of one takes nothing from the other.
    assert len(list(tmp_path.iterdir())) == 1
    assert list(second) == ["/d"]


def test_what_is_left_out_is_settled_though_it_was_met_in_an_earlier_part_of_the_pass(tmp_path: Path) -> None:
    (tmp_path / "suspects-own.json").write_text(json.dumps({"/bad": 2}))
    book = Quarantine(tmp_path, "own")
    assert book.left_out() == ["/bad"]
    for names in (["/bad"], ["/good"]):
        list(book.look_ahead(str, names, path_of=str, refuse=lambda name, why: why, threads=1, ahead=1))
    book.settle()
    assert book.left_out() == []
    assert list(tmp_path.iterdir()) == []
