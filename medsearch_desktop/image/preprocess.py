"""Stored values to 8-bit display pixels, and those to thumbnails and model input.

This is the one pixel path: thumbnails and vectors are made from the same display pixels, and every
step is integer or IEEE arithmetic without random or parallel parts, so one file gives one result.
Grey images take the steps of DICOM PS3.3 C.11.1 (modality), C.11.2 (values of interest) and
C.7.6.3 (photometric interpretation). The steps are folded into one table over the values that a
pixel can store, because looking 4 million pixels up once takes 4 ms where computing them takes 50.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster

from medsearch_desktop.errors import MedSearchError, ModelError, UnsupportedPixelsError

Display = NDArray[np.uint8]

LOW_QUANTILE = 0.005
HIGH_QUANTILE = 0.995
# A window is wrong when it leaves this share of an image that does vary at one level.
BLANK_SHARE = 0.999
# Statistics are taken from a regular grid of about this many pixels: 0.6 ms instead of 9 for 4 million.
_SAMPLE_PIXELS = 1 << 18
# Table look-up runs over parts that stay in the cache: 3.6 ms instead of 5.2 for 4 million pixels.
_CHUNK = 1 << 15

# Measured on 384 x 384 chest radiographs: 3.2 ms and 7 kB; method 4 takes 11 ms for 1.5 kB less.
_WEBP_QUALITY = 80
_WEBP_METHOD = 1


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table of PS3.3 C.11.1.1 or C.11.2.1.1: the value of `first` maps to `values[0]`.

    `values` is a 1-D array of uint16; `bits` is the depth of its entries. Values outside the table
    take its nearest end.
    """

    first: int
    values: NDArray[np.uint16]
    bits: int


@dataclass(frozen=True, slots=True)
class Window:
    """A window of PS3.3 C.11.2.1.2 in units of the modality; `function` is LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str = "LINEAR"

    @property
    def usable(self) -> bool:
        """Whether the standard defines the function for this width."""
        if not (math.isfinite(self.center) and math.isfinite(self.width)):
            return False
        return self.width > 0 if self.function in ("LINEAR_EXACT", "SIGMOID") else self.width >= 1


@dataclass(frozen=True, slots=True)
class Rendering:
    """What a header says about stored values and how they are to be shown.

    `shift` is the position of the lowest stored bit in its container. `padding` are the lowest and
    highest stored value that mean "no data". `inverse` asks for high values dark, as MONOCHROME1 does.
    `palette` holds the red, green and blue tables of PALETTE COLOR.
    """

    photometric_interpretation: str = "MONOCHROME2"
    bits_stored: int = 16
    signed: bool = False
    shift: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: LookupTable | None = None
    voi_lut: LookupTable | None = None
    window: Window | None = None
    padding: tuple[int, int] | None = None
    inverse: bool = False
    palette: tuple[LookupTable, LookupTable, LookupTable] | None = None

    @property
    def dark_is_high(self) -> bool:
        """Whether levels are inverted at the end.

        The shape INVERSE accompanies MONOCHROME1 (PS3.3 C.8.11.3.1): together they invert once.
        """
        return self.inverse or self.photometric_interpretation == "MONOCHROME1"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a model wants its input: the side of the square, how an image is fitted into it, and the scaling.

    `resize` is "squash" (both sides to `size`) or "crop" (the central square, to `size`). `mean` and
    `std` are of grey levels from 0 to 1, one for each of the `channels`, of which there are 1 or 3.
    """

    size: int
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one prepared image: channels, height, width."""
        return self.channels, self.size, self.size

    def as_json(self) -> dict[str, Any]:
        """Return the object that a model manifest holds; three channels, the usual number, go without saying."""
        fields: dict[str, Any] = {"size": self.size, "resize": self.resize}
        fields |= {"mean": list(self.mean), "std": list(self.std)}
        return fields if self.channels == 3 else fields | {"channels": self.channels}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing that a model manifest describes.

        Raises ModelError when an entry is missing or makes no sense.
        """
        try:
            mean = tuple(float(number) for number in value["mean"])
            std = tuple(float(number) for number in value["std"])
            size, resize, channels = value["size"], value["resize"], value.get("channels", 3)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"preprocessing is incomplete ({error})", remedy=_MANIFEST_REMEDY) from error
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 4096:
            raise ModelError("preprocessing size must be an integer from 1 to 4096", remedy=_MANIFEST_REMEDY)
        if resize not in ("squash", "crop"):
            raise ModelError('preprocessing resize must be "squash" or "crop"', remedy=_MANIFEST_REMEDY)
        if type(channels) is not int or channels not in (1, 3):
            raise ModelError("preprocessing channels must be 1 or 3", remedy=_MANIFEST_REMEDY)
        if {len(mean), len(std)} != {channels} or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise ModelError(
                f"preprocessing needs {channels} finite means and as many positive stds", remedy=_MANIFEST_REMEDY
            )
        return cls(size, resize, mean, std, channels)


