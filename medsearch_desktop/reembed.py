"""Images that are known already to vectors of another model: decode, embed, write; and the switch that this is for.

The same pixel path and the same bounded look-ahead as an ingest. What is done is in the database
after every few seconds, and what is left is whatever has no vector there: a switch that was cut
off goes on where it was when it is begun again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.config import Config
from medsearch_desktop.conveyor import read_whole, readable, reason_of
from medsearch_desktop.errors import DecodeError, LibraryError, MedSearchError, SourceError
from medsearch_desktop.image.decode import decode, frames_of
from medsearch_desktop.image.embed import ImageEncoder
from medsearch_desktop.image.models import ModelSpec
from medsearch_desktop.image.preprocess import Display, to_tensor
from medsearch_desktop.quarantine import Quarantine
from medsearch_desktop.records import Failure, SwitchEvent, SwitchSummary
from medsearch_desktop.source.opening import exists
from medsearch_desktop.source.sniff import digest
from medsearch_desktop.store.models import LackingFile, Models

# A commit waits for the disk; this many images or seconds share one.
IMAGES_PER_COMMIT = 64
SECONDS_PER_COMMIT = 2.0
# Files that are looked up at once; a look-up goes over all images.
FILES_AT_ONCE = 4096

_OFFLINE = "its file is not there; it gets its vector at the next ingest once it is back"
_CHANGED = "its file has changed since it was indexed; `medsearch ingest` takes up what it holds now"
_NOT_THERE = "that image is not in the file any more"
_LEFT_OUT = (
    "ended the program twice while it was read, and is left out. `medsearch failures --retry`, or `medsearch model use`"
    " where it is not listed there, tries it again"
)

OnEvent = Callable[[SwitchEvent], None]
OnDisplay = Callable[[str, Display], None]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What a worker made of one file: a tensor or None an image. `lasting` is a reason that will hold tomorrow."""

    file: LackingFile
    tensors: tuple[NDArray[np.float32] | None, ...]
    reason: str = ""
    offline: bool = False
    lasting: bool = False


