"""Memory: what claims or unpacks to more than there is, and what becomes of a process that the system ends for it."""

from __future__ import annotations

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.large import large_film
from fuzz.mutations import DEFLATED, J2K, JPEG_LS, RLE, _bytes, _compressed, _film
from makers import write_department
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit

from medsearch_desktop.library import open_library
from medsearch_desktop.quarantine import REASON

TESTS = Path(__file__).parents[1]
MOST_MIB = 1536
MOST_SECONDS = 10.0
# One picture of more is refused; the default would take twelve times as much.
MOST_PIXELS = 32_000_000
SIDE = 20_000
UNPACKED = 1200 << 20

pytestmark = pytest.mark.slow


def zeros(size: int, *, head: bytes = b"", tail: bytes = b"") -> bytes:
    """Return a raw deflate stream of that many zeros, without packing each of them."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    # A full flush leaves nothing behind it that what follows could need.
    return first + block * (size >> 24) + packer.compress(tail) + packer.flush()


def deflated_dicom(size: int, *, head: bytes = b"\x08\x00\x05\x00CS\x02\0  ", tail: bytes = b"") -> bytes:
    ds = _film()
    ds.file_meta.TransferSyntaxUID = UID(DEFLATED)
    meta = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(DEFLATED)) + DEFLATED.encode()
    return _bytes(ds)[:132] + meta + zeros(size, head=head, tail=tail)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int) -> bytes:
    size = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    stream = b"\x78\xda" + zeros(side * (side + 1)) + bytes(4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def jpeg(side: int) -> bytes:
    """The head of a baseline JPEG that claims to be so large, and nothing of its picture."""
    tables = b"\xff\xdb\0\x43\0" + b"\x01" * 64
    frame = b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", side, side) + b"\x01\x01\x11\0"
    huffman = b"\xff\xc4\0\x14\0" + b"\x01" + bytes(15) + b"\0" + b"\xff\xc4\0\x14\x10" + b"\x01" + bytes(15) + b"\0"
    return b"\xff\xd8" + tables + frame + huffman + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + b"\x3f" * 64 + b"\xff\xd9"


def rle() -> bytes:
    """A whole RLE picture of four hundred million zeros: 128 of them in two bytes."""
    ds = _film(Rows=SIDE, Columns=SIDE)
    segment = b"\x81\0" * (SIDE * SIDE // 128)
    offsets = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13)
    ds.file_meta.TransferSyntaxUID = UID(RLE)
    ds.PixelData = encapsulate([offsets + segment * 2])
    ds["PixelData"].is_undefined_length = True
    return _bytes(ds)


def claims(syntax: str) -> bytes:
    """A compressed picture whose codestream, and header, claim another size."""
    ds = _compressed(syntax)
    ds.Rows = ds.Columns = 60_000
    content = bytearray(_bytes(ds))
    if syntax == J2K:
        start = content.find(b"\xff\x4f\xff\x51")
        content[start + 8 : start + 16] = struct.pack(">II", 60_000, 60_000)
    else:
        start = content.find(b"\xff\xf7")
        content[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(content)


def nested(*, undefined: bool) -> bytes:
    data, deep = _bytes(_film()), 10_000
    if undefined:
        body = (b"\x40\x00\x60\xa1SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff") * deep
        body += b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * deep
    else:
        # From the inside out, each twenty bytes longer than what it holds.
        lengths = range(20 * deep, 0, -20)
        body = b"".join(
            b"\x40\x00\x60\xa1SQ\0\0"
            + struct.pack("<I", size - 12)
            + b"\xfe\xff\x00\xe0"
            + struct.pack("<I", size - 20)
            for size in lengths
        )
    place = data.find(b"\x28\x00\x02\x00")
    return data[:place] + body + data[place:]


def long_header(length: int) -> bytes:
    data = _bytes(_film())
    place = data.find(b"\x28\x00\x02\x00")
    return data[:place] + b"\x11\x00\x10\x10UN\0\0" + struct.pack("<I", length) + data[place:]


def pdf() -> bytes:
    stream = b"\x78\xda" + zeros(512 << 20) + bytes(4)
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R>>",
        b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(stream), stream),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, start=1):
        places.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(out)
    return (
        out
        + b"xref\n0 5\n0000000000 65535 f \n"
        + table
        + b"trailer<</Size 5/Root 1 0 R>>startxref\n%d\n%%%%EOF" % start
    )


def zip_file(name: bytes, size: int) -> bytes:
    packed = zeros(size)
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(packed), size, len(name), 0)
    local = b"PK\x03\x04" + fields + name + packed
    central = b"PK\x01\x02\x14\0" + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    return local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


def tar_gz(size: int) -> bytes:
    name = b"film.dcm".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"00000000000\0"
    header = name + b" " * 8 + b"0" + bytes(100) + b"ustar\x0000"
    header = header.ljust(512, b"\0")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return gzip.compress(b"")[:10] + zeros(size, head=header) + bytes(8)


def huge(rows: int, columns: int, **values: object) -> bytes:
    return _bytes(_film(Rows=rows, Columns=columns, **values))


def encapsulated_pdf() -> bytes:
    ds = _film()
    del ds.PixelData, ds.Rows, ds.Columns
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    ds.Modality, ds.MIMETypeOfEncapsulatedDocument = "DOC", "application/pdf"
    content = pdf()
    ds.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return _bytes(ds)


def jpeg_in_dicom() -> bytes:
    ds = _film(Rows=60_000, Columns=60_000, BitsAllocated=8, BitsStored=8, HighBit=7)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([jpeg(60_000)])
    ds["PixelData"].is_undefined_length = True
    return _bytes(ds)


def bombs() -> dict[str, bytes]:
    """Return files of a few megabytes at most that want gigabytes, by name."""
    header = b"\x11\x00\x10\x10UN\0\0" + struct.pack("<I", 48 << 20)
    meta = b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.66"
    return {
        "deflated.dcm": deflated_dicom(UNPACKED),
        # A long header and no picture: read twice, and the second time with less patience.
        "deflated-no-pixels.dcm": deflated_dicom(48 << 20, head=meta + header),
        "rle.dcm": rle(),
        "jpeg.dcm": jpeg_in_dicom(),
        "jpeg-ls.dcm": claims(JPEG_LS),
        "jpeg-2000.dcm": claims(J2K),
        "native.dcm": huge(65535, 65535),
        "frames.dcm": huge(40, 40, NumberOfFrames=2_147_483_647),
        "colour.dcm": huge(65535, 65535, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
        "nested.dcm": nested(undefined=True),
        "nested-lengths.dcm": nested(undefined=False),
        "two-gigabytes.dcm": long_header(0x7FFFFFFE),
        "four-gigabytes.dcm": long_header(0xFFFFFFFE),
        "picture.png": png(SIDE),
        "claims.png": png(40)[:16] + struct.pack(">II", 0x7FFFFFFF, 0x7FFFFFFF) + png(40)[24:],
        "chunk.png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0x7FFFFFFF) + b"IHDR" + bytes(100),
        "claims.jpg": jpeg(65_500),
        "bomb.pdf": pdf(),
        "encapsulated.dcm": encapsulated_pdf(),
        "bomb.zip": zip_file(b"film.dcm", UNPACKED),
        "report.zip": zip_file(b"report.txt", UNPACKED),
        "bomb.tar.gz": tar_gz(UNPACKED),
    }


def test_bombs_are_refused_within_bounded_memory(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_department(source, studies=2, size=64)
    made = bombs()
    assert max(map(len, made.values())) < 16 << 20
    for name, data in made.items():
        (source / name).write_bytes(data)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))}
    done = subprocess.run(
        [sys.executable, str(TESTS / "fuzz" / "ingest_watched.py"), str(tmp_path / "library"), str(source)],
        capture_output=True, text=True, env={**environ, "MEDSEARCH_MAX_PIXELS": str(MOST_PIXELS)}, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    # The sound ones are all there; each of the others says what is wrong with it, or is read as what little it is.
    assert told["reports"] == 2
    assert told["images"] >= 4
    listed = {Path(failure["path"].split("//")[0]).name: failure["reason"] for failure in told["failures"]}
    assert all(len(reason) > 10 for reason in listed.values())
    may_be_read = {"nested.dcm", "nested-lengths.dcm", "deflated-no-pixels.dcm", "frames.dcm", "deflated.dcm"}
    assert set(made) - set(listed) <= may_be_read, told["failures"]
    assert told["longest"] < MOST_SECONDS, told["where"]
    assert told["mib"] < MOST_MIB


@contextmanager
def at_most(mebibytes: int) -> Iterator[list[str]]:
    """Lend the beginning of a command line under which a program has no more memory, of the system's own counting."""
    root = Path("/sys/fs/cgroup")
    old = (root / "memory" / "memory.limit_in_bytes").exists()
    group = (root / "memory" if old else root) / f"medsearch-{uuid.uuid4().hex}"
    limit = "memory.limit_in_bytes" if old else "memory.max"
    swap = "memory.memsw.limit_in_bytes" if old else "memory.swap.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(mebibytes << 20))
    except OSError as error:
        group.rmdir() if group.exists() else None
        pytest.skip(f"no control group of memory can be made here ({error}): run it as root with cgroups writable")
    if (group / swap).exists():
        (group / swap).write_text(str(mebibytes << 20) if old else "0")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        group.rmdir()


