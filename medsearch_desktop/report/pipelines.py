"""The user's spaCy pipelines, scispaCy's above all: checked, copied, registered, loaded; none of their code is run.

A pipeline is data: weights, a vocabulary, and a `config.cfg` that names the functions which build it. spaCy
would call whatever is named there, so only names of spaCy's own functions that this file lists are accepted,
and of the pipeline's components only those that find mentions are kept and loaded. Each lies in a folder of
its own in `language-models` of the user's data folder, with a manifest that has the SHA-256 of every file:

    {"format": 1, "kind": "language",
     "model": {"model_id", "version", "labels", "components", "origin", "licence", "bytes", "files": {name: sha256}}}
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from medsearch_desktop.config import APP_NAME
from medsearch_desktop.errors import ModelAlteredError, ModelError, ModelMissingError
from medsearch_desktop.report.ner import NAME, Found, speakable
from medsearch_desktop.report.pipeline_files import CONFIG, META, printable, unpack
from medsearch_desktop.report.spacy_only import import_spacy

MANIFEST = "manifest.json"
FORMAT = 1
KIND = "language"
NOT_STATED = "not stated"
TEST_SENTENCE = "Chest radiograph after amiodarone: pulmonary fibrosis, no pneumonia, known hepatic encephalopathy."

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FILES = "pipeline"
# Finds mentions, and what it may listen to. All else that a pipeline has is neither copied nor loaded.
_FINDS, _LISTENED = "ner", "tok2vec"
# Every function that a pipeline of these components names, by the registry in which spaCy looks it up.
_KNOWN = {
    "@architectures": frozenset(
        {
            "spacy.CharacterEmbed.v1",
            "spacy.CharacterEmbed.v2",
            "spacy.HashEmbedCNN.v1",
            "spacy.HashEmbedCNN.v2",
            "spacy.MaxoutWindowEncoder.v1",
            "spacy.MaxoutWindowEncoder.v2",
            "spacy.MishWindowEncoder.v1",
            "spacy.MishWindowEncoder.v2",
            "spacy.MultiHashEmbed.v1",
            "spacy.MultiHashEmbed.v2",
            "spacy.Tok2Vec.v1",
            "spacy.Tok2Vec.v2",
            "spacy.Tok2VecListener.v1",
            "spacy.TransitionBasedParser.v1",
            "spacy.TransitionBasedParser.v2",
        }
    ),
    "@scorers": frozenset({"spacy.ner_scorer.v1"}),
    "@tokenizers": frozenset({"spacy.Tokenizer.v1"}),
    "@vectors": frozenset({"spacy.Vectors.v1"}),
}
_CALLBACKS = ("before_creation", "after_creation", "after_pipeline_creation")


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """One registered pipeline; `path` is the folder of its files, `size` in bytes, `files` name to SHA-256."""

    model_id: str
    path: Path
    version: str
    labels: tuple[str, ...]
    components: tuple[str, ...]
    size: int
    files: Mapping[str, str]
    origin: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class ImportedPipeline:
    """A pipeline that has been registered, what it found in the test sentence, and what is worth knowing of it."""

    spec: PipelineSpec
    found: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


class Pipeline:
    """A pipeline of the user, loaded; it may be used from several threads, one of which is served at a time."""

    def __init__(self, spec: PipelineSpec, nlp: Any) -> None:
        self.name = spec.model_id
        # Nobody knows which words its makers' mentions are made of.
        self.heads: frozenset[str] | None = None
        self.plain: frozenset[str] = frozenset()
        self._nlp = nlp
        self._lock = threading.Lock()

    def find(self, texts: Sequence[str]) -> list[tuple[Found, ...]]:
        """Return the mentions of each text, offsets counted in it."""
        with self._lock, self._nlp.memory_zone():
            docs = self._nlp.pipe(map(speakable, texts))
            return [tuple(Found(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents) for doc in docs]


def language_dir() -> Path:
    """Return the folder of the user's pipelines, which need not exist."""
    return Path(platformdirs.user_data_dir(APP_NAME, appauthor=False)) / "language-models"


