"""The text layer of PDF files: read in a process of its own that nothing brings down for good."""

from __future__ import annotations

import io
import time
import zlib

import messages_made as made
import pytest
from pypdf import PdfWriter
from reportlab.pdfgen import canvas

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.documents import Limits, is_document, read_documents
from medsearch_desktop.report.pdf import HELPER, pdf_text
from medsearch_desktop.statements import Written

LIMITS = Limits(report=100_000, file=1_000_000)


@pytest.fixture(autouse=True)
def no_worker_stays():
    yield
    HELPER.close()


def read(data: bytes, **options: float) -> str:
    return pdf_text(data, name="r.pdf", max_characters=100_000, **options)


def objects(*bodies: bytes) -> bytes:
    """A PDF file of these objects, the first of which is the catalogue."""
    parts, places = [b"%PDF-1.7\n"], []
    for number, body in enumerate(bodies, start=1):
        places.append(sum(map(len, parts)))
        parts.append(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = sum(map(len, parts))
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    parts.append(b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(bodies) + 1, table))
    parts.append(b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, start))
    return b"".join(parts)


def page_of(content: bytes, *, compressed: bool = True) -> bytes:
    """A PDF file with one page of this content stream."""
    stream = zlib.compress(content, 9) if compressed else content
    how = b"/Filter /FlateDecode " if compressed else b""
    return objects(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< %s/Length %d >>\nstream\n%s\nendstream" % (how, len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )


def test_pages_and_lines_in_their_order() -> None:
    text = read(made.pdf("FINDINGS: Effusion.", "No nodule.", pages=2))
    assert [line for line in text.split("\n") if line] == ["FINDINGS: Effusion.", "No nodule."] * 2


def test_a_scanned_one_and_an_empty_one() -> None:
    with pytest.raises(ReportError, match="no text layer"):
        read(made.scanned_pdf())
    with pytest.raises(ReportError, match="cannot be read"):
        read(b"%PDF-1.7\n")


def locked(password: str) -> bytes:
    writer = PdfWriter(clone_from=io.BytesIO(made.pdf("IMPRESSION: Effusion.")))
    writer.encrypt(password, owner_password="owner", algorithm="AES-256")
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


def test_passwords() -> None:
    assert "Effusion" in read(locked(""))
    with pytest.raises(ReportError, match="password"):
        read(locked("secret"))


def test_too_many_pages_and_too_much_text() -> None:
    with pytest.raises(ReportError, match="more than 500 pages"):
        read(made.pdf("x", pages=501))
    with pytest.raises(ReportError, match="more text"):
        read(made.pdf("x" * 1000, pages=101))


def test_crafted_ones_cost_their_own_process_and_no_other() -> None:
    many = b"BT /F1 9 Tf 10 10 Td " + b"(x) Tj 1 0 Td " * 4_000_000 + b"ET"
    bombs = {
        "slow": page_of(many),
        "large": page_of(b" " * (200 << 20)),
        "loop": objects(b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 9 >>"),
        "itself": objects(b"<< /Type /Catalog /Pages 1 0 R >>"),
        "deep": page_of(b"[" * 1_000_000, compressed=False),
    }
    for name, bomb in bombs.items():
        began = time.monotonic()
        with pytest.raises(ReportError) as caught:
            read(bomb, max_seconds=3)
        # Never for as long as it likes; on a busy machine the clock runs on.
        assert time.monotonic() - began < 60, name
        assert caught.value.item == "r.pdf"
        assert "Effusion" in read(made.pdf("Effusion."))


def test_what_was_filled_into_a_form_is_read() -> None:
    stream = io.BytesIO()
    drawing = canvas.Canvas(stream, invariant=1)
    drawing.drawString(50, 800, "Report")
    drawing.acroForm.textfield(name="Findings", value="Pleural effusion.", x=50, y=700, width=300)
    drawing.acroForm.textfield(name="Empty", value="", x=50, y=600, width=300)
    drawing.save()
    assert read(stream.getvalue()).split() == ["Report", "Findings:", "Pleural", "effusion."]


def test_a_broken_form_costs_no_page() -> None:
    content = b"BT /F1 12 Tf 50 700 Td (No effusion.) Tj ET"
    data = page_of(content).replace(b"/Type /Catalog /Pages 2 0 R", b"/Type /Catalog /Pages 2 0 R /AcroForm 7")
    assert "No effusion." in read(data)


def test_ligatures_are_letters() -> None:
    (written,) = read_documents("Eﬀusion, inﬁltrate, suﬃcient.".encode(), name="r.txt", limits=LIMITS)
    assert isinstance(written, Written)
    assert written.text == "Effusion, infiltrate, sufficient."


@pytest.mark.parametrize(
    ("before", "name"), [(b"\r\n", "r"), (b"\xef\xbb\xbf\n\0", "r.txt"), (b"HTTP/1.1 200 OK\r\n\r\n", "R.PDF")]
)
def test_what_stands_before_a_pdf_makes_it_no_text(before: bytes, name: str) -> None:
    data = before + made.pdf("No effusion.")
    assert is_document(data[:4096], name, LIMITS)
    (written,) = read_documents(data, name=name, limits=LIMITS)
    assert isinstance(written, Written)
    assert written.text.strip() == "No effusion."


def test_a_text_that_speaks_of_pdf_is_a_text() -> None:
    assert not is_document(b"FINDINGS: the mark %PDF-1.4 is not read.", "r.txt", LIMITS)
