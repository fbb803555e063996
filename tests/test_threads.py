"""One library, several threads: questions go on being answered, truly, while one ingests and others label."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from makers import uid, write_department

from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import Assertion, IngestEvent
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.thumbnails import Thumbnails


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True) as opened:
        opened.ingest([write_department(tmp_path / "source", studies=6)])
        yield opened


def test_questions_are_answered_while_others_write(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Written in many parts, on a machine that is fast as well.
    monkeypatch.setattr("medsearch_desktop.ingest.FILES_PER_COMMIT", 30)
    more = write_department(tmp_path / "more", studies=30, first=7)
    done = threading.Event()
    asked = [0] * 5
    study = uid(1, 1)

    def ask(number: int) -> None:
        while not done.is_set():
            asked[number] += 1
            match number:
                case 0:
                    answer = library.search("study", k=100, with_facets=True)
                    ids = [hit.report_id for hit in answer.hits]
                    # Only whole films and reports, in a number that was true at some moment.
                    assert len(ids) == len(set(ids)) == answer.total
                    assert 6 <= answer.total <= 36
                case 1:
                    hits = library.similar(uid(1, 1, 1), k=100, where="view:PA").hits
                    assert 5 <= len(hits) <= 35
                    assert {hit.view_position for hit in hits} == {"PA"}
                case 2:
                    label = f"round {asked[2]}"
                    library.label("study", study, label)
                    assert library.search(f'label:"{label}"').total == 1
                    library.unlabel("study", study, label)
                    assert library.search(f'label:"{label}"').total == 0
                case 3:
                    report = library.report("s50000001")
                    entity = next(each for each in report.report.entities if not each.inferred)
                    span = entity.start, entity.end
                    library.correct("s50000001", span, note=f"{asked[3]}", author="tester")
                    library.undo_correction("s50000001", span, author="tester")
                case _:
                    found = library.holdings.study(study)
                    assert (len(found.images), len(found.report_ids)) == (2, 1)
                    assert library.thumbnail(uid(1, 1, 1))

    def wait(event: IngestEvent) -> None:
        # Between two parts everybody asks at least once more.
        if event.settled % 30 == 15:
            before, end = min(asked), time.monotonic() + 120
            while min(asked) == before and time.monotonic() < end:
                time.sleep(0.01)

    with ThreadPoolExecutor(5) as pool:
        threads = [pool.submit(ask, number) for number in range(5)]
        try:
            summary = library.ingest([more], on_event=wait)
        finally:
            done.set()
        for thread in threads:
            thread.result()
    assert (summary.indexed, summary.failed) == (90, 0)
    assert min(asked) >= 3
    assert library.search("study", k=100).total == library.fulltext.document_count == 36
    assert library.vectors.count == library.totals().images == 72
    assert all(each.undone_at for each in library.corrections())
    assert library.holdings.labels() == {}


def test_two_ingests_take_turns(library: Library, tmp_path: Path) -> None:
    folders = [write_department(tmp_path / f"more{n}", studies=4, first=10 + 4 * n) for n in range(2)]
    with ThreadPoolExecutor(2) as pool:
        summaries = list(pool.map(lambda folder: library.ingest([folder]), folders))
    assert [summary.indexed for summary in summaries] == [12, 12]
    assert library.totals().images == library.vectors.count == 28
    assert library.fulltext.document_count == 14


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns after every few instructions, so that what can cross does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], None], *, threads: int = 4) -> None:
    """Do `work(n)` in several threads that begin at once."""
    start = threading.Barrier(threads)

    def begin(number: int) -> None:
        start.wait()
        work(number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(begin, range(threads)))


def test_one_thumbnail_is_written_by_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = Thumbnails(tmp_path / "thumbnails")
    picture = bytes(range(256)) * 40
    both, put = threading.Barrier(2), Path.replace

    def put_together(part: Path, path: Path) -> Path:
        # The worst moment: both have written, neither has put it in place.
        both.wait(30)
        return put(part, path)

    monkeypatch.setattr(Path, "replace", put_together)
    together(lambda _: thumbnails.write("1.2.3", picture), threads=2)
    assert thumbnails.read("1.2.3") == picture
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.usefixtures("hasty")
def test_several_insert_at_once_and_others_read(tmp_path: Path) -> None:
    database = Database(tmp_path / "library.duckdb")

    def work(number: int) -> None:
        for round_ in range(40):
            if number == 0:
                assert database.read("SELECT count(*) FROM failures")[0][0] >= 0
            else:
                database.insert("failures", {"path": [f"{number}/{round_}"], "reason": ["broken"]})

    together(work)
    assert database.read("SELECT count(*) FROM failures") == [(120,)]
    database.close()


def test_a_meter_is_looked_up_while_it_is_forgotten(library: Library) -> None:
    class Forgotten(dict):
        """What another thread forgets as soon as it is written."""

        def __setitem__(self, key: object, value: object) -> None:
            super().__setitem__(key, value)
            self.clear()

    meters = library._meters
    meters._meters, meters._notes = Forgotten(), Forgotten()
    assert meters.of(library.model_id) is None
    assert meters.note(library.model_id, images=12) == ""


def test_several_label_at_once_and_all_is_found(library: Library) -> None:
    def work(number: int) -> None:
        for round_ in range(8):
            library.label("study", uid(1, 1 + number % 2), f"label {number} {round_}")

    together(work)
    assert len(library.holdings.labels()) == 32
    for label in library.holdings.labels():
        assert library.search(f'label:"{label}"').total == 1, label
    assert library.fulltext.watermark == library.catalogue.last_change()


def test_a_correction_made_during_an_ingest_holds_after_it(library: Library, tmp_path: Path) -> None:
    (file,) = (tmp_path / "source").rglob("s50000001.txt")
    file.write_text(file.read_text("utf-8") + "No fracture.\n", "utf-8")
    entity = next(each for each in library.report("s50000001").report.entities if each.finding == "Pneumothorax")
    assert entity.assertion is Assertion.ABSENT

    def correct(event: IngestEvent) -> None:
        if event.stage == "discovered":
            library.correct("s50000001", (entity.start, entity.end), assertion=Assertion.PRESENT, author="tester")

    assert library.ingest([tmp_path / "source"], on_event=correct).updated == 1
    report = library.report("s50000001").report
    assert report.text.endswith("No fracture.\n")
    assert next(each for each in report.entities if each.start == entity.start).assertion is Assertion.PRESENT
    assert library.search("present:pneumothorax report:s50000001").total == 1


def test_an_ingest_told_to_stop_leaves_what_is_missing_alone(library: Library, tmp_path: Path) -> None:
    source = tmp_path / "source"
    min(source.rglob("image2.dcm")).unlink()
    write_department(source, studies=4, first=40)
    stop = threading.Event()
    stopped = library.ingest([source], stop=stop, on_event=lambda event: stop.set() if event.stage == "file" else None)
    assert stopped.stopped
    # What is gone is noticed by a walk to the end only.
    assert stopped.removed == 0
    assert library.totals().images >= 12
    summary = library.ingest([source])
    assert (summary.stopped, summary.removed) == (False, 1)
    assert library.totals().images == library.vectors.count == 11 + 8


def test_products_of_small_matrices_start_no_threads() -> None:
    code = (
        "import sys; from medsearch_desktop.serve.cli import main; assert 'numpy' not in sys.modules;"
        "main(['code', 'pleural effusion']); import os; print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    environ = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environ)
    assert done.stdout.splitlines()[-1] == "1"
