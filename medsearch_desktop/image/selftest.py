"""Do the decoders work here: a small built-in picture of each family of transfer syntaxes, decoded and compared."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

import numpy as np

from medsearch_desktop.errors import DecodeError
from medsearch_desktop.image.codecs import RLE, Layout, decompress


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
