"""What takes bytes from outside, as one table of fuzz targets: sound seeds, the reader, and what it may refuse by.

A target returns when its reader took the bytes, and lets out the reader's own refusals; whatever else gets out, a
promise that does not hold, ten seconds or two gigabytes are a finding. The seeds are made by the tests' makers.
"""

from __future__ import annotations

import asyncio
import atexit
import io
import itertools
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from functools import cache
from pathlib import Path

import messages_made as made
import numpy as np
from fuzz.mutations import sound_files
from makers import REPORTS
from PIL import Image as Raster
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medsearch_desktop.errors import DecodeError, MedSearchError, QueryError, ReportError, RequestError
from medsearch_desktop.image.decode import decode, read_tags
from medsearch_desktop.image.preprocess import thumbnail
from medsearch_desktop.records import FileKind
from medsearch_desktop.report.documents import Limits, is_document, read_documents
from medsearch_desktop.report.formats import read_text
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.report.rows import find_columns, read_rows
from medsearch_desktop.search.filters import describe, to_sql
from medsearch_desktop.search.query import parse, unparse
from medsearch_desktop.search.text import compile_tree, make_snippet
from medsearch_desktop.serve.multipart import Parts, boundary_of
from medsearch_desktop.source.archive import contents, open_member
from medsearch_desktop.source.dicomdir import promised_members
from medsearch_desktop.source.mllp import Listener, Spool
from medsearch_desktop.source.sniff import broken_promise, expected_kind, sniff_bytes
from medsearch_desktop.statements import Written
from medsearch_desktop.store.database import Parquet

LIMITS = Limits(report=200_000, file=4_000_000)
TEXT = "FINDINGS: Large left pleural effusion. No pneumothorax, oedème.\nIMPRESSION: Left effusion."


@dataclass(frozen=True)
class Target:
    """One reader: its seeds, what it is given them by, and the errors of our tree that it may refuse bytes by.

    `length` bounds what is made of the seeds, in bytes.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    refusals: tuple[type[Exception], ...] = ()
    length: int = 16_384


@cache
def workplace() -> Path:
    """Return a folder for what only reads files. Whoever ends the process otherwise than by its end removes it."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_numbers = itertools.count()


class _OnDisk:
    """The bytes as a file under a name that no other had: what is known of a file is kept by its name and time."""

    def __init__(self, data: bytes, suffix: str) -> None:
        self._path = workplace() / f"{next(_numbers)}{suffix}"
        self._path.write_bytes(data)

    def __enter__(self) -> str:
        return str(self._path)

    def __exit__(self, *_: object) -> None:
        self._path.unlink()


def _header(data: bytes) -> None:
    image = read_tags(io.BytesIO(data), name="f", sha256="0" * 64)
    # The database takes no lone surrogates, and no study may be nameless.
    assert image.study_uid.encode()
    assert image.sop_instance_uid.encode()


def _pixels(data: bytes) -> None:
    for key_slices in (0, 3):
        decoded = decode(
            io.BytesIO(data), name="f", sha256="0" * 64, max_frames=2, max_pixels=1 << 20, key_slices=key_slices
        )
        for image, display in zip(decoded.images, decoded.displays, strict=True):
            assert display is not None or image.pixel_error or image.place is not None
            if display is not None:
                assert display.dtype == np.uint8
                assert thumbnail(display, size=64)


def _rasters() -> list[bytes]:
    grey = np.arange(48 * 40, dtype=np.uint32).reshape(48, 40)
    forms = [
        ("PNG", Raster.fromarray((grey % 256).astype(np.uint8))),
        ("PNG", Raster.fromarray((grey * 30).astype(np.uint16))),
        ("PNG", Raster.fromarray((grey % 256).astype(np.uint8)).convert("P")),
        ("JPEG", Raster.fromarray((grey % 256).astype(np.uint8))),
        ("JPEG", Raster.fromarray((grey % 256).astype(np.uint8)).convert("RGB")),
    ]
    found = []
    for form, picture in forms:
        stream = io.BytesIO()
        exif = Raster.Exif()
        exif[0x0112] = 6
        picture.save(stream, form, **({"exif": exif} if form == "JPEG" else {}))
        found.append(stream.getvalue())
    return found


_NAMES = ("a.dcm", "IM0001", "report.txt", "x.hl7", "x.pdf", "table.csv", "1.2.840.7", "README", "x.rtf", "d/DICOMDIR")


