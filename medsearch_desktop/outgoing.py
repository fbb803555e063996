"""What leaves a library for another DICOM station: which images, by study, series, image or question, and their files.

Reads only; `sending` does the rest.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medsearch_desktop.errors import DecodeError, NotFoundError, RequestError, SourceError
from medsearch_desktop.holdings import Holdings
from medsearch_desktop.sending import Line, Sent, send
from medsearch_desktop.source.opening import is_member
from medsearch_desktop.store.outgoing import OutgoingFiles

MOST_FILES = 100_000
# So many files at once are copied out of archives and looked at before the first of them goes.
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Choice:
    """Images that were chosen, one of each file, and the studies and bytes that they come to."""

    image_ids: tuple[str, ...]
    studies: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SendSummary:
    """What sending did: files that were taken, that were not, and that were left when it was stopped."""

    station: str
    sent: int
    failed: int
    left: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return it as an object of JSON values."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


class Outgoing:
    """Chooses and sends images of one library; `studies_of` returns the studies that a question finds."""

    def __init__(self, files: OutgoingFiles, holdings: Holdings, *, studies_of: Callable[[str], list[str]]) -> None:
        self._files = files
        self._holdings = holdings
        self._studies_of = studies_of

    def choose(
        self,
        *,
        studies: Sequence[str] = (),
        series: Sequence[str] = (),
        images: Sequence[str] = (),
        question: str = "",
    ) -> Choice:
        """Return the images of these studies and series, of the studies that a question finds, and `images`.

        One stands for all frames of its file. Images that nobody knows are kept: what becomes of them is told when they
        are sent. Raises NotFoundError for a study or series without an image and where there is nothing at all,
        QueryError, RequestError beyond 100,000 files.
        """
        found = self._studies_of(question) if question.strip() else []
        rows = self._files.of(studies=[*studies, *found], series=series, images=images, most=MOST_FILES + 1)
        for kind, uids, known in (
            ("study", studies, {row.study_uid for row in rows}),
            ("series", series, {row.series_uid for row in rows}),
        ):
            # Of more than there may be, some were not read.
            if len(rows) <= MOST_FILES and (missing := next((uid for uid in uids if uid not in known), "")):
                raise NotFoundError(f"the library has no image of this {kind}", item=missing)
        instances = {row.image_id.partition("#")[0] for row in rows}
        unknown = [each for each in dict.fromkeys(images) if each.partition("#")[0] not in instances]
        chosen = (*(row.image_id for row in rows), *unknown)
        if len(chosen) > MOST_FILES:
            raise RequestError(
                f"more than {MOST_FILES:,} files are not sent at once", remedy="Ask for less, such as one year by date:"
            )
        if not chosen:
            raise NotFoundError("finds no image", item=question, remedy="Try the question in a search first")
        return Choice(chosen, len({row.study_uid for row in rows}), sum(row.size for row in rows))

    def send(self, line: Line, image_ids: Sequence[str], *, stop: threading.Event | None = None) -> Iterator[Sent]:
        """Send the files of images to a station, and yield what became of each; ends after a file once `stop` is set.

        Raises StationError as `sending.send` does, also after some were sent.
        """
        for names in (image_ids[at : at + _AT_ONCE] for at in range(0, len(image_ids), _AT_ONCE)):
            with tempfile.TemporaryDirectory(prefix="medsearch-send-") as folder:
                files: list[tuple[str, Path]] = []
                for number, name in enumerate(names):
                    if stop is not None and stop.is_set():
                        return
                    place = self._place_of(name, Path(folder) / f"{number}.dcm")
                    if isinstance(place, Sent):
                        yield place
                    else:
                        files.append((name, place))
                # Closed, it lets the association go.
                with closing(send(line, files)) as results:
                    for sent in results:
                        yield sent
                        if stop is not None and stop.is_set():
                            return

    def _place_of(self, image_id: str, copy: Path) -> Path | Sent:
        """Return where the file of an image is, which is copied only where it is no file of this disk."""
        try:
            file = self._holdings.image_file(image_id)
            if not is_member(file.path):
                return Path(file.path)
            source, _ = self._holdings.open_image(file)
            with source, copy.open("wb") as target:
                shutil.copyfileobj(source, target)
        except (SourceError, NotFoundError, DecodeError) as error:
            return Sent(image_id, ok=False, note=error.message)
        except OSError as error:
            copy.unlink(missing_ok=True)
            return Sent(image_id, ok=False, note=f"cannot be copied out of its archive ({error.strerror or 'damaged'})")
        return copy
