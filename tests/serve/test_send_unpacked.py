"""What a station gets that knows no compression: the same samples, and never the end of the process."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from decoding_made import PYDICOM_FILES, compress, dataset, grey, shown, written
from phantoms_made import JXL_LOSSLESS, items
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless
from pynetdicom import AE, evt

from medsearch_desktop.sending import Line, Sent, Station, send

CR = "1.2.840.10008.5.1.4.1.1.1"


@contextmanager
def plain_station() -> Iterator[tuple[Line, list[Dataset]]]:
    """A station that takes CR alone, uncompressed."""
    came: list[Dataset] = []

    def store(event: evt.Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        came.append(ds)
        return 0

    ae = AE("PLAIN")
    ae.add_supported_context(CR, ExplicitVRLittleEndian)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield Line(Station("PLAIN", "127.0.0.1", server.server_address[1])), came
    finally:
        server.shutdown()


def sent(folder: Path, *files: bytes) -> tuple[list[Sent], list[Dataset]]:
    paths = [folder / f"{number}.dcm" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    with plain_station() as (line, came):
        results = list(send(line, [(path.name, path) for path in paths]))
    return results, came


def of_class(data: bytes, sop_class: str = CR) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(io.BytesIO(data))
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        buffer = io.BytesIO()
        ds.save_as(buffer)
    return buffer.getvalue()


def packed(pixels: np.ndarray, syntax: str, **values: object) -> bytes:
    ds = dataset(pixels, SOPClassUID=CR)
    if syntax == JXL_LOSSLESS:
        items(ds, [jxl_frame(pixels)])
        ds.file_meta.TransferSyntaxUID = UID(syntax)
    else:
        compress(ds, syntax)
    for name, value in values.items():
        setattr(ds, name, value)
    return written(ds)


def jxl_frame(pixels: np.ndarray) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpegxl_encode(pixels, lossless=True))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JXL_LOSSLESS])
def test_the_header_says_where_the_samples_are(tmp_path: Path, syntax: str) -> None:
    pixels = grey(40, 40) << 4
    pixels[10:20, 5:25] |= 1
    data = packed(pixels, syntax, BitsStored=12, HighBit=15)
    (result,), (ds,) = sent(tmp_path, data)
    assert (result.ok, "unpacked" in result.note) == (True, True)
    assert np.array_equal(np.frombuffer(ds.PixelData, "<u2").reshape(pixels.shape), pixels)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 15)
    assert np.array_equal(shown(written(ds)), shown(data))


@pytest.mark.parametrize(
    "name",
    ["JPGExtended.dcm", "JPEG-lossy.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle_2frame.dcm", "examples_jpeg2k.dcm"],
)
def test_what_is_shown_of_it_is_shown_there(tmp_path: Path, name: str) -> None:
    data = of_class((PYDICOM_FILES / name).read_bytes())
    (result,), (ds,) = sent(tmp_path, data)
    assert result.ok
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    there = written(ds)
    assert np.array_equal(shown(there), shown(data))
    if "2frame" in name:
        assert len(ds.PixelData) == 2 * ds.Rows * ds.Columns * 3


def test_chrominance_of_every_pixel_is_said_to_be_there(tmp_path: Path) -> None:
    colour = np.random.default_rng(5).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    data = packed(colour, RLELossless, PhotometricInterpretation="YBR_FULL_422")
    _, (ds,) = sent(tmp_path, data)
    assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("YBR_FULL", 0)
    assert ds.PixelData == colour.tobytes()
    assert len(ds.PixelData) % 2 == 0


def test_big_endian_words_are_turned_round(tmp_path: Path) -> None:
    curve = Dataset()
    curve.LUTDescriptor, curve.ModalityLUTType = [256, 0, 12], "US"
    table = np.linspace(0, 4095, 256).astype(">u2")
    curve.add_new(0x00283006, "OW", table.tobytes())
    ds = dataset(grey(top=255), syntax=ExplicitVRBigEndian, SOPClassUID=CR, ModalityLUTSequence=Sequence([curve]))
    data = written(ds)
    (result,), (came,) = sent(tmp_path, data)
    assert result.ok
    assert np.array_equal(np.frombuffer(came.PixelData, "<u2").reshape(40, 30), grey(top=255))
    assert np.array_equal(np.frombuffer(came.ModalityLUTSequence[0].LUTData, "<u2"), table)
    assert np.array_equal(shown(written(came)), shown(data))


def test_damaged_frames_are_told_and_end_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = of_class((PYDICOM_FILES / "SC_rgb_jpeg_gdcm.dcm").read_bytes())
    tables = data.index(b"\xff\xc4")
    stray = [data[:tables] + mark + data[tables + 2 :] for mark in (b"\xff\xd4", b"\xff\xff", b"\xff\xcc", b"\xff\xc1")]
    ds = dataset(grey(), SOPClassUID=CR)
    ds.compress(RLELossless, generate_instance_uid=False)
    # A run that passes the end of the picture: the codec, which is Rust, panics.
    ds.PixelData = encapsulate([bytes(ds.PixelData[16:80]) + bytes((127,)) + b"\1" * 128 * 20])
    ds["PixelData"].is_undefined_length = True
    sound = packed(grey(), RLELossless)
    results, came = sent(tmp_path, *stray, written(ds), sound)
    assert [result.ok for result in results] == [False] * 5 + [True]
    assert all("cannot be unpacked: the " in result.note for result in results[:5])
    assert len(came) == 1
    capfd.readouterr()
