"""Volumes in a database of an earlier release: every slice had a vector then."""

from __future__ import annotations

import re
import threading
from importlib import resources
from pathlib import Path

import duckdb
import numpy as np
import pytest

from medsearch_desktop.store.database import Database
from medsearch_desktop.store.models import Models
from medsearch_desktop.store.stacks import Stacks
from medsearch_desktop.volumes import Volumes

CT, CR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1"
# Image number, SOP class, modality, reason why it is not shown, state of its file.
IMAGES = [
    *((number, CT, "CT", "", "indexed") for number in range(1, 31)),
    (31, "", "CT", "", "indexed"),
    (32, CR, "CR", "", "indexed"),
    (33, CT, "CT", "damaged", "failed"),
    (34, CT, "CT", "", "metadata"),
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database as the first three migrations left it: one series of all images."""
    file = tmp_path / "library.duckdb"
    sql = resources.files("medsearch_desktop.store").joinpath("schema.sql").read_text("utf-8")
    parts = re.split(r"^-- migration \d+$", sql, flags=re.MULTILINE)
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            "CREATE TABLE migrations (number INTEGER PRIMARY KEY); INSERT INTO migrations VALUES (1), (2), (3)"
        )
        for part in parts[1:4]:
            connection.execute(part)
        for number, sop_class, modality, error, state in IMAGES:
            connection.execute(
                "INSERT INTO files VALUES ($path, '/a', 1, 1, 'x', 'dicom', $state, 1, '')",
                {"path": f"/a/{number}", "state": state},
            )
            connection.execute(
                "INSERT INTO images VALUES (nextval('image_no_seq'), $id, $id, 's', 'r', $path, 0, 1, $number,"
                " $modality, $sop_class, '', '', 1, 1, 8, '', $error)",
                {"id": f"i{number}", "path": f"/a/{number}", "number": number, "modality": modality,
                 "sop_class": sop_class, "error": error},
            )  # fmt: skip
        vector = np.eye(1024, dtype=np.float32)[0].tolist()
        connection.execute(
            "INSERT INTO vectors SELECT image_no, 'm', $v FROM images WHERE image_no < 33", {"v": vector}
        )
    return file


def test_the_slices_of_before_are_known_and_thinned_out(old: Path) -> None:
    database = Database(old)
    stacks = Stacks(database)
    slices = [no for (no,) in database.read("SELECT image_no FROM slices ORDER BY image_no")]
    assert slices == list(range(1, 32))
    volumes = Volumes(stacks, wanted=5)
    settled = volumes.settle("m", lambda: 0, stop=threading.Event())
    assert (settled.embedded, settled.failures) == (0, ())
    left = [no for (no,) in database.read("SELECT image_no FROM vectors ORDER BY image_no")]
    assert len(left) == 6
    assert 32 in left
    assert Models(database).count_lacking("m") == 0
    assert stacks.mean("r", "m") is not None
    assert stacks.unsettled(5) == []
    database.close()


def test_a_changed_series_is_unsettled_until_it_is_chosen_anew(old: Path) -> None:
    database = Database(old)
    stacks = Stacks(database)
    volumes = Volumes(stacks, wanted=5)
    volumes.choose()
    assert stacks.unsettled(5) == []
    assert len(stacks.unsettled(6)) == 1
    database.write("DELETE FROM slices WHERE image_no = 7")
    assert [uid for uid, _ in stacks.unsettled(5)] == ["r"]
    database.close()


def test_told_to_stop_nothing_more_is_chosen(old: Path) -> None:
    database = Database(old)
    stop = threading.Event()
    stop.set()
    Volumes(Stacks(database), wanted=5).settle("m", lambda: pytest.fail("embeds"), stop=stop)
    assert database.read("SELECT count(*) FROM vectors") == [(32,)]
    database.close()
