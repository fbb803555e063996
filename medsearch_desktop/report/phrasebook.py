"""Where known phrases stand among words: all of them, those inside others and across others too.

A tree of dictionaries, word by word. spaCy's phrase matcher finds the same, but filling it with the lexicon took half a
second of a core at every start, importing spaCy as much again, and finding takes it more than twice as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from medsearch_desktop.report.tables import collector_held

_Value = TypeVar("_Value")
# What follows a word, by the next one; under None is what the phrase that ends here stands for.
_Node = dict[str | None, Any]


class Phrasebook(Generic[_Value]):
    """Phrases of words, each with what it stands for; a phrase of no words is found nowhere.

    Nothing changes once it is built: it may be used from several threads.
    """

    @collector_held()
    def __init__(self, phrases: Mapping[tuple[str, ...], _Value]) -> None:
        self._root: _Node = {}
        for phrase, value in phrases.items():
            node = self._root
            for word in phrase:
                node = node.setdefault(word, {})
            node[None] = value

    def find(self, words: Sequence[str]) -> Iterator[tuple[int, int, _Value]]:
        """Yield (start, end, value) of every phrase in `words`, half-open, by start and then the shorter first."""
        root, count = self._root, len(words)
        for start, word in enumerate(words):
            node, end = root.get(word), start + 1
            while node is not None:
                if None in node:
                    yield start, end, node[None]
                if end == count:
                    break
                node, end = node.get(words[end]), end + 1
