"""Do the decoders work here: a small built-in picture of each family of transfer syntaxes, decoded and compared.

And a phantom of every depth and sign, encoded on the spot by what is installed.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import DecodeError
from medsearch_desktop.image.codecs import DEFLATED_FRAMES, FRAMED, RLE, Layout, decompress
from medsearch_desktop.image.preprocess import Rendering, stored_values
from medsearch_desktop.image.video import first_pixels, is_readable


@dataclass(frozen=True, slots=True)
class _Sample:
    """An 8 x 8 picture in one family of transfer syntaxes, in base 85; lossy ones are off by up to `tolerance`."""

    family: str
    codec: str
    syntax: str
    depth: int
    tolerance: int
    stream: bytes


_SAMPLES = (
    # Sixty-four literal bytes (PS3.5 G), behind the offset of the one segment.
    _Sample(
        "RLE Lossless",
        "pylibjpeg-rle",
        RLE,
        8,
        0,
        b"0RR91KmY&$0000000000000000000000000000000000000000000000000000000000000000000000KL86BAuKmSO%xw0H9$*N"
        b"VJI^`NmO5Ibv#E>U1)QDiBMZ+aeRl8on&u%g^-)3v3P@ynWV3}#f+Dtt+>O^*#H",
    ),
    _Sample(
        "JPEG Baseline",
        "Pillow",
        "1.2.840.10008.1.2.4.50",
        8,
        2,
        b"|JeWA07C!*0RaI40RjO50RjR70s;gB0s;a81q1{G1O^2L1_lKN1_lQS2nGiU2L=WR3kV4c3JMAe1_%ob3knPg3JMDUzyJ#f00;mG"
        b"0Ra&J|HJ?k0096100000000000000000;lX02&Yg00#g70000000000000002ni-MLsI|R00;pA002J#F(%0+5wn^{|Je",
    ),
    _Sample(
        "JPEG Extended 12-bit",
        "python-gdcm",
        "1.2.840.10008.1.2.4.51",
        12,
        2,
        b"|JeWA07C!*0RaI40RjO50RjR70s;gB0s;a81q1{G1O^2L1_lKN1_lQS2nGiU2L=WR3kV4c3JMAe1_%ob3knPg3JMDU!2k;k00;mG"
        b"0Ra&J|HJ?k0096100000000000000001N-b02~ki00sj90000000000000003=JwcM^$5U|Jncu0RaF2KL9cEZwV(6U9-4qlb(V9"
        b"*#",
    ),
    _Sample(
        "JPEG Lossless",
        "python-gdcm",
        "1.2.840.10008.1.2.4.70",
        12,
        0,
        b"|JeV;02TlN0RaF20000000000000082@L<k01FHN2mlBH01*KH+5iXv000I60MGugSS%I`1%kq$C=?0>0)arFs0sxFfk2>8C@KPh"
        b"K%h`46bcG}pin3j3Izg!pePgy1p<LUpr{H30)arFP$((_fk2>8C=?0+|Je",
    ),
    _Sample(
        "JPEG-LS",
        "pyjpegls",
        "1.2.840.10008.1.2.4.80",
        8,
        0,
        b"|JeWc01F5J2mlBH0TBTI+5iXv0RR910D(b4OGo_xATfy{?gI?PyE6<rs;a3YA|fIX4G|=s4Q;mYCAQk2|Je",
    ),
    _Sample(
        "JPEG 2000",
        "pylibjpeg-openjpeg",
        "1.2.840.10008.1.2.4.90",
        8,
        0,
        b"|4;u>04V?f0000800008000000000000008000080000000000009R90sm3}3;+NC0RR951ONg5TmS?>K>v^c3IG5A002z@0soWV"
        b"f#4D=Wy=(t{Kkz5a_duki;OY7W-S)%gXn-5iHJC<1_zce8LKHE<j4%UHtnvyPGbnJoUZeI=(Fri^MC)@",
    ),
    _Sample(
        "HTJ2K",
        "pylibjpeg-openjpeg",
        "1.2.840.10008.1.2.4.201",
        8,
        0,
        b"|4;u>04YEK0000800008000000000000008000080000000000009R90sl|{2mk^A00061QUDA90ssL30R#j<0smY82OvmDNJ#&X"
        b"015yA0000y00IA#z%5|^SJQ*jwO;xbW~2iYCHMm^0005E0Kg}JRDeW8pr^uh0H!hKzyJa4wgCUx",
    ),
    _Sample(
        "JPEG XL",
        "imagecodecs",
        "1.2.840.10008.1.2.4.110",
        12,
        0,
        b"{|Z51P_zgL1OWh8081E)!(a%I@XW9QSNJ42JOpelpi=+",
    ),
)
# One frame of MPEG-2, 32 x 32: grey, cyan, black and dark red in its quarters.
_VIDEO = (
    b"0005A0stTr|Nr1P0005C6p8==000000k{AN06+i$0RR9G|M&m^0kx0+^Fe?B0099L_mrg~FU``Fy;kGB@MN-pnga9y009CM_<bozi{DC8=WIJ("
    b"$QdjNq%Xh"
)


def decoders() -> dict[str, tuple[str, ...]]:
    """Return, for each family of transfer syntaxes, the installed packages that decode it here.

    Each has just turned a small built-in picture into the right pixels; of a family without one the
    tuple is empty. Takes milliseconds once the codecs are loaded.
    """
    picture = np.add.outer(np.arange(8) * 20, np.arange(8) * 11)
    plain = picture.astype("<u2").tobytes()
    found: dict[str, tuple[str, ...]] = {
        "Uncompressed": ("numpy",) if np.array_equal(np.frombuffer(plain, "<u2").reshape(8, 8), picture) else (),
        "Deflated": ("zlib",) if zlib.decompress(zlib.compress(plain, wbits=-15), -15) == plain else (),
    }
    for sample in _SAMPLES:
        allocated = 8 if sample.depth == 8 else 16
        layout = Layout(8, 8, 1, allocated, sample.depth, 0, False, "MONOCHROME2", False)
        try:
            pixels, _ = decompress(base64.b85decode(sample.stream), layout, sample.syntax)
        except DecodeError:
            found[sample.family] = ()
            continue
        wrong = np.abs(pixels.astype(int) - (picture << (sample.depth - 8))).max() > sample.tolerance
        found[sample.family] = () if wrong else (sample.codec,)
    return found


def reads_video() -> bool | None:
    """Return whether the built-in frame of video is decoded as it should be, None where PyAV is not installed."""
    if not is_readable():
        return None
    try:
        pixels = first_pixels(base64.b85decode(_VIDEO), "1.2.840.10008.1.2.4.100", rows=32, columns=32)
    except DecodeError:
        return False
    seen = pixels[8::16, 8::16].reshape(4, 3).astype(int)
    return bool(np.abs(seen - ((200, 200, 200), (60, 200, 200), (0, 0, 0), (60, 0, 0))).max() <= 8)


# Bits allocated and stored, signed, samples a pixel.
_FORMS = (
    (8, 8, False, 1),
    (16, 12, False, 1),
    (16, 12, True, 1),
    (16, 16, False, 1),
    (16, 16, True, 1),
    (8, 8, False, 3),
)


def round_trips() -> tuple[int, list[str]]:
    """Encode a phantom in every syntax for which an encoder is installed, decode it, and compare.

    Return how many forms of it were tried, each lossless, and the names of those that came back otherwise or not at
    all. Takes a few hundredths of a second once the codecs are loaded.
    """
    tried, wrong = 0, list[str]()
    for allocated, stored, signed, samples in _FORMS:
        layout = Layout(
            _SIDE, _SIDE, samples, allocated, stored, 0, signed, "MONOCHROME2" if samples == 1 else "RGB", False
        )
        phantom = _phantom(layout)
        for name, (syntax, encode) in _ENCODERS.items():
            tried += 1
            try:
                pixels, found = decompress(encode(phantom, layout), layout, syntax)
                same = np.array_equal(stored_values(pixels.view(f"u{pixels.dtype.itemsize}"), _meaning(found)), phantom)
            except (DecodeError, ImportError, RuntimeError, ValueError):
                same = False
            if not same:
                wrong.append(f"{name}, {stored} bits{' signed' if signed else ''}{', colour' if samples > 1 else ''}")
    return tried, wrong


_SIDE = 32


def _phantom(layout: Layout) -> NDArray[np.int64]:
    low = -(1 << (layout.stored - 1)) if layout.signed else 0
    places = np.arange(layout.count, dtype=np.int64).reshape(layout.rows, layout.columns, layout.samples)
    # Both ends of the range, and steps that any exchange of bytes, planes or signs would show.
    values = low + (places * 7919) % (1 << layout.stored)
    values.flat[0], values.flat[-1] = low, low + (1 << layout.stored) - 1
    return values if layout.samples > 1 else values[..., 0]


def _meaning(layout: Layout) -> Rendering:
    return Rendering(bits_stored=layout.stored, signed=layout.signed, shift=layout.shift)


def _contained(phantom: NDArray[np.int64], layout: Layout) -> NDArray[Any]:
    return np.ascontiguousarray(phantom, f"<{'i' if layout.signed else 'u'}{layout.allocated // 8}")


def _as_it_is(phantom: NDArray[np.int64], layout: Layout) -> bytes:
    return _contained(phantom, layout).tobytes()


def _deflate(phantom: NDArray[np.int64], layout: Layout) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(_as_it_is(phantom, layout)) + packer.flush()


def _rle(phantom: NDArray[np.int64], layout: Layout) -> bytes:
    from rle.utils import encode_pixel_data

    return encode_pixel_data(
        _as_it_is(phantom, layout),
        byteorder="<",
        rows=layout.rows,
        columns=layout.columns,
        number_of_frames=1,
        samples_per_pixel=layout.samples,
        bits_allocated=layout.allocated,
        bits_stored=layout.stored,
    )


def _jpeg_ls(phantom: NDArray[np.int64], layout: Layout) -> bytes:
    from jpeg_ls import encode_pixel_data  # type: ignore[import-untyped]

    mask = (1 << layout.stored) - 1
    return bytes(
        encode_pixel_data(
            (phantom & mask).astype(f"<u{layout.allocated // 8}").tobytes(),
            rows=layout.rows,
            columns=layout.columns,
            samples_per_pixel=layout.samples,
            bits_allocated=layout.allocated,
            bits_stored=layout.stored,
            photometric_interpretation=layout.photometric,
            planar_configuration=0,
            pixel_representation=0,
        )
    )


def _jpeg_2000(phantom: NDArray[np.int64], layout: Layout) -> bytes:
    from openjpeg.utils import encode_array

    colour = 1 if layout.samples > 1 else 2
    return bytes(encode_array(_contained(phantom, layout), layout.stored, colour, use_mct=False))


def _jpeg_xl(phantom: NDArray[np.int64], layout: Layout) -> bytes:
    from imagecodecs import jpegxl_encode

    bits = (phantom & ((1 << layout.stored) - 1)).astype(f"u{layout.allocated // 8}")
    return bytes(jpegxl_encode(bits, lossless=True, bitspersample=layout.stored))


_ENCODERS: dict[str, tuple[str, Callable[[NDArray[np.int64], Layout], bytes]]] = {
    "uncompressed": (FRAMED, _as_it_is),
    "deflated": (DEFLATED_FRAMES, _deflate),
    "RLE": (RLE, _rle),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", _jpeg_ls),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", _jpeg_2000),
    "JPEG XL": ("1.2.840.10008.1.2.4.110", _jpeg_xl),
}
