"""A file from elsewhere -> a registered model: recognised by its content, checked, exported, registered.

torch and onnx are loaded only for the files that need them: checkpoints need both, ONNX files need onnx,
bundles neither.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image import bundles
from medsearch_desktop.image.drift import LEAST_COSINE, least_cosine, phantoms, self_check
from medsearch_desktop.image.models import PLAIN_NAME, ModelSpec
from medsearch_desktop.image.normalisation import NORMALISATIONS
from medsearch_desktop.image.preprocess import Preprocessing
from medsearch_desktop.image.registration import check_name, register_model

SMALLEST_SIZE, LARGEST_SIZE = 32, 2048
NOT_STATED = "not stated"
# A quarter of what an export of our own is checked by: a user waits for it.
CHECKED_FILMS = 16

_INSTALL = "pip install 'medsearch-desktop[export]'"


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that has been registered, and what is worth knowing of how.

    `kind` is what its file was recognised as, `notes` what was left out or changed, `signer` the
    fingerprint of who signed its bundle.
    """

    spec: ModelSpec
    kind: str
    notes: tuple[str, ...] = ()
    signer: str = ""


def import_model(
    path: Path,
    *,
    model_id: str = "",
    origin: str = "",
    licence: str = "",
    size: int | None = None,
    normalise: str | None = None,
    trust: str = "",
    folder: Path | None = None,
) -> Imported:
    """Register the model in a checkpoint, an ONNX file or a bundle; nothing is registered when anything is wrong.

    `model_id` is by default made from the file's name, `origin` names the file, `licence` is "not stated".
    `size` is the side of the input in pixels and `normalise` a name from `NORMALISATIONS`; by default both
    are as the makers of that kind of file have them. `trust` is the fingerprint of a signer, for bundles
    only, which take none of the other options. `folder` holds the user's models, by default `user_dir()`.

    Raises ModelError, which names what is wrong with the file, the name or an option.
    """
    form = _form_of(path)
    if form == "bundle":
        if model_id or origin or licence or size is not None or normalise is not None:
            raise ModelError(
                "is a bundle, which has its own name, origin, licence and preprocessing",
                item=str(path),
                remedy="Leave those options out",
            )
        opened = bundles.open_bundle(path, trust=trust)
        spec = register_model(opened.content, opened.entry, check=_sound, card=opened.card, folder=folder)
        bundles.remember(opened)
        return Imported(spec, "bundle", signer=opened.signer)
    if trust:
        raise ModelError("has no signer to trust: it is not a bundle", item=str(path), remedy="Leave --trust out")
    if size is not None:
        _check_size(size, "--size")
    if normalise is not None and normalise not in NORMALISATIONS:
        raise ModelError(f"is none of {', '.join(NORMALISATIONS)}", item=f"normalisation {normalise!r}")
    model_id = model_id or _name_of(path)
    # Before the work: a name that is taken would be told only after a minute.
    check_name(model_id, folder=folder)
    told: dict[str, Any] = {
        "model_id": model_id,
        "file": f"{model_id}.onnx",
        "origin": origin or f"Imported from {_printable(path.name)}",
        "licence": licence or NOT_STATED,
    }
    if form == "onnx":
        return _import_onnx(path, told, size, normalise, folder)
    return _import_checkpoint(path, told, size, normalise, folder)


def _sound(spec: ModelSpec) -> dict[str, Any]:
    self_check(spec)
    return {}


def _import_checkpoint(
    path: Path, told: Mapping[str, Any], size: int | None, normalise: str | None, folder: Path | None
) -> Imported:
    try:
        from medsearch_desktop.image import checkpoints, densenet, onnx_writer
    except ImportError as error:
        raise ModelError(
            f"is a torch checkpoint, and {error.name} is not installed", item=str(path), remedy=f"Run {_INSTALL}"
        ) from error
    found = checkpoints.recognise(checkpoints.read_checkpoint(path), item=str(path))
    preprocessing = _preprocessing(
        found.channels, size or found.kind.size, normalise or found.kind.normalise, resize=found.kind.resize
    )
    network = densenet.build_network(found.state)
    content = onnx_writer.build_model(network, model_id=told["model_id"], preprocessing=preprocessing)

    def check(spec: ModelSpec) -> dict[str, Any]:
        films = phantoms(CHECKED_FILMS)
        try:
            cosine = least_cosine(network, spec, films)
        except ModelError as error:
            raise ModelError(f"its export does not work ({error.message})", item=str(path), remedy=_DRIFTED) from error
        if not cosine >= LEAST_COSINE:
            raise ModelError(
                f"its export drifts from the original: cosine {cosine:.6f}, at least {LEAST_COSINE} is needed",
                item=str(path),
                remedy=_DRIFTED,
            )
        self_check(spec)
        return {"drift": {"images": len(films), "least_cosine": int(min(cosine, 1.0) * 1e5) / 1e5}}

    entry = {
        **told,
        "dim": densenet.DIM,
        "architecture": "DenseNet121",
        "preprocessing": preprocessing.as_json(),
        "opset": onnx_writer.OPSET,
        "source": {"kind": found.kind.name, "sha256": _sha256(path)},
    }
    notes = (f"left out, for the vector does not need them: {', '.join(found.left_out)}",) if found.left_out else ()
    return Imported(register_model(content, entry, check=check, folder=folder), found.kind.name, notes)


