"""The full-text index as a cache: it keeps its watermark, heals itself, and never answers by halves."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsearch_desktop.errors import LibraryError, StorageFullError
from medsearch_desktop.store import fulltext
from medsearch_desktop.store.fulltext import FulltextIndex


def made(doc_no: int, text: str = "No pleural effusion.", **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "doc_no": doc_no,
        "report_id": f"r{doc_no}",
        "study_uid": f"1.2.{doc_no}",
        "text": text,
        "sections": [("FINDINGS", 0, len(text))],
        "patient_id": f"P{doc_no % 3}",
        "accession_number": f"A{doc_no}",
        "study_id": str(doc_no),
        "study_date": date(2024, 1, 1 + doc_no % 28),
        "study_description": "CHEST",
        "patient_sex": "F",
        "patient_age": 60.0,
        "modalities": ["CR"],
        "view_positions": ["PA"],
        "body_parts": ["CHEST"],
        "lateralities": [],
        "manufacturers": [],
        "labels": [],
        "image_count": 1,
        "entities": [
            ("J90", "Pleural effusion, not elsewhere classified", "Effusion", "absent", "Diagnosis", "effusion")
        ],
    }
    return document | changes


def found(index: FulltextIndex, word: str) -> list[int]:
    return index.matching(fulltext.words("text", fulltext.analyse(word))).tolist()


def test_what_was_put_in_is_there_after_reopening(tmp_path: Path):
    index = FulltextIndex(tmp_path / "index")
    assert (index.watermark, index.document_count) == (0, 0)
    index.update([made(2), made(4, "Clear lungs.")], watermark=7)
    for opened in (index, FulltextIndex(tmp_path / "index")):
        assert (opened.watermark, opened.document_count) == (7, 2)
        assert found(opened, "effusions") == [2]
        assert opened.matching(fulltext.everything()).dtype == np.int64


def test_a_document_replaces_its_former_self_and_goes_when_removed(tmp_path: Path):
    index = FulltextIndex(tmp_path)
    index.update([made(2, "edema"), made(2, "nodule"), made(4, "nodule")], watermark=1)
    assert (found(index, "edema"), found(index, "nodule")) == ([], [2, 4])
    index.update([made(2, "edema")], [4, 99], watermark=2)
    assert (found(index, "edema"), found(index, "nodule")) == ([2], [])
    assert index.document_count == 1
    assert index.value_counts(fulltext.everything(), ["modality"]) == (1, {"modality": {"CR": 1}})


def test_putting_in_twice_changes_nothing(tmp_path: Path):
    index = FulltextIndex(tmp_path)
    for _ in range(3):
        index.update([made(2), made(4)], [6], watermark=5)
        assert found(index, "effusion") == [2, 4]


def test_generation_changes_with_the_answers_only(tmp_path: Path):
    index = FulltextIndex(tmp_path)
    first = index.generation
    index.update([made(2)], watermark=1)
    second = index.generation
    assert second != first
    index.update([], watermark=2)
    assert (index.generation, index.watermark) == (second, 2)


def test_reset_empties(tmp_path: Path):
    index = FulltextIndex(tmp_path)
    index.update([made(2)], watermark=3)
    index.reset()
    for opened in (index, FulltextIndex(tmp_path)):
        assert (opened.watermark, opened.document_count, found(opened, "effusion")) == (0, 0, [])
    index.update([made(2)], watermark=4)
    assert found(index, "effusion") == [2]


def test_a_crash_before_the_watermark_is_caught_up(tmp_path: Path):
    index = FulltextIndex(tmp_path)
    index.update([made(2), made(4)], watermark=1)
    before = (tmp_path / "watermark.json").read_bytes()
    index.update([made(4, "edema"), made(6)], [2], watermark=2)
    (tmp_path / "watermark.json").write_bytes(before)
    again = FulltextIndex(tmp_path)
    assert again.watermark == 1
    again.update([made(4, "edema"), made(6)], [2], watermark=2)
    assert again.matching(fulltext.everything()).tolist() == [4, 6]
    assert found(again, "edema") == [4]
    assert FulltextIndex(tmp_path).watermark == 2


def test_a_killed_writer_leaves_a_sound_index(tmp_path: Path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_fulltext import FulltextIndex, made
index = FulltextIndex(Path({str(tmp_path)!r}))
for mark in range(1, 10_000):
    index.update([made(2 * number, f"round{{mark}}") for number in range(200)], watermark=mark)
    print(mark, flush=True)
"""
    for rounds in (1, 3):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(rounds):
                child.stdout.readline()
            child.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        index = FulltextIndex(tmp_path)
        assert index.watermark >= rounds
        assert index.matching(fulltext.everything()).tolist() == list(range(0, 400, 2))
        # The watermark is never ahead of the documents, and at most one update behind.
        assert len(found(index, f"round{index.watermark}")) + len(found(index, f"round{index.watermark + 1}")) == 200
        del index