_MANIFEST_REMEDY = "Correct the model's manifest"


def to_display(pixels: NDArray[Any], rendering: Rendering) -> Display:
    """Return what a viewer would show of an image, as 8-bit levels.

    `pixels` is (H, W) or (H, W, 3), integer containers as they were stored or floats; it is not
    changed. The result is (H, W), or (H, W, 3) in RGB for colour, and is C-contiguous. Without a
    usable window, and where a window shows a varying image as one level, the range between the
    0.5 and 99.5 percentiles of the values other than padding is shown.
    Raises UnsupportedPixelsError for a photometric interpretation outside PS3.3 C.7.6.3.1.2's current ones.
    """
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.dtype.kind == "i":
        pixels = pixels.view(f"u{pixels.dtype.itemsize}")
    if pixels.ndim == 3:
        return _colour(pixels, rendering)
    if rendering.palette is not None:
        return _palette_colour(pixels, rendering, rendering.palette)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return _grey_by_table(pixels, rendering)
    return _grey_by_value(pixels, rendering)


def thumbnail(display: Display, *, size: int) -> bytes:
    """Return a lossy WebP picture of display pixels, its longer side `size` or, if that was less, as it was.

    `display` is (H, W) or (H, W, 3). The same pixels give the same bytes; 384 pixels take about 7 kB.
    """
    height, width = display.shape[:2]
    scale = min(1.0, size / max(height, width))
    raster = Raster.fromarray(display)
    if scale < 1.0:
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        # Whole-number box averaging first: 1.3 ms instead of 6.7 for 4 million pixels.
        raster = raster.resize(shape, Raster.Resampling.BILINEAR, reducing_gap=1.0)
    buffer = io.BytesIO()
    raster.save(buffer, "WEBP", quality=_WEBP_QUALITY, method=_WEBP_METHOD)
    return buffer.getvalue()


def to_tensor(
    display: Display, preprocessing: Preprocessing, *, roi: tuple[int, int, int, int] | None = None
) -> NDArray[np.float32]:
    """Return display pixels, or their region `roi`, as the input of a model.

    `roi` is X, Y, width, height in pixels of the full image. The result is float32 of shape
    (channels, size, size), C-contiguous: grey from 0 to 1 in each channel, less the mean, over the std.
    Raises MedSearchError for a region that is empty or not inside the image.
    """
    height, width = display.shape[:2]
    left, top, right, bottom = 0, 0, width, height
    if roi is not None:
        check_region(roi, width, height)
        x, y, region_width, region_height = roi
        left, top, right, bottom = x, y, x + region_width, y + region_height
    if preprocessing.resize == "crop":
        side = min(right - left, bottom - top)
        left += (right - left - side) // 2
        top += (bottom - top - side) // 2
        right, bottom = left + side, top + side
    raster = Raster.fromarray(display[top:bottom, left:right])
    if raster.mode != "L":
        raster = raster.convert("L")
    shape = (preprocessing.size, preprocessing.size)
    # The gap of 3 keeps 4-million-pixel radiographs within 2 of 255 levels of the full filter in 2 ms, not 6.
    resized = raster.resize(shape, Raster.Resampling.BILINEAR, reducing_gap=3.0)
    grey = np.asarray(resized, dtype=np.float32) / np.float32(255)
    mean = np.array(preprocessing.mean, dtype=np.float32).reshape(-1, 1, 1)
    std = np.array(preprocessing.std, dtype=np.float32).reshape(-1, 1, 1)
    return np.ascontiguousarray((grey[None] - mean) / std)