def _sniff(data: bytes) -> None:
    name, content = _NAMES[data[0] % len(_NAMES)] if data else "x", data[1:]
    kind = sniff_bytes(content[:4096], size=len(content), name=name)
    assert kind in FileKind
    assert broken_promise(name, kind, size=len(content)) == "" or expected_kind(name) is not None
    is_document(content[:4096], name, LIMITS)


def _sniffed() -> list[bytes]:
    bare = sound_files()[0]
    return [
        b"\0" + bare[:4096], b"\1" + bare[132:4096], b"\2" + TEXT.encode(), b"\2" + TEXT.encode("utf-16"),
        b"\3" + made.hl7("Clear."), b"\4" + made.pdf("Clear."), b"\5report_id,text\n1,Clear.\n", b"\0" + _rasters()[0],
    ]  # fmt: skip


def _archive(data: bytes) -> None:
    # Told by its content; the name only says that it is to be looked at.
    with _OnDisk(data, ".zip") as path:
        for member in contents(path).members[:20]:
            assert member.problem or member.size >= 0
            with suppress(OSError), open_member(member.path) as file:
                while file.read(1 << 20):
                    pass


def _archives() -> list[bytes]:
    members = {"a.txt": b"FINDINGS: Clear.", "d/b.dcm": b"x" * 300, "../c": b"", "in.zip": _zip({"e.txt": b"e"})}
    found = [_zip(members), _zip(members, zipfile.ZIP_DEFLATED), _zip(members, zipfile.ZIP_BZIP2)]
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT) as file:  # type: ignore[call-overload]
            for name, data in members.items():
                info = tarfile.TarInfo(name * (60 if name == "a.txt" else 1))
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        found.append(stream.getvalue())
    return found


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


def _dicomdir(data: bytes) -> None:
    paths = ("IM1", "D/IM2", "d/im2", "..", "A;1", "")
    assert promised_members(data, paths) <= set(paths)


def _dicomdirs() -> list[bytes]:
    ds = made.header(uid="1.2.3", study="1.2", sop_class="1.2.840.10008.1.3.10", modality="")
    records = []
    for parts in (["IM1"], ["D", "IM2"], ["..", "IM1"], ["A;1"]):
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        record.ReferencedSOPClassUIDInFile = "1.2.840.10008.5.1.4.1.1.1"
        records.append(record)
    ds.DirectoryRecordSequence = Sequence(records)
    return [made.saved(ds)]


