"""Versions of a report: which one is searched, whatever the order in which they come, and what comes back."""

from __future__ import annotations

import itertools
from pathlib import Path

import messages_made as made
import pytest
from makers import Film, dataset, uid

from medsearch_desktop.errors import NotFoundError
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.records import Assertion
from medsearch_desktop.statements import ReportStatus

# Three messages in the order of their time, and the word that only each of them says.
FINAL = made.hl7("IMPRESSION: Alpha effusion.", status="F", changed="20240315110000", sent="20240315110001")
PRELIMINARY = made.hl7("IMPRESSION: Beta effusion.", status="P", changed="20240315100000", sent="20240315100001")
CORRECTED = made.hl7("IMPRESSION: Gamma effusion.", status="C", changed="20240315120000", sent="20240315120001")
CANCELLED = made.hl7(status="X", changed="20240315130000", sent="20240315130001")


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True) as opened:
        yield opened


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    folder = tmp_path / "feed"
    folder.mkdir()
    return folder


def searched(library: Library) -> list[str]:
    """The words of the versions that are searched."""
    return [word for word in ("alpha", "beta", "gamma", "delta") if library.search(word).total]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_last_final_one_counts_in_whatever_order_they_come(library: Library, feed: Path, order: tuple[int]) -> None:
    expected = {0: "beta", 1: "alpha", 2: "gamma"}
    messages = (PRELIMINARY, FINAL, CORRECTED)
    for n, which in enumerate(order):
        (feed / f"{n}.hl7").write_bytes(messages[which])
        library.ingest([feed], metadata_only=True)
        assert searched(library) == [expected[max(order[: n + 1])]]
    assert library.totals().reports == 1
    assert [(v.status, v.is_current) for v in library.report_versions("A00001")] == [
        (ReportStatus.PRELIMINARY, False),
        (ReportStatus.FINAL, False),
        (ReportStatus.CORRECTED, True),
    ]


def test_all_in_one_file_come_to_the_same(library: Library, feed: Path) -> None:
    (feed / "all.hl7").write_bytes(CORRECTED + PRELIMINARY + FINAL)
    library.ingest([feed], metadata_only=True)
    assert searched(library) == ["gamma"]
    assert len(library.report_versions("A00001")) == 3


def test_a_preliminary_one_after_a_final_one_does_not_count(library: Library, feed: Path) -> None:
    late = made.hl7("IMPRESSION: Delta effusion.", status="P", changed="20240316000000", sent="20240316000000")
    (feed / "all.hl7").write_bytes(FINAL + late)
    library.ingest([feed], metadata_only=True)
    assert searched(library) == ["alpha"]


def test_a_cancellation_withdraws_and_what_comes_after_it_counts_again(library: Library, feed: Path) -> None:
    (feed / "1.hl7").write_bytes(FINAL)
    (feed / "2.hl7").write_bytes(CANCELLED)
    library.ingest([feed], metadata_only=True)
    assert searched(library) == []
    assert library.totals().reports == 0
    assert [v.is_current for v in library.report_versions("A00001")] == [False, False]
    with pytest.raises(NotFoundError):
        library.report("A00001")
    # An older message that comes late does not undo it, a newer one does.
    (feed / "3.hl7").write_bytes(CORRECTED)
    library.ingest([feed], metadata_only=True)
    assert searched(library) == []
    (feed / "4.hl7").write_bytes(
        made.hl7("IMPRESSION: Delta effusion.", status="F", changed="20240315140000", sent="20240315140000")
    )
    library.ingest([feed], metadata_only=True)
    assert searched(library) == ["delta"]


def test_a_cancellation_of_the_same_change_time_withdraws(library: Library, feed: Path) -> None:
    (feed / "1.hl7").write_bytes(FINAL)
    (feed / "2.hl7").write_bytes(made.hl7(status="X", changed="20240315110000", sent="20240315113000"))
    library.ingest([feed], metadata_only=True)
    assert searched(library) == []


def test_deleting_the_newest_brings_the_one_before_back(library: Library, feed: Path) -> None:
    for name, message in {"1": PRELIMINARY, "2": FINAL, "3": CORRECTED}.items():
        (feed / f"{name}.hl7").write_bytes(message)
    library.ingest([feed], metadata_only=True)
    for name, left in (("3", ["alpha"]), ("2", ["beta"]), ("1", [])):
        (feed / f"{name}.hl7").unlink()
        (feed / "other.txt").write_text(f"FINDINGS: {name}.", "utf-8")
        library.ingest([feed], metadata_only=True)
        assert searched(library) == left
        if left:
            assert library.search("present:effusion").total == 1
    assert library.report_versions("other") == []


def test_a_file_that_is_written_over_gives_up_what_it_held(library: Library, feed: Path) -> None:
    (feed / "1.hl7").write_bytes(FINAL)
    (feed / "2.hl7").write_bytes(CORRECTED)
    library.ingest([feed])
    (feed / "2.hl7").write_bytes(made.hl7("IMPRESSION: Delta effusion.", filler="B7"))
    library.ingest([feed])
    assert searched(library) == ["alpha", "delta"]
    assert {hit.report_id for hit in library.search("effusion").hits} == {"A00001", "B7"}


def test_moved_and_copied_files_keep_their_version(library: Library, feed: Path) -> None:
    (feed / "1.hl7").write_bytes(FINAL)
    (feed / "2.hl7").write_bytes(CORRECTED)
    library.ingest([feed])
    (feed / "2.hl7").rename(feed / "moved.hl7")
    (feed / "copy.hl7").write_bytes(FINAL)
    summary = library.ingest([feed])
    assert (summary.updated, summary.duplicates) == (1, 1)
    assert searched(library) == ["gamma"]
    assert sorted(Path(v.path).name for v in library.report_versions("A00001")) == ["1.hl7", "moved.hl7"]
    (feed / "1.hl7").unlink()
    (feed / "moved.hl7").unlink()
    library.ingest([feed])
    assert searched(library) == ["alpha"]


