"""Which engine runs the embedding model here: measured once for a model and machine, and remembered.

Where only onnxruntime is installed nothing is measured. Where there are more, each runs the model on made-up
films: one whose vectors stray from those of onnxruntime in float32 is refused, because vectors of two models
must never mix; of the others the fastest is used. What was measured is kept in `engines.json` in the user's
cache folder and holds for exactly this model, these releases, this processor and this number of threads. That
file is a convenience: missing, damaged or impossible to write, it costs a few seconds and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from medsearch_desktop.config import APP_NAME, Config
from medsearch_desktop.errors import ModelAlteredError, ModelError, ModelMissingError
from medsearch_desktop.image.drift import phantoms
from medsearch_desktop.image.embed import ImageEncoder, OnnxEncoder
from medsearch_desktop.image.models import ModelSpec
from medsearch_desktop.image.openvino_engine import INSTALL, OpenVinoEncoder, Precision, has_bfloat16
from medsearch_desktop.image.preprocess import to_tensor

AUTO, ONNXRUNTIME, OPENVINO = "auto", "onnxruntime", "openvino"
LEAST_COSINE = 0.999
# Two engines closer than this are told apart by noise; onnxruntime, the reference, then stays.
LEAST_GAIN = 1.1
BATCH = 8
_CACHE_FORMAT = 1
_CACHE_ENTRIES = 16
_MEASURE_SECONDS = 1.5
_FEWEST_ROUNDS, _MOST_ROUNDS = 2, 8


@dataclass(frozen=True, slots=True)
class EngineTrial:
    """How one engine did in one precision: films a second alone and in batches of eight, agreement, and why not.

    `cosine` is the least one between its vectors and those of onnxruntime in float32, over all films, alone and
    in a batch. An engine with a `refusal` is not used; its numbers are 0 where it did not get so far.
    """

    engine: str
    precision: str
    alone_per_s: float = 0.0
    batch_per_s: float = 0.0
    cosine: float = 0.0
    refusal: str = ""

    @property
    def speed(self) -> float:
        """The geometric mean of both rates: a search waits for one image, an ingest for many."""
        return math.sqrt(self.alone_per_s * self.batch_per_s)


def open_encoder(spec: ModelSpec, config: Config) -> ImageEncoder:
    """Return the encoder of a model on the engine that the setting `engine` names, or on the fastest that agrees.

    The first call for a model on a machine may take a few seconds, see `try_engines`.

    Raises ModelMissingError or ModelAlteredError when the file is not the manifest's, ModelError when the engine
    that is named is not installed, is refused or cannot run the model.
    """
    if config.engine == OPENVINO and OPENVINO not in installed_engines():
        raise ModelError("openvino is not installed", item="engine", remedy=f"{INSTALL}, or set engine to auto")
    if config.engine == ONNXRUNTIME or OPENVINO not in installed_engines():
        return OnnxEncoder(spec, threads=config.thread_count, batch_size=config.batch_size)
    best = fastest(try_engines(spec, config), config)
    try:
        return _open(best.engine, best.precision, spec, threads=config.thread_count, batch_size=config.batch_size)
    except (ModelMissingError, ModelAlteredError):
        raise
    except ModelError:
        # It ran when it was measured. Left to choose, the program goes on with what it cannot do without.
        if config.engine != AUTO or best.engine == ONNXRUNTIME:
            raise
        return OnnxEncoder(spec, threads=config.thread_count, batch_size=config.batch_size)


def fastest(trials: list[EngineTrial], config: Config) -> EngineTrial:
    """Return the trial of the engine that is used under the setting `engine`.

    Raises ModelError when that setting names an engine that is not among them or was refused.
    """
    allowed = [trial for trial in trials if config.engine in (AUTO, trial.engine)]
    sound = [trial for trial in allowed if not trial.refusal]
    if not sound:
        reason = "; ".join(f"in {trial.precision}, {trial.refusal}" for trial in allowed) or "it was not tried"
        raise ModelError(f"{config.engine} cannot be used: {reason}", item="engine", remedy="Set engine to auto")
    best = max(sound, key=lambda trial: trial.speed)
    reference = next((trial for trial in sound if trial.engine == ONNXRUNTIME), best)
    return best if best.speed > LEAST_GAIN * reference.speed else reference


def try_engines(spec: ModelSpec, config: Config, *, retry_refused: bool = False) -> list[EngineTrial]:
    """Return how every installed engine does with a model: as remembered, or measured now in one to six seconds.

    The first trial is that of onnxruntime, the reference. OpenVINO is tried in bfloat16 where the processor has
    it, and in float32 only where that is not so or bfloat16 was refused. Engines take turns, so that whatever
    else keeps the machine busy hits all alike, and the best of each one's times counts. With `retry_refused`, what
    is remembered does not count if an engine was refused: what was amiss may have been mended.

    Raises ModelError, ModelMissingError or ModelAlteredError when onnxruntime itself cannot run the model.
    """
    key = _conditions(spec, config)
    remembered = _recall(key)
    if remembered is not None and not (retry_refused and any(trial.refusal for trial in remembered)):
        return remembered
    trials = _measure(spec, threads=config.thread_count)
    _remember(key, trials)
    return trials


def agreement(encoder: ImageEncoder, batch: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the least cosine between an encoder's vectors and the expected ones, images alone and in a batch.

    Raises ModelError when the encoder fails.
    """
    alone = np.concatenate([encoder.encode(batch[place : place + 1]) for place in range(len(batch))])
    wide = expected.astype(np.float64)
    cosines = [(vectors * wide).sum(axis=1).min() for vectors in (alone, encoder.encode(batch))]
    return float(min(1.0, *cosines))