def _documents(name: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        _check(read_documents(data, name=name, limits=LIMITS))

    return read


def _check(found: Iterable[Written | ReportError]) -> None:
    refused: ReportError | None = None
    for each in found:
        if isinstance(each, ReportError):
            assert each.message
            assert each.item
            refused = each
        else:
            # The database takes nothing that UTF-8 cannot say.
            each.text.encode()
            repr(each.stated).encode()
    if refused is not None:
        raise refused


def _hl7() -> list[bytes]:
    return [
        made.hl7(*TEXT.split("\n"), after=["ZDS|1.2.3.4.5^^Application^DICOM"]) + made.hl7("Two.", filler="2"),
        b"\x0b" + made.hl7(r"A\.br\B \X0D\ \T\ \S\ \Z", charset="8859/1", status="P") + b"\x1c\r",
        b"FHS|^~\\&\rBHS|^~\\&\r" + made.hl7("Clear.", charset="ISO IR87") + b"BTS|1\rFTS|1\r",
        made.hl7("OBX|1|ED|x^y||^Application^RTF^Base64^e1xydGYxIENsZWFyLn0=||||||F", "OBX|2|FT|x||1~2||||||F"),
    ]


def _fhir() -> list[bytes]:
    result = {"resourceType": "Observation", "id": "o", "code": {"text": "x"}, "valueString": "y"}
    report = made.diagnostic_report(TEXT, conclusion="Effusion.", result=[{"reference": "Observation/o"}])
    formed = made.diagnostic_report(presentedForm=[made.presented("text/html", b"<p>Clear.</p>")])
    return [
        made.as_bytes(made.bundle(report, result)),
        made.as_bytes(report) + b"\n" + made.as_bytes(made.diagnostic_report("Two.", number="2")),
        made.as_bytes(formed),
    ]


def _tables() -> list[bytes]:
    return [
        f'report_id,accession,findings\n1,A1,"{TEXT}"\n2,A2,Clear.\n'.encode(),
        "study_id;text;patient_id\n5;Clear.;P1\n;;\n".encode("utf-16"),
    ]


def _parquet(data: bytes) -> None:
    with _OnDisk(data, ".parquet") as path:
        table = Parquet(path, memory_mib=128)
        try:
            found = find_columns(table.columns)
            if found is not None:
                rows = table.rows(table.columns)
                _check(read_rows(rows, found, name="f", max_characters=LIMITS.report))
        finally:
            table.close()


def _parquets() -> list[bytes]:
    import duckdb

    path = workplace() / "seed.parquet"
    rows = "SELECT 'r' || i AS report_id, 'A' || i AS accession, 'FINDINGS: Clear.' AS text FROM range(3) t(i)"
    found = []
    for packing in ("uncompressed", "snappy", "zstd"):
        duckdb.sql(f"COPY ({rows}) TO '{path}' (FORMAT parquet, COMPRESSION {packing})")
        found.append(path.read_bytes())
        path.unlink()
    return found


def _markup(data: bytes) -> None:
    text, _ = read_text(data, name="f", max_bytes=LIMITS.report)
    text.encode()


def _marked_up() -> list[bytes]:
    return [
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0 FINDINGS: Effusion.\par No \'e9 nodule.\u8217? \bin3 abc}",
        rb"{\rtf1{\field{\*\fldinst HYPERLINK x}{\fldrslt y}}{\*\unknown z}\uc0\u-3 \cell\row}",
        b"<html><head><style>p{}</style></head><body><p>FINDINGS:&nbsp;Clear &lt; 5 mm.<br/><b>No</b></p></html>",
        TEXT.encode("utf-16-be"), TEXT.encode("cp1252"), "ВЫВОДЫ: норма".encode("koi8-r"),
    ]  # fmt: skip


def _multipart(data: bytes) -> None:
    declared, _, body = data.partition(b"\n")
    kind = "application/dicom"
    boundary = boundary_of(declared.decode("latin-1"), kind=kind) or "b"
    whole, pieces = Parts(boundary), Parts(boundary)
    # In pieces of any size the same parts come.
    step = 1 + len(declared) % 7
    ahead = _parts(event for at in range(0, len(body), step) for event in pieces.feed(body[at : at + step]))
    assert _parts(whole.feed(body)) == ahead
    assert whole.ended == pieces.ended


def _parts(events: Iterable[Message | bytes | None]) -> list[tuple[str, bytes, bool]]:
    found: list[tuple[str, bytes, bool]] = []
    try:
        for event in events:
            if isinstance(event, Message):
                found.append((event.get_content_type(), b"", False))
            else:
                kind, content, _ = found[-1]
                found[-1] = (kind, content + (event or b""), event is None)
    except RequestError:
        found.append(("refused", b"", True))
    return found


def _bodies() -> list[bytes]:
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\none\r\n--b\r\n\r\n\r\ntwo\r\n--b--\r\n"
    return [
        b'multipart/related; type="application/dicom"; boundary=b\n' + body,
        b"multipart/related; boundary=b\npreamble\r\n" + body + b"epilogue",
        b"\n--b\r\nContent-Type: x\r\n\r\n--b--",
    ]


class _Answers:
    """What the listener says, in place of a socket's end."""

    def __init__(self) -> None:
        self.said = bytearray()

    def write(self, data: bytes) -> None:
        self.said += data

    async def drain(self) -> None:
        return


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _mllp(data: bytes) -> None:
    folder = workplace() / "mllp"
    heard: list[tuple[str, str]] = []
    listener = Listener(Spool(folder), max_bytes=4096, on_message=lambda code, said: heard.append((code, said)))
    answers = _Answers()

    async def talk() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        await listener._talk(reader, answers)  # type: ignore[arg-type]

    _loop().run_until_complete(talk())
    kept = {path.name: path.stat().st_size for path in folder.iterdir()}
    for name in kept:
        (folder / name).unlink()
    # What is acknowledged is on the disk, and nothing else is; every message gets one answer, framed.
    assert sorted(said for code, said in heard if code == "AA") == sorted(kept)
    assert answers.said.count(b"\x1c\r") == answers.said.count(b"\x0bMSH")
    # Some ask for no answer (MSH-15).
    assert len(heard) == answers.said.count(b"\x1c\r") or b"NE" in data or b"ER" in data


def _feeds() -> list[bytes]:
    one = b"\x0b" + made.hl7("Clear.") + b"\x1c\r"
    return [one + one, b"\x0b" + made.hl7("Clear.", kind="ADT^A01") + b"\x1c\r", b"noise" + one, b"\x0bMSH\x1c\r"]


def _reports_sr() -> list[bytes]:
    deep = made.content("TEXT", "121071", "Finding", TextValue="Nodule.")
    for _ in range(12):
        deep = made.content("CONTAINER", "121070", "Findings", ContentSequence=Sequence([deep]))
    number = made.content("NUM", "1", "Size", MeasuredValueSequence=Sequence([_measured()]))
    return [
        made.saved(made.sr(before=["1.2.3"])),
        made.saved(made.sr(deep, number, SpecificCharacterSet="ISO_IR 192")),
        made.saved(made.sr(*made.sections(*made.SECTIONS), sop_class=made.BASIC_TEXT_SR, CompletionFlag="PARTIAL")),
    ]


def _measured() -> Dataset:
    value = Dataset()
    value.NumericValue = "5.5"
    value.MeasurementUnitsCodeSequence = Sequence([made.concept("mm", "millimeter", "UCUM")])
    return value


def _query(data: bytes) -> None:
    question = data.decode("utf-8", "replace")
    tree = parse(question)
    assert parse(unparse(tree)) == tree
    assert describe(tree) or not question.strip()
    to_sql(tree, matching_studies=lambda _: ())
    compile_tree(tree)
    make_snippet(TEXT, (("FINDINGS", 9, 60),), tree)


def _queries() -> list[bytes]:
    asked = (
        'effusion AND NOT pneumothorax view:PA age:>60 OR (present:cardiomegaly absent:"pleural effusion")',
        "date:2024-01..2024-12 -nodul* icd:J93 modality:DX sex:F like:1.2.3 impression:clear",
        'uncertain:"a b" historical:tb age:40..60 -(a b) "x y" date:<2020 patient:P1 label:x',
    )
    return [question.encode() for question in asked]


@cache
def _reader() -> ReportReader:
    return ReportReader()


def _report(data: bytes) -> None:
    text, _ = read_text(data, name="f", max_bytes=LIMITS.report)
    report = _reader().read(text, report_id="r")
    for section in report.sections:
        assert 0 <= section.start <= section.end <= len(text)
    for entity in report.entities:
        assert entity.text == text[entity.start : entity.end] != ""
        assert entity.cue_start < 0 or entity.cue == text[entity.cue_start : entity.cue_end]


TARGETS: dict[str, Target] = {
    "dicom-header": Target(_header, sound_files, (DecodeError,)),
    "dicom-pixels": Target(_pixels, sound_files, (DecodeError,)),
    "raster": Target(_pixels, _rasters, (DecodeError,)),
    "sniff": Target(_sniff, _sniffed, length=4200),
    "archive": Target(_archive, _archives),
    "dicomdir": Target(_dicomdir, _dicomdirs),
    "hl7": Target(_documents("f.hl7"), _hl7, (ReportError,)),
    "mllp": Target(_mllp, _feeds, length=8192),
    "fhir": Target(_documents("f.json"), _fhir, (ReportError,)),
    "markup": Target(_markup, _marked_up, (ReportError,)),
    "csv": Target(_documents("f.csv"), _tables, (ReportError,)),
    "parquet": Target(_parquet, _parquets, (ReportError,)),
    "sr": Target(_documents("f.dcm"), _reports_sr, (ReportError, DecodeError)),
    "pdf": Target(_documents("f.pdf"), lambda: [made.pdf(*TEXT.split("\n"), pages=2)], (ReportError,)),
    "multipart": Target(_multipart, _bodies),
    "query": Target(_query, _queries, (QueryError,), length=2000),
    "report": Target(_report, lambda: [TEXT.encode(), *(each.encode() for each in REPORTS)], (ReportError,)),
}


def take(target: Target, data: bytes) -> bool:
    """Give a target some bytes; return whether it took them. Raises what may not get out."""
    try:
        target.run(data)
    except target.refusals as error:
        if isinstance(error, MedSearchError) and not error.message:
            raise
        return False
    return True