def survey_pipelines() -> tuple[list[PipelineSpec], list[ModelError]]:
    """Return the registered pipelines in order of name, and what is wrong with any; only manifests are read."""
    specs, problems = [], []
    for manifest in sorted(language_dir().glob(f"*/{MANIFEST}")):
        if manifest.parent.name.startswith("."):
            continue
        try:
            specs.append(_read_manifest(manifest))
        except ModelError as error:
            problems.append(error)
    return specs, problems


def installed_pipelines() -> tuple[str, ...]:
    """Return the names of the spaCy pipelines that are installed as packages, without importing any."""
    from importlib import metadata

    return tuple(sorted({point.name for point in metadata.entry_points(group="spacy_models")}))


def is_pipeline(name: str) -> bool:
    """Return whether `name` is a packed or unpacked spaCy pipeline, or the name of an installed one."""
    path = Path(name)
    if path.is_dir():
        return (path / CONFIG).is_file()
    if path.exists():
        return path.name.lower().endswith((".tar.gz", ".tgz"))
    return name in installed_pipelines()


def import_pipeline(
    name: str, *, model_id: str = "", origin: str = "", licence: str = "", taken: Iterable[str] = ()
) -> ImportedPipeline:
    """Register the pipeline in an archive, a folder or an installed package, if it loads and works.

    `model_id` is by default what its makers call it, `origin` the name of the file or package and the address
    that its makers give, `licence` what they state. `taken` are the names of models of other kinds.

    Raises ModelError, which names what is wrong with the file, the name or the pipeline; nothing is
    registered then.
    """
    folder = language_dir()
    source = Path(name) if Path(name).exists() else _installed(name)
    with _staging(folder) as staging:
        files = staging / _FILES
        unpack(source, files, keep=_wanted)
        meta = _read_meta(files, item=name)
        model_id = model_id or f"{meta.get('lang', '')}_{meta.get('name', '')}".strip("_")
        check_name(model_id, taken=taken)
        config, dropped = _reduced(files, item=name)
        components = tuple(config["nlp"]["pipeline"])
        # What is not loaded is not kept either.
        for entry in files.iterdir():
            if entry.is_dir() and entry.name not in ("vocab", *components):
                shutil.rmtree(entry)
        nlp, notes = _load(files, config, meta, item=name)
        sizes = {path: path.stat().st_size for path in sorted(files.rglob("*")) if path.is_file()}
        stated = [f"Imported from {printable(source.name)}", printable(str(meta.get("url") or ""))]
        entry_of = {
            "model_id": model_id,
            "version": printable(str(meta.get("version") or NOT_STATED)),
            "labels": [printable(label) for name in components for label in nlp.pipe_labels.get(name, ())],
            "components": list(components),
            "origin": origin or ", ".join(filter(None, stated)),
            "licence": licence or printable(str(meta.get("license") or NOT_STATED)),
            "bytes": sum(sizes.values()),
            "files": {path.relative_to(files).as_posix(): _sha256(path) for path in sizes},
        }
        text = json.dumps({"format": FORMAT, "kind": KIND, "model": entry_of}, indent=2, ensure_ascii=True)
        (staging / MANIFEST).write_text(f"{text}\n", "utf-8")
        spec = _read_manifest(staging / MANIFEST)
        found = Pipeline(spec, nlp).find([TEST_SENTENCE])[0]
        _put(staging, folder / model_id)
    if dropped:
        notes = (*notes, f"left out, for they find no mentions: {', '.join(map(printable, dropped))}")
    told = tuple((TEST_SENTENCE[each.start : each.end], printable(each.label)) for each in found)
    return ImportedPipeline(_read_manifest(folder / model_id / MANIFEST), told, notes)


