"""The registry of embedding models: what is shipped, what the user added, and whether a file is what it claims to be.

A folder of models holds `manifest.json` and the files that it describes. In an installed package that
folder is `image/shipped`, in a source checkout `models/` beside the package; the user's own models lie
in `models/` of the user's data folder, in the same form.

    {"format": 1,
     "default": "<model_id>",
     "models": [{"model_id", "file", "sha256", "bytes", "dim", "preprocessing", "origin", "licence", ...}]}

Keys that are not named here are kept in the file and ignored by this release.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from medsearch_desktop.config import APP_NAME
from medsearch_desktop.errors import ModelAlteredError, ModelError, ModelMissingError
from medsearch_desktop.image.preprocess import Preprocessing

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
# One path component: a manifest that came from elsewhere must not reach outside its own folder.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REINSTALL = "Install MedSearch Desktop again"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One registered model: what identifies its vectors, and the file that makes them.

    `dim` is the length of a vector, `sha256` lower-case hexadecimal, `size` in bytes. `shipped` tells
    the models of this release from those of the user.
    """

    model_id: str
    path: Path
    sha256: str
    size: int
    dim: int
    preprocessing: Preprocessing
    origin: str = ""
    licence: str = ""
    shipped: bool = True

    @property
    def remedy(self) -> str:
        """What a user does when the file is missing or altered."""
        return _REINSTALL if self.shipped else "Import the model again"


def shipped_dir() -> Path:
    """Return the folder of the models of this release.

    Raises ModelMissingError when neither an installed package nor a source checkout has one.
    """
    package = Path(__file__).parent / "shipped"
    checkout = Path(__file__).parents[2] / "models"
    for folder in (package, checkout):
        if (folder / MANIFEST).is_file():
            return folder
    raise ModelMissingError("no model manifest was installed", item=str(package / MANIFEST), remedy=_REINSTALL)


def user_dir() -> Path:
    """Return the folder of the user's own models, which need not exist."""
    return Path(platformdirs.user_data_dir(APP_NAME, appauthor=False)) / "models"