_DRIFTED = "Its weights leave the range of half precision (65,504): export it to ONNX yourself and import that"


def _import_onnx(
    path: Path, told: Mapping[str, Any], size: int | None, normalise: str | None, folder: Path | None
) -> Imported:
    try:
        from medsearch_desktop.image import onnx_files
    except ImportError as error:
        raise ModelError(
            f"is checked with the package onnx, and {error.name} is not installed",
            item=str(path),
            remedy=f"Run pip install onnx, or {_INSTALL}",
        ) from error
    file = onnx_files.read_onnx(path)
    own = file.preprocessing
    if file.size is not None and size not in (None, file.size):
        raise ModelError(
            f"takes images of {file.size} x {file.size}, not of {size}", item=str(path), remedy="Leave --size out"
        )
    side = size or file.size or (own.size if own else None)
    if side is None:
        raise ModelError(
            "takes images of any size, and does not say which it was made for",
            item=str(path),
            remedy="Give the side in pixels, for example --size 224",
        )
    _check_size(side, str(path))
    usual = "xrv" if file.channels == 1 else "imagenet"
    preprocessing = _preprocessing(file.channels, side, normalise or usual)
    if own is not None and own.channels == file.channels and normalise is None:
        preprocessing = Preprocessing(side, own.resize, own.mean, own.std, own.channels)
    entry = {
        **told,
        "dim": onnx_files.DIM,
        "preprocessing": preprocessing.as_json(),
        "source": {"kind": "ONNX", "sha256": _sha256(path)},
    }

    def check(spec: ModelSpec) -> dict[str, Any]:
        try:
            self_check(spec)
        except ModelError as error:
            remedy = "Give the --size that it was made for, or export it again"
            if file.changes:
                remedy = "Export it again with a free batch (dynamic_axes) and its weights in one file"
            raise ModelError(error.message, item=str(path), remedy=remedy) from error
        return {}

    return Imported(register_model(file.content, entry, check=check, folder=folder), "ONNX", file.changes)


def _check_size(size: int, item: str) -> None:
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise ModelError(
            f"images of {size} x {size} are not possible: the side is from {SMALLEST_SIZE} to {LARGEST_SIZE}", item=item
        )


def _preprocessing(channels: int, size: int, normalise: str, *, resize: str = "squash") -> Preprocessing:
    mean, std = NORMALISATIONS[normalise][channels]
    return Preprocessing(size, resize, mean, std, channels)


def _form_of(path: Path) -> str:
    try:
        if path.is_dir():
            raise ModelError("is a folder", item=str(path), remedy="Name the checkpoint, ONNX file or bundle itself")
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", item=str(path)) from error
    if not head:
        raise ModelError("is empty", item=str(path), remedy="Copy or download it again")
    if head.startswith(b"PK") or path.suffix.lower() == bundles.SUFFIX:
        return "bundle" if _is_bundle(path) else "checkpoint"
    # A pickle of protocol 2, and an archive of before 2017.
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        return "checkpoint"
    # A protocol buffer whose first field is the version of its form, which every writer puts first.
    if head[:1] == b"\x08" or path.suffix.lower() == ".onnx":
        return "onnx"
    raise ModelError(
        "is neither a torch checkpoint nor an ONNX file nor a bundle",
        item=str(path),
        remedy="Save a DenseNet121 with torch.save(model.state_dict(), FILE), or export the network to ONNX",
    )


def _is_bundle(path: Path) -> bool:
    if path.suffix.lower() == bundles.SUFFIX:
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return bundles.MANIFEST in archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def _name_of(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:100]
    return name if PLAIN_NAME.fullmatch(name) else "model"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
