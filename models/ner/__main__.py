"""Train, measure and write the recogniser that is shipped.

    PYTHONPATH=models:. python -m ner train CORPORA --out ner-run [--choose]
    PYTHONPATH=models:. python -m ner test CORPORA [--model FILE]

CORPORA is the folder of the corpora's files: a token, a tab and its tag a line, an empty line after a sentence.
`--choose` keeps the devel set apart and shows after every third epoch how well it is read; without it the devel
set is learnt from too. `test` measures on the test set, which no choice was made by.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

# One thread: the same sums in the same order, and no neighbour is disturbed.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from medsearch_desktop.report.ner import load_recogniser, shipped_file, write_recogniser  # noqa: E402
from ner.corpora import (  # noqa: E402
    LABELS,
    Sample,
    heads_and_plain,
    in_capitals,
    read_corpus,
    score,
)
from ner.learn import Recipe, architecture, train  # noqa: E402

CONFIG = Path(__file__).with_name("config.toml")


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two commands; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ner", description=__doc__, formatter_class=_Raw)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "test"):
        command = commands.add_parser(name)
        command.add_argument("corpora", type=Path)
        command.add_argument("--config", type=Path, default=CONFIG)
    commands.choices["train"].add_argument("--out", type=Path, required=True)
    commands.choices["train"].add_argument("--choose", action="store_true")
    commands.choices["test"].add_argument("--model", type=Path)
    options = parser.parse_args(arguments)
    config = tomllib.loads(options.config.read_text("utf-8"))
    try:
        if options.command == "train":
            _train(options.corpora, config, options.out, choose=options.choose)
        else:
            found = measure(options.corpora / config["test"], options.model or shipped_file())
            print(json.dumps(found, indent=2))
    except (OSError, ValueError) as error:
        print(f"ner: {error}", file=sys.stderr)
        return 1
    return 0


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def _train(corpora: Path, config: dict[str, Any], out: Path, *, choose: bool) -> None:
    table = config["recipe"]
    recipe = Recipe(**{**table, "attributes": tuple(table["attributes"]), "rows": tuple(table["rows"])})
    out.mkdir(parents=True, exist_ok=True)
    watch = read_corpus(corpora / config["devel"]) if choose else []
    samples = _read(corpora, [name for name in config["corpora"] if not choose or name != config["devel"]])
    nlp = train(recipe, samples, watch=watch, say=_say)
    heads, plain = heads_and_plain(samples)
    path = out / f"{config['name']}.npz"
    write_recogniser(
        path, nlp, architecture=architecture(recipe), labels=LABELS, heads=heads, plain=plain, name=config["name"]
    )
    print(f"{path}: {path.stat().st_size:,} bytes")


def measure(test: Path, model: Path) -> dict[str, Any]:
    """Return how well a recogniser reads a test set, in percent, and how fast, in words a second of processor time.

    Mentions count that agree in both ends and label, over the corpus's own tokens; `capitals` is F1 of the same
    text in capitals. The rate is that of the whole pipeline, one sentence after another in batches.
    """
    recogniser = load_recogniser(model)
    samples = read_corpus(test)
    gold = [sample.spans for sample in samples]
    texts = [" ".join(sample.words) for sample in samples]
    began = time.process_time()
    found = recogniser.find(texts)
    seconds = time.process_time() - began
    spans = [_in_words(sample, own) for sample, own in zip(samples, found, strict=True)]
    loud = [in_capitals(sample) for sample in samples]
    shouted = recogniser.find([" ".join(sample.words) for sample in loud])
    loud_spans = [_in_words(sample, own) for sample, own in zip(loud, shouted, strict=True)]
    return {
        "test": test.name,
        "model": recogniser.name,
        "sentences": len(samples),
        "words": sum(len(sample.words) for sample in samples),
        "words_per_s": round(sum(len(sample.words) for sample in samples) / seconds),
        **{label or "all": _rounded(score(gold, spans, label)) for label in ("", *LABELS)},
        "capitals": _rounded(score(gold, loud_spans)),
    }


def _in_words(sample: Sample, found: Any) -> list[tuple[int, int, str]]:
    starts, ends, position = {}, {}, 0
    for index, word in enumerate(sample.words):
        starts[position] = index
        position += len(word)
        ends[position] = index + 1
        position += 1
    # A mention that begins or ends within a word of the corpus is a wrong one.
    return [(starts.get(each.start, -1), ends.get(each.end, -1), each.label) for each in found]


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


def _read(corpora: Path, names: list[str]) -> list[Sample]:
    return [sample for name in names for sample in read_corpus(corpora / name)]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
