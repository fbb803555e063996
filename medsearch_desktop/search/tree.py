"""A question as a tree of frozen nodes.

Trees made by `conjunction` and `disjunction` (the parser uses nothing else) are canonical: an And
holds no And, an Or no Or, and both at least two parts, but for `EVERYTHING`, the And of nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Word:
    """A word in any of its inflections; one with inner punctuation ("x-ray") is the phrase of its parts."""

    text: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words next to each other, in this order."""

    text: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a word, without the star."""

    text: str


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Numbers from `low` to `high`; None leaves that end open."""

    low: float | None
    high: float | None
    include_low: bool = True
    include_high: bool = True


@dataclass(frozen=True, slots=True)
class DateRange:
    """Days from `low` to `high`, both included; None leaves that end open."""

    low: date | None
    high: date | None


Value = Word | Phrase | Prefix | NumberRange | DateRange


@dataclass(frozen=True, slots=True)
class Field:
    """One filter of `search.filters`, by its key, and what it asks for."""

    key: str
    value: Value


@dataclass(frozen=True, slots=True)
class Like:
    """Near in looks to an image, named by its id or by a file's path."""

    image: str


@dataclass(frozen=True, slots=True)
class Not:
    """What `child` does not match."""

    child: Tree


@dataclass(frozen=True, slots=True)
class And:
    """What all of `children` match; without any, everything."""

    children: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """What at least one of `children` matches."""

    children: tuple[Tree, ...]


Tree = And | Or | Not | Word | Phrase | Prefix | Field | Like

EVERYTHING = And(())


def conjunction(parts: Sequence[Tree]) -> Tree:
    """Return the canonical tree for all of `parts`."""
    flat: list[Tree] = []
    for part in parts:
        flat.extend(part.children if isinstance(part, And) else (part,))
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def disjunction(parts: Sequence[Tree]) -> Tree:
    """Return the canonical tree for any of `parts`, of which there is at least one."""
    flat: list[Tree] = []
    for part in parts:
        flat.extend(part.children if isinstance(part, Or) else (part,))
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def leaves(tree: Tree, *, positive: bool = False) -> Iterator[Word | Phrase | Prefix | Field | Like]:
    """Yield the leaves from left to right; with `positive`, only those under no Not (or under two)."""
    stack: list[tuple[Tree, bool]] = [(tree, True)]
    while stack:
        node, sign = stack.pop()
        match node:
            case And(children) | Or(children):
                stack.extend((child, sign) for child in reversed(children))
            case Not(child):
                stack.append((child, not sign))
            case _:
                if sign or not positive:
                    yield node


def split_like(tree: Tree) -> tuple[Tree, Like | None]:
    """Return the tree without its image, and the image; the parser lets one stand only at the top."""
    if isinstance(tree, Like):
        return EVERYTHING, tree
    if isinstance(tree, And):
        for child in tree.children:
            if isinstance(child, Like):
                return conjunction([other for other in tree.children if other is not child]), child
    return tree, None
