"""Plain words instead of the query language: reports that hold any of them, reports that are worded like another.

Both look at what a report finds and concludes, its FINDINGS and IMPRESSION.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from medsearch_desktop.search.tree import Field, Tree, Word, disjunction
from medsearch_desktop.store import fulltext
from medsearch_desktop.store.fulltext import FulltextIndex, Query

SECTIONS = ("findings", "impression")
# Of a longer question the rest is left out: each word is two look-ups.
MOST_WORDS = 64
# Those of OpenSearch's `more_like_this` as the cloud deployment asks it, but for the next: there, the words that
# every report repeats ("no acute change") make any two alike.
TELLING_WORDS = 12
LEAST_DOCUMENTS = 5
LEAST_SHARE = 0.3
MOST_DOCUMENTS = 0.5
# Of a longer report the words that it repeats most are weighed, from its beginning.
_MOST_TEXT = 20_000
_MOST_WEIGHED = 200


def any_word(text: str) -> Tree | None:
    """Return the tree of what holds any of the words of `text`, best match first; None where it has no word.

    Operators, fields and stars of the query language are words like any other, or nothing.
    """
    tokens = list(dict.fromkeys(fulltext.analyse(text, stemmed=False)))[:MOST_WORDS]
    return disjunction([Field(name, Word(token)) for token in tokens for name in SECTIONS]) if tokens else None


def documents_worded_like(index: FulltextIndex, text: str) -> npt.NDArray[np.int64]:
    """Return the doc_no of documents that share at least 3 in 10 of the 12 words that tell `text` apart, ascending.

    A word tells the more the oftener it stands in `text` and the fewer documents hold it; one that fewer
    than five, or more than half, hold tells nothing. The document that `text` is from is among them.
    Raises LibraryError when the index cannot be read.
    """
    total = index.document_count
    weighed = []
    for token, times in Counter(fulltext.analyse(text[:_MOST_TEXT])).most_common(_MOST_WEIGHED):
        holders = index.count(_said(token))
        if LEAST_DOCUMENTS <= holders <= MOST_DOCUMENTS * total:
            weighed.append((-times * (1 + math.log(total / (holders + 1))), token))
    telling = [token for _, token in sorted(weighed)[:TELLING_WORDS]]
    if not telling:
        return np.empty(0, np.int64)
    least = math.ceil(LEAST_SHARE * len(telling))
    return index.matching(fulltext.at_least(least, [_said(token) for token in telling]))


def _said(token: str) -> Query:
    return fulltext.any_of([fulltext.words(name, [token]) for name in SECTIONS])
