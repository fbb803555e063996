"""The models of one library: which is in use, what makes its vectors, where they are searched, and changing it.

A library keeps the model that it began with until it is told to use another; the setting `model`
decides for a new library only. What is stored can be asked though the model itself is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsearch_desktop.config import Config
from medsearch_desktop.errors import LibraryError, ModelAlteredError, ModelError, ModelMissingError
from medsearch_desktop.image.embed import ImageEncoder
from medsearch_desktop.image.models import ModelSpec, find_model, list_models, verify
from medsearch_desktop.quarantine import Quarantine
from medsearch_desktop.records import ModelRole, SwitchEvent, SwitchSummary
from medsearch_desktop.reembed import ModelSwitch, OnDisplay, OnEvent, Reembedding
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.indexes import VectorIndexes
from medsearch_desktop.store.models import DIM, Models
from medsearch_desktop.store.vectors import VectorIndex
from medsearch_desktop.workbench import Region, Workbench


class Embeddings:
    """The models of a library and the vectors of each; safe to use from several threads.

    `average` is told the model of which the vectors are complete, before a switch to it ends.
    Raises ModelMissingError when a new library has no model to begin with.
    """

    def __init__(
        self,
        folder: Path,
        models: Models,
        catalogue: Catalogue,
        *,
        config: Config,
        workbench: Workbench,
        average: Callable[[str], object],
    ) -> None:
        self._models = models
        self._library = folder.parent
        self._average = average
        self._config = config
        self._workbench = workbench
        self._indexes = VectorIndexes(
            folder,
            catalogue,
            exact_below=config.exact_below,
            breadth=config.search_breadth,
            threads=config.thread_count,
        )
        self._specs: dict[str, ModelSpec] = {}
        self._busy = threading.Lock()
        self.switch: ModelSwitch | None = None
        self.model_id = self._choose()

    def close(self) -> None:
        """End a switch that is under way, which may go on another time, and let go of the indexes."""
        if self.switch is not None:
            self.switch.cancel()
            with suppress(Exception):
                self.switch.join()
        self._indexes.close()

    @property
    def index(self) -> VectorIndex:
        """The index of the model in use."""
        return self._indexes.of(self.model_id)

    def index_of(self, model_id: str) -> VectorIndex:
        """Return the index of a model, with all that it has embedded so far.

        Raises ModelError when it has embedded nothing here.
        """
        if model_id == self.model_id:
            return self.index
        with_vectors = [held.model_id for held in self._models.held() if held.vectors]
        if model_id not in with_vectors:
            raise ModelError(
                "no image of this library has a vector of it",
                item=model_id,
                remedy=f"There are vectors of: {', '.join(with_vectors) or 'none'}; `medsearch model use` makes others",
            )
        return self._indexes.refresh(model_id)

    def refresh(self) -> None:
        """Teach the index in use what it has missed. Raises StorageFullError."""
        self._indexes.refresh(self.model_id)

    def spec(self, model_id: str) -> ModelSpec:
        """Return the registered model of that identifier, whose file must be the one that made the vectors here.

        Raises ModelMissingError, ModelAlteredError, ModelError.
        """
        if model_id not in self._specs:
            try:
                spec = _registered(model_id)
            except ModelMissingError as error:
                raise _gone(error, model_id) from error
            self._check_file(spec)
            self._specs[model_id] = spec
        return self._specs[model_id]

    def encoder(self, model_id: str) -> ImageEncoder:
        """Return what makes the vectors of a model. Raises as `spec` does."""
        spec = self.spec(model_id)
        try:
            return self._workbench.encoder_of(spec)
        except ModelMissingError as error:
            raise _gone(error, model_id) from error

    def vector(
        self,
        path: str,
        *,
        model_id: str,
        image_id: str | None = None,
        roi: Region | None = None,
        data: bytes | None = None,
    ) -> NDArray[np.float32]:
        """Return the vector of a file's image or of a part of it, as `Workbench.vector` does.

        Raises ModelMissingError, SourceError, DecodeError.
        """
        self.encoder(model_id)
        return self._workbench.vector(path, image_id=image_id, roi=roi, model=self.spec(model_id), data=data)

    def catch_up(
        self,
        on_event: OnEvent | None = None,
        *,
        stop: threading.Event | None = None,
        on_display: OnDisplay | None = None,
    ) -> int:
        """Embed what lacks a vector of the model in use and whose file is there; return how many images.

        What the model could not embed before is left. Without the model nothing is done.
        """
        model_id = self.model_id
        if not self._models.count_lacking(model_id, retry=False):
            return 0
        try:
            spec = self.spec(model_id)
            self.encoder(model_id)
        except ModelError:
            return 0
        run = Reembedding(
            self._models,
            self._config,
            spec,
            lambda: self.encoder(model_id),
            retry=False,
            stop=stop or threading.Event(),
            quarantine=Quarantine(self._library, "vectors"),
            on_event=on_event,
            on_display=on_display,
        )
        run.run()
        return run.images

    def use(self, model_id: str, *, on_event: OnEvent | None, background: bool) -> ModelSwitch:
        """Switch to a model; see `Library.use_model`."""
        self._specs.pop(model_id, None)
        spec = _registered(model_id)
        if spec.dim != DIM:
            raise ModelError(
                f"gives vectors of {spec.dim} values, a library holds {DIM}",
                item=model_id,
                remedy="Import a model whose output has that length",
            )
        verify(spec)
        self._check_file(spec)
        self._take_turn()
        try:
            if self._models.count_lacking(spec.model_id):
                # What cannot be loaded is told before anything is begun.
                self.encoder(spec.model_id)
            self._models.begin(spec.model_id, sha256=spec.sha256)
            switch = ModelSwitch(spec.model_id, lambda own: self._run(spec, own, on_event))
            self.switch = switch
            if background:
                switch.start()
        except BaseException:
            self._busy.release()
            raise
        if not background:
            switch.run()
        return switch

    def drop(self, model_id: str) -> int:
        """Remove all that a model made here; see `Library.drop_model`."""
        held = {held.model_id: held for held in self._models.held()}
        if model_id not in held:
            raise ModelError(
                "the library has nothing of this model",
                item=model_id,
                remedy=f"It has vectors of: {', '.join(held)}",
            )
        self._take_turn()
        try:
            if model_id == self.model_id:
                raise ModelError(
                    "it is in use", item=model_id, remedy="Change to another first: `medsearch model use ID`"
                )
            # The index first: it is made anew from the database, not the other way round.
            self._indexes.drop(model_id)
            return self._models.drop(model_id)
        finally:
            self._busy.release()

    def _run(self, spec: ModelSpec, switch: ModelSwitch, on_event: OnEvent | None) -> SwitchSummary:
        try:
            return self._switch(spec, switch, on_event)
        finally:
            self._busy.release()

    def _switch(self, spec: ModelSpec, switch: ModelSwitch, on_event: OnEvent | None) -> SwitchSummary:
        def tell(event: SwitchEvent) -> None:
            switch.event = event
            if on_event is not None:
                on_event(event)

        before = self.model_id
        kept = sum(held.vectors for held in self._models.held() if held.model_id == spec.model_id)
        run = Reembedding(
            self._models,
            self._config,
            spec,
            lambda: self.encoder(spec.model_id),
            retry=True,
            stop=switch.stop,
            quarantine=Quarantine(self._library, "switch"),
            on_event=tell,
        )
        done = False
        while not done:
            run.run()
            if switch.stop.is_set():
                break
            run.tell("indexing")
            index = self._indexes.refresh(spec.model_id)
            index.extend_graph()
            # Measured now, while one waits anyway, so that the first question need not.
            index.isolation()
            self._average(spec.model_id)
            done = self._models.finish(spec.model_id, after=run.after)
        if done:
            self.model_id = spec.model_id
            if before != spec.model_id:
                self._indexes.of(before).rest()
                self._workbench.unload(before)
        run.tell("done")
        return SwitchSummary(
            model_id=spec.model_id,
            before=before,
            in_use=self.model_id == spec.model_id,
            images=run.images,
            kept=kept,
            offline=run.offline,
            failed=run.failed,
            seconds=run.seconds,
            failures=tuple(sorted(run.failures, key=lambda failure: failure.path)),
        )

    def _take_turn(self) -> None:
        if not self._busy.acquire(blocking=False):
            raise LibraryError(
                "a switch to another model is under way",
                item=self.switch.model_id if self.switch is not None else "",
                remedy="Cancel it, or wait until it has ended",
            )

    def _check_file(self, spec: ModelSpec) -> None:
        self._models.remember_file(spec.model_id, spec.sha256)
        known = next((held.sha256 for held in self._models.held() if held.model_id == spec.model_id), "")
        if known not in ("", spec.sha256):
            raise ModelAlteredError(
                "another file is registered under this name than the one that made the vectors of this library",
                item=spec.model_id,
                remedy="Register it under a name of its own, then `medsearch model use` that",
            )

    def _choose(self) -> str:
        """Return the library's own model; where it has none yet, settle on one."""
        held = self._models.held()
        for own in held:
            if own.role is ModelRole.IN_USE and (own.vectors or _is_registered(own.model_id)):
                return own.model_id
        candidates = {own.model_id: own.vectors for own in held if own.vectors}
        configured = _configured(self._config.model)
        if not candidates or configured in candidates:
            chosen = configured
        else:
            chosen = max(candidates, key=lambda model_id: candidates[model_id])
        sha256 = ""
        with suppress(ModelError):
            sha256 = _registered(chosen).sha256
        self._models.adopt(chosen, sha256=sha256)
        return chosen


def _registered(model_id: str) -> ModelSpec:
    # Found without the user's folder, so that nothing in there can keep the shipped model from being used.
    with suppress(ModelMissingError):
        default = find_model()
        if default.model_id == model_id:
            return default
    return find_model(model_id)


def _is_registered(model_id: str) -> bool:
    try:
        _registered(model_id)
    except ModelMissingError:
        return False
    except ModelError:
        # A damaged registry says nothing of what is in it.
        return True
    return True


def _configured(setting: str) -> str:
    """Return the model that the setting names, the shipped one where that is not there."""
    try:
        return find_model(setting).model_id
    except ModelError:
        return find_model().model_id


def _gone(error: ModelMissingError, model_id: str) -> ModelMissingError:
    others = []
    with suppress(ModelError):
        others = [spec.model_id for spec in list_models() if spec.model_id != model_id]
    what = f"`medsearch model use ID` changes to another; registered are: {', '.join(others)}" if others else ""
    missing = error.remedy if error.item != model_id else "What it has embedded can still be asked by image id"
    return ModelMissingError(error.message, item=error.item, remedy=". ".join(filter(None, (missing, what))))
