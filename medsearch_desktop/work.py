"""What a worker makes of one file, before the model and the database see it: reading, decoding, drawing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.config import Config
from medsearch_desktop.conveyor import read_whole, readable, reason_of
from medsearch_desktop.errors import (
    DecodeError,
    MedSearchError,
    NoPixelsError,
    NotAPictureError,
    ReportError,
    SourceError,
)
from medsearch_desktop.feeds import kind_of, may_hold_report, read_reports
from medsearch_desktop.image.decode import decode, read_tags
from medsearch_desktop.image.models import ModelSpec
from medsearch_desktop.image.preprocess import thumbnail, to_tensor
from medsearch_desktop.records import FileKind, Image, Report, SourceFile
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.source.changes import CLOCK_STEP_NS
from medsearch_desktop.source.joining import study_hint
from medsearch_desktop.source.opening import is_member, open_regular
from medsearch_desktop.source.sniff import HEAD_BYTES, broken_promise, digest, unreadable

REPORTS_READ_AT_ONCE = 64
NO_MEMORY = SourceError("takes more memory than there is", remedy="Close other programs; every ingest tries it again")


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker made of one file, before the model and the database have seen it.

    `drawn` is false when the content was known already and nothing was decoded, `unread` is true when the disk did
    not give the content. `is_unread` where the reports have only their text yet.
    """

    file: SourceFile
    checked_ns: int
    drawn: bool = True
    reason: str = ""
    unread: bool = False
    images: tuple[Image, ...] = ()
    thumbnails: tuple[bytes | None, ...] = ()
    tensors: tuple[NDArray[np.float32] | None, ...] = ()
    reports: tuple[Report, ...] = ()
    is_unread: bool = False


class Worker:
    """Reads files one by one, in any thread; `model` and `reader` are asked for only when needed.

    `model` may raise ModelError.
    """

    def __init__(self, config: Config, *, model: Callable[[], ModelSpec], reader: Callable[[], ReportReader]) -> None:
        self._config = config
        self._model = model
        self._reader = reader

    def read(self, file: SourceFile, known_content: Container[str], data: bytes | None = None) -> Work:
        """Return what a file holds, `data` if that was read already; of known content nothing is drawn."""
        return _in_any_case(self._read, file, known_content, data)

    def draw(self, file: SourceFile, checked_ns: int, data: bytes | None) -> Work:
        """Return the images of a file, `data` if that was read already, with their thumbnails and tensors."""
        return _in_any_case(self._draw, file, checked_ns, data)

    def read_header(self, file: SourceFile, _: Container[str], data: bytes | None = None) -> Work:
        """Return what a file says without its pixels and its digest; a report is read whole."""
        return _in_any_case(self._read_header, file, data)

    def _read(self, file: SourceFile, known_content: Container[str], data: bytes | None) -> Work:
        checked_ns = time.time_ns()
        try:
            if data is None and is_member(file.path):
                # Unpacked once, not once more for its first bytes.
                data = read_whole(file.path, size=file.size)
            # What a DICOMDIR names is DICOM, whatever its first bytes look like.
            promised = file.kind is FileKind.DICOM
            kind = file.kind if promised else self._kind(_head(file, data), file)
            file = replace(file, kind=kind)
            if kind is FileKind.OTHER:
                return Work(file, checked_ns, reason=broken_promise(file.path, kind, size=file.size))
            data = read_whole(file.path, size=file.size) if data is None else data
            sha256 = hashlib.sha256(data).hexdigest() if data is not None else digest(file.path)
        except SourceError as error:
            return unread(file, error)
        file = replace(file, sha256=sha256)
        if kind is FileKind.REPORT:
            return self._read_report(file, checked_ns, data)
        if sha256 in known_content:
            return Work(file, checked_ns, drawn=False)
        return self._draw(file, checked_ns, data)

    def _kind(self, head: bytes, file: SourceFile) -> FileKind:
        return kind_of(head, size=file.size, name=file.path, config=self._config)

    def _draw(self, file: SourceFile, checked_ns: int, data: bytes | None) -> Work:
        hint = study_hint(file.path, file.root)
        try:
            with readable(file.path, data) as source:
                decoded = decode(
                    source,
                    name=file.path,
                    sha256=file.sha256,
                    max_frames=self._config.max_frames,
                    max_pixels=self._config.max_pixels,
                    study_hint=hint,
                    key_slices=self._config.key_slices,
                )
        except NoPixelsError as error:
            return self._draw_nothing(file, checked_ns, data, error)
        except OSError as error:
            return _streamed(file, checked_ns, data, error)
        except DecodeError as error:
            return Work(file, checked_ns, reason=reason_of(error))
        reasons = [image.pixel_error for image in decoded.images if image.pixel_error]
        return Work(
            file,
            checked_ns,
            reason=reasons[0] if reasons else "",
            images=decoded.images,
            thumbnails=tuple(
                None if display is None else thumbnail(display, size=self._config.thumbnail_size)
                for display in decoded.displays
            ),
            tensors=tuple(
                None if display is None else to_tensor(display, self._model().preprocessing)
                for display in decoded.displays
            ),
        )

    def _draw_nothing(self, file: SourceFile, checked_ns: int, data: bytes | None, error: NoPixelsError) -> Work:
        """Return what the header says where there is no picture: a study, a patient and a date can be asked for."""
        try:
            with readable(file.path, data) as source:
                tags = read_tags(source, name=file.path, sha256=file.sha256)
        except OSError as failure:
            return _streamed(file, checked_ns, data, failure)
        except DecodeError as failure:
            return Work(file, checked_ns, reason=reason_of(failure))
        image = replace(tags, pixel_error=reason_of(error))
        # A plan or a segmentation is no picture and has not failed to be one.
        reason = "" if isinstance(error, NotAPictureError) else reason_of(error)
        return self._read_document(file, checked_ns, data, image, reason)

    def _read_header(self, file: SourceFile, data: bytes | None) -> Work:
        checked_ns = time.time_ns()
        try:
            head = _head(file, data)
            kind = file.kind if file.kind is FileKind.DICOM else self._kind(head, file)
            file = replace(file, kind=kind)
            if kind is FileKind.REPORT:
                return self._read_report(file, checked_ns, data or read_whole(file.path, size=file.size))
            if kind is FileKind.OTHER:
                return Work(file, checked_ns, reason=broken_promise(file.path, kind, size=file.size))
            if kind is FileKind.RASTER:
                # Without a header its identifiers come from its content.
                file = replace(file, sha256=digest(file.path))
            hint = study_hint(file.path, file.root)
            with readable(file.path, data) as source:
                image = read_tags(source, name=file.path, sha256=file.sha256, study_hint=hint)
            if may_hold_report(image.sop_class_uid):
                data = data or read_whole(file.path, size=file.size)
                # It has none to embed, which an ordinary ingest would else find out each time.
                image = replace(image, pixel_error="the DICOM file holds a report and no pixels")
                return self._read_document(replace(file, sha256=""), checked_ns, data, image, image.pixel_error)
        except SourceError as error:
            return unread(file, error)
        except OSError as error:
            return unread(file, unreadable(file.path, error))
        except DecodeError as error:
            return Work(file, checked_ns, reason=reason_of(error))
        return Work(replace(file, sha256=""), checked_ns, images=(image,), thumbnails=(None,), tensors=(None,))

    def _read_report(self, file: SourceFile, checked_ns: int, data: bytes | None) -> Work:
        try:
            reading = read_reports(data, file, config=self._config)
        except SourceError as error:
            return unread(file, error)
        except ReportError as error:
            return Work(file, checked_ns, reason=reason_of(error))
        # Many at once, with all that they mention, would fill the memory: `Library` has them read once they are stored.
        many = len(reading.reports) > REPORTS_READ_AT_ONCE
        reports = (
            Report("", each.text, encoding=each.encoding)
            if many
            else self._reader().read(each.text, report_id="", encoding=each.encoding)
            for each in reading.reports
        )
        stated = tuple(replace(r, stated=e.stated) for r, e in zip(reports, reading.reports, strict=True))
        return Work(file, checked_ns, reason=reading.reason, reports=stated, is_unread=many)

    def _read_document(self, file: SourceFile, checked_ns: int, data: bytes | None, image: Image, reason: str) -> Work:
        """Return the report that a DICOM file without pixels holds, if any, and in any case what its header says."""
        work = Work(file, checked_ns, reason=reason)
        if may_hold_report(image.sop_class_uid):
            work = self._read_report(file, checked_ns, data)
            if work.unread:
                return work
        return replace(work, images=(image,), thumbnails=(None,), tensors=(None,))


