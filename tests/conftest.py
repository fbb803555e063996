"""What tests share: their own settings, films to write, and the way to real data."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from makers import Film, dataset

ROOT = Path(__file__).parents[1]
# Settings of whoever runs the tests must not reach them, but for what the tests themselves are told.
OURS = ("MEDSEARCH_TEST_DATA", "MEDSEARCH_FAULTS", "MEDSEARCH_FAULTS_SEED", "MEDSEARCH_KILLS")
for name in [name for name in os.environ if name.startswith("MEDSEARCH_") and name not in OURS]:
    del os.environ[name]
# Else every test that embeds would first try the engines that happen to be installed, for seconds.
os.environ["MEDSEARCH_ENGINE"] = "onnxruntime"
# Begun in the background of a script, what the tests start would not hear of Ctrl-C.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Look for garbage only among what tests make: to go through all that was imported takes a tenth of the time."""
    gc.collect()
    gc.freeze()


HOMES = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HOME")


@pytest.fixture(scope="session", autouse=True)
def nobodys_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's configuration and data folders out of what several tests share, too."""
    home = tmp_path_factory.mktemp("nobody")
    with pytest.MonkeyPatch.context() as patch:
        for variable in HOMES:
            patch.setenv(variable, str(home))
        yield


@pytest.fixture(autouse=True)
def own_settings(
    nobodys_settings: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give every test a configuration and data folders of its own."""
    home = tmp_path_factory.mktemp("home")
    for variable in HOMES:
        monkeypatch.setenv(variable, str(home))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real films and reports, which is not part of the project."""
    folder = Path(os.environ.get("MEDSEARCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MEDSEARCH_TEST_DATA to the folder that holds cxr/ and openi/")
    return folder


@pytest.fixture
def write_film() -> Callable[[Path, Film], Path]:
    def write(path: Path, film: Film) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset(film).save_as(path, enforce_file_format=True)
        return path

    return write
