"""A server makes what it finds or ingests findable by region, without being told to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from makers import uid, write_department

from medsearch_desktop.library import Library, open_library
from medsearch_desktop.serve.jobs import JobKind, Jobs, JobState

ROI = (10, 10, 40, 40)
PATIENCE = 120


def by_region(library: Library) -> int:
    """Count the images that a region finds, with the one that asks."""
    hits = library.similar(uid(1, 1, 1), k=100, roi=ROI).hits
    return 1 + sum(hit.region is not None for hit in hits)


def wait_for(library: Library, images: int) -> None:
    began = time.monotonic()
    while by_region(library) != images:
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.1)


def test_regions_are_indexed_at_the_start_and_after_each_ingest(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=2)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        jobs = Jobs(library)
        try:
            wait_for(library, 4)
            write_department(tmp_path / "source", studies=3)
            job = jobs.submit(JobKind.INGEST, [str(source)])
            wait_for(library, 6)
            assert job.state is JobState.DONE
        finally:
            jobs.close()


def test_a_fault_while_indexing_leaves_the_server_working(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_department(tmp_path / "source", studies=2)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        # What is left of a table that somebody else took away.
        library._database.write("DROP TABLE regions")
        jobs = Jobs(library)
        try:
            job = jobs.submit(JobKind.INGEST, [str(source)])
            began = time.monotonic()
            while job.state is not JobState.DONE:
                assert time.monotonic() - began < PATIENCE
                time.sleep(0.05)
        finally:
            jobs.close()
        assert "LibraryError" in capfd.readouterr().err