def refused(file: SourceFile, reason: str) -> Work:
    """Return what stands for a file that is not to be read."""
    # As if it had been read long after it was written: another time its size and time are enough to know it by. What
    # ends the program is something that is decoded, whatever stood in its place before.
    checked_ns = max(time.time_ns(), file.mtime_ns + CLOCK_STEP_NS)
    return Work(replace(file, kind=FileKind.DICOM), checked_ns, reason=reason)


def unread(file: SourceFile, error: SourceError) -> Work:
    """Return what stands for a file whose content the disk does not give."""
    # When it was read is not known, and so its size and time do not keep it from being tried again.
    return Work(replace(file, kind=FileKind.OTHER, sha256=""), 0, reason=reason_of(error), unread=True)


def _in_any_case(read: Callable[..., Work], file: SourceFile, *arguments: Any) -> Work:
    """Return what `read` makes of a file, or that it cannot: no file keeps the others from being read.

    What has to end an ingest still does: a missing model, no memory.
    """
    checked_ns = time.time_ns()
    try:
        return read(file, *arguments)
    except OSError as error:
        return unread(file, unreadable(file.path, error))
    except (MedSearchError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - formats have more corners than the readers know of
        return Work(file, checked_ns, reason=reason_of(error))


def _streamed(file: SourceFile, checked_ns: int, data: bytes | None, error: OSError) -> Work:
    # What is in memory was read to its end: then it is not the disk that fails.
    if data is not None:
        return Work(file, checked_ns, reason=reason_of(error))
    return unread(file, unreadable(file.path, error))


def _head(file: SourceFile, data: bytes | None = None) -> bytes:
    if data is not None:
        return data[:HEAD_BYTES]
    try:
        with open_regular(file.path) as handle:
            return handle.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(file.path, error) from error
