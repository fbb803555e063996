"""Our own names of concepts: the lexicon's terms, and a table of what radiologists write and which code it has."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from medsearch_desktop.records import Category
from medsearch_desktop.report.gist import Gist, gist
from medsearch_desktop.report.lexicon import GAP, Phrase, Term, load_lexicon, phrase_of, plural
from medsearch_desktop.report.tables import collector_held, expand, read_table
from medsearch_desktop.report.terminology import KnowledgeBase

# A word that more of the names have does not tell them apart.
_COMMON = 300


class Crosswalk:
    """The names of the lexicon and of the crosswalk, by their words and by what they say.

    The lexicon's are there at once; what the crosswalk adds is read when first asked for, with `base`, which
    knows the titles of its codes.
    """

    def __init__(self, base: Callable[[], KnowledgeBase]) -> None:
        self._base = base
        lexicon = load_lexicon()
        self.terms = [term for term in lexicon.terms if term.icd10cm or term.cui]
        self.lexicon_names: dict[Phrase, Term] = {}
        for term in self.terms:
            if term.title:
                self.lexicon_names.setdefault(phrase_of(term.title), term)
        for phrase, entry in lexicon.entries.items():
            if entry.term is not None and (entry.term.icd10cm or entry.term.cui):
                self.lexicon_names[phrase] = entry.term

    @cached_property
    @collector_held()
    def names(self) -> dict[Phrase, Term]:
        """The terms of all names, by normal words; where both have a name, the lexicon's holds."""
        names: dict[Phrase, Term] = {}
        for term in self._rows:
            for name in term.names:
                names.setdefault(phrase_of(name), term)
                names.setdefault(phrase_of(plural(name)), term)
        return {**names, **self.lexicon_names}

    @cached_property
    @collector_held()
    def by_gist(self) -> dict[str, list[tuple[Gist, str, Term]]]:
        """What each name says, the name and its term, by the key of the gist; places alone are left out."""
        found: dict[str, list[tuple[Gist, str, Term]]] = {}
        for term in (*self.terms, *self._rows):
            if term.category is not Category.ANATOMY:
                for name in term.names:
                    said = gist(name)
                    if GAP not in name and said.key:
                        found.setdefault(said.key, []).append((said, name, term))
        return found

    def sharing(self, said: Gist) -> list[tuple[Gist, str, Term]]:
        """Return the names that have one of the rarer telling words of a phrase."""
        rows = [self._by_word.get(word, []) for word in said.words]
        keys = {key for row in rows if len(row) <= _COMMON for key in row}
        return [item for key in sorted(keys) for item in self.by_gist[key]]

    @cached_property
    def _by_word(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key in self.by_gist:
            for word in key.split():
                found.setdefault(word, []).append(key)
        return found

    @cached_property
    def _rows(self) -> tuple[Term, ...]:
        base = self._base()
        found = []
        for row in read_table("linking/crosswalk.tsv"):
            patterns = (row["term"], *(part for part in row["variants"].split(";") if part.strip()))
            names = tuple(dict.fromkeys(name for pattern in patterns for name in expand(pattern)))
            told = base.names_of_code(row["icd10cm"])
            if told is not None:
                code, title, cui = told
                found.append(Term(row["term"], names, Category.DIAGNOSIS, (), code, title, row["cui"] or cui))
        return tuple(found)
