"""Pixels and headers as writers in the field make them, where that is not as the standard would have it."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding_made import WINDOW, compress, dataset, grey, run, shown, tags, written
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from volumes_made import enhanced_dataset

from medsearch_desktop.errors import TruncatedFileError
from medsearch_desktop.image.dataset import Header, opened
from medsearch_desktop.image.frames import layout_of, rendering_of
from medsearch_desktop.image.places import place_of, spacing_of
from medsearch_desktop.image.preprocess import Window
from medsearch_desktop.library import open_library

TWELVE = {"BitsStored": 12, "HighBit": 11}
XA = "1.2.840.10008.5.1.4.1.1.12.1"


def packed(pixels: np.ndarray, syntax: str, **values: Any) -> bytes:
    """Whole containers of `pixels` as a codec packs them, and only then what the header says of their bits."""
    ds = dataset(pixels, **WINDOW)
    if syntax != ExplicitVRLittleEndian:
        compress(ds, syntax)
    for name, value in values.items():
        setattr(ds, name, value)
    return written(ds)


SYNTAXES = [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_bits_above_those_stored_are_no_part_of_the_picture(syntax: str) -> None:
    plain = grey(40, 40)
    drawn = plain.copy()
    drawn[10:20, 5:25] |= 0x1000
    drawn[30:, :] |= 0x8000
    assert np.array_equal(shown(packed(drawn, syntax, **TWELVE)), shown(packed(plain, syntax, **TWELVE)))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_twelve_signed_bits_without_their_sign_in_sixteen(syntax: str) -> None:
    signed = grey(40, 40).astype("i2") - 2048
    window = {"WindowCenter": "0", "WindowWidth": "4096", "PixelRepresentation": 1}
    whole = shown(packed(signed, ExplicitVRLittleEndian, **window))
    masked = signed.view("u2") & 0x0FFF
    assert np.array_equal(shown(packed(masked, syntax, **TWELVE, **window)), whole)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_overlay_below_samples_at_the_top_is_not_taken_for_samples_at_the_bottom(syntax: str) -> None:
    drawn = grey(40, 40) << 4
    drawn[10:20, 5:25] |= 1
    top = {"BitsStored": 12, "HighBit": 15}
    assert np.array_equal(shown(packed(drawn, syntax, **top)), shown(packed(grey(40, 40), syntax, **TWELVE)))
    # Of a dark picture only the header tells.
    dark = (grey(top=200) << 4) | 1
    overlay = {"OverlayRows": 40, "OverlayBitsAllocated": 16, "OverlayBitPosition": 0}
    ds = dataset(dark, **top, **WINDOW)
    for name, value in overlay.items():
        number = {"OverlayRows": 0x60000010, "OverlayBitsAllocated": 0x60000100, "OverlayBitPosition": 0x60000102}[name]
        ds.add_new(number, "US", value)
    assert np.array_equal(shown(written(ds)), shown(packed(grey(top=200), ExplicitVRLittleEndian, **TWELVE)))


@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_samples_at_the_bottom_that_are_said_to_be_at_the_top(dtype: str) -> None:
    pixels = grey().astype(dtype) - (2048 if dtype == "i2" else 0)
    window = {"WindowCenter": "0", "WindowWidth": "4096"} if dtype == "i2" else {}
    right, wrong = ({"BitsStored": 12, "HighBit": bit, **window} for bit in (11, 15))
    native = ExplicitVRLittleEndian
    assert np.array_equal(shown(packed(pixels, native, **wrong)), shown(packed(pixels, native, **right)))


def test_jpeg_ls_of_dcmtk_shows_what_dcmtk_shows(tmp_path: Path) -> None:
    if not (shutil.which("dcmcjpls") and shutil.which("dcmj2pnm")):
        pytest.skip("needs dcmtk (Debian: apt-get install dcmtk)")
    masked = (grey().astype("i2") - 2048).view("u2") & 0x0FFF
    ds = dataset(masked, **TWELVE, PixelRepresentation=1, WindowCenter="0", WindowWidth="3000")
    (tmp_path / "plain.dcm").write_bytes(written(ds))
    subprocess.run(["dcmcjpls", tmp_path / "plain.dcm", tmp_path / "packed.dcm"], check=True)
    command = ["dcmj2pnm", "+Wi", "1", tmp_path / "plain.dcm", tmp_path / "seen.pgm"]
    subprocess.run(command, check=True)
    seen = np.frombuffer((tmp_path / "seen.pgm").read_bytes()[-masked.size :], "u1").reshape(masked.shape)
    ours = shown((tmp_path / "packed.dcm").read_bytes())
    assert np.abs(ours.astype(int) - seen).max() <= 1


def segment(plane: bytes) -> bytes:
    """Literal runs alone (PS3.5 G.3.1)."""
    runs = [plane[start : start + 128] for start in range(0, len(plane), 128)]
    return b"".join(bytes((len(run) - 1,)) + run for run in runs)


@pytest.mark.parametrize("samples", [1, 3])
def test_segments_of_rle_that_hold_more_than_the_picture(samples: int, capfd: pytest.CaptureFixture[str]) -> None:
    pixels = grey() if samples == 1 else (grey(top=255).astype("u1")[..., None] * np.ones(3, "u1"))
    planes = [(pixels >> 8).astype("u1"), pixels.astype("u1")] if samples == 1 else list(pixels.transpose(2, 0, 1))
    segments = [segment(plane.tobytes() + b"\x07\x07") for plane in planes]
    offsets = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    # Offsets that are not used should be 0, and are not always.
    for unused in (0, 9):
        table = [len(segments), *offsets, *[unused] * (15 - len(segments))]
        ds = dataset(pixels, **WINDOW)
        ds.PixelData = encapsulate([struct.pack("<16I", *table) + b"".join(segments)])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = RLELossless
        with warnings.catch_warnings():
            # As in the running program, where the decoder's own filter stands in front.
            warnings.filterwarnings("ignore", module=r"pydicom\.")
            assert np.array_equal(shown(written(ds)), shown(written(dataset(pixels, **WINDOW))))
    damaged = ds.PixelData[:60] + b"\xff" * 8 + ds.PixelData[68:]
    ds.PixelData = damaged[:-200] + bytes(200)
    assert "RLE frame is not decodable" in run(written(ds)).images[0].pixel_error
    # The codec, which is Rust, tells of its panic there.
    capfd.readouterr()


@pytest.mark.parametrize(("syntax", "order"), [("1.2.840.113619.5.2", ">"), ("1.2.826.0.1.3680043.2.494.1.1", "<")])
def test_private_transfer_syntaxes_that_compress_nothing(syntax: str, order: str) -> None:
    plain = dataset(grey(), syntax=ImplicitVRLittleEndian, **WINDOW)
    ds = dataset(grey(), syntax=ImplicitVRLittleEndian, **WINDOW)
    ds.PixelData = grey().astype(f"{order}u2").tobytes()
    number, data = str(ImplicitVRLittleEndian).encode() + b"\0", written(ds)
    private = syntax.encode() + b"\0" * (len(syntax) % 2)
    old, new = (struct.pack("<HH2sH", 2, 16, b"UI", len(uid)) + uid for uid in (number, private))
    assert old in data
    assert np.array_equal(shown(data.replace(old, new)), shown(written(plain)))


def test_raw_data_of_makers_is_no_failure(tmp_path: Path) -> None:
    ds = dataset(grey(), SOPClassUID="1.3.12.2.1107.5.9.1", Modality="MR", PatientID="P1")
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "picture.dcm").write_bytes(written(ds))
    ds.SOPInstanceUID = "1.2.3.5"
    del ds.PixelData
    (folder / "lost.dcm").write_bytes(written(ds))
    ds.SOPInstanceUID = "1.2.3.6"
    del ds.Rows
    (folder / "raw.dcm").write_bytes(written(ds))
    with open_library(tmp_path / "library", create=True) as library:
        summary = library.ingest([folder])
        assert [failure.path.rpartition("/")[2] for failure in summary.failures] == ["lost.dcm"]
        assert summary.indexed == 2
        assert library.search("patient:P1").total == 1
        assert library.ingest([folder]).unchanged == 3


def table(first: int, vr: str, *, count: int = 4096, bits: int = 12) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, vr, [count, first, bits])
    curve = (np.linspace(0, 1, count) ** 2 * ((1 << bits) - 1)).astype("<u2")
    item.add_new(0x00283006, "OW", curve.tobytes())
    return Sequence([item])


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_table_that_begins_below_zero_whatever_its_vr(keyword: str, syntax: str) -> None:
    values = grey().astype("i2") - 1024
    seen = [
        shown(written(dataset(values, syntax=syntax, **{keyword: table(first, vr)})))
        for first, vr in ((-1024, "SS"), (65536 - 1024, "US"))
    ]
    assert np.array_equal(*seen)
    assert len(np.unique(seen[0])) > 100


def test_a_table_of_rescaled_values_may_begin_below_zero_or_high_above() -> None:
    lowered = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    seen = [
        shown(written(dataset(grey(), **TWELVE, **lowered, VOILUTSequence=table(first, vr))))
        for first, vr in ((-1024, "SS"), (65536 - 1024, "US"))
    ]
    assert np.array_equal(*seen)
    high = dataset(grey(top=65535), **lowered, VOILUTSequence=table(40000, "US"))
    expected = np.clip((grey(top=65535).astype(int) - 1024 - 40000) / 4095, 0, 1) ** 2 * 255
    assert np.abs(shown(written(high)) - expected).max() <= 1


@pytest.mark.parametrize("number", ["1", "1.1", "2", "2.1", "3"])
def test_the_table_of_intensities_of_angiography_is_not_for_display(number: str) -> None:
    values = {"SOPClassUID": f"1.2.840.10008.5.1.4.1.1.12.{number}", "Modality": "XA", **TWELVE, **WINDOW}
    plain = shown(written(dataset(grey(), **values)))
    curved = dataset(grey(), **values, PixelIntensityRelationship="LOG", ModalityLUTSequence=table(0, "US"))
    assert np.array_equal(shown(written(curved)), plain)
    curved.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    assert not np.array_equal(shown(written(curved)), plain)


def test_a_palette_of_twelve_bits_is_not_dark() -> None:
    pixels, reds = np.arange(256, dtype="u1").reshape(16, 16), np.arange(256)
    seen = []
    for bits in (8, 12, 16):
        values: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name in ("Red", "Green", "Blue"):
            values[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
            values[f"{name}PaletteColorLookupTableData"] = (reds << (bits - 8)).astype("<u2").tobytes()
        seen.append(shown(written(dataset(pixels, **values))))
    assert np.array_equal(seen[0][..., 0], pixels)
    assert np.array_equal(seen[1], seen[0])
    assert np.array_equal(seen[2], seen[0])


@pytest.mark.parametrize("kind", ["Data", "segmented"])
def test_entries_of_eight_bits_in_big_endian_words(kind: str) -> None:
    pixels, seen = np.arange(256, dtype="u1").reshape(16, 16), []
    for syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian):
        values: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name, first in (("Red", 0), ("Green", 50), ("Blue", 100)):
            entries = bytes((first + i) % 256 for i in range(256))
            # A discrete segment for each half (PS3.3 C.7.9.2).
            halves = bytes((0, 128)) + entries[:128] + bytes((0, 128)) + entries[128:]
            data = np.frombuffer(entries if kind == "Data" else halves, "u2")
            values[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
            prefix = "" if kind == "Data" else "Segmented"
            keyword = f"{prefix}{name}PaletteColorLookupTableData"
            values[keyword] = (data if syntax == ExplicitVRLittleEndian else data.byteswap()).tobytes()
        seen.append(shown(written(dataset(pixels, syntax=syntax, **values))))
    assert np.array_equal(seen[0][..., 0], pixels)
    assert np.array_equal(*seen)


def header_of(data: bytes) -> Header:
    with opened(io.BytesIO(data), "f") as file:
        return Header.read(file, inflate_limit=1 << 20)


def window_of(data: bytes, frame: int = 0) -> Window | None:
    header = header_of(data)
    return rendering_of(header, layout_of(header, 1 << 28), frame).window


def test_decimal_commas_are_read() -> None:
    data = written(dataset(grey(), WindowCenter="2048.5", WindowWidth="4096.5", PixelSpacing=[0.125, 0.25]))
    data = data.replace(b"2048.5", b"2048,5").replace(b"4096.5", b"4096,5").replace(rb"0.125\0.25", rb"0,125\0,25")
    assert window_of(data) == Window(2048.5, 4096.5)
    assert spacing_of(header_of(data), 0) == ((0.125, 0.25), False)


def test_a_window_of_no_width_leaves_ct_its_usual_one() -> None:
    ct = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT", "RescaleIntercept": -1024, "RescaleSlope": 1}
    for width in ("0", "-1"):
        assert window_of(written(dataset(grey(), **ct, WindowCenter="0", WindowWidth=width))) == Window(40, 400)
    lung = Dataset()
    lung.CodeMeaning = "Chest"
    assert window_of(written(dataset(grey(), **ct, AnatomicRegionSequence=Sequence([lung])))) == Window(-600, 1500)


def test_a_frame_may_have_a_table_of_its_own() -> None:
    group, values = Dataset(), Dataset()
    values.VOILUTSequence = table(0, "US")
    group.FrameVOILUTSequence = Sequence([values])
    own = dataset(grey(), **TWELVE, PerFrameFunctionalGroupsSequence=Sequence([group]))
    assert np.array_equal(shown(written(own)), shown(written(dataset(grey(), **TWELVE, VOILUTSequence=table(0, "US")))))


@pytest.mark.parametrize("undefined", [False, True])
def test_functional_groups_larger_than_any_memory_bound_are_read_frame_by_frame(undefined: bool) -> None:
    count = 600
    ds = enhanced_dataset(1, count)
    ds.Rows = ds.Columns = 2
    ds.PixelData = bytes(8 * count)
    for group in ds.PerFrameFunctionalGroupsSequence:
        # What some makers keep for each frame.
        group.add_new(0x20050010, "LO", "MAKER")
        group.add_new(0x20051001, "UN", bytes(30_000))
        group.is_undefined_length_sequence_item = undefined
    ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined
    data = written(ds)
    assert len(data) > 17_000_000
    header = header_of(data)
    for frame in (0, 1, count - 1):
        assert place_of(header, frame).position == 5 * (count - 1 - frame)
        assert window_of(data, frame) == Window(40 + count - 1 - frame, 400)
    # Frames behind the last group have what all share.
    assert place_of(header, count).position is None
    places = [image.place.position for image in run(data, key_slices=3).images if image.place]
    assert len(places) == 3
    assert max(places) - min(places) > 1000


def coded(value: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return Sequence([item])


@pytest.mark.parametrize(
    ("code", "meaning", "view"),
    [
        ("399162004", "cranio-caudal", "CC"), ("R-10226", "schräg medio-lateral", "MLO"), ("R-10224", "", "ML"),
        ("399352003", "latero-medial", "LM"), ("399099002", "latero-medial oblique", "LMO"),
        ("399192008", "cranio-caudal exaggerated laterally", "XCCL"), ("399196006", "caudo-cranial", "FB"),
        ("1.2", "cranio-caudal", "CC"),
    ],
)  # fmt: skip
def test_views_of_the_breast_are_told_by_their_codes(code: str, meaning: str, view: str) -> None:
    ds = dataset(grey(), Modality="MG", ViewCodeSequence=coded(code, meaning), SpecificCharacterSet="ISO_IR 192")
    assert tags(written(ds)).view_position == view


@pytest.mark.parametrize("shared", [True, False])
def test_side_and_region_of_frames_are_those_of_the_image(shared: bool) -> None:
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "R", coded("76752008", "Breast")
    group.FrameAnatomySequence = Sequence([anatomy])
    groups = {"SharedFunctionalGroupsSequence" if shared else "PerFrameFunctionalGroupsSequence": Sequence([group])}
    tomosynthesis = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3", "Modality": "MG"}
    record = tags(written(dataset(grey(), **tomosynthesis, **groups)))
    assert (record.laterality, record.body_part) == ("R", "BREAST")
    record = tags(written(dataset(grey(), **tomosynthesis, **groups, ImageLaterality="L", BodyPartExamined="CHEST")))
    assert (record.laterality, record.body_part) == ("L", "CHEST")
    anatomy.FrameLaterality = "U"
    assert tags(written(dataset(grey(), **groups))).laterality == ""


def test_words_in_place_of_letters() -> None:
    record = tags(written(dataset(grey(), PatientSex="Female", Laterality="Left")))
    assert (record.patient_sex, record.laterality) == ("F", "L")


@pytest.mark.parametrize(
    ("age", "born", "years"),
    [("000Y", "19600101", 60), ("0Y", "19600101", 60), ("999Y", "19600101", 60), ("000Y", "20200101", 0.082),
     ("000Y", "", 0), ("999Y", "", None), ("000D", "19600101", 0), ("045Y", "19600101", 45)],
)  # fmt: skip
def test_an_age_that_stands_for_none_is_worked_out(age: str, born: str, years: float | None) -> None:
    ds = dataset(grey(), PatientAge=age, PatientBirthDate=born, StudyDate="20200131")
    assert tags(written(ds)).patient_age == years


def test_whole_numbers_with_a_decimal_point() -> None:
    data = written(dataset(np.zeros((3, 4, 4), "u1"), frames=3, InstanceNumber="12345"))
    number = struct.pack("<HH2sH", 0x28, 8, b"IS", 2) + b"3 "
    assert number in data
    record = tags(data.replace(number, struct.pack("<HH2sH", 0x28, 8, b"IS", 4) + b"3.0 ").replace(b"12345", b"1234."))
    assert (record.number_of_frames, record.instance_number) == (3, 1234)


@pytest.mark.parametrize(
    ("declared", "coding", "text"),
    [
        ("ISO_IR 100", "utf-8", "Übersicht"), ("ISO 2022 IR 100", "utf-8", "Übersicht"),
        ("ISO_IR 109", "utf-8", "żebro"), ("ISO_IR 100", "latin-1", "Übersicht"),
        ("ISO_IR 101", "iso8859-2", "Hrudník"), ("ISO_IR_100", "latin-1", "für"),
        ("iso_ir 144", "iso8859-5", "Грудь"), ("ISO 8859-5", "iso8859-5", "Грудь"), ("ISO_IR 149", "euc_kr", "흉부"),
        ("UTF8", "utf-8", "胸部"), ("GB2312", "gbk", "胸部"), ("ISO_IR 192", "latin-1", "Übersicht"),
        ("zlib", "latin-1", "Übersicht"), ("ISO_IR 000", "utf-8", "胸部"), ("ISO 8859-99", "latin-1", "Übersicht"),
    ],
)  # fmt: skip
def test_character_sets_as_they_are_named_and_as_they_are(declared: str, coding: str, text: str) -> None:
    value = text.encode(coding)
    value += b" " * (-len(value) % 8)
    data = written(dataset(grey(), SpecificCharacterSet="ISO_IR 6", StudyDescription="?" * len(value)))
    old = struct.pack("<HH2sH", 8, 5, b"CS", 8) + b"ISO_IR 6"
    assert old in data
    name = declared.encode() + b" " * (len(declared) % 2)
    data = data.replace(old, struct.pack("<HH2sH", 8, 5, b"CS", len(name)) + name)
    assert tags(data.replace(b"?" * len(value), value)).study_description == text


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("vr", [b"UN", b"OB", b"??", b"  ", b"\0\0"])
def test_lengths_of_two_bytes_where_four_are_due(vr: bytes, order: str) -> None:
    syntax = ExplicitVRLittleEndian if order == "<" else ExplicitVRBigEndian
    ds = dataset(grey(), syntax=syntax, **WINDOW)
    plain = written(ds)
    at = plain.index(struct.pack(f"{order}HH2s", 0x28, 2, b"US"))
    odd = struct.pack(f"{order}HH2sH", 0x27, 0x1010, vr, 6) + b"Thorax"
    assert np.array_equal(shown(plain[:at] + odd + plain[at:]), shown(plain))
    # The same in a file that ends behind it is a cut one.
    with pytest.raises(TruncatedFileError, match=r"claims|cut short"):
        run(plain[:at] + odd + plain[at : at + 4])
