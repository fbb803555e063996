"""The models on this workstation, of images and of language: which there are, whether they are sound, how one
comes and goes.

What the commands `medsearch model ...` do, for whoever shows it. Loads nothing heavy before it is asked to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsearch_desktop.config import Config
from medsearch_desktop.errors import MedSearchError, ModelError
from medsearch_desktop.image.normalisation import NORMALISATIONS
from medsearch_desktop.image.signing import spaced

if TYPE_CHECKING:
    from medsearch_desktop.image.imports import Imported
    from medsearch_desktop.image.models import ModelSpec
    from medsearch_desktop.report.pipelines import ImportedPipeline, PipelineSpec

__all__ = [
    "NORMALISATIONS",
    "Verdict",
    "as_json",
    "export",
    "import_file",
    "import_language",
    "is_language",
    "language_json",
    "list_all",
    "list_language",
    "own_fingerprint",
    "remove",
    "spaced",
    "verify",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one model is what it claims to be and works; `problem` tells why not, and what to do."""

    model_id: str
    ok: bool
    problem: str = ""


def list_all(config: Config) -> tuple[list[dict[str, Any]], list[ModelError]]:
    """Return what is registered, an object a model, and what is wrong with the registry of the user's models.

    `default` is true of the model of new libraries: that of the settings, or else of this release.

    Raises ModelError when this release's own manifest cannot be read.
    """
    from medsearch_desktop.image.models import survey_models

    specs, problems = survey_models()
    return [{**as_json(spec), "kind": "image", "default": spec.model_id == _chosen(config)} for spec in specs], problems


def list_language() -> tuple[list[dict[str, Any]], list[ModelError]]:
    """Return the user's language models, an object each, and what is wrong with any of them."""
    from medsearch_desktop.report.pipelines import survey_pipelines

    specs, problems = survey_pipelines()
    return [language_json(spec) for spec in specs], problems


def is_language(name: str) -> bool:
    """Return whether `name` is a packed or unpacked spaCy pipeline, or the name of an installed one."""
    from medsearch_desktop.report.pipelines import is_pipeline

    return is_pipeline(name)


def import_language(name: str, *, model_id: str = "", origin: str = "", licence: str = "") -> ImportedPipeline:
    """Register a spaCy pipeline, as `pipelines.import_pipeline` does.

    Raises ModelError when anything is wrong; nothing is registered then.
    """
    from medsearch_desktop.report.pipelines import import_pipeline

    return import_pipeline(name, model_id=model_id, origin=origin, licence=licence, taken=_names_of_images())


def _names_of_images() -> list[str]:
    from medsearch_desktop.image.models import survey_models

    return [spec.model_id for spec in survey_models()[0]]


def verify(config: Config, model_id: str = "") -> list[Verdict]:
    """Return a verdict on one model, or on all: its file is the manifest's, it loads, and it embeds or reads.

    One that fails does not keep the others from being looked at; what is wrong with the registry itself
    counts as a failure. About a second a model.

    Raises ModelMissingError when there is no model of that identifier, ModelError when it is registered
    twice or this release's manifest cannot be read.
    """
    from medsearch_desktop.image.drift import self_check
    from medsearch_desktop.image.models import find_model, survey_models

    spoken, problems = _verify_language(model_id)
    if model_id and spoken:
        return spoken
    specs = [find_model(model_id)] if model_id else []
    if not model_id:
        specs, unsound = survey_models()
        problems = [*unsound, *problems]
    verdicts = []
    for spec in specs:
        try:
            self_check(spec, threads=config.thread_count)
        except MedSearchError as error:
            verdicts.append(Verdict(spec.model_id, False, str(error)))
        else:
            verdicts.append(Verdict(spec.model_id, True))
    return [*verdicts, *spoken, *(Verdict(problem.item, False, str(problem)) for problem in problems)]


