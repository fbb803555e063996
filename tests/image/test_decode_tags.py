"""What the decoder reads of a header, and of how it is written."""

from __future__ import annotations

import io
import struct
import warnings
from datetime import date
from typing import Any

import numpy as np
import pydicom
import pytest
from decoding_made import SHA, WINDOW, dataset, grey, run, shown, tags, written
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medsearch_desktop.errors import (
    NoPixelsError,
)
from medsearch_desktop.image.dataset import Header, Source


@pytest.mark.parametrize(
    ("age", "born", "studied", "years"),
    [
        ("045Y", "", "", 45.0), ("006M", "", "", 0.5), ("010W", "", "", 0.192), ("003D", "", "", 0.008),
        ("45", "", "", 45.0), ("45Y ", "", "", 45.0), ("", "19500101", "20200101", 70.0),
        ("", "20200101", "19500101", None),
        ("abc", "", "", None), ("", "19500101", "", None), ("999Y", "", "", None), ("-05Y", "", "", None),
    ],
)  # fmt: skip
def test_ages_are_years(age: str, born: str, studied: str, years: float | None) -> None:
    ds = dataset(grey(), PatientAge=age, PatientBirthDate=born, StudyDate=studied)
    assert tags(written(ds)).patient_age == years


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20200229", date(2020, 2, 29)), ("2020.02.29", date(2020, 2, 29)), ("20210229", None), ("2020", None),
     ("", None), ("00000000", None), ("20201301", None), ("garbage!", None)],
)  # fmt: skip
def test_malformed_dates_are_none(text: str, expected: date | None) -> None:
    data = written(dataset(grey(), StudyDate="20200101"))
    raw = text.encode() + b" " * (len(text) % 2)
    old = b"\x08\x00\x20\x00DA\x08\x0020200101"
    assert tags(data.replace(old, b"\x08\x00\x20\x00DA" + struct.pack("<H", len(raw)) + raw)).study_date == expected