def check_region(roi: tuple[int, int, int, int], width: int, height: int) -> None:
    """Raise MedSearchError unless `roi` (x, y, width, height) is inside an image of `width` x `height` pixels."""
    x, y, region_width, region_height = roi
    if min(x, y) < 0 or min(region_width, region_height) < 1 or x + region_width > width or y + region_height > height:
        raise MedSearchError(
            f"the region {x},{y},{region_width},{region_height} is not inside the {width} x {height} image",
            remedy="Give X,Y,W,H with W and H at least 1, counted in pixels from the top left corner",
        )


def _grey_by_table(pixels: NDArray[Any], rendering: Rendering) -> Display:
    container = pixels.dtype.itemsize * 8
    bits = max(1, min(rendering.bits_stored, container - rendering.shift))
    stored = np.arange(1 << bits, dtype=np.int64)
    if rendering.signed:
        stored[1 << (bits - 1) :] -= 1 << bits
    values = _modality(stored, rendering)
    code_to_stored = (np.arange(1 << container) >> rendering.shift) & ((1 << bits) - 1)

    def counted(part: NDArray[Any]) -> NDArray[np.float64]:
        codes = np.bincount(part.reshape(-1), minlength=1 << container)
        counts = np.bincount(code_to_stored, weights=codes, minlength=1 << bits).astype(np.float64)
        if rendering.padding is not None:
            low, high = rendering.padding
            kept = np.where((stored < low) | (stored > high), counts, 0)
            counts = kept if kept.any() else counts
        return counts

    def robust_range() -> tuple[float, float]:
        low, high = _weighted_range(values, counted(_sample(pixels)), LOW_QUANTILE, HIGH_QUANTILE)
        if low < high:
            return low, high
        return _weighted_range(values, counted(pixels), 0.0, 1.0)

    def shown(levels: Display) -> Display:
        return _look_up(pixels, _inverted(levels, rendering)[code_to_stored])

    levels = _levels(values, rendering)
    if levels is None:
        return shown(_stretched(values, robust_range()))
    display = shown(levels)
    if _is_blank(display):
        low, high = _weighted_range(values, counted(_sample(pixels)), LOW_QUANTILE, HIGH_QUANTILE)
        if low == high and _is_constant(display):
            low, high = _weighted_range(values, counted(pixels), 0.0, 1.0)
        if low < high:
            return shown(_stretched(values, (low, high)))
    return display


