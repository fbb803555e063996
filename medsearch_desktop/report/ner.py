"""The recogniser that ships with the package: diseases and drugs that the lexicon has no name for.

An entity recogniser of spaCy, trained by `models/ner` on openly licensed abstracts, without word vectors: a
word is known by its spelling, its first and last letters and its shape. One file holds it, a numpy archive of
half-precision weights and a description in JSON, which is data through and through. In an installed package
it lies in `report/shipped`, in a source checkout in `models/ner`.
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.errors import ModelError, ModelMissingError
from medsearch_desktop.report.spacy_only import import_spacy

NAME = "medsearch-ner1"
FILE = f"{NAME}.npz"
FORMAT = 1
LABELS = ("CHEMICAL", "DISEASE")
_DESCRIPTION = "description"
_REINSTALL = "Install MedSearch Desktop again"
# As the corpora cut their text: letters and digits together, any other sign alone.
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PREFIX, _SUFFIX = 3, 4
# Reports say the same sentences again and again; each costs some 10 kB at most.
_REMEMBERED = 20_000
# Zip cannot go further back; any date that is always the same would do.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Found:
    """A mention at characters `[start, end)` of a text, and what the recogniser calls it."""

    start: int
    end: int
    label: str


def tokens_of(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the tokens of a text as the corpora cut theirs, and where each begins."""
    matches = list(_TOKEN.finditer(text))
    return tuple(match.group() for match in matches), tuple(match.start() for match in matches)


def speakable(text: str) -> str:
    """Return a text of the same length that spaCy can hold: bytes that were no text stand in it as surrogates."""
    return _SURROGATE.sub("\ufffd", text)


def build_pipeline(architecture: Mapping[str, Any], labels: Sequence[str]) -> Any:
    """Return a spaCy pipeline of one entity recogniser with weights drawn at random.

    `architecture` is the configuration of its model, `labels` what it tells apart, in that order.
    """
    spacy = import_spacy()
    from spacy.attrs import PREFIX, SUFFIX

    nlp: Any = spacy.blank("en")
    # spaCy's own are one letter and three, of the word as it is written; drugs and diseases end in more.
    nlp.vocab.lex_attr_getters[PREFIX] = _beginning
    nlp.vocab.lex_attr_getters[SUFFIX] = _ending
    ner = nlp.add_pipe("ner", config={"model": json.loads(json.dumps(architecture))})
    for label in labels:
        ner.add_label(label)
    nlp.initialize()
    return nlp


def _beginning(word: str) -> str:
    return word[:_PREFIX].lower()


def _ending(word: str) -> str:
    return word[-_SUFFIX:].lower()


class Recogniser:
    """The shipped recogniser; it may be used from several threads, one of which is served at a time.

    `name` stands in the `rule` of what it finds; `heads` are the words, in small letters, with which mentions end
    where it learnt, `plain` the other words that it has met there. `build` makes its pipeline, at `load` or when
    something is first to be found: most reports hold no word that it is asked about.
    """

    def __init__(
        self, build: Callable[[], Any], *, heads: Iterable[str], plain: Iterable[str], name: str = NAME
    ) -> None:
        self.name = name
        self.heads: frozenset[str] | None = frozenset(heads)
        self.plain = frozenset(plain)
        self._build = build
        self._remembered: OrderedDict[tuple[str, ...], tuple[tuple[int, int, str], ...]] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def _nlp(self) -> Any:
        return self._build()

    def load(self) -> None:
        """Make the pipeline now, if it is not there yet. Raises ModelError."""
        with self._lock:
            _ = self._nlp

    def find(self, texts: Sequence[str]) -> list[tuple[Found, ...]]:
        """Return the mentions of each text, a sentence or so, in its order; offsets are into that text.

        Raises ModelError when the pipeline cannot be made, which is then tried anew at the next text.
        """
        cut = [tokens_of(speakable(text)) for text in texts]
        spans = self._spans([words for words, _ in cut])
        return [
            tuple(Found(starts[first], starts[last - 1] + len(words[last - 1]), label) for first, last, label in own)
            for (words, starts), own in zip(cut, spans, strict=True)
        ]

    def _spans(self, sentences: Sequence[tuple[str, ...]]) -> list[tuple[tuple[int, int, str], ...]]:
        with self._lock:
            known = self._remembered
            new = list(dict.fromkeys(words for words in sentences if words and words not in known))
            answers = {words: known[words] for words in sentences if words in known}
            if new:
                # Before anything of spaCy is imported, which its making does in the right way.
                nlp = self._nlp
                from spacy.tokens import Doc

                # What the words of reports leave behind in spaCy's vocabulary goes at the end of the zone.
                with nlp.memory_zone():
                    docs = nlp.pipe(Doc(nlp.vocab, words=list(words)) for words in new)
                    for words, doc in zip(new, docs, strict=True):
                        answers[words] = tuple((span.start, span.end, span.label_) for span in doc.ents)
            for words, answer in answers.items():
                known[words] = answer
                known.move_to_end(words)
            while len(known) > _REMEMBERED:
                known.popitem(last=False)
        return [answers.get(words, ()) for words in sentences]


