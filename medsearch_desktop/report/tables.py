"""The tables of words that ship with the package: tab-separated, one header line, `#` begins a comment line."""

from __future__ import annotations

import gc
import hashlib
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable

_GROUP = re.compile(r"\(([^()]*)\)")


def _folder() -> Traversable:
    return resources.files("medsearch_desktop.report") / "data"


@contextmanager
def collector_held() -> Iterator[None]:
    """Hold the garbage collector off while large tables are built, which are kept; also a decorator.

    It would go through all that is there again and again and find nothing: a sixth of the time to the first report.
    Threads may overlap in it; it is on again at the latest when the last of them is through.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def read_table(name: str) -> tuple[dict[str, str], ...]:
    """Return the rows of one table as mappings from column to cell; missing cells are empty.

    `name` is relative to the package's data folder, with `/` between its parts.
    """
    file = _folder().joinpath(*name.split("/"))
    lines = [line for line in file.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    header = lines[0].split("\t")
    return tuple(
        dict(itertools.zip_longest(header, (cell.strip() for cell in line.split("\t")), fillvalue=""))
        for line in lines[1:]
    )


def term_tables() -> tuple[str, ...]:
    """Return the names of the lexicon's tables, sorted."""
    return tuple(sorted(f"terms/{file.name}" for file in (_folder() / "terms").iterdir() if file.name.endswith(".tsv")))


@lru_cache(maxsize=1)
def tables_digest() -> str:
    """Return 12 hexadecimal digits that change when a table or the base of concepts does, on every platform alike."""
    digest = hashlib.sha256()
    others = sorted(file.name for file in _folder().iterdir() if file.name.endswith(".tsv"))
    linking = sorted(f"linking/{file.name}" for file in (_folder() / "linking").iterdir() if file.name.endswith(".tsv"))
    for name in (*others, *term_tables(), *linking):
        for row in read_table(name):
            digest.update(repr(sorted(row.items())).encode())
    with (_folder() / "linking" / "concepts.base").open("rb") as base:
        # Its first line holds the SHA-256 of the rest.
        digest.update(base.readline())
    return digest.hexdigest()[:12]


def expand(pattern: str) -> tuple[str, ...]:
    """Return every phrase that a pattern stands for: `(a|b|) c` is `a c`, `b c` and `c`."""
    pieces = _GROUP.split(pattern)
    if len(pieces) == 1:
        return (" ".join(pattern.split()),)
    if not any("(" in piece or ")" in piece for piece in pieces):
        # No group stands in another, so that all can be filled in at once. Between the texts stand the groups.
        choices = [piece.split("|") if odd else (piece,) for piece, odd in zip(pieces, itertools.cycle((False, True)))]
        filled = ("".join(choice) for choice in itertools.product(*choices))
        return tuple(dict.fromkeys(" ".join(phrase.split()) for phrase in filled))
    match = _GROUP.search(pattern)
    assert match is not None
    before, after = pattern[: match.start()], pattern[match.end() :]
    phrases = itertools.chain.from_iterable(expand(f"{before}{option}{after}") for option in match.group(1).split("|"))
    return tuple(dict.fromkeys(phrases))