def _grey_by_value(pixels: NDArray[Any], rendering: Rendering) -> Display:
    def usable(part: NDArray[Any]) -> NDArray[np.float64]:
        stored = stored_values(part, rendering)
        kept = np.isfinite(stored)
        if rendering.padding is not None:
            data = kept & ((stored < rendering.padding[0]) | (stored > rendering.padding[1]))
            kept = data if data.any() else kept
        return _modality(stored[kept], rendering)

    def full_range() -> tuple[float, float]:
        parts = [part for part in map(usable, _row_blocks(pixels)) if part.size]
        if not parts:
            return 0.0, 0.0
        return min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)

    def sampled_range() -> tuple[float, float]:
        values = np.sort(usable(_sample(pixels)))
        if not values.size:
            return 0.0, 0.0
        return _weighted_range(values, np.ones(values.size), LOW_QUANTILE, HIGH_QUANTILE)

    def shown(span: tuple[float, float] | None) -> Display:
        display = np.empty(pixels.shape, np.uint8)
        start = 0
        for block in _row_blocks(pixels):
            stored = stored_values(block, rendering)
            finite = np.isfinite(stored)
            values = _modality(np.where(finite, stored, 0), rendering)
            levels = _levels(values, rendering) if span is None else _stretched(values, span)
            assert levels is not None
            levels[~finite] = 0
            display[start : start + len(block)] = _inverted(levels, rendering)
            start += len(block)
        return display

    if _levels(np.zeros(1), rendering) is not None:
        display = shown(None)
        if not _is_blank(display):
            return display
        span = sampled_range()
        if span[0] == span[1] and _is_constant(display):
            span = full_range()
        return shown(span) if span[0] < span[1] else display
    span = sampled_range()
    return shown(span if span[0] < span[1] else full_range())


def _colour(pixels: NDArray[Any], rendering: Rendering) -> Display:
    photometric = rendering.photometric_interpretation
    if photometric not in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "MONOCHROME1", "MONOCHROME2"):
        raise UnsupportedPixelsError(
            f"three-sample pixels of photometric interpretation {photometric} are not read",
            remedy="Convert the file to RGB",
        )
    container = pixels.dtype.itemsize * 8
    bits = max(1, min(rendering.bits_stored, container - rendering.shift))
    if container <= 16 and (bits, rendering.shift) != (8, 0):
        codes = (np.arange(1 << container) >> rendering.shift) & ((1 << bits) - 1)
        pixels = _look_up(pixels, _rounded(codes / ((1 << bits) - 1)))
    elif container > 16:
        display = np.empty(pixels.shape, np.uint8)
        for start in range(len(pixels)):
            # Row by row: the float copy of a whole image would take eight times its memory.
            display[start] = _rounded(stored_values(pixels[start], rendering) / ((1 << bits) - 1))
        pixels = display
    pixels = np.ascontiguousarray(pixels)
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        # JFIF's equations, which Pillow uses, are those of PS3.3 C.7.6.3.1.2.
        return np.array(Raster.frombytes("YCbCr", (pixels.shape[1], pixels.shape[0]), pixels.tobytes()).convert("RGB"))
    return pixels


def _palette_colour(
    pixels: NDArray[Any], rendering: Rendering, palette: tuple[LookupTable, LookupTable, LookupTable]
) -> Display:
    container = pixels.dtype.itemsize * 8
    if container > 16:
        raise UnsupportedPixelsError(f"palette indices of {container} bits are not read", remedy="Convert it to RGB")
    bits = max(1, min(rendering.bits_stored, container - rendering.shift))
    codes = (np.arange(1 << container, dtype=np.int64) >> rendering.shift) & ((1 << bits) - 1)
    if rendering.signed:
        codes[codes >= 1 << (bits - 1)] -= 1 << bits
    display = np.empty((*pixels.shape, 3), np.uint8)
    # Some writers declare 16 bits and store 8: such a palette would be black.
    deep = any(table.bits > 8 and int(table.values.max()) > 255 for table in palette)
    unused = max(table.bits for table in palette) - 8 if deep else 0
    for channel, table in enumerate(palette):
        entries = table.values[np.clip(codes - table.first, 0, len(table.values) - 1)]
        display[..., channel] = _look_up(pixels, (entries >> unused).astype(np.uint8))
    return display


def _modality(stored: NDArray[Any], rendering: Rendering) -> NDArray[np.float64]:
    if rendering.modality_lut is not None:
        return looked_up(stored, rendering.modality_lut).astype(np.float64)
    values: NDArray[np.float64] = stored.astype(np.float64) * rendering.slope + rendering.intercept
    return values


