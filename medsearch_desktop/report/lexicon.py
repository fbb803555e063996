"""The words that are looked for: terms with their codes, cues with their power, and what a normal organ rules out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from medsearch_desktop.records import Assertion, AttributeKind, Category, Certainty
from medsearch_desktop.report.tables import collector_held, expand, read_table, term_tables
from medsearch_desktop.report.words import normal_words, plain_words

GAP = "~"
GAP_WIDTH = 4
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
# Kinds of cue that are single words and only help to tell a list from a new statement.
WORD_KINDS = frozenset({"restart", "closing", "verb", "subject", "preposition"})
# Kinds of row of `data/attributes.tsv` that are single words and only help to tell what an attribute belongs to.
JOINT_KINDS = frozenset({"boundary", "locative", "copula", "tail", "shows"})

Phrase = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """One row of the lexicon: a concept, its names (normal spelling, as written in the table) and its code.

    `rule` names the row: its table, a slash and its first name.
    """

    name: str
    names: tuple[str, ...]
    category: Category
    findings: tuple[str, ...]
    icd10cm: str
    title: str
    cui: str
    rule: str = ""

    def __hash__(self) -> int:
        # Terms are keys for every mention; hashing all their names took 4 % of the reading.
        return hash((self.name, self.icd10cm))


@dataclass(frozen=True, slots=True)
class Cue:
    """One row of the cues; see the head of `data/cues.tsv` for what the columns mean.

    `rule` names the row: its kind and the first phrase that it stands for.
    """

    kind: str
    assertion: Assertion | None
    reach: str
    breaks: bool
    certainty: Certainty = Certainty.CERTAIN
    rule: str = ""


@dataclass(frozen=True, slots=True)
class AttributeRow:
    """One row of `data/attributes.tsv`; `kind` is None for what looks like an attribute and is none."""

    kind: AttributeKind | None
    value: str
    side: str


@dataclass(frozen=True, slots=True)
class Organ:
    """What it means that one organ is called normal, or is at the upper limit of it."""

    words: tuple[str, ...]
    rules_out: tuple[str, ...]
    uncertain: tuple[str, ...]
    rule: str = ""


@dataclass(slots=True)
class Entry:
    """All that one phrase may be. `capitals` holds for a term only: it counts when written in capitals."""

    term: Term | None = None
    capitals: bool = False
    cues: list[Cue] = field(default_factory=list)
    organs: list[Organ] = field(default_factory=list)
    attributes: list[AttributeRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GapPattern:
    """A term whose two halves stand up to `GAP_WIDTH` words apart ("heart ... enlarged")."""

    before: Phrase
    after: Phrase
    term: Term


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Everything the tables hold, ready to be looked up by normal words.

    `joints` holds the words that join attributes to findings by kind, `blockers` those that no
    adjective reaches across.
    """

    terms: tuple[Term, ...]
    entries: dict[Phrase, Entry]
    gaps: dict[str, tuple[GapPattern, ...]]
    words: dict[str, frozenset[str]]
    strong_restarts: frozenset[str]
    by_finding: dict[str, Term]
    joints: dict[str, frozenset[str]]
    blockers: frozenset[str]


@lru_cache(maxsize=1)
@collector_held()
def load_lexicon() -> Lexicon:
    """Read the tables that ship with the package, once a process."""
    entries: dict[Phrase, Entry] = {}
    gaps: dict[str, list[GapPattern]] = {}
    terms = tuple(_read_terms())
    # Names, then variants, then plurals: what the table says outright is never taken by what is made from it.
    for term in terms:
        _add_term(term.names[0], term, entries, gaps)
    for term in terms:
        for name in term.names[1:]:
            _add_term(name, term, entries, gaps)
    for term in terms:
        for name in term.names:
            if GAP not in name and not _in_capitals(name):
                _add_term(plural(name), term, entries, gaps)
    words: dict[str, set[str]] = {kind: set() for kind in WORD_KINDS}
    strong: set[str] = set()
    for row in read_table("cues.tsv"):
        _add_cue(row, entries, words, strong)
    for row in read_table("normal.tsv"):
        phrases = _phrases(row["subject"])
        organ = Organ(
            _cells(row["words"], ","),
            _cells(row["rules_out"], ","),
            _cells(row["uncertain"], ","),
            f"normal/{' '.join(phrases[0])}",
        )
        for phrase in phrases:
            organs = entries.setdefault(phrase, Entry()).organs
            if organ not in organs:
                organs.append(organ)
    joints = _add_attributes(entries)
    by_finding: dict[str, Term] = {}
    for term in terms:
        if len(term.findings) == 1:
            by_finding.setdefault(term.findings[0], term)
    return Lexicon(
        terms,
        entries,
        {first: tuple(patterns) for first, patterns in gaps.items()},
        {kind: frozenset(values) for kind, values in words.items()},
        frozenset(strong),
        by_finding,
        joints,
        frozenset(words["verb"] | words["preposition"] | joints["boundary"] | joints["shows"]),
    )


