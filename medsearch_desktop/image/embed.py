"""Tensor -> vector: the contract of all engines, and the embedding model run by onnxruntime on the processor.

This is the only file that imports onnxruntime. Its official builds (seen in 1.31) report to their maker over
HTTPS unless told not to before the library is loaded: merely importing it writes a device identifier and
a queue of events into the user's cache folder. `_onnxruntime` is therefore the one way to it.

How the session is set was measured on two cores (batches of 1, 2, 4 and 8 at 160 and 224 pixels):

- The workers' spinning is held to 0.5 ms. By default they spin for tens of milliseconds after each run:
  next to other busy processes that left 35 images/s where this setting kept 105, and it doubled the time
  of whatever else computed in the same process. No spinning at all costs 15 % of a batch of one.
- One session with all threads, not one single-threaded session a core: from batches of 4 on the two
  are within 15 % of each other, while one image alone, a query, takes 22 ms instead of 37 (224 pixels).
- The arena, dynamic block partitioning, flushing denormals and backing off made no difference that
  could be told from noise.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image.models import ModelSpec, read_model

SPIN_US = 500


class ImageEncoder(Protocol):
    """What turns prepared images into vectors.

    `model_id` names the space that the vectors lie in: vectors of different ones are never compared.
    """

    @property
    def model_id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vectors (n, dim), of length one, of the tensors (n, channels, S, S), in the same order."""
        ...


