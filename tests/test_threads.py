"""One library, several threads: questions go on being answered, truly, while one ingests and others label."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from makers import uid, write_department

from medsearch_desktop.library import Library, open_library


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True) as opened:
        opened.ingest([write_department(tmp_path / "source", studies=6)])
        yield opened


def test_questions_are_answered_while_others_write(library: Library, tmp_path: Path) -> None:
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

    with ThreadPoolExecutor(5) as pool:
        threads = [pool.submit(ask, number) for number in range(5)]
        try:
            summary = library.ingest([more])
        finally:
            done.set()
        for thread in threads:
            thread.result()
    assert (summary.indexed, summary.failed) == (90, 0)
    assert min(asked) >= 2
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


def test_one_thumbnail_is_drawn_by_several_at_once(library: Library) -> None:
    image_id = uid(1, 1, 1)
    before = library.thumbnail(image_id)
    for _ in range(5):
        library.thumbnails.remove([image_id])
        with ThreadPoolExecutor(4) as pool:
            drawn = list(pool.map(lambda _: library.thumbnail(image_id), range(4)))
        assert set(drawn) == {before}
    assert not list((library.path / "thumbnails").rglob("*.part"))


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
