"""From sentences to weights: spaCy's own entity recogniser, trained in a loop that anybody can read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medsearch_desktop.report.ner import build_pipeline
from ner.corpora import LABELS, Sample, Span, as_doc, score, varied


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is built and trained.

    `rows` are those of each embedding table, in the order of `attributes`; `capitals` and `small` the shares of
    sentences shown in capitals and in small letters.
    """

    width: int
    depth: int
    attributes: tuple[str, ...]
    rows: tuple[int, ...]
    hidden: int
    epochs: int
    rate: float
    dropout: float
    batch_words: int
    capitals: float
    small: float
    average: float
    seed: int


def architecture(recipe: Recipe) -> dict[str, Any]:
    """Return the configuration of the model, as spaCy has it."""
    return {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "ner",
        "extra_state_tokens": False,
        "hidden_width": recipe.hidden,
        "maxout_pieces": 2,
        "use_upper": True,
        "tok2vec": {
            "@architectures": "spacy.Tok2Vec.v2",
            "embed": {
                "@architectures": "spacy.MultiHashEmbed.v2",
                "width": recipe.width,
                "attrs": list(recipe.attributes),
                "rows": list(recipe.rows),
                "include_static_vectors": False,
            },
            "encode": {
                "@architectures": "spacy.MaxoutWindowEncoder.v2",
                "width": recipe.width,
                "window_size": 1,
                "maxout_pieces": 3,
                "depth": recipe.depth,
            },
        },
    }


def train(
    recipe: Recipe,
    samples: Sequence[Sample],
    *,
    watch: Sequence[Sample] = (),
    say: Callable[[str], None] = print,
) -> Any:
    """Return a pipeline trained on `samples`; how well it does on `watch` is said after each epoch.

    The weights are the exponential average of those of all steps. The same recipe and samples give the same
    weights on the same machine.
    """
    from spacy.training import Example
    from spacy.util import fix_random_seed
    from thinc.api import Adam

    fix_random_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    nlp = build_pipeline(architecture(recipe), LABELS)
    optimiser = Adam(recipe.rate, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0, use_averages=False)
    average = Average(nlp.get_pipe("ner").model, recipe.average)
    per_epoch = sum(len(sample.words) for sample in samples) // recipe.batch_words + 1
    steps, step = per_epoch * recipe.epochs, 0
    for epoch in range(recipe.epochs):
        begun, losses = time.monotonic(), {}
        batches = _batches(varied(samples, rng, capitals=recipe.capitals, small=recipe.small), recipe.batch_words)
        for batch in batches:
            optimiser.learn_rate = recipe.rate * min(1.0, (step + 1) / 200) * (1 - 0.95 * min(1.0, step / steps))
            examples = [Example(as_doc(nlp, sample, spans=False), as_doc(nlp, sample)) for sample in batch]
            nlp.update(examples, drop=recipe.dropout, sgd=optimiser, losses=losses)
            average.add()
            step += 1
        line = f"epoch {epoch + 1}/{recipe.epochs}: loss {losses['ner']:.0f}, {time.monotonic() - begun:.0f} s"
        if watch and (epoch % 3 == 2 or epoch + 1 == recipe.epochs):
            with average:
                found = predict(nlp, watch)
            gold = [sample.spans for sample in watch]
            parts = {label or "all": score(gold, found, label)["f1"] for label in ("", *LABELS)}
            line += "".join(f", {name} {value:.2f}" for name, value in parts.items())
        say(line)
    average.keep()
    return nlp


def predict(nlp: Any, samples: Sequence[Sample], *, batch: int = 256) -> list[tuple[Span, ...]]:
    """Return the mentions that a pipeline finds in each sentence."""
    docs = nlp.pipe((as_doc(nlp, sample, spans=False) for sample in samples), batch_size=batch)
    return [tuple((span.start, span.end, span.label_) for span in doc.ents) for doc in docs]


class Average:
    """The exponential average of a model's weights; within `with`, the model has them."""

    def __init__(self, model: Any, decay: float) -> None:
        self._model, self._decay, self._steps = model, decay, 0
        self._mean: dict[tuple[int, str], Any] = {}
        self._own: dict[tuple[int, str], Any] = {}

    def _each(self) -> Any:
        for node in self._model.walk():
            for name in node.param_names:
                if node.has_param(name):
                    yield (node.id, name), node, name

    def add(self) -> None:
        """Take the weights of this step in."""
        self._steps += 1
        # Early steps are forgotten faster: the average of a few is no average of the beginning.
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for key, node, name in self._each():
            value = node.get_param(name)
            if key in self._mean:
                self._mean[key] += (1 - decay) * (value - self._mean[key])
            else:
                self._mean[key] = np.array(value, copy=True)

    def keep(self) -> None:
        """Leave the model with the averages for good."""
        for key, node, name in self._each():
            if key in self._mean:
                node.set_param(name, self._mean[key])

    def __enter__(self) -> Average:
        self._own = {key: np.array(node.get_param(name), copy=True) for key, node, name in self._each()}
        self.keep()
        return self

    def __exit__(self, *_: object) -> None:
        for key, node, name in self._each():
            node.set_param(name, self._own[key])


def _batches(samples: Sequence[Sample], words: int) -> list[list[Sample]]:
    batches: list[list[Sample]] = [[]]
    size = 0
    for sample in samples:
        if size >= words:
            batches.append([])
            size = 0
        batches[-1].append(sample)
        size += len(sample.words)
    return batches