class CheckedEncoder(ABC):
    """What encoders share whatever engine runs the network: the checks of what goes in and of what comes out.

    `batch_size` bounds how many images are handed to the engine at once, `largest` is the greatest absolute
    value that it takes.

    Raises ModelError when there is no thread or no image a batch.
    """

    largest = float(np.finfo(np.float32).max)

    def __init__(self, spec: ModelSpec, *, threads: int, batch_size: int) -> None:
        if threads < 1 or batch_size < 1:
            raise ModelError(
                f"needs at least 1 thread and a batch of 1, not {threads} and {batch_size}", item=spec.model_id
            )
        self.spec = spec
        self.batch_size = batch_size

    @abstractmethod
    def _embed(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's values (n, dim) of at most `batch_size` images, which lie contiguously."""

    @property
    def model_id(self) -> str:
        """The name of the space that the vectors lie in."""
        return self.spec.model_id

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.spec.dim

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vectors of prepared images: float32 (n, dim), each of Euclidean length one, in order.

        `batch` is float32 (n, channels, S, S) with the channels and size S that the model's preprocessing
        names; n may be 0.

        Raises ModelError when the batch is of another shape or type or holds a value that is not finite,
        when the network fails, or when it gives a vector without a direction.
        """
        shape = self.spec.preprocessing.shape
        if not isinstance(batch, np.ndarray) or batch.dtype != np.float32 or batch.shape[1:] != shape:
            found = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise ModelError(f"takes float32 {many(shape)}, not {found}", item=self.model_id)
        # Checked going in as well as coming out: rectifiers turn NaN into zero, so a vector may look sound.
        largest = np.abs(batch).max(axis=(1, 2, 3))
        sound = largest <= self.largest
        if not sound.all():
            place = int(np.argmin(sound))
            fault = f"beyond {self.largest:g}" if np.isfinite(largest[place]) else "that are not finite"
            raise ModelError(f"image {place} of the batch has values {fault}", item=self.model_id)
        vectors = np.empty((len(batch), self.dim), dtype=np.float32)
        for start in range(0, len(batch), self.batch_size):
            part = np.ascontiguousarray(batch[start : start + self.batch_size])
            values = self._embed(part)
            # What a file declares of its output binds nobody.
            if values.shape != (len(part), self.dim):
                raise ModelError(
                    f"the network made {values.shape} of {len(part)} images, not {(len(part), self.dim)}",
                    item=self.model_id,
                    remedy=self.spec.remedy,
                )
            vectors[start : start + len(part)] = values
        return self._normalised(vectors)

    def _normalised(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        wide = vectors.astype(np.float64)
        lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        sound = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
        if not sound.all():
            raise ModelError(
                f"image {int(np.argmin(sound))} of the batch has a vector without a direction",
                item=self.model_id,
                remedy="Run `medsearch model verify`",
            )
        vectors[:] = wide / lengths
        return vectors


class OnnxEncoder(CheckedEncoder):
    """The embedding model of one registry entry, run by onnxruntime; may be shared between threads.

    `batch_size` bounds how many images go through the network at once, hence its memory: about 6 MB an
    image at 160 pixels. `threads` is the number of cores that one call uses.

    The same tensor gives the same 4,096 bytes whether it comes alone, in a batch or at any place in one,
    with any number of threads, now and later on this machine: no value of one image enters into another's,
    and each sum is formed in one fixed order. Between kinds of processor the last bits differ (cosine >= 0.99999).

    Raises ModelMissingError or ModelAlteredError when the file is not the manifest's, ModelError when
    onnxruntime is missing, cannot load it, or the network is not of the form that the manifest says.
    """

    def __init__(self, spec: ModelSpec, *, threads: int, batch_size: int) -> None:
        super().__init__(spec, threads=threads, batch_size=batch_size)
        self._session, self._errors = open_session(spec, threads=threads)
        self._input, self._output = _checked_ends(self._session, spec)

    def _embed(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            (embedding,) = self._session.run([self._output], {self._input: part})
        except self._errors as error:
            raise network_failed(self.spec, error) from error
        values: NDArray[np.float32] = embedding
        return values


def network_failed(spec: ModelSpec, error: BaseException) -> ModelError:
    """Return what is raised when an engine breaks off while it computes."""
    size = spec.preprocessing.size
    return ModelError(
        f"the network failed on images of {size} x {size} ({first_line(error)})",
        item=spec.model_id,
        remedy="Run `medsearch model verify`; with little memory, lower batch_size",
    )


def _onnxruntime() -> ModuleType:
    # Before the import, or it is too late; and over any value that is set, for no setting of the
    # surroundings may make this product report to anyone.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"cannot be loaded ({first_line(error)})", item="onnxruntime", remedy="Install MedSearch Desktop again"
        ) from error
    # For the case that someone else in this process had imported it before.
    onnxruntime.disable_telemetry_events()
    runtime: ModuleType = onnxruntime
    return runtime


def open_session(spec: ModelSpec, *, threads: int) -> tuple[Any, tuple[type[BaseException], ...]]:
    return session_of(read_model(spec), item=str(spec.path), remedy=spec.remedy, threads=threads)


def session_of(content: bytes, *, item: str, remedy: str, threads: int) -> tuple[Any, tuple[type[BaseException], ...]]:
    """Return a session of an ONNX file and what it may raise; `item` and `remedy` are for ModelError."""
    runtime = _onnxruntime()
    errors = _runtime_errors(runtime)
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Fatal only: errors come back as exceptions, and stderr belongs to the command line.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    try:
        session = runtime.InferenceSession(content, sess_options=options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise ModelError(
            f"onnxruntime {runtime.__version__} cannot load the model ({first_line(error)})",
            item=item,
            remedy=remedy,
        ) from error
    return session, errors


def _runtime_errors(runtime: ModuleType) -> tuple[type[BaseException], ...]:
    # onnxruntime's exceptions share no base class of their own; all are defined in this extension module.
    state = runtime.capi.onnxruntime_pybind11_state
    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def _checked_ends(session: Any, spec: ModelSpec) -> tuple[str, str]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = spec.preprocessing.shape
    sound = (
        len(inputs) == len(outputs) == 1
        and inputs[0].type == outputs[0].type == "tensor(float)"
        and len(inputs[0].shape) == 4
        # A free dimension is a name or nothing.
        and not isinstance(inputs[0].shape[0], int)
        and inputs[0].shape[1] == shape[0]
        and all(side == shape[1] or not isinstance(side, int) for side in inputs[0].shape[2:])
        and len(outputs[0].shape) == 2
        and outputs[0].shape[1] == spec.dim
    )
    if not sound:
        found = [(end.type, end.shape) for end in (*inputs, *outputs)]
        raise ModelError(
            f"is not a network from images {many(shape)} to vectors (n, {spec.dim}) but {found}",
            item=str(spec.path),
            remedy=spec.remedy,
        )
    return inputs[0].name, outputs[0].name


def many(shape: tuple[int, int, int]) -> str:
    """Return how messages name any number of arrays of a shape."""
    return f"(n, {shape[0]}, {shape[1]}, {shape[2]})"


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its name when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