def _truncate(folder: Path) -> None:
    for file in (folder / "tantivy").glob("*.fast"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _garble(folder: Path) -> None:
    for file in (folder / "tantivy").glob("*.idx"):
        file.write_bytes(b"\0" * file.stat().st_size)


def _remove_segments(folder: Path) -> None:
    for file in (folder / "tantivy").glob("*.term"):
        file.unlink()


def _other_release(folder: Path) -> None:
    kept = json.loads((folder / "watermark.json").read_text())
    kept["made_by"] = kept["made_by"].replace("0.", "9.")
    (folder / "watermark.json").write_text(json.dumps(kept))


DAMAGE = {
    "truncated": _truncate,
    "garbled": _garble,
    "segment lost": _remove_segments,
    "other release": _other_release,
    "no list of segments": lambda folder: (folder / "tantivy" / "meta.json").unlink(),
    "nonsense for a list": lambda folder: (folder / "tantivy" / "meta.json").write_text("{"),
    "no files": lambda folder: shutil.rmtree(folder / "tantivy"),
    "no watermark": lambda folder: (folder / "watermark.json").unlink(),
    "nonsense for a watermark": lambda folder: (folder / "watermark.json").write_bytes(b"\xff\x00[]"),
    "a list for a watermark": lambda folder: (folder / "watermark.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_emptied(tmp_path: Path, damage: str):
    FulltextIndex(tmp_path).update([made(2), made(4)], watermark=9)
    DAMAGE[damage](tmp_path)
    index = FulltextIndex(tmp_path)
    assert (index.watermark, index.document_count) == (0, 0)
    index.update([made(2)], watermark=3)
    assert found(FulltextIndex(tmp_path), "effusion") == [2]


@pytest.mark.parametrize("suffix", ["term", "idx", "pos", "fast", "fieldnorm", "store"])
def test_one_wrong_byte_is_damage(tmp_path: Path, suffix: str):
    FulltextIndex(tmp_path).update([made(2 * number, f"effusion w{number}") for number in range(300)], watermark=9)
    for file in (tmp_path / "tantivy").glob(f"*.{suffix}"):
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1
        file.write_bytes(content)
    index = FulltextIndex(tmp_path)
    assert (index.watermark, index.document_count) == (0, 0)


def test_damage_to_an_open_index_is_an_error_and_then_healed(tmp_path: Path):
    if sys.platform == "win32":
        pytest.skip("Windows does not let a mapped file be written to")
    index = FulltextIndex(tmp_path)
    index.update([made(2 * number, f"effusion w{number}") for number in range(300)], watermark=9)
    for file in (tmp_path / "tantivy").glob("*.term"):
        with file.open("r+b") as content:
            content.write(b"\xff" * (file.stat().st_size - 200))
    with pytest.raises(LibraryError) as caught:
        index.count(fulltext.words("text", ["w7"]))
    assert "rebuild" in caught.value.remedy
    del index
    assert FulltextIndex(tmp_path).watermark == 0


def test_a_fault_of_the_caller_comes_back_as_it_is_and_changes_nothing(tmp_path: Path):
    index = FulltextIndex(tmp_path)
    index.update([made(2)], watermark=1)

    def failing() -> Iterator[dict[str, Any]]:
        yield made(4)
        raise ValueError("the database said no")

    with pytest.raises(ValueError, match="the database said no"):
        index.update(failing(), [2], watermark=2)
    for opened in (index, FulltextIndex(tmp_path)):
        assert (opened.watermark, found(opened, "effusion")) == (1, [2])
    index.update([made(4)], watermark=2)
    assert found(index, "effusion") == [2, 4]


def test_a_full_disk_is_said_to_be_one(tmp_path: Path):
    mount = shutil.which("mount")
    made_one = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)], check=False)
    if not made_one or made_one.returncode:
        pytest.skip("cannot mount a small file system; run as root on Linux")
    try:
        index = FulltextIndex(tmp_path / "index")
        index.update([made(2)], watermark=1)
        rng = random.Random(1)
        many = (made(2 * number, " ".join(str(rng.random()) for _ in range(60))) for number in range(2, 20_000))
        with pytest.raises(StorageFullError) as caught:
            index.update(many, watermark=2)
        assert "Make room" in str(caught.value)
        assert (index.watermark, found(index, "effusion")) == (1, [2])
        # What the attempt left behind is gone: a little more still fits.
        index.update([made(4)], watermark=2)
        assert found(index, "effusion") == [2, 4]
        del index
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError) as caught:
        FulltextIndex(tmp_path / "file" / "index")
    assert caught.value.remedy


def test_searching_goes_on_while_writing(tmp_path: Path):
    index = FulltextIndex(tmp_path)
    index.update([made(2 * number) for number in range(50)], watermark=1)
    wrong: list[int] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            count = len(found(index, "effusion"))
            if count != 50:
                wrong.append(count)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for mark in range(2, 12):
        index.update([made(2 * number) for number in range(50)], watermark=mark)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_question_too_wide_is_refused_without_harm(tmp_path: Path):
    index = FulltextIndex(tmp_path)
    index.update([made(2, " ".join(f"x a{number}" for number in range(20_000)))], watermark=1)
    with pytest.raises(LibraryError, match="longer beginnings"):
        index.count(fulltext.beginning("text", ["x", "a"]))
    assert FulltextIndex(tmp_path).watermark == 1


def test_files_are_the_owners_alone(tmp_path: Path):
    if sys.platform == "win32":
        pytest.skip("Windows has no permission bits; folders inherit the library's")
    FulltextIndex(tmp_path / "index").update([made(2)], watermark=1)
    assert (tmp_path / "index" / "watermark.json").stat().st_mode & 0o77 == 0
    assert (tmp_path / "index" / "tantivy").stat().st_mode & 0o77 == 0
