"""The corpora as they come, a token and its tag a line, to sentences of words with their spans."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medsearch_desktop.report.ner import LABELS

# Share of the sentences with a word in which it ends a mention.
_OFTEN = 0.2
_OF_TAG = dict(zip(("Chemical", "Disease"), LABELS, strict=True))

Span = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sentence: its words, and (start, end, label) of each mention in half-open word positions."""

    words: tuple[str, ...]
    spans: tuple[Span, ...]


def read_corpus(path: Path) -> list[Sample]:
    """Return the sentences of a file of the MTL-bioinformatics collection (IOB2).

    Raises ValueError, naming the line, when one is not a token, a tab and a tag.
    """
    samples: list[Sample] = []
    words: list[str] = []
    spans: list[Span] = []
    for number, line in enumerate([*path.read_text("utf-8").splitlines(), ""], start=1):
        if not line.strip():
            if words:
                samples.append(Sample(tuple(words), tuple(spans)))
            words, spans = [], []
            continue
        word, _, tag = line.partition("\t")
        prefix, _, kind = tag.partition("-")
        if not word or (tag != "O" and (prefix not in ("B", "I") or kind not in _OF_TAG)):
            raise ValueError(f"{path.name}, line {number}: is not a token, a tab and a tag")
        position = len(words)
        words.append(word)
        if prefix == "B":
            spans.append((position, position + 1, _OF_TAG[kind]))
        elif prefix == "I":
            if not spans or spans[-1][1:] != (position, _OF_TAG[kind]):
                raise ValueError(f"{path.name}, line {number}: {tag} continues nothing")
            spans[-1] = (spans[-1][0], position + 1, spans[-1][2])
    return samples


def in_capitals(sample: Sample) -> Sample:
    """Return a sentence as a report in capitals would have it."""
    return replace(sample, words=tuple(word.upper() for word in sample.words))


def in_small_letters(sample: Sample) -> Sample:
    """Return a sentence without any capitals."""
    return replace(sample, words=tuple(word.lower() for word in sample.words))


def varied(samples: Iterable[Sample], rng: random.Random, *, capitals: float, small: float) -> list[Sample]:
    """Return the sentences shuffled, the given shares of them in capitals and in small letters."""
    found = []
    for sample in samples:
        draw = rng.random()
        if draw < capitals:
            sample = in_capitals(sample)
        elif draw < capitals + small:
            sample = in_small_letters(sample)
        found.append(sample)
    rng.shuffle(found)
    return found


def as_doc(nlp: Any, sample: Sample, *, spans: bool = True) -> Any:
    """Return a sentence as spaCy has it, with its mentions or without."""
    from spacy.tokens import Doc, Span

    doc = Doc(nlp.vocab, words=list(sample.words))
    if spans:
        doc.ents = [Span(doc, start, end, label=label) for start, end, label in sample.spans]
    return doc


def score(gold: Sequence[Sequence[Span]], found: Sequence[Sequence[Span]], label: str = "") -> dict[str, float]:
    """Return precision, recall and F1, in percent, of mentions that agree in both ends and label.

    Of one label where it is given, of all together otherwise.
    """
    right = said = there = 0
    for expected, got in zip(gold, found, strict=True):
        want = {span for span in expected if label in ("", span[2])}
        have = {span for span in got if label in ("", span[2])}
        right += len(want & have)
        said += len(have)
        there += len(want)
    precision = 100 * right / said if said else 0.0
    recall = 100 * right / there if there else 0.0
    total = precision + recall
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / total if total else 0.0}


def heads_and_plain(samples: Iterable[Sample], *, least: int = 2) -> tuple[frozenset[str], frozenset[str]]:
    """Return the words, in small letters, with which mentions end, and the other words of `least` sentences or more.

    A word that ends a mention in less than a fifth of its sentences does so by the way, and is one of the others.
    """
    seen: Counter[str] = Counter()
    ending: Counter[str] = Counter()
    for sample in samples:
        words = [word.lower() for word in sample.words]
        seen.update({word for word in words if word.isalpha()})
        ending.update({words[end - 1] for _, end, _ in sample.spans})
    heads = frozenset(word for word, count in ending.items() if word.isalpha() and count >= _OFTEN * seen[word])
    return heads, frozenset(word for word, count in seen.items() if count >= least) - heads