def survey_models(extra_dir: Path | None = None) -> tuple[list[ModelSpec], list[ModelError]]:
    """Return every model that can be told of, and what is wrong with the registry of the user's models.

    The models are those of this release in manifest order, then those of `extra_dir`: a folder with a
    manifest or with subfolders that have one, in order of name; by default it is the user's. Subfolders
    whose name begins with a dot are models on their way in or out and do not count. Only manifests are
    read: a listed model's file may be missing or altered.

    Raises ModelError when this release's own manifest cannot be read, ModelMissingError when it has none.
    """
    specs = _read_manifest(shipped_dir() / MANIFEST, shipped=True)[1]
    problems: list[ModelError] = []
    folder = user_dir() if extra_dir is None else extra_dir
    within = sorted(path for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
    for manifest in [folder / MANIFEST, *within]:
        if not manifest.is_file():
            continue
        try:
            specs += _read_manifest(manifest, shipped=False)[1]
        except ModelError as error:
            problems.append(error)
    seen: dict[str, Path] = {}
    for spec in specs:
        if spec.model_id in seen:
            problems.append(
                ModelError(
                    f"is registered twice, at {seen[spec.model_id]} and {spec.path}",
                    item=spec.model_id,
                    remedy="Remove or rename the one that is not wanted",
                )
            )
        seen.setdefault(spec.model_id, spec.path)
    return specs, problems


def list_models(extra_dir: Path | None = None) -> list[ModelSpec]:
    """Return every registered model, in the order of `survey_models`.

    Raises ModelError when a manifest cannot be read or two models share an identifier, ModelMissingError
    when this release has no manifest.
    """
    specs, problems = survey_models(extra_dir)
    if problems:
        raise problems[0]
    return specs


def find_model(model_id: str = "", *, extra_dir: Path | None = None) -> ModelSpec:
    """Return the model of that identifier; an empty one names the default of this release.

    The default is found without looking at the user's folder, and any other model without minding what is
    wrong with its neighbours: nothing in there can keep a sound model from being used.

    Raises ModelMissingError when no such model is registered, ModelError when it is registered twice, or
    when it is not found and a manifest cannot be read.
    """
    if not model_id:
        manifest = shipped_dir() / MANIFEST
        default, specs = _read_manifest(manifest, shipped=True)
        for spec in specs:
            if spec.model_id == default:
                return spec
        raise ModelError(f"its default {default!r} is not among its models", item=str(manifest), remedy=_REINSTALL)
    specs, problems = survey_models(extra_dir)
    found = [spec for spec in specs if spec.model_id == model_id]
    if len(found) == 1:
        return found[0]
    for problem in problems:
        if not found or problem.item == model_id:
            raise problem
    known = ", ".join(spec.model_id for spec in specs)
    raise ModelMissingError("no such model is registered", item=model_id, remedy=f"Registered are: {known}")


def read_model(spec: ModelSpec) -> bytes:
    """Return the bytes of a model's file after comparing their length and SHA-256 with the manifest.

    What runs is built from these very bytes, so that nothing can change between the check and the use.
    Hashing takes about 10 ms for 14 MB.

    Raises ModelMissingError when there is no such file, ModelAlteredError when it is another one,
    ModelError when it cannot be read.
    """
    try:
        content = spec.path.read_bytes()
    except FileNotFoundError as error:
        raise ModelMissingError("the model's file is missing", item=str(spec.path), remedy=spec.remedy) from error
    except OSError as error:
        raise ModelError(
            f"the model's file cannot be read ({error.strerror})", item=str(spec.path), remedy="Check its permissions"
        ) from error
    if len(content) != spec.size:
        raise ModelAlteredError(
            f"the model's file has {len(content)} bytes, its manifest says {spec.size}",
            item=str(spec.path),
            remedy=spec.remedy,
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != spec.sha256:
        raise ModelAlteredError(
            f"the model's file has SHA-256 {digest[:12]}..., its manifest says {spec.sha256[:12]}...",
            item=str(spec.path),
            remedy=spec.remedy,
        )
    return content


def verify(spec: ModelSpec) -> None:
    """Check that a model's file is there and is the one that its manifest describes.

    Raises as `read_model` does.
    """
    read_model(spec)


def _read_manifest(path: Path, *, shipped: bool) -> tuple[str, list[ModelSpec]]:
    remedy = _REINSTALL if shipped else "Mend or remove the file"
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"the model manifest cannot be read ({error})", item=str(path), remedy=remedy) from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        raise ModelError(
            f"is not a model manifest of format {MANIFEST_FORMAT}",
            item=str(path),
            remedy="Use the release of MedSearch Desktop that wrote it" if not shipped else remedy,
        )
    try:
        specs = [read_entry(entry, path.parent, shipped=shipped) for entry in manifest["models"]]
        default = manifest.get("default", "")
        if not isinstance(default, str):
            raise ValueError("default must be text")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        detail = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"the model manifest is unsound ({detail})", item=str(path), remedy=remedy) from error
    except ModelError as error:
        raise ModelError(f"the model manifest is unsound ({error.message})", item=str(path), remedy=remedy) from error
    return default, specs


def read_entry(entry: Mapping[str, Any], folder: Path, *, shipped: bool = False) -> ModelSpec:
    """Return the model that one entry of a manifest in `folder` describes.

    Raises KeyError, TypeError or ValueError when it is unsound, ModelError for its preprocessing.
    """
    for key in ("model_id", "file"):
        if not PLAIN_NAME.fullmatch(str(entry[key])):
            raise ValueError(f"{key} must be a plain name of letters, digits, '.', '_' and '-'")
    if not _SHA256.fullmatch(str(entry["sha256"])):
        raise ValueError("sha256 must be 64 lower-case hexadecimal digits")
    for key in ("bytes", "dim"):
        if type(entry[key]) is not int or entry[key] < 1:
            raise ValueError(f"{key} must be a number above 0")
    return ModelSpec(
        model_id=entry["model_id"],
        path=folder / entry["file"],
        sha256=entry["sha256"],
        size=entry["bytes"],
        dim=entry["dim"],
        preprocessing=Preprocessing.from_json(entry["preprocessing"]),
        origin=str(entry.get("origin", "")),
        licence=str(entry.get("licence", "")),
        shipped=shipped,
    )
