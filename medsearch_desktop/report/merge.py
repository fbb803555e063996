"""Which of several readings of the same words counts: the one rule for all who find mentions.

1. What the lexicon finds stays as it is. What others find where it has found something is left out, but for
   places, which the lexicon names inside of others' mentions ("liver" in "liver abscess"); a mention of just
   the same words as a place is left out too.
2. Of the others' mentions that overlap, the longest counts; of equally long ones, that of the source which
   comes first in `Source`; of one source's, the one that begins first.

So nothing is found twice, and no recogniser changes which findings a report has: the lexicon's terms carry
codes and findings that were checked one by one, a recogniser's labels do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from medsearch_desktop.records import Category
from medsearch_desktop.report.assertion import Mention


class Source(IntEnum):
    """Who found a mention, in the order in which they are believed."""

    LEXICON = 0
    ABBREVIATION = 1
    IMPORTED = 2
    OWN = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mention that is not the lexicon's, and who found it."""

    mention: Mention
    source: Source


def merge(lexicon: Sequence[Mention], others: Iterable[Candidate]) -> list[Mention]:
    """Return those of the others' mentions that count beside the lexicon's, in the order of the text."""
    taken: set[int] = set()
    places: set[tuple[int, int]] = set()
    for mention in lexicon:
        if mention.term.category is Category.ANATOMY:
            places.add((mention.start, mention.end))
        else:
            taken.update(range(mention.start, mention.end))
    ranked = sorted(
        others,
        key=lambda each: (each.mention.start - each.mention.end, each.source, each.mention.start),
    )
    kept = []
    for candidate in ranked:
        mention = candidate.mention
        own = range(mention.start, mention.end)
        if taken.isdisjoint(own) and (mention.start, mention.end) not in places:
            taken.update(own)
            kept.append(mention)
    return sorted(kept, key=lambda mention: mention.start)