@cache
def installed_engines() -> Mapping[str, str]:
    """Return the engines that are installed, with their releases; none of them is loaded for it."""
    found = {}
    for name in (ONNXRUNTIME, OPENVINO):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def cache_file() -> Path:
    """Return the path of the remembered trials, which need not exist."""
    return Path(platformdirs.user_cache_dir(APP_NAME, appauthor=False)) / "engines.json"


def films(spec: ModelSpec, count: int = BATCH) -> NDArray[np.float32]:
    """Return tensors of made-up films, prepared as the model wants them; the same ones at every call."""
    return np.stack([to_tensor(film, spec.preprocessing) for film in phantoms(count)])


def _open(engine: str, precision: str, spec: ModelSpec, *, threads: int, batch_size: int) -> ImageEncoder:
    if engine == ONNXRUNTIME:
        return OnnxEncoder(spec, threads=threads, batch_size=batch_size)
    wanted: Precision = "bfloat16" if precision == "bfloat16" else "float32"
    return OpenVinoEncoder(spec, threads=threads, batch_size=batch_size, precision=wanted)


def _measure(spec: ModelSpec, *, threads: int) -> list[EngineTrial]:
    encoders: list[ImageEncoder] = [OnnxEncoder(spec, threads=threads, batch_size=BATCH)]
    batch = films(spec)
    expected = encoders[0].encode(batch)
    trials = [EngineTrial(ONNXRUNTIME, "float32", cosine=1.0)]
    refused: list[EngineTrial] = []
    for precision in _precisions() if OPENVINO in installed_engines() else ():
        trial = EngineTrial(OPENVINO, precision)
        try:
            encoder = _open(OPENVINO, precision, spec, threads=threads, batch_size=BATCH)
            trial = replace(trial, cosine=agreement(encoder, batch, expected))
        except ModelError as error:
            refused.append(replace(trial, refusal=str(error)))
            continue
        if trial.cosine >= LEAST_COSINE:
            encoders.append(encoder)
            trials.append(trial)
            break
        refused.append(replace(trial, refusal=f"its vectors stray (cosine {trial.cosine:.5f} < {LEAST_COSINE})"))
    rates = _rates(encoders, batch)
    measured = zip(trials, rates, strict=True)
    return [replace(trial, alone_per_s=alone, batch_per_s=many) for trial, (alone, many) in measured] + refused


def _precisions() -> tuple[str, ...]:
    try:
        return ("bfloat16", "float32") if has_bfloat16() else ("float32",)
    except ModelError:
        # That it cannot be loaded is told by the trial, which fails in the same way.
        return ("float32",)


def _rates(encoders: list[ImageEncoder], batch: NDArray[np.float32]) -> list[tuple[float, float]]:
    least = [[math.inf, math.inf] for _ in encoders]
    begun = time.perf_counter()
    for turn in range(_MOST_ROUNDS):
        if turn >= _FEWEST_ROUNDS and time.perf_counter() - begun > _MEASURE_SECONDS:
            break
        for encoder, taken in zip(encoders, least, strict=True):
            for kind, part in ((0, batch[:1]), (0, batch[:1]), (1, batch)):
                start = time.perf_counter()
                encoder.encode(part)
                taken[kind] = min(taken[kind], time.perf_counter() - start)
    return [(round(1 / alone, 1), round(len(batch) / together, 1)) for alone, together in least]


def _conditions(spec: ModelSpec, config: Config) -> dict[str, Any]:
    return {
        "model": spec.sha256,
        "preprocessing": spec.preprocessing.as_json(),
        "engines": dict(installed_engines()),
        "processor": _processor(),
        "threads": config.thread_count,
    }


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # Virtual machines give unlike processors one name; what they can do tells them apart.
    abilities = hashlib.sha256(about.get("flags", about.get("Features", "")).encode()).hexdigest()[:8]
    return f"{about.get('model name', platform.machine())} {abilities}"


def _recall(key: Mapping[str, Any]) -> list[EngineTrial] | None:
    for entry in _entries():
        if entry["conditions"] == key:
            return [EngineTrial(**trial) for trial in entry["trials"]]
    return None


def _remember(key: Mapping[str, Any], trials: list[EngineTrial]) -> None:
    entries = [{"conditions": key, "trials": [asdict(trial) for trial in trials]}]
    entries += [entry for entry in _entries() if entry["conditions"] != key]
    content = json.dumps({"format": _CACHE_FORMAT, "entries": entries[:_CACHE_ENTRIES]}, indent=1)
    path = cache_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
            Path(draft).replace(path)
        except OSError:
            Path(draft).unlink(missing_ok=True)


def _entries() -> list[dict[str, Any]]:
    """Return the sound entries of the cache file, the latest first; none when it is missing or damaged."""
    try:
        found = json.loads(cache_file().read_text("utf-8"))
        entries = found["entries"] if found["format"] == _CACHE_FORMAT else []
        return [entry for entry in entries if _is_sound(entry)]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def _is_sound(entry: Any) -> bool:
    types: dict[str, Callable[[Any], bool]] = {
        field.name: (lambda value: type(value) is float and 0 <= value < math.inf)
        if field.type == "float"
        else (lambda value: type(value) is str)
        for field in fields(EngineTrial)
    }
    trials = entry["trials"]
    return (
        isinstance(entry["conditions"], dict)
        and isinstance(trials, list)
        and bool(trials)
        and all(
            isinstance(trial, dict)
            and set(trial) == set(types)
            and all(types[name](value) for name, value in trial.items())
            for trial in trials
        )
    )