def _verify_language(model_id: str) -> tuple[list[Verdict], list[ModelError]]:
    """Return a verdict on the user's language models, or on the one named, which may be our own."""
    from medsearch_desktop.report import ner, pipelines

    specs, problems = pipelines.survey_pipelines()
    verdicts = []
    try:
        if model_id == ner.NAME:
            ner.load_recogniser(ner.shipped_file()).find([pipelines.TEST_SENTENCE])
            return [Verdict(model_id, True)], []
    except MedSearchError as error:
        return [Verdict(model_id, False, str(error))], []
    for spec in specs:
        if model_id in ("", spec.model_id):
            try:
                pipelines.load_pipeline(spec).find([pipelines.TEST_SENTENCE])
            except MedSearchError as error:
                verdicts.append(Verdict(spec.model_id, False, str(error)))
            else:
                verdicts.append(Verdict(spec.model_id, True))
    return verdicts, problems


def import_file(path: str, **options: Any) -> Imported:
    """Register the model in a checkpoint, an ONNX file or a bundle, with the options of `imports.import_model`.

    Raises ModelError when anything is wrong; nothing is registered then.
    """
    from medsearch_desktop.image.imports import import_model

    return import_model(Path(path), **options)


def remove(config: Config, model_id: str) -> str:
    """Remove an imported model, of images or of language, and return its identifier.

    Raises ModelMissingError when there is none of that identifier, ModelError when it is one of this
    release, is the one that the settings name, or cannot be removed.
    """
    from medsearch_desktop.image.registration import remove_model
    from medsearch_desktop.report.ner import NAME
    from medsearch_desktop.report.pipelines import remove_pipeline

    if model_id == NAME:
        raise ModelError(
            "is a model of this release and stays",
            item=model_id,
            remedy="To do without it, set recognisers to never in config.toml or MEDSEARCH_RECOGNISERS",
        )
    if remove_pipeline(model_id) is not None:
        return model_id
    if model_id == config.model:
        raise ModelError(
            "is the model that the settings name",
            item=model_id,
            remedy="Name another in config.toml or MEDSEARCH_MODEL first",
        )
    return remove_model(model_id).model_id


def export(model_id: str, output: str) -> str:
    """Write a model to a bundle under the user's own signature; return the fingerprint.

    Raises ModelMissingError or ModelAlteredError when the model or its file is not there or not the
    manifest's, ModelError when something cannot be read or written.
    """
    from medsearch_desktop.image.bundles import write_bundle
    from medsearch_desktop.image.models import find_model

    return write_bundle(find_model(model_id), Path(output))


def own_fingerprint() -> str:
    """Return the fingerprint of the user's own key, which is made when there is none yet.

    Raises ModelError when the key cannot be read or written.
    """
    from medsearch_desktop.image import signing

    return signing.own_fingerprint()


def as_json(spec: ModelSpec) -> dict[str, Any]:
    """Return the object that `medsearch model` prints of a registered model."""
    return {
        "model_id": spec.model_id,
        "shipped": spec.shipped,
        "dim": spec.dim,
        "size": spec.preprocessing.size,
        "channels": spec.preprocessing.channels,
        "preprocessing": spec.preprocessing.as_json(),
        "bytes": spec.size,
        "sha256": spec.sha256,
        "origin": spec.origin,
        "licence": spec.licence,
        "path": str(spec.path),
    }


def language_json(spec: PipelineSpec) -> dict[str, Any]:
    """Return the object that `medsearch model` prints of a registered language model of the user."""
    return {
        "model_id": spec.model_id,
        "kind": "language",
        "shipped": False,
        "version": spec.version,
        "labels": list(spec.labels),
        "components": list(spec.components),
        "bytes": spec.size,
        "origin": spec.origin,
        "licence": spec.licence,
        "path": str(spec.path),
    }


def _chosen(config: Config) -> str:
    from medsearch_desktop.image.models import find_model

    return config.model or find_model().model_id
