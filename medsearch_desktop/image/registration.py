"""The user's models come and go whole: written beside, checked there, and only then renamed into place.

Each model is one folder of the user's models: its manifest, its ONNX file, perhaps a card. Until the folder
has its name nothing of it counts, so that neither a full disk nor a kill leaves half a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from medsearch_desktop.disk import sync_folder
from medsearch_desktop.errors import ModelError, ModelMissingError
from medsearch_desktop.image.models import (
    MANIFEST,
    MANIFEST_FORMAT,
    PLAIN_NAME,
    ModelSpec,
    read_entry,
    survey_models,
    user_dir,
)

CARD = "MODEL_CARD.md"

_STAGING = re.compile(r"\.(?:import|remove)-(\d+)-")


def check_name(model_id: str, *, folder: Path | None = None) -> None:
    """Check that a new model may have that identifier; capitals and small letters count as the same.

    `folder` holds the user's models, by default `user_dir()`.

    Raises ModelError when it is not a plain name or is taken already.
    """
    if not PLAIN_NAME.fullmatch(model_id):
        raise ModelError(
            "is not a plain name: 1 to 128 letters, digits, '.', '_' and '-', a letter or digit first",
            item=model_id or "''",
            remedy="Give another with --name",
        )
    specs, _ = survey_models(folder)
    home = (user_dir() if folder is None else folder) / model_id
    if model_id.casefold() in {spec.model_id.casefold() for spec in specs}:
        raise ModelError(
            "a model of that name is registered already",
            item=model_id,
            remedy="Remove that one with `medsearch model remove`, or give what is no bundle another name with --name",
        )
    if home.exists():
        raise ModelError("is in the way of the new model", item=str(home), remedy="Remove or rename it")


def register_model(
    content: bytes,
    entry: Mapping[str, Any],
    *,
    check: Callable[[ModelSpec], Mapping[str, Any]],
    card: bytes | None = None,
    folder: Path | None = None,
) -> ModelSpec:
    """Write a model into the user's folder if it passes `check`, and return it as it is registered.

    `entry` is its manifest entry without `sha256` and `bytes`. `check` gets the model as it lies beside its
    future place; what it returns is added to the entry. `card` is the text of a model card, as UTF-8.

    Raises ModelError when the name is taken, the entry is unsound or the files cannot be written, and
    whatever `check` raises; nothing is left behind then.
    """
    folder = user_dir() if folder is None else folder
    model_id = str(entry["model_id"])
    check_name(model_id, folder=folder)
    whole = {**entry, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    try:
        with _staging(folder, "import") as staging:
            try:
                spec = read_entry(whole, staging)
            except (KeyError, TypeError, ValueError) as error:
                raise ModelError(f"its manifest entry is unsound ({error})", item=model_id) from error
            _write(spec.path, content)
            whole |= check(spec)
            if card is not None:
                _write(staging / CARD, card)
            manifest = {"format": MANIFEST_FORMAT, "models": [whole]}
            _write(staging / MANIFEST, _as_text(manifest))
            try:
                staging.rename(folder / model_id)
            except OSError:
                # Another import of the same name came first: its folder is not empty.
                check_name(model_id, folder=folder)
                raise
            sync_folder(folder)
    except OSError as error:
        raise ModelError(
            f"cannot be written ({error.strerror or error}); no model was registered",
            item=str(folder),
            remedy="Check its permissions and the free space",
        ) from error
    return read_entry(whole, folder / model_id)


def remove_model(model_id: str, *, folder: Path | None = None) -> ModelSpec:
    """Remove a model of the user, file and entry, and return what it was.

    A model whose file is missing or altered can be removed like any other.

    Raises ModelMissingError when the user has no such model, ModelError when it is one of this release or
    its files cannot be removed.
    """
    folder = user_dir() if folder is None else folder
    specs, _ = survey_models(folder)
    named = [spec for spec in specs if spec.model_id == model_id]
    own = [spec for spec in named if not spec.shipped]
    if named and not own:
        raise ModelError(
            "is a model of this release and stays", item=model_id, remedy="Only imported models can be removed"
        )
    if not own:
        known = ", ".join(spec.model_id for spec in specs if not spec.shipped) or "none"
        raise ModelMissingError("no such model is registered", item=model_id, remedy=f"Imported models are: {known}")
    # Registered twice: the last came last.
    spec = own[-1]
    try:
        _remove(spec, folder)
    except OSError as error:
        raise ModelError(
            f"cannot be removed ({error.strerror or error})", item=str(spec.path), remedy="Check its permissions"
        ) from error
    return spec


def read_card(spec: ModelSpec) -> bytes | None:
    """Return the text of a model's card, as UTF-8, if it has one.

    Raises ModelError when it cannot be read.
    """
    path = spec.path.parent / CARD
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", item=str(path)) from error


def full_entry(spec: ModelSpec) -> dict[str, Any]:
    """Return a model's entry as its manifest has it, with the keys that this release does not know.

    Raises ModelError when the manifest cannot be read any more.
    """
    path = spec.path.parent / MANIFEST
    try:
        entries = json.loads(path.read_text("utf-8"))["models"]
        return next(dict(entry) for entry in entries if entry["model_id"] == spec.model_id)
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise ModelError(f"the model manifest cannot be read ({error})", item=str(path)) from error


def _remove(spec: ModelSpec, folder: Path) -> None:
    home = spec.path.parent
    manifest = home / MANIFEST
    listed = json.loads(manifest.read_text("utf-8"))
    others = [entry for entry in listed["models"] if entry["model_id"] != spec.model_id]
    if not others and home != folder:
        with _staging(folder, "remove") as staging:
            home.rename(staging / home.name)
        return
    with _staging(folder, "remove") as staging:
        _write(staging / MANIFEST, _as_text({**listed, "models": others}))
        (staging / MANIFEST).replace(manifest)
    if all(entry["file"] != spec.path.name for entry in others):
        spec.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _staging(folder: Path, purpose: str) -> Iterator[Path]:
    # Its name tells which process is at work in it, so that what a killed one left is known as such.
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*-*-*"):
        owner = _STAGING.match(left.name)
        if owner and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{purpose}-{os.getpid()}-", dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _as_text(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