def test_a_film_for_which_the_system_ends_the_program_is_left_out_after_two_tries(tmp_path: Path) -> None:
    source, path = write_department(tmp_path / "source", studies=2, size=64), tmp_path / "library"
    big = large_film(source / "big.dcm", 16_000)
    ingest = [sys.executable, "-m", "medsearch_desktop", "ingest", "--json", "--library", str(path), str(source)]
    # As much for the rest on a machine of many cores.
    ingest += ["--threads", "2"]
    with at_most(700) as begin:
        for _ in range(2):
            died = subprocess.run([*begin, *ingest], capture_output=True, text=True, check=False)
            assert died.returncode == -signal.SIGKILL, died.stderr
        third = subprocess.run([*begin, *ingest], capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr
    assert json.loads(third.stdout)["failures"] == [{"path": str(big), "reason": REASON}]
    with open_library(path) as library:
        assert (library.totals().images, library.totals().reports) == (4, 2)
        assert [failure.path for failure in library.failures()] == [str(big)]
        assert library.health.verify().ok


# The program as it is, in a process that may have so much memory and no more.
LIMITED = """
import resource, sys
from medsearch_desktop.serve.cli import main
most = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds the memory of a process")
def test_a_film_for_which_there_is_no_memory_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    source, path = write_department(tmp_path / "source", studies=2, size=64), tmp_path / "library"
    big = large_film(source / "big.dcm", 19_000)
    command = [sys.executable, "-c", LIMITED, "1500", "ingest", "--json", "--library", str(path), str(source)]
    # One after the other, so that it is this film that meets the end of it.
    command += ["--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (failure,) = json.loads(done.stdout)["failures"]
    assert failure["path"] == str(big)
    assert "takes more memory than there is" in failure["reason"]
    with open_library(path) as library:
        assert (library.totals().images, library.totals().reports) == (4, 2)
        assert [failure.path for failure in library.failures()] == [str(big)]
        assert library.health.verify().ok
