"""What the full-text index holds of a document: its fields, and how text, names and codes are compared.

Text is cut at everything but letters and digits, lower-cased, freed of accents, and stemmed as
English; every text field has a twin, `_plain`, without the stemming, for beginnings of words.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import cache, lru_cache
from importlib import metadata

import tantivy
from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

# Raised whenever what `documents` writes for a document changes.
FORMAT = 4

SECTIONS = (
    "findings",
    "impression",
    "indication",
    "history",
    "technique",
    "comparison",
    "examination",
    "addendum",
)
TEXT_FIELDS = ("text", *SECTIONS, "description", "manufacturer")
# Values as `keyword_key` folds them; those that are counted are columns as well.
KEYWORD_FIELDS = ("laterality", "patient", "accession", "study_id", "study_uid", "report", "label_key", "has")
COUNTED_FIELDS = ("modality", "view", "body", "sex", "decade", "year", "label", "codes", "findings_14")
SORTS = ("score", "date", "oldest", "patient")


@cache
def analyser(*, stemmed: bool) -> TextAnalyzer:
    """Return what cuts the text of a field into tokens."""
    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.lowercase()).filter(Filter.ascii_fold())
    return (builder.filter(Filter.stemmer("english")) if stemmed else builder).build()


def analyse(text: str, *, stemmed: bool = True) -> list[str]:
    """Return the tokens of `text` as the index holds them."""
    return analyser(stemmed=stemmed).analyze(unicodedata.normalize("NFC", text))


def keyword_key(value: str) -> str:
    """Return a keyword as the index compares it: upper case, blanks trimmed and collapsed."""
    return " ".join(value.split()).upper()


@lru_cache(maxsize=65_536)
def name_key(name: str) -> str:
    """Return the name of a finding as the index compares it; empty when it has neither letter nor digit."""
    return "_".join(analyse(name))


def code_key(code: str) -> str:
    """Return an ICD-10-CM code or category as the index compares it."""
    return f"={code.replace('.', '').upper()}"


@cache
def schema() -> tantivy.Schema:
    """Return the fields of a document, as they are indexed."""
    builder = tantivy.SchemaBuilder()
    # Signed: deleting by an unsigned term finds nothing in tantivy-py 0.27.
    builder.add_integer_field("doc_no", indexed=True, fast=True)
    for name in TEXT_FIELDS:
        builder.add_text_field(name, tokenizer_name="stemmed", index_option="position")
        builder.add_text_field(f"{name}_plain", tokenizer_name="plain", index_option="position")
    for name in KEYWORD_FIELDS:
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    for name in COUNTED_FIELDS:
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_text_field("states", tokenizer_name="blanks", index_option="basic")
    builder.add_float_field("age", fast=True)
    builder.add_integer_field("day", fast=True)
    builder.add_integer_field("by_date", fast=True)
    builder.add_integer_field("by_oldest", fast=True)
    builder.add_text_field("by_patient", tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_bytes_field("card", stored=True)
    return builder.build()


@cache
def made_by() -> str:
    """Return everything that the files depend on."""
    fields = repr((TEXT_FIELDS, KEYWORD_FIELDS, COUNTED_FIELDS))
    return f"{FORMAT}; {metadata.version('tantivy')}; {hashlib.sha256(fields.encode()).hexdigest()[:16]}"
