"""Bytes to text."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.formats import read_text

ENGLISH = "FINDINGS: No pneumothorax.\nIMPRESSION: Oedème – mild “café” naïve."
LIMIT = 4_000_000


def read(data: bytes) -> tuple[str, str]:
    return read_text(data, name="report.txt", max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (ENGLISH.encode(), "utf-8"),
        (codecs.BOM_UTF8 + ENGLISH.encode(), "utf-8"),
        (codecs.BOM_UTF16_LE + ENGLISH.encode("utf-16-le"), "utf-16-le"),
        (codecs.BOM_UTF16_BE + ENGLISH.encode("utf-16-be"), "utf-16-be"),
        (ENGLISH.encode("utf-16-le"), "utf-16-le"),
        (ENGLISH.encode("utf-16-be"), "utf-16-be"),
        (codecs.BOM_UTF32_LE + ENGLISH.encode("utf-32-le"), "utf-32-le"),
        (codecs.BOM_UTF32_BE + ENGLISH.encode("utf-32-be"), "utf-32-be"),
        (ENGLISH.encode("utf-32-le"), "utf-32-le"),
        (ENGLISH.encode("utf-32-be"), "utf-32-be"),
        (ENGLISH.encode("cp1252"), "cp1252"),
        (b"Plain ASCII report.", "utf-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reads_every_encoding(data: bytes, encoding: str) -> None:
    text, found = read(data)
    assert found == encoding
    assert text == (ENGLISH if b"Plain" not in data else "Plain ASCII report.")


def test_latin_1_where_cp1252_has_no_character() -> None:
    text, encoding = read(b"Atelectasis \x81 and ed\xe8me in both lung bases.")
    assert encoding == "latin-1"
    assert text == "Atelectasis   and edème in both lung bases."


def test_guesses_a_foreign_code_page() -> None:
    russian = "Лёгкие без очаговых и инфильтративных изменений. Сердце не расширено. " * 8
    text, _ = read(russian.encode("cp1251"))
    assert text == russian


def test_line_ends_and_controls() -> None:
    text, _ = read("a b\r\nc\rd\x0ce\u2028f\x00g\ufeffh\x07i\tj k l m n".encode())
    assert text == "a b\nc\nd\ne\nfgh i\tj k l m n"


def test_trailing_nuls_of_fixed_length_records() -> None:
    assert read(b"No effusion." + b"\x00" * 2)[0] == "No effusion."


@pytest.mark.parametrize("data", [b"", b"  \r\n\t", b"\x00\x00\x00\x00", codecs.BOM_UTF8, codecs.BOM_UTF16_LE])
def test_empty_is_refused(data: bytes) -> None:
    with pytest.raises(ReportError, match="is empty"):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 20,
        b"%PDF-1.7 some text",
        b"PK\x03\x04 word/document.xml",
        b"\x00" * 128 + b"DICM" + b"x" * 400,
        b"\x89PNG\r\n\x1a\n" + b"\x00\x01" * 50,
        b"\x01\x02\x03\x04\x05\x06\x07\x08" * 40,
        b"text then " + b"\xff\x00\xfe\x01" * 100,
    ],
)
def test_binary_is_refused(data: bytes) -> None:
    with pytest.raises(ReportError, match=r"report\.txt: .*plain text"):
        read(data)


def test_oversize_names_limit_and_remedy() -> None:
    with pytest.raises(ReportError) as caught:
        read_text(b"x" * 1001, name="big.txt", max_bytes=1000)
    assert all(word in str(caught.value) for word in ("big.txt", "1001", "1000", "max_report_bytes"))


def test_odd_number_of_utf_16_bytes_is_refused() -> None:
    with pytest.raises(ReportError, match="utf-16-le"):
        read(codecs.BOM_UTF16_LE + b"a\x00b")


def test_messages_hold_nothing_of_the_text() -> None:
    with pytest.raises(ReportError) as caught:
        read(b"John Doe \x01\x02\x03\x04\x05\x06 pneumonia")
    assert "Doe" not in str(caught.value)
    assert "pneumonia" not in str(caught.value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=600))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    try:
        text, encoding = read(data)
    except ReportError:
        return
    codecs.lookup(encoding)
    assert text.strip()
    assert not any(char in text for char in "\r\x00\x07\ufeff")
    text.encode("utf-8")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cf", "Zl", "Zp", "Cn")), min_size=1, max_size=200))
def test_utf_8_text_comes_back_as_it_was(text: str) -> None:
    if text.strip() and not text.startswith(("%PDF", "PK")):
        assert read(text.encode())[0] == text
