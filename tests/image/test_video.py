"""Video in DICOM: its first frame where PyAV is installed, its header where it is not."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from phantoms_made import Form, header, items, written

from medsearch_desktop.image import aside, selftest
from medsearch_desktop.image.decode import Decoded, decode, read_tags
from medsearch_desktop.image.video import VIDEO, is_readable
from medsearch_desktop.library import open_library

BASE = "1.2.840.10008.1.2.4."
ROWS, COLUMNS, FRAMES = 64, 96, 12
needs_av = pytest.mark.skipif(
    not is_readable(), reason="PyAV is no dependency, for its wheels hold GPL code: pip install av"
)
# A codec that the wheels of PyAV encode, the container, and a transfer syntax that holds it.
STREAMS = [
    ("mpeg2video", "mpegts", "100"),
    ("mpeg2video", "mpeg2video", "101.1"),
    ("mpeg2video", "vob", "100.1"),
    ("libx264", "mp4", "102"),
    ("libx264", "h264", "103.1"),
    ("libx264", "mpegts", "106"),
    ("libx265", "mp4", "107"),
    ("libx265", "mpegts", "108"),
]


@pytest.fixture(autouse=True, scope="module")
def _end_of_process() -> Iterator[None]:
    yield
    aside.HELPER.close()


def picture(number: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    planes = 128 + 100 * np.sin(x / 20 + number), 128 + 100 * np.cos(y / 15), np.full(x.shape, 90.0)
    return np.stack(planes, axis=-1).astype(np.uint8)


def stream(codec: str = "mpeg2video", container: str = "mpegts") -> bytes:
    import av

    av.logging.set_level(av.logging.PANIC)
    buffer = io.BytesIO()
    output: Any = av.open(buffer, "w", format=container)
    video = output.add_stream(codec, rate=25)
    video.height, video.width, video.pix_fmt, video.bit_rate = ROWS, COLUMNS, "yuv420p", 4_000_000
    if codec == "libx265":
        video.options = {"x265-params": "log-level=none:pools=1"}
    for number in range(FRAMES):
        for packet in video.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")):
            output.mux(packet)
    for packet in video.encode():
        output.mux(packet)
    output.close()
    return buffer.getvalue()


def instance(data: bytes, number: str, *, parts: int = 1, rows: int = ROWS, columns: int = COLUMNS) -> bytes:
    ds = header(Form(8, 8, False, 3, "YBR_PARTIAL_420"), BASE + number)
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.77.1.1.1", "ES"
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, FRAMES
    size = -(-len(data) // parts)
    items(ds, [data[start : start + size] for start in range(0, len(data), size)], table=False)
    return written(ds)


def read(data: bytes, **options: Any) -> Decoded:
    return decode(io.BytesIO(data), name="video", sha256="", max_frames=8, max_pixels=1 << 24, **options)


@needs_av
@pytest.mark.parametrize(("codec", "container", "number"), STREAMS)
def test_the_first_frame_is_the_image(codec: str, container: str, number: str) -> None:
    try:
        data = stream(codec, container)
    except ValueError as error:
        pytest.skip(f"this build of PyAV has no encoder {codec} ({error}); install a wheel from PyPI")
    decoded = read(instance(data, number, parts=3 if number.endswith(".1") else 1))
    ((image,), (display,)) = decoded.images, decoded.displays
    assert image.pixel_error == ""
    assert (image.image_id, image.frame, image.number_of_frames) == ("1.2.3.1#1", 0, FRAMES)
    assert display is not None
    assert display.shape == (ROWS, COLUMNS, 3)
    # Colour is kept at half the size, and coded with loss.
    assert np.abs(display.astype(int) - picture(0)).mean() < 4
    assert np.abs(display.astype(int) - picture(3)).mean() > 20


@needs_av
def test_other_frames_are_not_made_up() -> None:
    data = instance(stream(), "100")
    assert [image.image_id for image in read(data, frames=[5]).images] == ["1.2.3.1#1"]
    assert read_tags(io.BytesIO(data), name="video").image_id == "1.2.3.1#1"


@needs_av
@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (128, 96), (96, 64)])
def test_a_video_that_is_not_what_the_header_says(rows: int, columns: int) -> None:
    decoded = read(instance(stream(), "100", rows=rows, columns=columns))
    assert decoded.displays == (None,)
    assert "MPEG-2 video is 64 x 96" in decoded.images[0].pixel_error


@needs_av
@pytest.mark.parametrize("damage", ["cut", "no start", "zeros", "playlist", "other codec", "nothing"])
def test_what_is_no_video_is_told(damage: str, tmp_path: Path) -> None:
    (tmp_path / "secret.ts").write_bytes(stream())
    data = {
        "cut": lambda: stream("mpeg2video", "mpegts")[:700],
        "no start": lambda: b"\0\0\1\xba" * 5000,
        "zeros": lambda: bytes(1 << 20),
        "playlist": lambda: f"ffconcat version 1.0\nfile '{tmp_path}/secret.ts'\n".encode(),
        "other codec": lambda: stream("mpeg4", "mp4"),
        "nothing": lambda: b"\0\0",
    }[damage]()
    decoded = read(instance(data, "102"))
    assert decoded.displays == (None,)
    assert decoded.images[0].pixel_error.startswith("the H.264 video")
    assert str(tmp_path) not in decoded.images[0].pixel_error


@needs_av
def test_altered_streams_end_soon_and_leave_the_next_whole() -> None:
    chance = np.random.default_rng(3)
    for container in ("mpegts", "mpeg2video"):
        whole = stream("mpeg2video", container)
        for _ in range(15):
            data = bytearray(whole)
            for place in chance.integers(0, len(data), 30):
                data[place] = chance.integers(0, 256)
            (image,) = read(instance(bytes(data), "100")).images
            assert image.frame == 0
    (image,) = read(instance(stream(), "100")).images
    assert image.pixel_error == ""


@pytest.mark.parametrize("number", ["100", "102.1", "107"])
def test_without_pyav_the_header_alone_is_indexed(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (image,) = read(instance(b"\0\0\1\xba" * 10, number)).images
    assert (image.image_id, image.modality) == ("1.2.3.1#1", "ES")
    assert image.pixel_error.startswith(f"transfer syntax {BASE}{number} is not read: it is {VIDEO[BASE + number]}")
    assert "package av" in image.pixel_error
    assert selftest.reads_video() is None


@needs_av
def test_a_library_takes_it_when_pyav_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "endoscopy").write_bytes(instance(stream(), "100"))
    with open_library(tmp_path / "library", create=True) as library:
        with monkeypatch.context() as lacking:
            lacking.setitem(sys.modules, "av", None)
            assert library.ingest([tmp_path / "source"]).failed == 1
        assert "PyAV is not installed" in library.failures()[0].reason
        assert library.retry_failures().updated == 1
        assert library.failures() == []
        assert library.totals().vectors == 1
        (hit,) = library.search("modality:ES").hits
        assert hit.image_ids == ("1.2.3.1#1",)
        assert library.thumbnail("1.2.3.1#1") is not None


@needs_av
def test_the_doctor_has_seen_it_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selftest.reads_video() is True
    monkeypatch.setattr(selftest, "_VIDEO", selftest._VIDEO[:60])
    assert selftest.reads_video() is False
