"""Archives that were joined end to end: what is behind the first is told, not passed over."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from medsearch_desktop.source.archive import contents


def tar(name: str, mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as file:
        member = tarfile.TarInfo(name)
        member.size = 4
        file.addfile(member, io.BytesIO(b"text"))
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_second_archive_behind_the_end_of_the_first_is_told(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar("one.txt", mode))
    assert contents(str(path)).problem == ""
    path.write_bytes(tar("one.txt", mode) + tar("two.txt", mode))
    assert [member.path.rpartition("/")[2] for member in contents(str(path)).members] == ["one.txt"]
    assert "joined" in contents(str(path)).problem