def check_name(model_id: str, *, taken: Iterable[str] = ()) -> None:
    """Check that a new pipeline may have that name. Raises ModelError when it is no plain one or taken."""
    names = {NAME, *taken, *(path.name for path in language_dir().glob("*"))}
    if not PLAIN_NAME.fullmatch(model_id):
        raise ModelError(
            "is not a plain name: 1 to 128 letters, digits, '.', '_' and '-', a letter or digit first",
            item=printable(model_id) or "''",
            remedy="Give another with --name",
        )
    if model_id.casefold() in {name.casefold() for name in names}:
        raise ModelError(
            "a model of that name is registered already",
            item=model_id,
            remedy="Remove that one with `medsearch model remove`, or give this one another name with --name",
        )


def remove_pipeline(model_id: str) -> PipelineSpec | None:
    """Remove a pipeline of the user and return what it was, or None when there is none of that name.

    Raises ModelError when its files cannot be removed.
    """
    specs, _ = survey_pipelines()
    spec = next((spec for spec in specs if spec.model_id == model_id), None)
    if spec is None:
        return None
    try:
        with _staging(language_dir()) as staging:
            spec.path.parent.rename(staging / "removed")
    except OSError as error:
        raise ModelError(
            f"cannot be removed ({error.strerror})", item=model_id, remedy="Check its permissions"
        ) from error
    return spec


def load_pipeline(spec: PipelineSpec) -> Pipeline:
    """Return a registered pipeline, loaded, after every file has been compared with the manifest.

    Raises ModelMissingError, ModelAlteredError, ModelError.
    """
    for name, digest in spec.files.items():
        path = spec.path / name
        try:
            found = _sha256(path)
        except FileNotFoundError as error:
            raise ModelMissingError("is missing", item=str(path), remedy="Import the model again") from error
        except OSError as error:
            raise ModelError(f"cannot be read ({error.strerror})", item=str(path)) from error
        if found != digest:
            raise ModelAlteredError(
                "is not the file that its manifest describes", item=str(path), remedy="Import the model again"
            )
    config, _ = _reduced(spec.path, item=spec.model_id)
    nlp, _ = _load(spec.path, config, _read_meta(spec.path, item=spec.model_id), item=spec.model_id)
    return Pipeline(spec, nlp)


def _wanted(name: str) -> bool:
    """Whether a file of a pipeline is of use: no program text, and nothing that has no place in a pipeline."""
    return not name.endswith((".py", ".pyc", ".so", ".dll", ".pkl", ".pickle"))


def _installed(name: str) -> Path:
    if name not in installed_pipelines() or not name.isidentifier():
        known = ", ".join(installed_pipelines()) or "none"
        raise ModelError(
            "there is no such file", item=printable(name), remedy=f"Installed spaCy pipelines are: {known}"
        )
    # Of a package without a dot in its name the place is found without running any of it.
    found = importlib.util.find_spec(name)
    for place in (found.submodule_search_locations or ()) if found else ():
        for config in sorted(Path(place).glob(f"*/{CONFIG}")):
            return config.parent
    raise ModelError("is installed but holds no pipeline", item=name, remedy="Install it again")


def _read_meta(files: Path, *, item: str) -> dict[str, Any]:
    try:
        meta = json.loads((files / META).read_text("utf-8"))
        if not isinstance(meta, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"its {META} cannot be read ({printable(error)})", item=item) from error
    return meta


def _reduced(files: Path, *, item: str) -> tuple[Any, list[str]]:
    """Return the part of a pipeline's configuration that is loaded, checked, and the components left out."""
    import_spacy()
    from thinc.api import Config

    try:
        whole = Config().from_str((files / CONFIG).read_text("utf-8"))
        nlp, components = dict(whole["nlp"]), whole["components"]
        listed = [str(name) for name in nlp["pipeline"]]
        factories = {name: str(components[name].get("factory", "")) for name in listed}
    # confection raises its own errors, some of which are plain Exceptions by descent.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"its {CONFIG} cannot be read ({printable(error)})", item=item) from error
    kept = [name for name in listed if factories[name] in (_FINDS, _LISTENED) and PLAIN_NAME.fullmatch(name)]
    if not any(factories[name] == _FINDS for name in kept):
        raise ModelError(
            f"has no entity recogniser: its components are {printable(', '.join(listed) or 'none')}",
            item=item,
            remedy="Import a pipeline with the component 'ner', such as en_ner_bc5cdr_md or en_core_sci_sm",
        )
    if nlp.get("lang") != "en":
        raise ModelError(f"is of the language {printable(nlp.get('lang'))!r}; only English is read", item=item)
    for callback in _CALLBACKS:
        if nlp.get(callback) is not None:
            raise ModelError(f"wants code of its own to be run (nlp.{callback})", item=item, remedy=_REFUSED)
    parts = {"nlp": {**nlp, "pipeline": kept, "disabled": []}, "components": {name: components[name] for name in kept}}
    for place, registry, function in _functions(parts, ""):
        if function not in _KNOWN.get(registry, ()):
            raise ModelError(
                f"names a function that is not spaCy's own or not needed: {printable(place)} {registry} ="
                f" {printable(function)!r}",
                item=item,
                remedy=_REFUSED,
            )
    return Config(parts), [name for name in listed if name not in kept]


