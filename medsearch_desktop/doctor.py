"""Is everything in order here: decoders, model, language, library, permissions, network; one page.

Each check does a small piece of the real work and says what it saw.
"""

from __future__ import annotations

import importlib.metadata
import ipaddress
import math
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil

from medsearch_desktop.config import Config
from medsearch_desktop.errors import LibraryNotFoundError, MedSearchError
from medsearch_desktop.image.engines import fastest, installed_engines, try_engines
from medsearch_desktop.image.models import list_models, verify
from medsearch_desktop.image.selftest import decoders, reads_video, round_trips
from medsearch_desktop.library import MARKER, Library
from medsearch_desktop.records import ModelRole
from medsearch_desktop.workbench import Workbench

OK, WARNING, FAILURE = "ok", "warning", "failure"
# Below this much free disk an ingest of a few thousand films may not end.
LOW_DISK_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the page: what was looked at, how it is, what was seen, what to do."""

    name: str
    state: str
    seen: str
    remedy: str = ""


def examine(config: Config, *, library: Library | None = None) -> list[Check]:
    """Run all checks and return their outcomes; none raises.

    Whoever owns the library, and so may have sockets of this machine, gives it.
    """
    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("program", _program),
        ("decoders", _decoders),
        ("model", lambda: _model(Workbench(config))),
        ("engine", lambda: _engines(Workbench(config))),
        ("language", lambda: _language(Workbench(config))),
        ("disk", lambda: _disk(config)),
        ("library", lambda: _library(config) if library is None else _contents(library)),
        ("network", lambda: _network(serving=library is not None)),
    ]
    found = []
    for name, check in checks:
        try:
            # One by one: what was seen before a check broke off is part of the page.
            for row in check():
                found.append(row)
        except MedSearchError as error:
            found.append(Check(name, FAILURE, str(error), error.remedy))
    return found


def checks_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the object that `medsearch doctor --json` prints."""
    return {"ok": all(check.state != FAILURE for check in checks), "checks": [asdict(check) for check in checks]}


def _program() -> Iterator[Check]:
    names = ("medsearch-desktop", "pydicom", "onnxruntime", "duckdb", "tantivy", "hnswlib", "spacy", "numpy")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Check("program", FAILURE, f"{name} is not installed", "Install MedSearch Desktop again")
    versions += [f"{name} {release}" for name, release in installed_engines().items() if name not in names]
    yield Check("program", OK, f"Python {platform.python_version()} on {sys.platform}; {', '.join(versions)}")


def _decoders() -> Iterator[Check]:
    for syntax, plugins in decoders().items():
        if plugins:
            yield Check("decoder", OK, f"{syntax}: {', '.join(plugins)}")
        else:
            yield Check(
                "decoder", WARNING, f"{syntax}: none", "Images in it are indexed without pixels; install again to mend"
            )
    video = reads_video()
    if video is None:
        yield Check("decoder", OK, "Video: header alone; its first frame where the package av (PyAV) is installed")
    elif video:
        yield Check("decoder", OK, "Video: PyAV, the first frame")
    else:
        yield Check("decoder", WARNING, "Video: PyAV is installed and does not decode it", "Install another av")
    tried, wrong = round_trips()
    if wrong:
        seen = f"{len(wrong)} of {tried} forms of a phantom come back altered: {'; '.join(wrong)}"
        yield Check("decoder", FAILURE, seen, "Install MedSearch Desktop again")
    else:
        yield Check("decoder", OK, f"a phantom in {tried} forms (syntax, depth, sign, colour) comes back as it was")


def _model(bench: Workbench) -> Iterator[Check]:
    for spec in list_models():
        try:
            verify(spec)
        except MedSearchError as error:
            yield Check("model", FAILURE, str(error), error.remedy)
            continue
        chosen = ", the one of new libraries" if spec.model_id == bench.model.model_id else ""
        yield Check("model", OK, f"{spec.model_id}: its file is the one of the manifest{chosen}")
    shape = bench.model.preprocessing.shape
    ramp = np.linspace(-2, 2, math.prod(shape), dtype=np.float32).reshape(1, *shape)
    one = bench.encoder.encode(ramp)[0]
    both = bench.encoder.encode(np.concatenate([ramp[:, :, ::-1], ramp]))[1]
    cosine = float(one @ both)
    state = OK if cosine >= 0.99999 else FAILURE
    yield Check("model", state, f"the same image alone and in a batch: cosine {cosine:.7f}")


def _engines(bench: Workbench) -> Iterator[Check]:
    trials = try_engines(bench.model, bench.config, retry_refused=True)
    for trial in trials:
        name = f"{trial.engine} in {trial.precision}"
        if trial.refusal:
            yield Check("engine", WARNING, f"{name} is refused: {trial.refusal}", "Another engine is used")
            continue
        speed = f"{trial.alone_per_s:.1f} images/s one at a time, {trial.batch_per_s:.1f} in batches"
        agreement = "the reference" if trial is trials[0] else f"cosine to the reference {trial.cosine:.5f}"
        yield Check("engine", OK, f"{name}: {speed}; {agreement}")
    chosen = fastest(trials, bench.config)
    yield Check("engine", OK, f"{chosen.engine} in {chosen.precision} is used, by the setting {bench.config.engine!r}")