def _levels(values: NDArray[np.float64], rendering: Rendering) -> Display | None:
    if rendering.voi_lut is not None:
        table = rendering.voi_lut
        # A table deeper than it declares would wrap around.
        top = max((1 << table.bits) - 1, int(table.values.max()))
        return _rounded(looked_up(np.rint(values), table) / top)
    window = rendering.window
    if window is None or not window.usable:
        return None
    if window.function == "SIGMOID":
        # exp of more than 700 overflows; long before, the level is 0 or 255.
        exponent = np.clip(-4.0 * (values - window.center) / window.width, -500.0, 500.0)
        return _rounded(1.0 / (1.0 + np.exp(exponent)))
    if window.function == "LINEAR_EXACT":
        return _rounded((values - window.center) / window.width + 0.5)
    if window.width == 1:
        return np.where(values > window.center - 0.5, 255, 0).astype(np.uint8)
    return _rounded((values - (window.center - 0.5)) / (window.width - 1) + 0.5)


def looked_up(values: NDArray[Any], table: LookupTable) -> NDArray[np.uint16]:
    index = np.clip(values - table.first, 0, len(table.values) - 1)
    return table.values[index.astype(np.int64)]


def _stretched(values: NDArray[np.float64], span: tuple[float, float]) -> Display:
    low, high = span
    if not low < high:
        return np.zeros(values.shape, np.uint8)
    return _rounded((values - low) / (high - low))


def _rounded(fractions: NDArray[np.float64]) -> Display:
    levels: Display = np.floor(np.clip(fractions, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return levels


def _inverted(levels: Display, rendering: Rendering) -> Display:
    return np.subtract(255, levels, dtype=np.uint8) if rendering.dark_is_high else levels


def _look_up(pixels: NDArray[Any], table: Display) -> Display:
    display = np.empty(pixels.shape, np.uint8)
    source, target = np.ascontiguousarray(pixels).reshape(-1), display.reshape(-1)
    for start in range(0, source.size, _CHUNK):
        # "clip" spares numpy a buffered copy; every code is inside the table.
        np.take(table, source[start : start + _CHUNK], out=target[start : start + _CHUNK], mode="clip")
    return display


def _weighted_range(
    values: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float
) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    running = np.cumsum(counts[order])
    total = float(running[-1])
    if total == 0:
        return 0.0, 0.0
    # The first value at which the running count passes the quantile; the last one for a quantile of 1.
    first = int(np.searchsorted(running, low * total, side="right"))
    last = int(np.searchsorted(running, high * total, side="left"))
    return float(values[order[min(first, last)]]), float(values[order[last]])


def _sample(pixels: NDArray[Any]) -> NDArray[Any]:
    step = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1] // _SAMPLE_PIXELS))
    return pixels[::step, ::step]


def _is_constant(display: Display) -> bool:
    return bool(display.min() == display.max())


def _is_blank(display: Display) -> bool:
    levels = np.bincount(_sample(display).reshape(-1), minlength=256)
    return bool(levels.max() >= BLANK_SHARE * levels.sum())


def stored_values(pixels: NDArray[Any], rendering: Rendering) -> NDArray[Any]:
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float64)
    container = pixels.dtype.itemsize * 8
    bits = max(1, min(rendering.bits_stored, container - rendering.shift))
    # Up to the sign bit and down again, in the container's width: unused bits fall off and the sign spreads.
    raw = np.dtype(f"u{pixels.dtype.itemsize}").type
    stored: NDArray[Any] = pixels.astype(raw, copy=False) << raw(container - bits - rendering.shift)
    if rendering.signed:
        whole = np.dtype(f"i{pixels.dtype.itemsize}").type
        stored = stored.view(whole) >> whole(container - bits)
    else:
        stored = stored >> raw(container - bits)
    return stored.astype(np.float64)


def _row_blocks(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    rows = max(1, _SAMPLE_PIXELS // max(1, pixels.shape[1]))
    return [pixels[start : start + rows] for start in range(0, len(pixels), rows)]
