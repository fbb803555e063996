"""What a disk that failed at the wrong moment has left half done is no obstacle afterwards."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from makers import Film, dataset

from medsearch_desktop.errors import LibraryError
from medsearch_desktop.library import open_library
from medsearch_desktop.source import spool as spools
from medsearch_desktop.source.spool import Kept, Spool


def test_a_library_whose_first_file_was_cut_off_can_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "library.part").write_text('{"for', "utf-8")
    with open_library(folder, create=True) as library:
        assert library.totals().images == 0
    assert not (folder / "library.part").exists()
    with open_library(folder):
        pass
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine", "utf-8")
    with pytest.raises(LibraryError, match="not empty"), open_library(other, create=True):
        pass


def test_a_film_whose_name_was_not_for_good_is_new_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, ds = Spool(tmp_path / "spool", reserve_bytes=0), dataset(Film(size=16))
    whole = spools.sync_folder

    def keep() -> Kept:
        part = spool.new_part()
        ds.save_as(part, enforce_file_format=True)
        uid, syntax = str(ds.SOPInstanceUID), str(ds.file_meta.TransferSyntaxUID)
        return spool.keep(part, sop_instance_uid=uid, transfer_syntax=syntax)

    def fails(folder: Path) -> None:
        if any(folder.glob("*.dcm")):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
        whole(folder)

    with monkeypatch.context() as broken:
        broken.setattr(spools, "sync_folder", fails)
        with pytest.raises(OSError, match="Input/output"):
            keep()
    # Nobody was told of it, and so nobody has it indexed: now somebody is.
    assert keep().new
    assert not keep().new
    assert len(list(spool.folder.glob("[0-9a-f][0-9a-f]/*.dcm"))) == 1