def shipped_file() -> Path:
    """Return the file of the shipped recogniser.

    Raises ModelMissingError when neither an installed package nor a source checkout has it.
    """
    package = Path(__file__).parent / "shipped" / FILE
    checkout = Path(__file__).parents[2] / "models" / "ner" / FILE
    for path in (package, checkout):
        if path.is_file():
            return path
    raise ModelMissingError("the recogniser of diseases was not installed", item=str(package), remedy=_REINSTALL)


@lru_cache(maxsize=1)
def load_shipped_recogniser() -> Recogniser:
    """Return the shipped recogniser, opened once a process; its pipeline is made when it is first asked.

    Raises ModelMissingError, ModelError.
    """
    return open_recogniser(shipped_file())


def load_recogniser(path: Path) -> Recogniser:
    """Return the recogniser in a file that `write_recogniser` wrote, its pipeline made (half a second).

    Raises ModelError when it is no such file, or not a whole one.
    """
    recogniser = open_recogniser(path)
    recogniser.load()
    return recogniser


def open_recogniser(path: Path) -> Recogniser:
    """Return the recogniser in a file of which only the description is read yet, in milliseconds.

    Raises ModelError when it is no such file; whether it is a whole one shows when its pipeline is made.
    """
    with _archive(path) as archive:
        told = json.loads(archive[_DESCRIPTION].tobytes())
        if told["format"] != FORMAT:
            raise ModelError(f"is not of format {FORMAT}", item=str(path), remedy=_REINSTALL)
        return Recogniser(partial(_trained, path, told), heads=told["heads"], plain=told["plain"], name=told["name"])


def _trained(path: Path, told: Mapping[str, Any]) -> Any:
    """Return the pipeline that a file holds, which describes itself as `told`."""
    with _archive(path) as archive:
        nlp = build_pipeline(told["architecture"], told["labels"])
        ner = nlp.get_pipe("ner")
        if list(ner.move_names) != told["moves"]:
            raise ModelError("numbers its labels otherwise than this spaCy", item=str(path), remedy=_REINSTALL)
        for key, node, parameter in _parameters(ner.model):
            weights = archive[key].astype(np.float32)
            if weights.shape != node.get_param(parameter).shape:
                raise ValueError(f"{key} has the shape {weights.shape}")
            node.set_param(parameter, weights)
        return nlp


@contextmanager
def _archive(path: Path) -> Iterator[Any]:
    try:
        # Opened here: numpy leaves a file that is none to the garbage collector.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            yield archive
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror or error})", item=str(path), remedy=_REINSTALL) from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"is not a whole recogniser ({error})", item=str(path), remedy=_REINSTALL) from error


def write_recogniser(
    path: Path,
    nlp: Any,
    *,
    architecture: Mapping[str, Any],
    labels: Sequence[str],
    heads: Iterable[str],
    plain: Iterable[str],
    name: str = NAME,
) -> None:
    """Write a trained pipeline of `build_pipeline`, its weights in half precision.

    The same pipeline gives the same bytes.
    """
    ner = nlp.get_pipe("ner")
    told = {
        "format": FORMAT,
        "name": name,
        "architecture": architecture,
        "labels": list(labels),
        "moves": list(ner.move_names),
        "heads": sorted(heads),
        "plain": sorted(plain),
    }
    text = json.dumps(told, ensure_ascii=True, sort_keys=True).encode("ascii")
    arrays = {_DESCRIPTION: np.frombuffer(text, np.uint8)}
    for key, node, parameter in _parameters(ner.model):
        arrays[key] = node.get_param(parameter).astype(np.float16)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, array in arrays.items():
            # As numpy.savez does it, but for the time of day.
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{key}.npy", _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue())


def _parameters(model: Any) -> Iterable[tuple[str, Any, str]]:
    """Yield each weight of a model under a name that is the same whenever the model is built."""
    for number, node in enumerate(model.walk()):
        for parameter in sorted(node.param_names):
            if node.has_param(parameter):
                yield f"{number}.{parameter}", node, parameter