def test_another_patient_with_the_same_number_has_another_report(library: Library, feed: Path) -> None:
    (feed / "1.hl7").write_bytes(FINAL)
    (feed / "2.hl7").write_bytes(made.hl7("IMPRESSION: Delta effusion.", patient="P0002"))
    library.ingest([feed], metadata_only=True)
    assert searched(library) == ["alpha", "delta"]
    assert library.totals().reports == 2


def test_labels_corrections_and_the_study_stay_with_the_report(library: Library, feed: Path) -> None:
    dataset(Film()).save_as(feed / "film.dcm", enforce_file_format=True)
    (feed / "1.hl7").write_bytes(FINAL)
    library.ingest([feed], metadata_only=True)
    library.label("report", "A00001", "teaching")
    entity = next(e for e in library.report("A00001").report.entities if e.text == "effusion")
    library.correct("A00001", (entity.start, entity.end), assertion=Assertion.ABSENT)
    (feed / "2.hl7").write_bytes(made.hl7("IMPRESSION: Gamma effusion.", status="C", changed="20240315120000"))
    library.ingest([feed], metadata_only=True)
    (hit,) = library.search("gamma label:teaching absent:effusion").hits
    assert (hit.report_id, hit.study_uid) == ("A00001", uid(1, 1))


def test_versions_of_structured_reports_follow_their_predecessors(library: Library, feed: Path) -> None:
    def document(n: int, word: str, before: list[str], hour: int, **values: str) -> bytes:
        text = made.sections(("121072", "Impressions", f"{word} effusion."))
        return made.saved(made.sr(*text, uid=uid(9, n), before=before, written=f"202403151{hour}0000", **values))

    # The one between the two others comes last: only it shows that they are of one report.
    (feed / "3").write_bytes(document(3, "Gamma", [uid(9, 2)], 3))
    (feed / "1").write_bytes(document(1, "Alpha", [], 1, PreliminaryFlag="PRELIMINARY"))
    library.ingest([feed])
    assert searched(library) == ["alpha", "gamma"]
    (feed / "2").write_bytes(document(2, "Beta", [uid(9, 1)], 2))
    library.ingest([feed])
    assert searched(library) == ["gamma"]
    assert library.totals().reports == 1
    (report_id,) = {hit.report_id for hit in library.search("gamma").hits}
    assert len(library.report_versions(report_id)) == 3


def test_identifiers_that_chain_reports_in_one_file(library: Library, feed: Path) -> None:
    def report(word: str, hour: int, *values: str) -> dict[str, object]:
        identifiers = [{"system": "s", "value": value} for value in values]
        return made.diagnostic_report(f"{word} effusion.", identifier=identifiers, issued=f"2024-03-15T{hour}:00:00Z")

    first = made.bundle(report("Alpha", 11, "1"), report("Delta", 10, "5"))
    (feed / "1.json").write_bytes(made.as_bytes(first))
    library.ingest([feed])
    assert searched(library) == ["alpha", "delta"]
    # The last of these shows that all but one are the same.
    second = made.bundle(report("Beta", 12, "2"), report("Gamma", 13, "3"), report("Beta", 14, "3", "2", "1"))
    (feed / "2.json").write_bytes(made.as_bytes(second))
    library.ingest([feed])
    assert searched(library) == ["beta", "delta"]
    assert library.totals().reports == 2
    (hit,) = library.search("beta").hits
    assert len(library.report_versions(hit.report_id)) == 4
    (feed / "2.json").unlink()
    library.ingest([feed])
    assert searched(library) == ["alpha", "delta"]


def test_fhir_statuses(library: Library, feed: Path) -> None:
    steps = (
        ("registered", "", []),
        ("preliminary", "Beta effusion.", ["beta"]),
        ("final", "Alpha effusion.", ["alpha"]),
        ("amended", "Gamma effusion.", ["gamma"]),
        ("entered-in-error", "Gamma effusion.", []),
    )
    for hour, (status, text, expected) in enumerate(steps, start=10):
        report = made.diagnostic_report(text, status=status, issued=f"2024-03-15T{hour}:00:00Z")
        (feed / f"{hour}.json").write_bytes(made.as_bytes(report))
        library.ingest([feed], metadata_only=True)
        assert searched(library) == expected


def test_forgetting_a_folder_brings_the_earlier_version_of_another_back(library: Library, feed: Path) -> None:
    for name, message in {"a": FINAL, "b": CORRECTED}.items():
        (feed / name).mkdir()
        (feed / name / "1.hl7").write_bytes(message)
        library.ingest([feed / name])
    assert searched(library) == ["gamma"]
    library.forget_source(str(feed / "b"))
    assert searched(library) == ["alpha"]
    assert library.search("present:effusion").total == 1


def test_messages_without_a_time_are_of_the_time_of_their_file(library: Library, feed: Path) -> None:
    import os

    def untimed(word: str, status: str) -> bytes:
        return made.hl7(f"IMPRESSION: {word} effusion.", status=status, changed="", sent="", day="x")

    for name, message, time in (
        ("1", untimed("Gamma", "C"), 1_700_000_900),
        ("2", untimed("Alpha", "F"), 1_700_000_000),
    ):
        (feed / f"{name}.hl7").write_bytes(message)
        os.utime(feed / f"{name}.hl7", (time, time))
        library.ingest([feed], metadata_only=True)
    assert searched(library) == ["gamma"]