def _language(bench: Workbench) -> Iterator[Check]:
    report = bench.report(b"FINDINGS: No pleural effusion. There is a right pneumothorax.", name="self-test")
    said = {(entity.finding, entity.assertion.value) for entity in report.entities}
    expected = {("Effusion", "absent"), ("Pneumothorax", "present")}
    if expected <= said:
        yield Check("language", OK, "a sentence with one finding seen and one ruled out is read as such")
    else:
        yield Check("language", FAILURE, f"expected {expected}, read {said}", "Install MedSearch Desktop again")


def _disk(config: Config) -> Iterator[Check]:
    place = config.library_path
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    yield Check("disk", OK if free > LOW_DISK_BYTES else WARNING, f"{free / 2**30:.1f} GiB free at {place}")


def _library(config: Config) -> Iterator[Check]:
    path = config.library_path
    try:
        library = Library(config)
    except LibraryNotFoundError:
        yield Check("library", OK, f"none yet at {path}", "`medsearch ingest FOLDER` makes one")
        return
    with library:
        yield from _contents(library)


def _contents(library: Library) -> Iterator[Check]:
    path, totals = library.path, library.totals()
    yield Check(
        "library",
        OK,
        f"{path}: {totals.images} images, {totals.reports} reports, {totals.studies} studies,"
        f" {totals.patients} patients, {totals.failures} failures",
    )
    for name, held, expected in (
        ("image index", library.vectors.count, library.catalogue.vector_count(library.model_id)),
        ("text index", library.fulltext.document_count, library.catalogue.document_count()),
    ):
        if held == expected:
            yield Check(name, OK, f"{held} entries, as many as the database has")
        else:
            yield Check(
                name,
                FAILURE,
                f"{held} entries, the database has {expected}",
                f"Remove {path / 'indexes'}: it is made anew",
            )
    yield from _library_model(library)
    for root, online, _ in library.catalogue.roots():
        yield Check("folder", OK if online else WARNING, f"{root} is {'there' if online else 'offline'}")
    for file, most in ((path, 0o700), (path / "library.duckdb", 0o600), (path / MARKER, 0o600)):
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & ~most and sys.platform != "win32":
            yield Check("permissions", WARNING, f"{file} has mode {mode:o}", f"chmod {most:o} {file}")
        else:
            yield Check("permissions", OK, f"{file} has mode {mode:o}")


def _library_model(library: Library) -> Iterator[Check]:
    model_id = library.model_id
    try:
        verify(library.model)
    except MedSearchError as error:
        what = f"what is stored can be asked, nothing new be embedded: {error.item}: {error.message}"
        yield Check("own model", WARNING, what, error.remedy)
    waiting = library.waiting_images()
    seen = f"{model_id} is in use, {library.vectors.count} images have its vector"
    if waiting:
        failed = len(library.unembedded())
        yield Check(
            "own model",
            WARNING,
            f"{seen}, {waiting} lack it ({failed} files could not be embedded, the others wait for theirs)",
            f"`medsearch model use {model_id}` tries again",
        )
    else:
        yield Check("own model", OK, seen)
    for held in library.models():
        if held.role is ModelRole.NEXT:
            yield Check(
                "own model",
                WARNING,
                f"a switch to {held.model_id} has not ended, {held.vectors} images have its vector",
                f"`medsearch model use {held.model_id}` goes on, `medsearch model use {model_id}` gives it up",
            )
    curve, why = library.curve(), library.curve_note()
    if curve is None and not why:
        yield Check("match meter", OK, "not measured", "`medsearch model calibrate` measures it")
    elif why:
        yield Check("match meter", WARNING, why, "`medsearch model calibrate` measures it anew")
    elif curve is not None:
        accuracy = f"off by {100 * curve.calibration_error:.1f} % on average"
        yield Check("match meter", OK, f"measured {curve.measured} by {curve.queries} images, {accuracy}")


def _network(*, serving: bool) -> Iterator[Check]:
    own = [c for c in psutil.Process().net_connections("inet") if c.status != psutil.CONN_NONE]
    if not own:
        yield Check("network", OK, "no socket is open in this process; sync is not configured")
    elif not serving:
        yield Check("network", WARNING, f"{len(own)} sockets are open in this process, which needs none")
    elif away := [c for c in own if any(not _of_this_machine(end.ip) for end in (c.laddr, c.raddr) if end)]:
        yield Check("network", WARNING, f"{len(away)} of {len(own)} sockets lead out of this machine")
    else:
        yield Check(
            "network", OK, f"{len(own)} sockets are open to answer, each of this machine; sync is not configured"
        )


def _of_this_machine(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