class Reembedding:
    """Gives the images of a library that lack one their vector of the model `spec`.

    `encoder` is asked for when there is something to embed. With `retry`, images that the model could
    not embed before are tried again. `stop` ends it after the image in hand; what was done is kept. What ended the
    program twice by the book of `quarantine` is left out.
    `on_display` is given each image's identifier and display pixels, in a thread of its own.
    """

    def __init__(
        self,
        models: Models,
        config: Config,
        spec: ModelSpec,
        encoder: Callable[[], ImageEncoder],
        *,
        retry: bool,
        stop: threading.Event,
        quarantine: Quarantine,
        on_event: OnEvent | None = None,
        on_display: OnDisplay | None = None,
    ) -> None:
        self._models = models
        self._config = config
        self._spec = spec
        self._encoder = encoder
        self._retry = retry
        self._stop = stop
        self._quarantine = quarantine
        self._on_event = on_event
        self._on_display = on_display
        self._started = self._committed = time.monotonic()
        self._waiting: list[tuple[int, NDArray[np.float32]]] = []
        self._ready: list[tuple[int, NDArray[np.float32]]] = []
        self._failed: list[tuple[int, str]] = []
        self._total = 0
        # The highest number of an image that was looked at: those that came later are above it.
        self.after = -1
        self.images = self.offline = self.failed = 0
        self.failures: list[Failure] = []

    def run(self) -> None:
        """Embed until no image above `after` lacks a vector, or until told to stop.

        May be called again, for images that came meanwhile. Raises ModelError, StorageFullError.
        """
        self._total = self._settled + self._models.count_lacking(self._spec.model_id, retry=self._retry)
        self.tell("embedding")
        try:
            while not self._stop.is_set() and (files := self._next_files()):
                self._embed_files(files)
            self._embed(all_of_it=True)
        finally:
            self._commit()
            self._quarantine.settle()

    def tell(self, stage: str) -> None:
        """Report a step to whoever shows progress."""
        if self._on_event is None:
            return
        self._on_event(
            SwitchEvent(
                stage=stage,
                model_id=self._spec.model_id,
                total=max(self._total, self._settled),
                settled=self._settled,
                images=self.images,
                offline=self.offline,
                failed=self.failed,
                seconds=self.seconds,
            )
        )

    @property
    def seconds(self) -> float:
        """The time since it was made."""
        return time.monotonic() - self._started

    @property
    def _settled(self) -> int:
        return self.images + len(self._ready) + self.offline + self.failed

    def _next_files(self) -> list[LackingFile]:
        return self._models.lacking(self._spec.model_id, after=self.after, retry=self._retry, limit=FILES_AT_ONCE)

    def _embed_files(self, files: list[LackingFile]) -> None:
        threads = self._config.thread_count
        reading = self._quarantine.look_ahead(
            self._draw,
            files,
            path_of=lambda file: file.path,
            refuse=lambda file, _: _Drawn(file, (None,) * len(file.image_nos), _LEFT_OUT, lasting=True),
            threads=threads,
            ahead=2 * threads + self._config.batch_size,
        )
        # However it ends, the book is closed before another pass opens it.
        with closing(reading):
            for drawn in reading:
                self._take(drawn)
                self.after = drawn.file.image_nos[-1]
                if self._stop.is_set():
                    return

    def _draw(self, file: LackingFile) -> _Drawn:
        try:
            return self._drawn(file)
        except (MedSearchError, OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - no file keeps the others from having a vector
            return _Drawn(file, (None,) * len(file.image_nos), reason_of(error), lasting=True)

    def _drawn(self, file: LackingFile) -> _Drawn:
        nothing = (None,) * len(file.image_nos)
        try:
            if not exists(file.path):
                return _Drawn(file, nothing, _OFFLINE, offline=True)
            data = read_whole(file.path, size=file.size)
            sha256 = hashlib.sha256(data).hexdigest() if data is not None else digest(file.path)
            if sha256 != file.sha256:
                # Its vector would be of another picture than the one that the library shows.
                return _Drawn(file, nothing, _CHANGED)
            with readable(file.path, data) as source:
                decoded = decode(
                    source,
                    name=file.path,
                    sha256=sha256,
                    max_frames=1,
                    max_pixels=self._config.max_pixels,
                    frames=frames_of(file.image_ids),
                )
        except (SourceError, OSError) as error:
            return _Drawn(file, nothing, reason_of(error))
        except DecodeError as error:
            return _Drawn(file, nothing, reason_of(error), lasting=True)
        displays = {image.image_id: display for image, display in zip(decoded.images, decoded.displays, strict=True)}
        if self._on_display is not None:
            for image_id in file.image_ids:
                if (display := displays.get(image_id)) is not None:
                    self._on_display(image_id, display)
        reasons = [image.pixel_error for image in decoded.images if image.pixel_error]
        tensors = tuple(
            None if (display := displays.get(image_id)) is None else to_tensor(display, self._spec.preprocessing)
            for image_id in file.image_ids
        )
        return _Drawn(file, tensors, next(iter(reasons), _NOT_THERE), lasting=True)

    def _take(self, drawn: _Drawn) -> None:
        missed = [no for no, tensor in zip(drawn.file.image_nos, drawn.tensors, strict=True) if tensor is None]
        self._waiting += [
            (no, tensor) for no, tensor in zip(drawn.file.image_nos, drawn.tensors, strict=True) if tensor is not None
        ]
        if missed:
            self.failures.append(Failure(drawn.file.path, drawn.reason))
            if drawn.offline:
                self.offline += len(missed)
            else:
                self.failed += len(missed)
            if drawn.lasting:
                self._failed += [(no, drawn.reason) for no in missed]
        self._embed(all_of_it=False)
        late = time.monotonic() - self._committed > SECONDS_PER_COMMIT
        if late or len(self._ready) + len(self._failed) >= IMAGES_PER_COMMIT:
            self._commit()
        self.tell("embedding")

    def _embed(self, *, all_of_it: bool) -> None:
        if not self._waiting or (len(self._waiting) < self._config.batch_size and not all_of_it):
            return
        vectors = self._encoder().encode(np.stack([tensor for _, tensor in self._waiting]))
        self._ready += [(no, vector) for (no, _), vector in zip(self._waiting, vectors, strict=True)]
        self._waiting.clear()

    def _commit(self) -> None:
        ready, self._ready = self._ready, []
        failed, self._failed = self._failed, []
        if ready or failed:
            vectors = np.stack([vector for _, vector in ready]) if ready else np.empty((0, self._spec.dim), np.float32)
            self.images += self._models.add_vectors(
                self._spec.model_id, [no for no, _ in ready], vectors, failed=failed
            )
        self._committed = time.monotonic()


class ModelSwitch:
    """A switch to another model, under way in a thread of its own or done already.

    `event` is its latest step. What it embedded is kept however it ends.
    """

    def __init__(self, model_id: str, work: Callable[[ModelSwitch], SwitchSummary]) -> None:
        self.model_id = model_id
        self.stop = threading.Event()
        self.event = SwitchEvent("embedding", model_id)
        self._work = work
        self._thread: threading.Thread | None = None
        self._summary: SwitchSummary | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do it here and now."""
        self._summary = self._work(self)

    def start(self) -> None:
        """Do it in a thread of its own."""
        self._thread = threading.Thread(target=self._run_apart, name=f"switch to {self.model_id}")
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it is under way in its thread."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def summary(self) -> SwitchSummary | None:
        """What it did, once it has ended without an error."""
        return self._summary

    @property
    def error(self) -> BaseException | None:
        """What ended its thread, if an error did."""
        return self._error

    def cancel(self) -> None:
        """End it after the image in hand; the same switch, begun again, goes on from there."""
        self.stop.set()

    def join(self, timeout: float | None = None) -> SwitchSummary:
        """Wait until it has ended and return what it did.

        Raises the error that ended it, or LibraryError when it is still under way after `timeout` seconds.
        """
        if self._thread is not None:
            self._thread.join(timeout)
        if self._error is not None:
            raise self._error
        if self._summary is None:
            raise LibraryError("the switch is still under way", item=self.model_id)
        return self._summary

    def _run_apart(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001 - whoever joins gets it
            self._error = error
