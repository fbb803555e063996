"""What a DICOMDIR names, on pydicom's sample file sets and on altered ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest

from medsearch_desktop.errors import SourceError
from medsearch_desktop.records import FileKind
from medsearch_desktop.source.dicomdir import is_dicomdir_name, read_dicomdir
from medsearch_desktop.source.folder import walk

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    root = tmp_path / "disc"
    for name in ("77654033", "98892001", "98892003"):
        shutil.copytree(SAMPLES / name, root / name)
    shutil.copy(SAMPLES / "DICOMDIR", root / "DICOMDIR")
    return root


def named(dicomdir: Path) -> set[Path]:
    records = pydicom.dcmread(dicomdir).DirectoryRecordSequence
    return {dicomdir.parent.joinpath(*record.ReferencedFileID) for record in records if "ReferencedFileID" in record}


def no_problem(path: str, reason: str) -> None:
    pytest.fail(f"{path}: {reason}")


def test_it_names_what_pydicom_reads_in_it(disc: Path) -> None:
    files = read_dicomdir(disc / "DICOMDIR")
    assert len(files) == 31
    assert set(files) == named(disc / "DICOMDIR")


@pytest.mark.parametrize("name", ["DICOMDIR-nooffset", "DICOMDIR-reordered", "DICOMDIR-nopatient"])
def test_broken_offsets_lose_nothing(disc: Path, name: str) -> None:
    shutil.copy(SAMPLES / name, disc / "DICOMDIR")
    assert len(read_dicomdir(disc / "DICOMDIR")) == 31


def test_names_are_found_in_the_spelling_of_the_disk(disc: Path) -> None:
    (disc / "77654033").rename(disc / "aside")
    (disc / "aside" / "CR1").rename(disc / "aside" / "cr1")
    (disc / "aside" / "cr1" / "6154").rename(disc / "aside" / "cr1" / "6154.;1")
    (disc / "aside").rename(disc / "77654033")
    assert disc / "77654033" / "cr1" / "6154.;1" in read_dicomdir(disc / "DICOMDIR")


def test_missing_files_are_left_out(disc: Path) -> None:
    shutil.rmtree(disc / "98892003")
    files = read_dicomdir(disc / "DICOMDIR")
    assert 0 < len(files) < 31
    assert all(file.is_file() for file in files)


def test_it_cannot_name_what_lies_outside(disc: Path) -> None:
    content = (disc / "DICOMDIR").read_bytes()
    # Of the same length, so that the file stays well-formed otherwise.
    (disc / "DICOMDIR").write_bytes(content.replace(rb"77654033\CR1\6154", rb"..\..\..\etc\pass"))
    files = read_dicomdir(disc / "DICOMDIR")
    assert len(files) == 30
    assert all(disc in file.parents for file in files)


def test_what_is_no_dicomdir_is_refused(disc: Path) -> None:
    with pytest.raises(SourceError, match="is not a DICOMDIR"):
        read_dicomdir(disc / "77654033" / "CR1" / "6154")
    (disc / "DICOMDIR").write_bytes(b"junk")
    with pytest.raises(SourceError, match="is not a DICOMDIR"):
        read_dicomdir(disc / "DICOMDIR")
    with pytest.raises(SourceError, match="cannot be read"):
        read_dicomdir(disc / "nothing" / "DICOMDIR")


def test_the_walk_knows_named_files_and_finds_the_others(disc: Path) -> None:
    (disc / "77654033" / "forgotten").write_bytes(b"x")
    (disc / "77654033" / "CR1" / "6154").write_bytes(b"damaged")
    found = {file.path: file.kind for file in walk(disc, on_problem=no_problem)}
    assert sum(kind is FileKind.DICOM for kind in found.values()) == 31
    assert found[str(disc / "77654033" / "CR1" / "6154")] is FileKind.DICOM
    assert found[str(disc / "77654033" / "forgotten")] is FileKind.OTHER
    assert found[str(disc / "DICOMDIR")] is FileKind.OTHER


def test_the_walk_lists_around_a_broken_one(disc: Path) -> None:
    whole = {file.path for file in walk(disc, on_problem=no_problem)}
    (disc / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM junk")
    listed = list(walk(disc, on_problem=no_problem))
    assert {file.path for file in listed} == whole
    assert {file.kind for file in listed} == {FileKind.OTHER}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("DICOMDIR", True), ("dicomdir", True), ("DICOMDIR.;1", True), ("DICOMDIR.", True), ("DICOMDIR.txt", False)],
)
def test_its_name_on_any_file_system(name: str, expected: bool) -> None:
    assert is_dicomdir_name(name) is expected
