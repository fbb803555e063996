"""The embedding model in eight-bit integers, to be measured beside the one in floating point; nothing ships it.

Static quantisation: weights to int8 with one scale an output channel, what enters each convolution to uint8 with
one scale, taken from the extremes seen over the calibration images. What lies between convolutions stays
float32: with concatenations in uint8 too, vectors of real films fell to a cosine of 0.95 (0.998 without), and with
the range cut at its 99.99th percentile to 0.984.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.image.embed import CheckedEncoder, OnnxEncoder
from medsearch_desktop.image.models import ModelSpec, read_model


class Int8Encoder(CheckedEncoder):
    """The model of a registry entry, quantised with `calibration`, float32 (n, 3, S, S), and written to `folder`.

    It runs in onnxruntime as the product's own does, and costs some seconds to make. Raises ModelError.
    """

    def __init__(
        self, spec: ModelSpec, *, threads: int, batch_size: int, calibration: NDArray[np.float32], folder: Path
    ) -> None:
        super().__init__(spec, threads=threads, batch_size=batch_size)
        # Opened first for what it does before the import: without it the library reports to its maker.
        self._float = OnnxEncoder(spec, threads=threads, batch_size=batch_size)
        self._session = _session(_quantised(spec, calibration, folder), threads=threads)

    def _embed(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        (values,) = self._session.run(None, {self._session.get_inputs()[0].name: part})
        return np.asarray(values)


def _session(path: Path, *, threads: int, plain: Path | None = None):
    import onnxruntime

    from medsearch_desktop.image.embed import SPIN_US

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    if plain is not None:
        # Widened weights and folded normalisations, but no layout of this processor.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(plain)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _quantised(spec: ModelSpec, calibration: NDArray[np.float32], folder: Path) -> Path:
    original, plain, quantised = (folder / f"{name}-{len(calibration)}.onnx" for name in ("original", "plain", "int8"))
    original.write_bytes(read_model(spec))
    name = _session(original, threads=1, plain=plain).get_inputs()[0].name

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.parts: Iterator[NDArray[np.float32]] = iter(np.array_split(calibration, max(1, len(calibration) // 8)))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            part = next(self.parts, None)
            return None if part is None else {name: part}

    root = logging.getLogger()
    level = root.level
    # It advises preparing the model in another way, which for this network changes nothing.
    root.setLevel(logging.ERROR)
    try:
        quantize_static(
            plain,
            quantised,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    return quantised
