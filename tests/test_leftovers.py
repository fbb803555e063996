"""What stays behind when images go, and what is tried again when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from makers import Film, dataset, uid

from medsearch_desktop.library import Library, open_library
from medsearch_desktop.store.compaction import compact
from medsearch_desktop.store.thumbnails import Thumbnails


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True) as opened:
        yield opened


def pictures(library: Library) -> set[Path]:
    return {path for path in (library.path / "thumbnails").rglob("*") if path.is_file()}


def wanted(library: Library) -> set[Path]:
    rows = library._database.read("SELECT image_id FROM images")
    return {library.thumbnails.path(image_id) for (image_id,) in rows}


def film(path: Path, number: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    dataset(Film(image=number)).save_as(path, enforce_file_format=True)
    return path


def test_what_is_no_dicom_is_tried_again_and_fails_again(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "source" / "film.dcm"
    path.parent.mkdir()
    path.write_bytes(b"not what its name says" * 20)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    assert library.ingest([path.parent]).failed == 1
    (failure,) = library.failures()
    again = library.retry_failures()
    assert (again.discovered, again.failed, again.unchanged) == (1, 1, 0)
    assert again.failures[0].reason == failure.reason
    assert library.failures() == [failure]
    usual = library.ingest([path.parent])
    assert (usual.failed, usual.unchanged) == (0, 1)


def test_what_is_no_dicom_is_indexed_once_it_is(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "source" / "film.dcm"
    path.parent.mkdir()
    path.write_bytes(b"not what its name says" * 20)
    library.ingest([path.parent])
    film(path, 1)
    again = library.retry_failures()
    assert (again.updated, again.failed) == (1, 0)
    assert library.failures() == []
    assert pictures(library) == wanted(library) != set()


def test_a_failure_whose_content_becomes_another_is_told_anew(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "source" / "film.dcm"
    path.parent.mkdir()
    path.write_bytes(b"not what its name says" * 20)
    library.ingest([path.parent])
    path.write_bytes(b"")
    summary = library.ingest([path.parent])
    assert (summary.failed, summary.unchanged) == (1, 0)
    (failure,) = library.failures()
    assert "empty" in failure.reason


def test_a_file_of_no_kind_that_is_met_again_stays_ignored(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "source" / "notes.xyz"
    path.parent.mkdir()
    path.write_bytes(b"\0\1 nothing to index" * 20)
    assert library.ingest([path.parent]).ignored == 1
    path.write_bytes(b"\0\1 nothing else to index" * 20)
    assert library.ingest([path.parent]).ignored == 1
    assert library.failures() == []


def test_the_picture_of_a_replaced_image_goes(library: Library, tmp_path: Path) -> None:
    path = film(tmp_path / "source" / "film.dcm", 1)
    library.ingest([path.parent])
    (old,) = pictures(library)
    film(path, 2)
    library.ingest([path.parent])
    assert pictures(library) == wanted(library)
    assert old not in pictures(library)


def test_the_picture_of_an_image_that_can_be_shown_no_more_goes(library: Library, tmp_path: Path) -> None:
    path = film(tmp_path / "source" / "film.dcm", 1)
    library.ingest([path.parent])
    ds = dataset(Film(image=1))
    ds.PixelData = ds.PixelData[:100]
    ds.save_as(path, enforce_file_format=True)
    assert library.ingest([path.parent]).failed == 1
    assert library.totals().images == 1
    assert pictures(library) == set()


def test_the_picture_of_what_a_moved_file_replaces_goes(library: Library, tmp_path: Path) -> None:
    source = tmp_path / "source"
    film(source / "a.dcm", 1)
    film(source / "b.dcm", 2)
    library.ingest([source])
    kept = library.thumbnails.path(uid(1, 1, 1)).read_bytes()
    (source / "a.dcm").replace(source / "b.dcm")
    library.ingest([source])
    assert library.totals().images == 1
    assert pictures(library) == wanted(library)
    assert library.thumbnails.path(uid(1, 1, 1)).read_bytes() == kept


@pytest.mark.parametrize("way", ["deleted", "forgotten"])
def test_the_pictures_of_files_that_are_gone_go(library: Library, tmp_path: Path, way: str) -> None:
    source = tmp_path / "source"
    for number in (1, 2, 3):
        film(source / f"{number}.dcm", number)
    library.ingest([source])
    assert len(pictures(library)) == 3
    if way == "deleted":
        (source / "2.dcm").unlink()
        library.ingest([source])
    else:
        library.forget_source(str(source))
    assert pictures(library) == wanted(library)
    assert len(pictures(library)) == (2 if way == "deleted" else 0)


def test_a_commit_that_fails_takes_no_picture_along(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "source" / "film.dcm", 1)
    library.ingest([path.parent])
    before = pictures(library)
    film(path, 2)
    with monkeypatch.context() as broken:
        broken.setattr(library._intake, "_insert_images", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            library.ingest([path.parent])
    assert pictures(library) == before == wanted(library)
    film(tmp_path / "source" / "other.dcm", 3)
    library.ingest([path.parent])
    assert pictures(library) == wanted(library)
    assert len(pictures(library)) == 2


@pytest.mark.parametrize("every", [1, 3, 1000])
def test_only_the_pictures_of_no_image_are_swept(tmp_path: Path, every: int) -> None:
    thumbnails = Thumbnails(tmp_path / "thumbnails")
    ids = [f"1.2.{number}#1" for number in range(200)]
    for image_id in ids:
        thumbnails.write(image_id, b"picture")
    kept = ids[every - 1 :: every]
    assert thumbnails.sweep(kept) == len(ids) - len(kept)
    assert [image_id for image_id in ids if thumbnails.read(image_id)] == kept


@pytest.mark.parametrize("way", ["repair", "compact"])
def test_what_an_earlier_release_or_a_crash_left_is_swept(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "library"
    with open_library(folder, create=True) as library:
        film(tmp_path / "source" / "film.dcm", 1)
        library.ingest([tmp_path / "source"])
        (mine,) = pictures(library)
        library.thumbnails.write("1.2.3.4", b"of an image that is gone")
        orphan = library.thumbnails.path("1.2.3.4")
        cut_off, fresh = orphan.with_suffix(".1-2.part"), orphan.with_suffix(".3-4.part")
        cut_off.write_bytes(b"of a process that died")
        os.utime(cut_off, (1_600_000_000, 1_600_000_000))
        # Of one that is just being written; and what is not ours at all.
        fresh.write_bytes(b"")
        foreign = [folder / "thumbnails" / "readme.txt", orphan.parent / "notes.webp"]
        for path in foreign:
            path.write_bytes(b"")
        if way == "repair":
            report = library.health.verify()
            assert report.ok
            assert any("2 thumbnails are of no image" in note for note in report.notes), report.notes
            assert library.health.repair().mended == {"thumbnail-without-image": 2}
            assert library.health.repair().mended == {}
    if way == "compact":
        assert compact(folder).pictures == 2
        assert compact(folder).pictures == 0
    with open_library(folder) as library:
        assert pictures(library) == {mine, fresh, *foreign}
        assert library.thumbnail(uid(1, 1, 1)) is not None