@pytest.mark.parametrize(
    ("character_set", "text"),
    [
        ("ISO_IR 100", "Thorax Übersicht"), ("ISO_IR 101", "Hrudník žena"), ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 126", "Διονυσιος"), ("ISO_IR 127", "لنزار"), ("ISO_IR 138", "שרון"), ("ISO_IR 192", "胸部 Röntgen"),
        ("GB18030", "胸部正位片"), ("ISO_IR 166", "ทรวงอก"), ("ISO_IR 13", "ﾔﾏﾀﾞ"),
        (["", "ISO 2022 IR 87"], "Chest 胸部正面"), (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ 山田"),
        (["", "ISO 2022 IR 149"], "Chest 흉부"), ("", "Thorax AP"),
    ],
)  # fmt: skip
def test_text_is_read_in_its_character_set(character_set: str | list[str], text: str) -> None:
    ds = dataset(grey(), SpecificCharacterSet=character_set, StudyDescription=text)
    data = written(ds)
    assert tags(data).study_description == text
    assert pydicom.dcmread(io.BytesIO(data)).StudyDescription == text


def test_simplified_chinese_behind_an_escape_sequence() -> None:
    # pydicom writes this character set without its escape sequence, and cannot read it back.
    ds = dataset(grey(), SpecificCharacterSet=["", "ISO 2022 IR 58"], StudyDescription="Chest ????????")
    data = written(ds)
    for coded in (b"\x1b$)A\xd0\xd8\xb2\xbf", b"\xd0\xd8\xb2\xbf    "):
        assert tags(data.replace(b"????????", coded)).study_description == "Chest 胸部"


@pytest.mark.parametrize("character_set", [None, "ISO_IR 999", "nonsense", "ISO_IR 6"])
def test_undeclared_text_is_read_as_utf_8_or_else_latin_1(character_set: str | None) -> None:
    declared = {"SpecificCharacterSet": character_set} if character_set else {}
    data = written(dataset(grey(), StudyDescription="Thorax ???", **declared))
    assert tags(data.replace(b"???", "ß.".encode())).study_description == "Thorax ß."
    assert tags(data.replace(b"???", b"\xdf. ")).study_description == "Thorax ß."


def test_text_is_trimmed_and_holds_no_control_characters() -> None:
    data = written(dataset(grey(), PatientID="  AB 1 ", StudyDescription="A????B"))
    assert tags(data).patient_id == "AB 1"
    assert tags(data.replace(b"A????B", b"A\x07\xc3\xa9\x7fB")).study_description == "AéB"


def test_unknown_escape_sequences_and_character_sets_are_no_obstacle(caplog: pytest.LogCaptureFixture) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", "left lateral"
    item.SpecificCharacterSet = "ISO_IR 192"
    ds = dataset(grey(), StudyDescription="Chest ????AP", SpecificCharacterSet="ISO_IR 192")
    ds.ViewCodeSequence = Sequence([item])
    data = written(ds).replace(b"ISO_IR 192", b"ISO\xff IR 77")
    with warnings.catch_warnings():
        # As in the running program, where the decoder's own filter stands in front.
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        record = tags(data.replace(b"????", b"\x1b%~ "))
        assert tags(data.replace(b"????", b"\xff\x1b-Q")).study_description.startswith("Chest ")
    assert record.study_description.startswith("Chest ")
    assert record.study_description.endswith("AP")
    assert record.view_position == "LL"
    assert not caplog.records


def test_items_are_in_the_character_set_around_them() -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", "лево left lateral"
    ds = dataset(grey(), SpecificCharacterSet="ISO_IR 144", ViewCodeSequence=Sequence([item]))
    header = Header.read(Source(io.BytesIO(written(ds)), "the file"), inflate_limit=1)
    inner = header.item(0x00540220)
    assert inner is not None
    assert inner.text(0x00080104) == "лево left lateral"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_long_headers_are_read_on(syntax: str) -> None:
    ds = dataset(grey(), syntax=syntax, **WINDOW)
    plain = shown(written(ds))
    ds.private_block(0x0011, "MAKER", create=True)
    # Values of every size around that up to which they are read at once, and one longer than a window.
    rng = np.random.default_rng(12)
    values = {n: rng.bytes(2 * int(size)) for n, size in enumerate(rng.integers(0, 2100, 250))} | {250: bytes(500_000)}
    for n, value in values.items():
        ds.add_new(0x00111000 + n, "OB", value)
    data = written(ds)
    assert np.array_equal(shown(data), plain)
    assert tags(data).rows == 40
    if syntax != DeflatedExplicitVRLittleEndian:
        header = Header.read(Source(io.BytesIO(data), "the file"), inflate_limit=1)
        assert all(header.value(0x00111000 + n) == value for n, value in values.items())


@pytest.mark.parametrize(
    ("values", "view"),
    [
        ({"ViewPosition": "pa"}, "PA"), ({"ViewPosition": "LL", "SeriesDescription": "Chest AP"}, "LL"),
        ({"SeriesDescription": "CHEST_AP_PORTABLE"}, "AP"), ({"SeriesDescription": "Chest Lateral"}, "LATERAL"),
        ({"SeriesDescription": "CAP protocol, paper"}, ""), ({"SeriesDescription": "AP scout", "Modality": "CT"}, ""),
        ({"SeriesDescription": "L MLO", "Modality": "MG"}, "MLO"), ({"code": "postero-anterior"}, "PA"),
        ({"code": "left lateral", "SeriesDescription": "PA"}, "LL"),
    ],
)  # fmt: skip
def test_the_view_comes_from_where_it_is_stated(values: dict[str, Any], view: str) -> None:
    meaning = values.get("code", "")
    ds = dataset(grey(), **{name: value for name, value in values.items() if name != "code"})
    if meaning:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", meaning
        ds.ViewCodeSequence = Sequence([item])
    assert tags(written(ds)).view_position == view


def test_missing_identifiers_come_from_the_content() -> None:
    ds = dataset(grey())
    del ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID
    data = written(ds, preamble=False)
    first, again = tags(data), tags(data)
    other = tags(data, sha256=SHA[::-1])
    assert first == again
    uids = {first.sop_instance_uid, first.series_uid, first.study_uid}
    assert len(uids) == 3
    assert not uids & {other.sop_instance_uid, other.series_uid, other.study_uid}
    assert all(pydicom.uid.UID(uid).is_valid and uid.startswith("2.25.") for uid in uids)


def test_numbers_that_are_none_are_left_out() -> None:
    data = written(dataset(grey(), SeriesNumber="1234", InstanceNumber="99"))
    record = tags(data.replace(b"1234", b"1.5x").replace(b"IS\x02\x0099", b"IS\x02\x00 \0"))
    assert (record.series_number, record.instance_number) == (None, None)


def test_reading_tags_takes_no_pixels() -> None:
    data = written(dataset(grey(500, 500)))
    header = data[: data.index(b"\xe0\x7f\x10\x00") + 12]
    whole, cut = tags(data), tags(header)
    assert whole == cut == run(data).images[0]


def test_a_report_is_told_from_an_image_but_has_tags() -> None:
    ds = dataset(grey(), Modality="SR", AccessionNumber="A7")
    del ds.PixelData
    with pytest.raises(NoPixelsError, match="the file"):
        run(written(ds))
    assert tags(written(ds)).accession_number == "A7"
