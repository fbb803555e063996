"""What a file is, told from its bytes: on pydicom's own sample files, on made ones, and on noise."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from medsearch_desktop.errors import SourceError
from medsearch_desktop.records import FileKind
from medsearch_desktop.source.sniff import HEAD_BYTES, broken_promise, digest, expected_kind, sniff, sniff_bytes

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
# Its first byte is damaged, and with it the tag of its first element.
DAMAGED = {"no_meta.dcm"}
WITH_PREAMBLE = [path for path in sorted(SAMPLES.glob("*.dcm")) if path.read_bytes()[128:132] == b"DICM"]
REPORT = b"FINAL REPORT\n FINDINGS: The lungs are clear.\n IMPRESSION: No acute disease.\n"


def kind_of(head: bytes, name: str) -> FileKind:
    return sniff_bytes(head[:HEAD_BYTES], size=len(head), name=name)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.dcm")), ids=lambda path: path.name)
def test_every_sample_is_dicom_whatever_it_is_called(path: Path) -> None:
    expected = FileKind.OTHER if path.name in DAMAGED else FileKind.DICOM
    head = path.read_bytes()
    assert kind_of(head, path.name) is expected
    assert kind_of(head, "IM0001") is expected
    assert kind_of(head, "notes.txt") is expected


@pytest.mark.parametrize("path", WITH_PREAMBLE, ids=lambda path: path.name)
def test_samples_stay_dicom_without_preamble(path: Path) -> None:
    assert kind_of(path.read_bytes()[132:], "IM0001") is FileKind.DICOM


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("explicit", [True, False])
def test_bare_data_sets_of_every_encoding(order: str, explicit: bool) -> None:
    def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        tag = struct.pack(f"{order}HH", group, number)
        if explicit:
            return tag + vr + struct.pack(f"{order}H", len(value)) + value
        return tag + struct.pack(f"{order}I", len(value)) + value

    elements = [
        element(0x0008, 0x0005, b"CS", b"ISO_IR 100"),
        element(0x0008, 0x0016, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        element(0x0010, 0x0020, b"LO", b"P1"),
    ]
    sound = b"".join(elements)
    assert kind_of(sound, "x") is FileKind.DICOM
    assert kind_of(elements[1] + elements[0] + elements[2], "x") is FileKind.OTHER, "tags rise in a data set"
    assert kind_of(sound[:10], "x") is FileKind.OTHER
    cut = sound[: len(elements[0]) + 20]
    assert kind_of(cut, "x") is FileKind.OTHER, "a length beyond the end of the file"
    assert kind_of(sound[:-1], "x") is FileKind.DICOM, "two sound elements are enough to call it a damaged file"


def test_a_table_of_contents_is_no_image() -> None:
    tables = sorted((SAMPLES / "dicomdirtests").glob("DICOMDIR*"))
    assert tables
    for path in tables:
        assert sniff(path) is FileKind.OTHER
    assert broken_promise("DICOMDIR", FileKind.OTHER, size=400) == ""


def test_rasters_by_content(tmp_path: Path) -> None:
    for name, form in (("a.png", "PNG"), ("b.dcm", "PNG"), ("c.jpg", "JPEG"), ("d", "JPEG")):
        Pillow.new("L", (5, 4)).save(tmp_path / name, form)
        assert sniff(tmp_path / name) is FileKind.RASTER
    for name, form in (("e.png", "TIFF"), ("f.png", "BMP"), ("g.jpg", "GIF")):
        Pillow.new("L", (5, 4)).save(tmp_path / name, form)
        assert sniff(tmp_path / name) is FileKind.OTHER


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("s1.txt", REPORT, FileKind.REPORT),
        ("S1.TXT", REPORT, FileKind.REPORT),
        ("s1.rpt", REPORT, FileKind.REPORT),
        ("s1.text", b"Normal chest.", FileKind.REPORT),
        ("s1.txt", "R\u00e9sultat: thorax normal".encode("latin-1"), FileKind.REPORT),
        ("s1.txt", "所見: 異常なし".encode("shift_jis"), FileKind.REPORT),
        ("s1.txt", "所見: 異常なし".encode("iso2022_jp"), FileKind.REPORT),
        ("s1.txt", REPORT.decode().encode("utf-16"), FileKind.REPORT),
        ("s1.txt", REPORT.decode().encode("utf-16-be"), FileKind.REPORT),
        ("s1.txt", REPORT.decode().encode("utf-16-le"), FileKind.REPORT),
        ("s1.txt", b"\xef\xbb\xbf" + REPORT, FileKind.REPORT),
        ("s1.txt", REPORT + b"\0" * 100, FileKind.REPORT),
        ("s1.txt", REPORT + b"\x1a", FileKind.REPORT),
        ("A1234", REPORT, FileKind.REPORT),
        ("1.2.840.113619.2.7", REPORT, FileKind.REPORT),
        ("A1234", REPORT.decode().encode("utf-16"), FileKind.REPORT),
        ("Makefile", b"all:\n\tmake\n", FileKind.OTHER),
        ("README.txt", REPORT, FileKind.OTHER),
        ("LICENSE.txt", b"Apache License", FileKind.OTHER),
        ("SHA256SUMS.txt", b"00 files/a.dcm\n", FileKind.OTHER),
        ("readmeter.txt", REPORT, FileKind.REPORT),
        ("notes.md", REPORT, FileKind.OTHER),
        ("run.log", REPORT, FileKind.OTHER),
        ("a.csv", b"a,b\n1,2\n", FileKind.OTHER),
        ("a.json", b'{"findings": "none"}', FileKind.OTHER),
        ("a.xml", b"<?xml version='1.0'?><a/>", FileKind.OTHER),
        ("a.html", b"<html>FINDINGS: none</html>", FileKind.OTHER),
        ("a.py", b"import os\n", FileKind.OTHER),
        ("s1.txt", b"", FileKind.OTHER),
        ("s1.txt", b" \r\n\t ", FileKind.OTHER),
        ("s1.txt", b"\0" * 500, FileKind.OTHER),
        ("s1.txt", b"%PDF-1.7\n1 0 obj", FileKind.OTHER),
        ("s1.txt", rb"{\rtf1\ansi FINDINGS: none}", FileKind.REPORT),
        ("s1.txt", bytes(range(256)) * 4, FileKind.OTHER),
        ("s1.txt", bytes(range(1, 32)) * 40, FileKind.OTHER),
    ],
)
def test_text(name: str, content: bytes, expected: FileKind) -> None:
    assert kind_of(content, f"/some.txt/folder/{name}") is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/a/x.dcm", FileKind.DICOM),
        ("x.DICOM", FileKind.DICOM),
        ("x.jpeg", FileKind.RASTER),
        ("x.TXT", FileKind.REPORT),
        ("IM0001", None),
        ("1.2.3.4", None),
        ("x.csv", None),
        ("README.txt", None),
        ("folder.dcm/notes", None),
    ],
)
def test_expected_kind(name: str, expected: FileKind | None) -> None:
    assert expected_kind(name) is expected


def test_only_broken_promises_are_failures() -> None:
    assert "not DICOM" in broken_promise("/a/x.dcm", FileKind.OTHER, size=10)
    assert "PNG or JPEG" in broken_promise("x.png", FileKind.OTHER, size=10)
    assert "not plain text" in broken_promise("x.txt", FileKind.OTHER, size=10)
    assert broken_promise("x.dcm", FileKind.OTHER, size=0) == "the file is empty"
    assert broken_promise("x.dcm", FileKind.RASTER, size=10) == ""
    assert broken_promise("x.bin", FileKind.OTHER, size=0) == ""


@given(st.binary(max_size=HEAD_BYTES), st.integers(0, 2**40), st.text(max_size=30))
def test_sniffing_never_raises(head: bytes, size: int, name: str) -> None:
    assert sniff_bytes(head, size=size, name=name) in FileKind
    assert isinstance(broken_promise(name, FileKind.OTHER, size=size), str)


@given(
    st.sampled_from(
        [b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02", b"\0" * 128 + b"DICM", b"\xff\xfe", b"\xfe\xff"]
    ),
    st.binary(max_size=200),
    st.sampled_from(["a.txt", "a", "a.dcm"]),
)
def test_noise_behind_a_plausible_start_never_raises(start: bytes, noise: bytes, name: str) -> None:
    assert sniff_bytes(start + noise, size=len(start + noise), name=name) in FileKind


@given(st.binary(min_size=64, max_size=400))
def test_ascii_text_is_never_taken_for_an_image(noise: bytes) -> None:
    text = bytes(32 + byte % 90 for byte in noise)
    assert kind_of(text, "a.txt") in {FileKind.REPORT, FileKind.OTHER}


def test_digest_is_that_of_the_content(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    file = tmp_path / "x"
    file.write_bytes(content)
    assert digest(file) == hashlib.sha256(content).hexdigest()
    assert digest(str(file)) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("read", [digest, sniff])
def test_what_cannot_be_read_is_a_source_error(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(SourceError, match="No such file") as caught:
        read(tmp_path / "gone.dcm")
    assert caught.value.item == str(tmp_path / "gone.dcm")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(SourceError):
        read(tmp_path)


@pytest.mark.parametrize("read", [digest, sniff])
@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc for a file that fails to read")
def test_a_failing_drive_is_a_source_error(read: object) -> None:
    assert callable(read)
    # Address 0 is not mapped: the kernel answers the read with EIO.
    with pytest.raises(SourceError, match="Input/output error"):
        read("/proc/self/mem")


@pytest.mark.parametrize("read", [digest, sniff])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(120)
def test_a_pipe_is_refused_without_waiting(tmp_path: Path, read: object) -> None:
    assert callable(read)
    os.mkfifo(tmp_path / "pipe.dcm")
    with pytest.raises(SourceError, match="not a regular file"):
        read(tmp_path / "pipe.dcm")
