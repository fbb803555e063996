"""Archives read where they lie: every packing, hostile names and sizes, damage, and what a library makes of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from makers import write_department

from medsearch_desktop.library import Library, open_library
from medsearch_desktop.source import archive
from medsearch_desktop.source.archive import contents, open_member
from medsearch_desktop.source.opening import container_of, exists, is_member, open_regular

PACKINGS = (".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz")


def pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members.items():
                file.writestr(name, data)
        return path
    mode = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def pack_folder(path: Path, folder: Path) -> Path:
    return pack(path, {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()})


def names(path: Path) -> list[str]:
    return [member.path.removeprefix(f"{path}//") for member in contents(str(path)).members]


def content(path: str) -> bytes:
    with open_regular(path) as file:
        return file.read()


@pytest.fixture
def library(tmp_path: Path):
    with open_library(tmp_path / "library", create=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_department(tmp_path_factory.mktemp("made"), studies=2)


@pytest.mark.parametrize("suffix", PACKINGS)
def test_members_are_read_as_they_were_packed(tmp_path: Path, suffix: str) -> None:
    made = {"folder/IM1": os.urandom(70_000), "folder/empty": b"", "b": bytes(5000), "käse/ß.txt": b"text"}
    path = pack(tmp_path / f"x{suffix}", made)
    found = contents(str(path))
    assert found.problem == ""
    assert {m.path: m.size for m in found.members} == {f"{path}//{name}": len(data) for name, data in made.items()}
    for name, data in made.items():
        assert content(f"{path}//{name}") == data
    stream = archive.InOrder()
    read = {name: stream.read(f"{path}//{name}") for name in made}
    stream.close()
    assert read == (dict.fromkeys(made) if suffix in (".zip", ".tar") else made)


def test_a_member_path_names_nothing_on_disk(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a/b": b"1"})
    member = f"{path}//a/b"
    assert is_member(member)
    assert not is_member(str(path))
    assert not is_member("//server/share/x.zip")
    assert container_of(member) == str(path)
    assert exists(member)
    assert str(Path(member).parents[1]) == str(path)
    with pytest.raises(NotADirectoryError):
        Path(member).stat()
    path.unlink()
    assert not exists(member)
    with pytest.raises(FileNotFoundError):
        open_member(member)


def test_hostile_names_are_names_only(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"not to be read")
    path = pack(
        tmp_path / "x.tar",
        {"../secret": b"0", "/etc/passwd": b"1", "C:\\x\\..\\y": b"2", "a//./b": b"3", "..": b"4"},
    )
    assert names(path) == ["_/secret", "etc/passwd", "C:/x/_/y", "a/b", "_"]
    assert [content(m.path) for m in contents(str(path)).members] == [b"0", b"1", b"2", b"3", b"4"]
    for name in ("../secret", "..//secret", "missing", ""):
        with pytest.raises(OSError, match="no such member"):
            open_regular(f"{path}//{name}")


def test_a_name_that_is_there_twice_is_kept_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a", b"2")
    assert [content(m.path) for m in contents(str(path)).members] == [b"1", b"2"]
    assert names(path) == ["a", "a (2)"]


def test_links_and_devices_in_a_tar_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"t{kind!r}")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        file.addfile(tarfile.TarInfo("kept"))
    assert names(path) == ["kept"]


def test_an_encrypted_member_is_listed_with_the_reason(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.dcm": b"x" * 100, "b.dcm": b"y"})
    data = bytearray(path.read_bytes())
    # The encryption bit of both headers of the first member, PS APPNOTE 4.4.4.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    problems = {m.path[-5:]: m.problem for m in contents(str(path)).members}
    assert "encrypted" in problems["a.dcm"]
    assert problems["b.dcm"] == ""
    with pytest.raises(OSError, match="encrypted"):
        open_regular(f"{path}//a.dcm")


def test_an_unknown_method_is_told(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.dcm": b"x" * 100})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 9
    path.write_bytes(data)
    assert "method 9" in contents(str(path)).members[0].problem


def test_large_offsets_and_sizes_are_read_as_zip64(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file, file.open(zipfile.ZipInfo("a"), "w", force_zip64=True) as member:
        member.write(b"0123456789")
    assert content(f"{path}//a") == b"0123456789"


def test_archives_inside_are_read_one_level_down(tmp_path: Path) -> None:
    innermost = pack(tmp_path / "3.zip", {"deep": b"3"}).read_bytes()
    inner = pack(tmp_path / "2.tar.gz", {"IM1": b"2", "three.zip": innermost}).read_bytes()
    path = pack(tmp_path / "1.zip", {"IM0": b"1", "sub/two.tgz": inner})
    found = contents(str(path)).members
    assert [m.path for m in found] == [
        f"{path}//IM0",
        f"{path}//sub/two.tgz//IM1",
        f"{path}//sub/two.tgz//three.zip",
    ]
    assert content(found[1].path) == b"2"
    assert container_of(found[1].path) == str(path)
    assert "too deep" in found[2].problem


def _quine_like(depth: int) -> bytes:
    data = b"x"
    for _ in range(depth):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for number in range(4):
                file.writestr(f"{number}.zip", data)
        data = buffer.getvalue()
    return data


def test_archives_in_archives_do_not_multiply(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(_quine_like(6))
    assert len(contents(str(path)).members) == 16


@pytest.mark.parametrize(("suffix", "opened"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
def test_a_bomb_costs_no_memory(
    tmp_path: Path, suffix: str, opened: Callable[..., io.BufferedIOBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 32 << 20)
    path = tmp_path / f"bomb.tar{suffix}"
    header = tarfile.TarInfo("huge.dcm")
    header.size = 300 << 20
    with opened(path, "wb") as file:
        file.write(header.tobuf())
        for _ in range(100):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    started = time.process_time()
    found = contents(str(path))
    took, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "holds more" in found.problem
    assert peak < 100 << 20
    # Of the processor: how long one waits depends on what else the machine does.
    assert took < 10


def test_a_zip_that_claims_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 10_000)
    path = pack(tmp_path / "x.zip", {"small": b"1", "big": bytes(1 << 20), "behind": b"2"})
    found = contents(str(path))
    assert [m.path for m in found.members] == [f"{path}//small"]
    assert "holds more" in found.problem


def test_too_many_members_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    for suffix in PACKINGS:
        path = pack(tmp_path / f"x{suffix}", {str(n): b"" for n in range(9)})
        assert "holds more" in contents(str(path)).problem


def test_a_member_that_lies_about_its_size_is_damaged(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a": bytes(1000)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 900_000)
    path.write_bytes(data)
    with pytest.raises(OSError, match="damaged"):
        content(f"{path}//a")


def test_a_bad_checksum_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", b"0123456789")
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    with pytest.raises(OSError, match="damaged"):
        content(f"{path}//a")


@pytest.mark.parametrize("suffix", PACKINGS)
def test_whatever_is_cut_off_is_told(tmp_path: Path, suffix: str) -> None:
    whole = pack(tmp_path / f"x{suffix}", {f"m{n}": os.urandom(600) for n in range(3)}).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        os.utime(path, ns=(length, length))
        found = contents(str(path))
        # The padding behind the end mark of a TAR may be missing: nothing is lost with it.
        assert found.problem or (suffix == ".tar" and length > 3 * 1536 and len(found.members) == 3), length
        for member in found.members:
            with suppress(OSError):
                content(member.path)


@pytest.mark.parametrize("suffix", PACKINGS)
def test_no_mutation_breaks_out(tmp_path: Path, suffix: str) -> None:
    import random

    dice = random.Random(7)
    whole = pack(tmp_path / f"x{suffix}", {f"m{n}": b"some text " * 40 for n in range(4)}).read_bytes()
    path = tmp_path / f"mutated{suffix}"
    for round_ in range(120):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 3, 20))):
            data[dice.randrange(len(data))] = dice.choice((0, 0xFF, dice.randrange(256)))
        path.write_bytes(data)
        os.utime(path, ns=(round_, round_))
        for member in contents(str(path)).members:
            with suppress(OSError):
                content(member.path)


@pytest.mark.parametrize("suffix", PACKINGS)
def test_a_library_takes_an_archive_as_it_takes_a_folder(
    library: Library, department: Path, tmp_path: Path, suffix: str
) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    path = pack_folder(drop / f"cd{suffix}", department)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    summary = library.ingest([drop])
    assert (summary.discovered, summary.indexed, summary.images, summary.reports) == (6, 6, 4, 2)
    assert {str(row[0]) for row in library._database.read("SELECT link_rule FROM reports")} == {"StudyID"}
    image_id = library._database.read("SELECT image_id FROM images ORDER BY image_id")[0][0]
    assert library.holdings.frame_picture(image_id).startswith(b"\x89PNG")
    assert library.holdings.frame_values(image_id).values.shape == (96, 96)
    handle, size = library.holdings.open_image(library.holdings.image_file(image_id))
    with handle:
        assert len(handle.read()) == size
    library.thumbnails.remove([image_id])
    assert library.thumbnail(image_id)
    assert library.similar(image_id, roi=(0, 0, 40, 40)).hits
    again = library.ingest([drop])
    assert (again.discovered, again.unchanged, again.removed) == (6, 6, 0)


def test_an_unchanged_archive_is_not_opened(
    library: Library, department: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    os.utime(pack_folder(drop / "cd.zip", department), (1_600_000_000, 1_600_000_000))
    library.ingest([drop], metadata_only=True)
    archive._listings.clear()
    monkeypatch.setattr(archive, "open_on_disk", lambda path: pytest.fail("was opened"))
    assert library.ingest([drop], metadata_only=True).unchanged == 6


def test_what_an_archive_no_longer_holds_is_removed(library: Library, department: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    path = pack_folder(drop / "cd.zip", department)
    library.ingest([drop])
    first = pack(path, {"a.dcm": next(department.rglob("*.dcm")).read_bytes()})
    os.utime(first, (1_650_000_000, 1_650_000_000))
    summary = library.ingest([drop])
    assert (summary.discovered, summary.removed) == (1, 5)
    assert library.totals().images == 1
    path.unlink()
    (drop / "other").write_bytes(b"so that the folder is not empty")
    assert library.ingest([drop]).removed == 1
    assert library.totals().images == 0


def test_an_archive_that_breaks_takes_nothing_away(library: Library, department: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    path = pack_folder(drop / "cd.zip", department)
    whole = path.read_bytes()
    library.ingest([drop])
    path.write_bytes(whole[:5000])
    os.utime(path, (1_650_000_000, 1_650_000_000))
    summary = library.ingest([drop])
    assert (summary.discovered, summary.failed, summary.removed) == (1, 1, 0)
    assert library.totals().images == 4
    assert [f.path for f in library.failures()] == [str(path)]
    path.write_bytes(whole)
    summary = library.retry_failures()
    assert (summary.failed, summary.unchanged) == (0, 6)
    assert library.failures() == []


def test_a_moved_archive_is_not_embedded_again(library: Library, department: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    path = pack_folder(drop / "cd.zip", department)
    library.ingest([drop])
    before = library._database.read("SELECT image_no FROM images ORDER BY image_no")
    path.rename(drop / "renamed.zip")
    summary = library.ingest([drop])
    assert (summary.updated, summary.removed, summary.indexed) == (6, 0, 0)
    assert library._database.read("SELECT image_no FROM images ORDER BY image_no") == before
    assert {row[0] for row in library._database.read("SELECT path FROM files WHERE path LIKE '%cd.zip%'")} == set()


def test_a_copy_of_an_archive_is_a_duplicate_and_takes_over(library: Library, department: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    path = pack_folder(drop / "a.zip", department)
    library.ingest([drop])
    (drop / "b.zip").write_bytes(path.read_bytes())
    # A report in another folder is one of its own, whatever it says; here the folders have the same names.
    assert library.ingest([drop]).duplicates == 6
    path.unlink()
    summary = library.ingest([drop])
    assert summary.failed == 0
    assert library.totals().images == 4
    assert all("b.zip//" in row[0] for row in library._database.read("SELECT path FROM images"))


def test_headers_first_then_pixels(library: Library, department: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    os.utime(pack_folder(drop / "cd.tar.gz", department), (1_600_000_000, 1_600_000_000))
    summary = library.ingest([drop], metadata_only=True)
    assert (summary.indexed, library.totals().vectors) == (6, 0)
    assert library.ingest([drop], metadata_only=True).unchanged == 6
    library.ingest([drop])
    assert library.totals().vectors == 4
    assert library.ingest([drop]).unchanged == 6


def test_an_archive_that_is_away_is_offline(library: Library, department: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    path = pack_folder(drop / "cd.zip", department)
    library.ingest([path], metadata_only=True)
    path.rename(tmp_path / "elsewhere.zip")
    summary = library.ingest([path], metadata_only=True)
    assert (summary.removed, summary.offline) == (0, (str(path),))
    assert library.totals().images == 4


def test_an_interrupted_archive_goes_on(
    library: Library, department: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    # It tells of files as they are committed, which a fast machine does once, at the end.
    monkeypatch.setattr("medsearch_desktop.ingest.FILES_PER_COMMIT", 1)
    drop = tmp_path / "drop"
    drop.mkdir()
    os.utime(pack_folder(drop / "cd.tar.xz", department), (1_600_000_000, 1_600_000_000))
    stop = threading.Event()
    first = library.ingest([drop], stop=stop, on_event=lambda event: event.settled >= 1 and stop.set())
    assert first.stopped
    second = library.ingest([drop])
    assert second.discovered == 6
    assert library.totals().images == 4
    assert library.totals().reports == 2
    assert library.failures() == []


def test_what_is_no_archive_is_told_and_what_is_dicom_is_taken(
    library: Library, department: Path, tmp_path: Path
) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    (drop / "text.zip").write_bytes(b"only text")
    (drop / "film.zip").write_bytes(next(department.rglob("*.dcm")).read_bytes())
    for path in drop.iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    summary = library.ingest([drop], metadata_only=True)
    assert (summary.indexed, summary.failed) == (1, 1)
    assert "no archive" in summary.failures[0].reason
    assert library.ingest([drop], metadata_only=True).failures == ()


def test_an_encrypted_member_is_a_failure(library: Library, department: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    path = pack_folder(drop / "cd.zip", department)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    summary = library.ingest([drop], metadata_only=True)
    assert (summary.indexed, summary.failed) == (5, 1)
    assert "encrypted" in summary.failures[0].reason
    assert library.ingest([drop], metadata_only=True).failed == 0
    assert len(library.failures()) == 1


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_what_a_dicomdir_inside_names_is_dicom(library: Library, tmp_path: Path, suffix: str) -> None:
    samples = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"
    files = {
        f"disc/{path.relative_to(samples)}".lower(): path.read_bytes()
        for name in ("77654033", "98892001", "98892003")
        for path in (samples / name).rglob("*")
        if path.is_file()
    }
    assert len(files) == 31
    damaged = min(files)
    files[damaged] = b"this is no image any more"
    files["disc/DICOMDIR"] = (samples / "DICOMDIR").read_bytes()
    path = pack(tmp_path / f"cd{suffix}", files)
    summary = library.ingest([path], metadata_only=True)
    assert [failure.path for failure in summary.failures] == [f"{path}//{damaged}"]
    assert (summary.discovered, summary.indexed) == (32, 30)


def test_inner_archives_share_what_the_outer_one_may_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 100_000)
    monkeypatch.setattr(archive, "MAX_RATIO", 1)
    inner = pack(tmp_path / "inner.zip", {"a": bytes(40_000)}).read_bytes()
    path = pack(tmp_path / "x.zip", {f"{number}.zip": inner for number in range(9)})
    found = contents(str(path))
    assert "holds more" in found.problem
    assert sum(member.size for member in found.members if not member.problem) <= 100_000


@pytest.mark.timeout(300)
def test_a_name_given_over_and_over_takes_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    block = tarfile.TarInfo("same").tobuf()
    path.write_bytes(block * 20_000 + bytes(1024))
    found = contents(str(path))
    assert len({member.path for member in found.members}) == 20_000


def test_an_archive_known_from_before_they_were_read_is_opened(
    library: Library, department: Path, tmp_path: Path
) -> None:
    path = pack_folder(tmp_path / "cd.zip", department)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    library.ingest([path], metadata_only=True)
    gone = [name for (name,) in library._database.read("SELECT path FROM files WHERE path LIKE '%//%'")]
    library._intake.remove(gone)
    library._database.write("UPDATE files SET kind = 'other', state = 'ignored'", {})
    assert library.ingest([path], metadata_only=True).indexed == 6


def test_contents_that_wait_are_bounded(department: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsearch_desktop.source.members._MOST_HELD", 1)
    with open_library(tmp_path / "library", create=True) as library:
        path = pack_folder(tmp_path / "cd.tar.gz", department)
        assert library.ingest([path], metadata_only=True).indexed == 6


def test_a_large_member_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_IN_MEMORY", 1000)
    data = os.urandom(200_000)
    for suffix in PACKINGS:
        path = pack(tmp_path / f"x{suffix}", {"big": data})
        with open_regular(f"{path}//big") as file:
            file.fileno()
            assert file.read() == data
