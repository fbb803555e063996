"""Tensor -> vector by OpenVINO, an optional engine, much the faster one where the processor multiplies bfloat16.

This is the only file that imports openvino. Its Python package reports to its maker: merely importing it
(seen in 2026.4) writes an identifier into the user's home folder and sends an event to a web service. It does
so through a package of its own, openvino_telemetry, and does without when that cannot be imported; `import_openvino`
therefore makes it unimportable and is the one way to openvino. Nothing else in it opens a socket or writes.

How the network is compiled was measured on two cores with AMX, at 160 and 224 pixels, in processor time:

- For one image exactly, never for a free batch, which costs a single image a third more.
- Several images go one a stream, each stream on a core of its own, through the same network of one image. One
  after the other on all cores they cost a third more. A network of eight images is within 5 % at 160 pixels and
  slower at 224, and would have to be padded for what is left of a folder.
- Streams are not pinned to cores. That made no difference here, beside a busy process neither; it leaves the
  scheduler free where there are other loads.
"""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.embed import CheckedEncoder, many, network_failed
from medsearch_desktop.image.models import ModelSpec, read_model

Precision = Literal["float32", "bfloat16"]

INSTALL = "pip install 'medsearch-desktop[engine-openvino]'"
_DEVICE = "CPU"
_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16"}
# openvino has no exceptions of its own: what its C++ throws arrives as RuntimeError.
_ERRORS = (RuntimeError, ValueError, TypeError, MemoryError)


class OpenVinoEncoder(CheckedEncoder):
    """The embedding model of one registry entry, run by OpenVINO; may be shared between threads, which take turns.

    `threads` is the number of cores that one call uses, `batch_size` bounds how many images are under way at
    once. In `bfloat16` the products are of 8 significant bits and their sums of 24: the vectors differ from those
    of float32 (seen: cosine 0.99998), which is for the caller to judge.

    The same tensor gives the same 4,096 bytes alone, in a batch and at any place in one, because every image goes
    through the same network of one image. That holds with any number of threads too, which is measured (1 to 4
    threads, in either precision) and not promised by OpenVINO; another release or processor may differ.

    Raises ModelMissingError or ModelAlteredError when the file is not the manifest's, ModelError when openvino
    is missing, cannot load the file, or the network is not of the form that the manifest says.
    """

    # Its rectifiers and poolings make numbers of what is not one: an overflow inside the network would go unseen.
    # Prepared images lie within 1,024.
    largest = 1e6

    def __init__(self, spec: ModelSpec, *, threads: int, batch_size: int, precision: Precision) -> None:
        super().__init__(spec, threads=threads, batch_size=batch_size)
        self.precision = precision
        self._threads = threads
        self._core, self._network = _read_network(spec)
        self._lock = threading.Lock()
        self._single = self._requests(1)
        self._streams: list[Any] = self._single if threads == 1 else []

    def _embed(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        values = np.empty((len(part), self.dim), dtype=np.float32)
        with self._lock:
            requests = self._single
            if len(part) > 1:
                # Compiled at the first batch: who asks by one image should not wait for it.
                self._streams = self._streams or self._requests(min(self._threads, self.batch_size))
                requests = self._streams
            try:
                for place in range(len(part)):
                    request = requests[place % len(requests)]
                    if place >= len(requests):
                        _collect(request, values, place - len(requests))
                    request.start_async({0: part[place : place + 1]}, share_inputs=True)
                for place in range(max(0, len(part) - len(requests)), len(part)):
                    _collect(requests[place % len(requests)], values, place)
            except _ERRORS as error:
                # A request that is still under way would refuse the next call.
                self._single, self._streams = self._requests(1), []
                raise network_failed(self.spec, error) from error
        return values

    def _requests(self, streams: int) -> list[Any]:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = self._core.compile_model(self._network, _DEVICE, settings)
            return [compiled.create_infer_request() for _ in range(streams)]
        except _ERRORS as error:
            raise _refused(self.spec, error) from error


def has_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 itself, so that OpenVINO gains by it.

    Raises ModelError when openvino is missing or cannot be loaded.
    """
    runtime = import_openvino()
    try:
        return "BF16" in runtime.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    except _ERRORS as error:
        raise ModelError(f"cannot be used ({_cause(error)})", item="openvino", remedy=INSTALL) from error


def import_openvino() -> ModuleType:
    # Over whatever was imported before, and for good: no setting of the surroundings may make this product
    # report to anyone. None is how Python is told that a module cannot be imported.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise ModelError(f"cannot be loaded ({_cause(error)})", item="openvino", remedy=INSTALL) from error
    runtime: ModuleType = openvino
    return runtime


def _read_network(spec: ModelSpec) -> tuple[Any, Any]:
    content = read_model(spec)
    runtime = import_openvino()
    shape = spec.preprocessing.shape
    try:
        core = runtime.Core()
        # The second argument, the weights, says that the first is the model itself and not a path.
        network = core.read_model(content, b"")
        sound = (
            len(network.inputs) == len(network.outputs) == 1
            and network.input(0).element_type == network.output(0).element_type == runtime.Type.f32
            and len(network.input(0).partial_shape) == 4
            and network.input(0).partial_shape[0].is_dynamic
        )
        if sound:
            network.reshape([1, *shape])
            sound = [str(side) for side in network.output(0).partial_shape] == ["1", str(spec.dim)]
    except _ERRORS as error:
        raise _refused(spec, error) from error
    if not sound:
        found = [(str(end.element_type), str(end.partial_shape)) for end in (*network.inputs, *network.outputs)]
        raise ModelError(
            f"is not a network from images {many(shape)} to vectors (n, {spec.dim}) but {found}",
            item=str(spec.path),
            remedy=spec.remedy,
        )
    return core, network


def _collect(request: Any, values: NDArray[np.float32], place: int) -> None:
    request.wait()
    values[place] = request.get_output_tensor(0).data[0]


def _refused(spec: ModelSpec, error: BaseException) -> ModelError:
    return ModelError(f"openvino cannot load the model ({_cause(error)})", item=str(spec.path), remedy=spec.remedy)


def _cause(error: BaseException) -> str:
    # openvino's messages begin with places in its source and end with the reason.
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
