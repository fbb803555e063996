"""What a library holds, to look at: studies, reports and what they say most, the files behind images, frames,
labels, sources, disk use.

Reads only, and from the source files only after a look that they still are what was indexed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.conveyor import readable
from medsearch_desktop.errors import NotFoundError, SourceError
from medsearch_desktop.image.view import StoredFrame, picture_of_frame, stored_frame
from medsearch_desktop.records import Assertion, Category, PlacedImage
from medsearch_desktop.source.opening import is_as_recorded, open_regular, size_of
from medsearch_desktop.source.sniff import digest, unreadable
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.marker import DATABASE
from medsearch_desktop.store.reports import Reports, StoredReport
from medsearch_desktop.store.studies import ImageFile, Studies, Study
from medsearch_desktop.store.tallies import Tallies
from medsearch_desktop.store.version_notes import VersionNote, VersionNotes


class Holdings:
    """The holdings of the library in `folder`; safe to use from several threads."""

    def __init__(self, folder: Path, database: Database, catalogue: Catalogue, *, max_pixels: int) -> None:
        self._folder = folder
        self._studies = Studies(database)
        self._reports = Reports(database)
        self._tallies = Tallies(database)
        self._version_notes = VersionNotes(database)
        self._catalogue = catalogue
        self._max_pixels = max_pixels

    def study(self, study_uid: str) -> Study:
        """Return a study with its images, reports, labels and the patient's other studies. Raises NotFoundError."""
        study = self._studies.get(study_uid)
        if study is None:
            raise NotFoundError("the library has no such study", item=study_uid)
        return study

    def version_notes(self, report_ids: Sequence[str]) -> dict[str, VersionNote]:
        """Return by identifier how far along those reports are of which versions are kept."""
        return self._version_notes.of(report_ids)

    def withdrawn_reports(self, study: Study) -> list[VersionNote]:
        """Return the reports that state this study and were cancelled since, the oldest first."""
        return self._version_notes.withdrawn(
            study_uid=study.study_uid, accession_number=study.accession_number, patient_id=study.patient_id
        )

    def placed_images(self, image_ids: Iterable[str]) -> list[PlacedImage]:
        """Return images by identifier, in the order given, with their report and place; unknown ones are left out."""
        wanted = list(dict.fromkeys(image_ids))
        found = {image.image_id: image for image in self._studies.placed_images(wanted)}
        return [found[image_id] for image_id in wanted if image_id in found]

    def images_of_reports(self, report_ids: Iterable[str]) -> dict[str, list[PlacedImage]]:
        """Return the images of each report's study by the report's identifier; empty where there is neither."""
        found: dict[str, list[PlacedImage]] = {report_id: [] for report_id in report_ids}
        for image in self._studies.images_of_reports(list(found)):
            found[image.report_id or ""].append(image)
        return found

    def page_of_reports(self, *, offset: int, count: int) -> list[StoredReport]:
        """Return `count` reports from `offset` on, in the order in which they came in."""
        return self._reports.read(self._reports.page(offset, count))

    def reports_of_documents(self, doc_nos: Iterable[int]) -> list[StoredReport]:
        """Return the reports that documents of the text index are, in the order given."""
        wanted = self.numbers_of_documents(np.fromiter(doc_nos, np.int64)).tolist()
        found = {stored.report_no: stored for stored in self._reports.read(wanted)}
        return [found[number] for number in wanted if number in found]

    def numbers_of_reports(self, report_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the numbers of reports by identifier, ascending; unknown ones are left out."""
        return self._reports.numbers_of(list(report_ids))

    def numbers_of_documents(self, doc_nos: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the reports among documents, in the order given."""
        # As the view `document_keys` makes them.
        numbers: NDArray[np.int64] = doc_nos[doc_nos % 2 == 0] // 2
        return numbers

    def tally(
        self,
        assertions: Sequence[Assertion],
        categories: Sequence[Category],
        *,
        codes: bool,
        among: NDArray[np.int64] | None = None,
        k: int = 10,
    ) -> list[tuple[str, int]]:
        """Return the `k` fullest (ICD-10-CM title, or mention as written; reports that say it), see `Tallies`."""
        count = self._tallies.titles if codes else self._tallies.mentions
        return count(assertions, categories, among=among, k=k)

    def image_file(self, image_id: str) -> ImageFile:
        """Return the file that an image is in, after a look at it: it holds what was indexed.

        Raises NotFoundError, and SourceError where the file is away or was written over since: what
        it holds now may be another patient's.
        """
        file = self._studies.image_file(image_id)
        if file is None:
            raise NotFoundError("the library has no such image", item=image_id)
        try:
            unchanged = is_as_recorded(file.path, size=file.size, mtime_ns=file.mtime_ns)
        except OSError as error:
            raise SourceError(
                f"its file cannot be read ({error.strerror})", item=image_id, remedy="Connect the drive that holds it"
            ) from error
        if not unchanged and digest(file.path) != file.sha256:
            raise SourceError(
                "its file has changed since it was indexed", item=image_id, remedy="Ingest its folder again"
            )
        return file

    def open_image(self, file: ImageFile) -> tuple[IO[bytes], int]:
        """Open the file of an image for reading; return it and its size in bytes. Raises SourceError."""
        try:
            handle = open_regular(file.path)
            return handle, size_of(handle)
        except OSError as error:
            raise unreadable(file.image_id, error) from error

    def frame_picture(
        self, image_id: str, *, frame: int | None = None, window: tuple[float, float] | None = None
    ) -> bytes:
        """Return a PNG of an image, or of frame `frame` (from 0) of its instance, seen through `window`.

        See `image.view.picture_of_frame`. Raises as `image_file` and that do.
        """
        file = self.image_file(image_id)
        number = file.frame if frame is None else frame
        with readable(file.path) as source:
            return picture_of_frame(file.path, source=source, frame=number, max_pixels=self._max_pixels, window=window)

    def frame_values(self, image_id: str, *, frame: int | None = None) -> StoredFrame:
        """Return the stored values of an image or of frame `frame` (from 0) of its instance.

        See `image.view.stored_frame`. Raises as `image_file` and that do.
        """
        file = self.image_file(image_id)
        number = file.frame if frame is None else frame
        with readable(file.path) as source:
            return stored_frame(file.path, source=source, frame=number, max_pixels=self._max_pixels)

    def labels(self) -> dict[str, int]:
        """Return every label that is in use and how many targets have it."""
        return self._studies.label_counts()

    def sources(self) -> list[tuple[str, bool, int]]:
        """Return the folders and files that were ingested: (path, whether it is there, known files of it)."""
        counts = self._studies.root_counts()
        return [(path, online, counts.get(path, 0)) for path, online, _ in self._catalogue.roots()]

    def disk_use(self) -> dict[str, int]:
        """Return the bytes that each part of the library takes, by its name, and "free", what is left there."""
        use = {
            entry.name: sum(_size(file) for file in _files(entry))
            for entry in sorted(self._folder.iterdir())
            if entry.is_dir() or entry.name.startswith(DATABASE)
        }
        return {**use, "free": shutil.disk_usage(self._folder).free}


def _files(entry: Path) -> Iterator[Path]:
    return (path for path in ([entry] if entry.is_file() else entry.rglob("*")) if path.is_file())


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        # A part of the indexes that was replaced meanwhile.
        return 0
