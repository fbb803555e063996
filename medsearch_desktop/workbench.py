"""What needs no library: one image to a vector, one report to entities, one phrase to a code.

Models and the language pipeline are loaded at first use and kept.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from medsearch_desktop.config import Config
from medsearch_desktop.conveyor import readable
from medsearch_desktop.errors import DecodeError, NotFoundError, SourceError
from medsearch_desktop.feeds import is_feed, read_reports
from medsearch_desktop.records import Image, Report, SourceFile
from medsearch_desktop.report.entities import EntityExtractor
from medsearch_desktop.report.linking import Linker
from medsearch_desktop.report.ner import load_shipped_recogniser
from medsearch_desktop.report.pipelines import load_pipeline, survey_pipelines
from medsearch_desktop.report.reader import ReportReader, extract_json
from medsearch_desktop.report.recognise import Recognition
from medsearch_desktop.source.sniff import HEAD_BYTES, digest

# What reads images and runs models is imported where it is used: a report waits for none of it.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medsearch_desktop.image.embed import ImageEncoder
    from medsearch_desktop.image.models import ModelSpec

Region = tuple[int, int, int, int]


class Workbench:
    """The language pipeline, the model that a configuration names and, by their specs, any others.

    May be shared between threads.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._encoders: dict[str, ImageEncoder] = {}
        self._loading = threading.Lock()

    @cached_property
    def model(self) -> ModelSpec:
        """The model that the configuration names. Raises ModelMissingError, ModelError."""
        from medsearch_desktop.image.models import find_model

        return find_model(self.config.model)

    @property
    def encoder(self) -> ImageEncoder:
        """The embedding model that the configuration names."""
        return self.encoder_of(self.model)

    def encoder_of(self, spec: ModelSpec) -> ImageEncoder:
        """Return the embedding model of a registry entry, loaded. Raises ModelMissingError, ModelError."""
        from medsearch_desktop.image.engines import open_encoder

        with self._loading:
            if spec.model_id not in self._encoders:
                self._encoders[spec.model_id] = open_encoder(spec, self.config)
            return self._encoders[spec.model_id]

    def unload(self, model_id: str) -> None:
        """Let go of a model, until it is asked for again."""
        with self._loading:
            self._encoders.pop(model_id, None)

    @cached_property
    def reader(self) -> ReportReader:
        """The language pipeline as libraries use it; with recognisers where the settings say always.

        Raises ModelError when one of them cannot be loaded.
        """
        recognise = self.config.recognisers == "always"
        if recognise:
            # A whole ingest asks it sooner or later: what is wrong with it is told before the first file.
            load_shipped_recogniser().load()
        return self._reader(recognise=recognise)

    @cached_property
    def extractor(self) -> ReportReader:
        """The language pipeline as `extract` uses it, with recognisers unless the settings say never.

        The shipped one is loaded when a report first has a word that it is asked about. Raises ModelError when one of
        the user's cannot be loaded, or the shipped one is missing.
        """
        if self.config.recognisers != "extract":
            return self.reader
        return self._reader(recognise=True)

    def _reader(self, *, recognise: bool) -> ReportReader:
        if not recognise:
            return ReportReader(extractor=EntityExtractor(linker=self.linker))
        specs, problems = survey_pipelines()
        if problems:
            raise problems[0]
        imported = [load_pipeline(spec) for spec in specs]
        recognition = Recognition(load_shipped_recogniser(), imported, self.linker)
        return ReportReader(extractor=EntityExtractor(linker=self.linker, recognition=recognition))

    @cached_property
    def linker(self) -> Linker:
        """What finds the code of a phrase."""
        return Linker()

    def tags(self, path: str) -> Image:
        """Return what the header of an image's file says of it. Raises DecodeError; OSError passes through."""
        from medsearch_desktop.image.decode import read_tags

        return read_tags(path, name=path)

    def display(self, path: str, *, image_id: str | None = None, data: bytes | None = None) -> NDArray[np.uint8]:
        """Return the 8-bit pixels of one image of a file, (H, W) or (H, W, 3): its middle frame, or `image_id`.

        `data` is its content where it is no file; `path` is then its name in messages.
        Raises SourceError, DecodeError.
        """
        from medsearch_desktop.image.decode import decode, frames_of

        sha256 = digest(path) if data is None else hashlib.sha256(data).hexdigest()
        with readable(path, data) as source:
            decoded = decode(
                source,
                name=path,
                sha256=sha256,
                max_frames=1,
                max_pixels=self.config.max_pixels,
                frames=frames_of((image_id or "",)),
            )
        for image, display in zip(decoded.images, decoded.displays, strict=True):
            if image_id in (None, image.image_id) and display is not None:
                return display
        reason = decoded.images[0].pixel_error or "that image is not in the file any more"
        raise DecodeError(reason, item=path)

    def vector(
        self,
        path: str,
        *,
        image_id: str | None = None,
        roi: Region | None = None,
        model: ModelSpec | None = None,
        data: bytes | None = None,
    ) -> NDArray[np.float32]:
        """Return the vector, shape (1024,), of an image or of its part `roi` (x, y, width, height in pixels).

        `model` is the configured one where none is given; `data` as for `display`.
        Raises SourceError, DecodeError, ModelError, and MedSearchError for a region outside the image.
        """
        from medsearch_desktop.image.preprocess import to_tensor

        spec = model or self.model
        tensor = to_tensor(self.display(path, image_id=image_id, data=data), spec.preprocessing, roi=roi)
        vectors: NDArray[np.float32] = self.encoder_of(spec).encode(tensor[None])
        return cast("NDArray[np.float32]", vectors[0])

    def embed(self, files: Sequence[str | os.PathLike[str]]) -> NDArray[np.float32]:
        """Return one vector a file, shape (n, 1024), of each file's middle frame."""
        import numpy as np

        vectors = [self.vector(os.fspath(file)) for file in files]
        return np.stack(vectors) if vectors else np.empty((0, self.model.dim), np.float32)

    def read_report(self, path: str) -> Report:
        """Return the first report in a file of any format, with its entities. Raises as `read_reports`."""
        return self.read_reports(path)[0][0]

    def read_reports(self, path: str) -> tuple[list[Report], str]:
        """Return the reports in a file of any format, and why some could not be read, "" where all could.

        Raises SourceError, ReportError where there is none, ModelError, ConfigError.
        """
        try:
            status = Path(path).stat()
        except OSError as error:
            raise SourceError(f"cannot be read ({error.strerror})", item=path) from error
        file = SourceFile(path, "", status.st_size, status.st_mtime_ns)
        return self._reports(None, file, name=path)

    def is_document(self, path: str) -> bool:
        """Whether a file is of a format that holds reports with what is stated of them (HL7, FHIR, PDF, DICOM, tables).

        Raises SourceError, ConfigError.
        """
        try:
            with Path(path).open("rb") as file:
                return is_feed(file.read(HEAD_BYTES), name=path, config=self.config)
        except OSError as error:
            raise SourceError(f"cannot be read ({error.strerror})", item=path) from error

    def report(self, data: bytes, *, name: str) -> Report:
        """Return the first report that `data` holds in whatever format. Raises ReportError, ModelError."""
        return self.reports(data, name=name)[0][0]

    def reports(self, data: bytes, *, name: str) -> tuple[list[Report], str]:
        """Return the reports that `data` holds, as `read_reports` does; `name` is for messages."""
        return self._reports(data, SourceFile(name, "", len(data), time.time_ns()), name=name)

    def _reports(self, data: bytes | None, file: SourceFile, *, name: str) -> tuple[list[Report], str]:
        reading = read_reports(data, file, config=self.config)
        stem = Path(name).stem
        found: list[Report] = []
        for each in reading.reports:
            number = each.stated.number if each.stated else ""
            several = len(reading.reports) > 1
            report_id = number or (f"{stem}-{len(found) + 1}" if several else stem)
            report = self.extractor.read(each.text, report_id=report_id, encoding=each.encoding)
            found.append(replace(report, stated=each.stated))
        return found, reading.reason

    def extract(self, report: Report) -> dict[str, Any]:
        """Return what `medsearch extract --json` prints of a report."""
        return extract_json(report)

    def code(self, phrases: Sequence[str]) -> list[dict[str, Any]]:
        """Return, for each phrase, the code it is linked to, if any is good enough, and the runners-up."""
        return self.linker.code_phrases(phrases)


def neither_image_nor_file(image: str) -> NotFoundError:
    """Return the error for a query image that is nothing that is known here."""
    return NotFoundError(
        "neither an image of this library nor a file",
        item=image,
        remedy="Give an image_id or series_uid from an answer, or the path of a DICOM, PNG or JPEG file",
    )
