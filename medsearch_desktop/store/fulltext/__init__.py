"""The full-text index: the only room that imports tantivy; a cache that is rebuilt when in doubt.

One index document is one "document" of the library: a report with what is known of its study, or
a study without any report, whose words are then those of its description. The index answers
whole questions, filters included, so that totals and facets are true in one call.

`fields` says what a document has, `documents` makes one, `questions` builds queries, `index` keeps the files.
"""

from __future__ import annotations

from medsearch_desktop.store.fulltext.documents import standing
from medsearch_desktop.store.fulltext.fields import (
    COUNTED_FIELDS,
    KEYWORD_FIELDS,
    SECTIONS,
    SORTS,
    TEXT_FIELDS,
    analyse,
    code_key,
    keyword_key,
    name_key,
)
from medsearch_desktop.store.fulltext.index import FulltextIndex
from medsearch_desktop.store.fulltext.questions import (
    Query,
    all_of,
    any_of,
    at_least,
    beginning,
    between,
    everything,
    keyword,
    keyword_beginning,
    words,
)

__all__ = [
    "COUNTED_FIELDS",
    "KEYWORD_FIELDS",
    "SECTIONS",
    "SORTS",
    "TEXT_FIELDS",
    "FulltextIndex",
    "Query",
    "all_of",
    "analyse",
    "any_of",
    "at_least",
    "beginning",
    "between",
    "code_key",
    "everything",
    "keyword",
    "keyword_beginning",
    "keyword_key",
    "name_key",
    "standing",
    "words",
]
