"""Facets: how the codes, findings and attributes stand in all documents that match, not in a page of them."""

from __future__ import annotations

from collections.abc import Iterable

from medsearch_desktop.records import Bucket, Facet
from medsearch_desktop.search.text import compile_tree
from medsearch_desktop.search.tree import Tree
from medsearch_desktop.store.fulltext import FulltextIndex

# Facet name -> column of the index, and whether its buckets go by value or by count.
STATE_FACETS = {"icd10cm": "codes", "finding": "findings_14"}
BUCKET_FACETS = {
    "modality": ("modality", False),
    "view": ("view", False),
    "body": ("body", False),
    "sex": ("sex", False),
    "age": ("decade", True),
    "year": ("year", True),
    "label": ("label", False),
}
FACETS = (*STATE_FACETS, *BUCKET_FACETS)


def facets(index: FulltextIndex, tree: Tree, *, names: Iterable[str] = FACETS) -> dict[str, tuple[Facet | Bucket, ...]]:
    """Return the facets of every document that matches, by name, in the order of `names`.

    "icd10cm" and "finding" (ChestX-ray14) hold a Facet for each code or finding that any matching
    document states: present, absent (ruled out), uncertain and never mentioned, which add up to
    the number of matching documents; the most stated come first. A document with several mentions
    counts once: present before uncertain before absent; history, family and suppositions count as
    never mentioned. "modality", "view", "body", "sex", "age" (decades), "year" and "label" hold
    Buckets, decades and years ascending, the others the fullest first; a study of several
    modalities counts in each, one of unknown age in none.
    Raises LibraryError when the index cannot be read.
    """
    wanted = tuple(names)
    columns = {name: STATE_FACETS[name] if name in STATE_FACETS else BUCKET_FACETS[name][0] for name in wanted}
    total, counts = index.value_counts(compile_tree(tree), columns.values())
    answer: dict[str, tuple[Facet | Bucket, ...]] = {}
    for name in wanted:
        by_value = counts[columns[name]]
        if name in STATE_FACETS:
            answer[name] = _state_facet(by_value, total)
        else:
            buckets = [Bucket(value, count) for value, count in by_value.items()]
            buckets.sort(key=_by_value if BUCKET_FACETS[name][1] else _by_count)
            answer[name] = tuple(buckets)
    return answer


def _state_facet(counts: dict[str, int], total: int) -> tuple[Facet, ...]:
    stated: dict[str, dict[str, int]] = {}
    titles: dict[str, tuple[int, str]] = {}
    for value, count in counts.items():
        state, code, title = (*value.split("\t"), "")[:3]
        by_state = stated.setdefault(code, {"present": 0, "absent": 0, "uncertain": 0})
        by_state[state] += count
        # Reports of an older terminology may know the code by another title: the commoner one names it.
        titles[code] = max(titles.get(code, (0, "")), (count, title))
    found = [
        Facet(code, titles[code][1] or code, not_mentioned=total - sum(by_state.values()), **by_state)
        for code, by_state in stated.items()
    ]
    return tuple(sorted(found, key=lambda facet: (facet.not_mentioned, -facet.present, facet.code)))


def _by_value(bucket: Bucket) -> tuple[int, str]:
    return int(bucket.value.partition("-")[0]), bucket.value


def _by_count(bucket: Bucket) -> tuple[int, str]:
    return -bucket.count, bucket.value