_REFUSED = "It was not loaded; use the pipeline as its makers released it"


def _functions(value: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield (place, registry, name) of every function that a configuration wants to be called."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).startswith("@"):
                yield place, str(key), str(inner)
            elif str(key) == "source":
                # A component of another pipeline, which spaCy would go and load.
                yield place, "source", str(inner)
            else:
                yield from _functions(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _functions(inner, place)


def _load(files: Path, config: Any, meta: Mapping[str, Any], *, item: str) -> tuple[Any, tuple[str, ...]]:
    from spacy.about import __version__ as spacy_version
    from spacy.util import is_compatible_version, load_model_from_config

    made_with = str(meta.get("spacy_version") or "")
    try:
        with warnings.catch_warnings():
            # What differs between releases is told as a note; whether it matters, the sentence shows.
            warnings.simplefilter("ignore")
            nlp = load_model_from_config(config, meta=dict(meta), auto_fill=True)
            nlp.from_disk(files)
            nlp(TEST_SENTENCE)
    # Whatever is in the file, spaCy and what it builds on may stumble over it in any way.
    except Exception as error:
        raise ModelError(
            f"does not load with this spaCy ({type(error).__name__}: {printable(error)})",
            item=item,
            remedy="Take a release that was made for spaCy 3",
        ) from error
    if made_with and not is_compatible_version(spacy_version, made_with):
        return nlp, (f"was made with spaCy {printable(made_with)}, runs with {spacy_version}",)
    return nlp, ()


def _read_manifest(path: Path) -> PipelineSpec:
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if (manifest["format"], manifest["kind"]) != (FORMAT, KIND):
            raise ValueError(f"it is not of format {FORMAT}")
        entry = manifest["model"]
        files = {str(name): str(digest) for name, digest in entry["files"].items()}
        if not PLAIN_NAME.fullmatch(entry["model_id"]) or any(
            Path(name).is_absolute() or ".." in Path(name).parts for name in files
        ):
            raise ValueError("a name in it is none")
        return PipelineSpec(
            model_id=entry["model_id"],
            path=path.parent / _FILES,
            version=str(entry["version"]),
            labels=tuple(map(str, entry["labels"])),
            components=tuple(map(str, entry["components"])),
            size=int(entry["bytes"]),
            files=files,
            origin=str(entry["origin"]),
            licence=str(entry["licence"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the manifest of a language model cannot be read ({error})",
            item=str(path),
            remedy="Remove its folder and import the model again",
        ) from error


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".import-", dir=folder))
    except OSError as error:
        raise ModelError(f"cannot be written ({error.strerror})", item=str(folder)) from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(staging: Path, home: Path) -> None:
    # A name of its own for what is moved: the staging folder itself is cleared away afterwards.
    try:
        whole = staging / "whole"
        whole.mkdir()
        for name in (_FILES, MANIFEST):
            (staging / name).rename(whole / name)
        whole.rename(home)
    except OSError as error:
        raise ModelError(
            f"cannot be written ({error.strerror or error}); no model was registered",
            item=str(home),
            remedy="Check its permissions and the free space",
        ) from error
    if os.name == "posix":
        handle = os.open(home.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