def phrase_of(text: str) -> Phrase:
    """Return the normal words of a phrase, without punctuation."""
    return plain_words(text)


def plural(name: str) -> str:
    """Return a name with its last word in the plural, by the regular rules and that of Greek -is."""
    if name.endswith("is"):
        return f"{name[:-2]}es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return f"{name[:-1]}ies"
    if name.endswith(("x", "ch", "sh", "s")):
        return f"{name}es"
    return f"{name}s"


def _read_terms() -> list[Term]:
    found = []
    for table in term_tables():
        for row in read_table(table):
            names = [name for part in (row["term"], *_cells(row["variants"], ";")) for name in expand(part)]
            findings = _cells(row["finding"], ",")
            found.append(
                Term(
                    row["term"],
                    tuple(dict.fromkeys(names)),
                    Category(row["category"]),
                    findings,
                    row["icd10cm"],
                    row["title"],
                    row["cui"],
                    f"{table.removeprefix('terms/').removesuffix('.tsv')}/{row['term']}",
                )
            )
    return found


def _cells(cell: str, separator: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(separator) if part.strip())


def _phrases(cell: str) -> list[Phrase]:
    return [phrase_of(name) for part in _cells(cell, ";") for name in expand(part)]


def _add_term(name: str, term: Term, entries: dict[Phrase, Entry], gaps: dict[str, list[GapPattern]]) -> None:
    if GAP in name:
        before, after = (phrase_of(half) for half in name.split(GAP))
        gaps.setdefault(before[0], []).append(GapPattern(before, after, term))
        return
    entry = entries.setdefault(phrase_of(name), Entry())
    if entry.term is None:
        entry.term, entry.capitals = term, _in_capitals(name)


def _in_capitals(name: str) -> bool:
    return any(word.isupper() and len(word) > 1 for word in name.split())


def _add_cue(row: dict[str, str], entries: dict[Phrase, Entry], words: dict[str, set[str]], strong: set[str]) -> None:
    kind, texts = row["kind"], expand(row["cue"])
    assertion = Assertion(row["assertion"]) if row["assertion"] and kind not in WORD_KINDS else None
    certainty = Certainty.POSSIBLE if assertion is Assertion.UNCERTAIN else Certainty(row["certainty"] or "certain")
    cue = Cue(kind, assertion, row["reach"], row["breaks"] == "yes", certainty, f"cues/{kind}/{texts[0]}")
    for text in texts:
        if kind in WORD_KINDS:
            words[kind].add(text)
            if row["assertion"] == "strong":
                strong.add(text)
            continue
        phrase = normal_words(text)
        entries.setdefault(phrase, Entry()).cues.append(cue)


def _add_attributes(entries: dict[Phrase, Entry]) -> dict[str, frozenset[str]]:
    """Add the rows of the attributes to the phrases, and return the words that join them to findings by kind."""
    joints: dict[str, set[str]] = {kind: set() for kind in JOINT_KINDS}
    for row in read_table("attributes.tsv"):
        kind, texts = row["kind"], expand(row["phrase"])
        if kind in JOINT_KINDS:
            joints[kind].update(texts)
            continue
        attribute = AttributeRow(None if kind == "none" else AttributeKind(kind), row["value"], row["side"])
        for text in texts:
            rows = entries.setdefault(normal_words(text), Entry()).attributes
            if attribute not in rows:
                rows.append(attribute)
    return {kind: frozenset(words) for kind, words in joints.items()}
