"""The query language: what each form means, where each error points, and that nothing else can happen."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.errors import QueryError
from medsearch_desktop.search.query import (
    EVERYTHING,
    And,
    DateRange,
    Field,
    Like,
    Not,
    NumberRange,
    Or,
    Phrase,
    Prefix,
    Tree,
    Word,
    conjunction,
    disjunction,
    leaves,
    parse,
    split_like,
    unparse,
)


def test_a_clinical_question_in_full():
    tree = parse("effusion AND NOT pneumothorax modality:CR view:PA age:>60 date:2024-01..2024-06")
    assert tree == And(
        (
            Word("effusion"),
            Not(Word("pneumothorax")),
            Field("modality", Word("CR")),
            Field("view", Word("PA")),
            Field("age", NumberRange(60.0, None, include_low=False)),
            Field("date", DateRange(date(2024, 1, 1), date(2024, 6, 30))),
        )
    )


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("", EVERYTHING),
        ("  * ", EVERYTHING),
        ("effusion", Word("effusion")),
        ("effusion,", Word("effusion")),
        ("x-ray T12", And((Word("x-ray"), Word("T12")))),
        ("12:30", Word("12:30")),
        ("chest & abdomen - pelvis", And((Word("chest"), Word("abdomen"), Word("pelvis")))),
        ("rule out and or not", And(tuple(Word(word) for word in ("rule", "out", "and", "or", "not")))),
        ("AND.", Phrase("AND")),
        ("effus*", Prefix("effus")),
        ("effus*,", Prefix("effus")),
        ('"pleural  effusion"', Phrase("pleural  effusion")),
        ("“pleural effusion”", Phrase("pleural effusion")),
        ('"a ""b"""', Phrase('a "b"')),
        ("a OR b c", Or((Word("a"), And((Word("b"), Word("c")))))),
        ("(a OR b) c", And((Or((Word("a"), Word("b"))), Word("c")))),
        ("a AND b OR c AND d", Or((And((Word("a"), Word("b"))), And((Word("c"), Word("d")))))),
        ("NOT a b", And((Not(Word("a")), Word("b")))),
        ("NOT (a b)", Not(And((Word("a"), Word("b"))))),
        ("a -b", And((Word("a"), Not(Word("b"))))),
        ('-"a b"', Not(Phrase("a b"))),
        ("-modality:CR", Not(Field("modality", Word("CR")))),
        ("(a (b c)) d", And((Word("a"), Word("b"), Word("c"), Word("d")))),
        ("Modality: CR", Field("modality", Word("CR"))),
        ("mod:CR", Field("modality", Word("CR"))),
        ("patient:P-12*", Field("patient", Prefix("P-12"))),
        ('label:"follow up"', Field("label", Phrase("follow up"))),
        ("study:1.2.840:7", Field("study", Word("1.2.840:7"))),
        ("modality:(CR OR DX)", Or((Field("modality", Word("CR")), Field("modality", Word("DX"))))),
        (
            'findings:(effus* -"no effusion")',
            And((Field("findings", Prefix("effus")), Not(Field("findings", Phrase("no effusion"))))),
        ),
        ("FINDINGS: clear", Field("findings", Word("clear"))),
        ("age:60", Field("age", NumberRange(60.0, 61.0, include_high=False))),
        ("age:0.5", Field("age", NumberRange(0.5, 0.5))),
        ("age:>=60", Field("age", NumberRange(60.0, None))),
        ("age:≥ 60", Field("age", NumberRange(60.0, None))),
        ("age:<60", Field("age", NumberRange(None, 60.0, include_high=False))),
        ("age:20..40", Field("age", NumberRange(20.0, 40.0))),
        ("age:20..", Field("age", NumberRange(20.0, None))),
        ("age:..40", Field("age", NumberRange(None, 40.0))),
        (
            "age:(<20 OR >60)",
            Or(
                (
                    Field("age", NumberRange(None, 20.0, include_high=False)),
                    Field("age", NumberRange(60.0, None, include_low=False)),
                )
            ),
        ),
        ("date:2024", Field("date", DateRange(date(2024, 1, 1), date(2024, 12, 31)))),
        ("date:2024-02", Field("date", DateRange(date(2024, 2, 1), date(2024, 2, 29)))),
        ("date:2024-03-05", Field("date", DateRange(date(2024, 3, 5), date(2024, 3, 5)))),
        ("date:20240305", Field("date", DateRange(date(2024, 3, 5), date(2024, 3, 5)))),
        ("date:>2024", Field("date", DateRange(date(2025, 1, 1), None))),
        ("date:>=2024-02", Field("date", DateRange(date(2024, 2, 1), None))),
        ("date:<2024-02", Field("date", DateRange(None, date(2024, 1, 31)))),
        ("date:<=2024-02", Field("date", DateRange(None, date(2024, 2, 29)))),
        ("date:2023..", Field("date", DateRange(date(2023, 1, 1), None))),
        ("icd:j18.*", Field("icd", Word("J18"))),
        ("icd:J189", Field("icd", Word("J18.9"))),
        ('present:"pleural effusion"', Field("present", Phrase("pleural effusion"))),
        ("absent:J93*", Field("absent", Word("J93"))),
        ("has:Report", Field("has", Word("report"))),
        ("like:1.2.3#2", Like("1.2.3#2")),
        ('like:"C:\\my images\\a.dcm" chest', And((Like("C:\\my images\\a.dcm"), Word("chest")))),
    ],
)
def test_forms(query: str, tree: Tree):
    assert parse(query) == tree
    assert parse(unparse(tree)) == tree


@pytest.mark.parametrize(
    ("query", "position", "says"),
    [
        ("a modalty:CR", 2, "modality:"),
        ("a zzzz:CR", 2, "Filters are: modality"),
        ('a "b c', 2, "quote"),
        ("a (b OR c", 2, "not closed"),
        ("a) b", 1, "opens"),
        ("a () b", 2, "empty"),
        ("a ( & ) b", 2, "empty"),
        ("modality:()", 9, "empty"),
        ('""', 1, "no word"),
        ("&&", 0, "nothing to search for"),
        ("a AND", 2, "nothing after"),
        ("a AND OR b", 2, "nothing after"),
        ("a OR", 2, "nothing after"),
        ("OR a", 0, "nothing before"),
        ("AND a", 0, "nothing before"),
        ("(OR a)", 1, "nothing before"),
        ("a NOT", 2, "nothing after"),
        ("a -(", 3, "not closed"),
        ("eff*ion", 3, "end of a word"),
        ("modality:", 0, "no value"),
        ("(modality: )", 1, "no value"),
        ("patient:*", 8, "no value"),
        ("age:old", 4, "number"),
        ("age:20..old", 8, "number"),
        ("age:..", 4, "number"),
        ("age:40..20", 4, "reversed"),
        ("age:>", 4, "nothing after"),
        ("age:>20..30", 5, "not both"),
        ("date:tomorrow", 5, "no date"),
        ("date:2024-13", 5, "calendar"),
        ("date:2023-02-29", 5, "calendar"),
        ("date:0000", 5, "calendar"),
        ("date:2024..2024-15", 11, "calendar"),
        ("date:2024-06..2024-01", 5, "reversed"),
        ("date:>9999", 6, "no day"),
        ("icd:pneumonia", 4, "ICD-10-CM"),
        ("present:effus*", 13, "whole name"),
        ("has:money", 4, "no such value"),
        ("findings:(view:PA)", 10, "parentheses of findings:"),
        ("like:a like:b", 7, "second time"),
        ("x like:(a OR b)", 7, "one image"),
        ("a OR like:b", 5, "under NOT or OR"),
        ("NOT like:b", 4, "under NOT or OR"),
        ("x" * 101 + "*", 100, "at most 100"),
        ("a " * 3000, 4000, "longer than 4000"),
        ("a " * 401, 800, "more than 400"),
        ("(" * 60 + "a" + ")" * 60, 40, "nested more than 40"),
    ],
)
def test_errors_point_at_the_character(query: str, position: int, says: str):
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert caught.value.position == position
    assert says in str(caught.value)
    assert caught.value.remedy
    assert str(caught.value).endswith(f"\n  {' ' * position}^")


PIECES = st.one_of(
    st.sampled_from(["AND", "OR", "NOT", "(", ")", '"', "“", "-", "*", ":", "..", ">", " ", "  ", "\n", "&", "#"]),
    st.sampled_from(["age:", "date:", "like:", "findings:", "icd:", "present:", "has:", "patient:"]),
    st.sampled_from(["2024", "J18.9", "report", "effusion", "x-ray", "é"]),
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=20).map("".join), st.lists(PIECES).map(" ".join)))
def test_any_text_is_read_or_refused(query: str):
    error = None
    try:
        tree = parse(query)
    except QueryError as caught:
        error = caught
    if error is None:
        assert parse(unparse(tree)) == tree
    else:
        assert error.query == query
        assert 0 <= error.position <= len(query)
        assert error.remedy


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: any(character.isalnum() for character in text)
)
BARE = st.from_regex(r"[a-zé0-9]([a-z0-9./:'-]{0,6}[a-z0-9])?", fullmatch=True).filter(lambda text: ":" not in text)
TENTHS = st.integers(0, 1200).map(lambda number: number / 10)
WORDS = st.one_of(BARE.map(Word), TEXTS.map(Phrase), BARE.map(Prefix))
DATES = st.dates()
LEAVES = st.one_of(
    WORDS,
    st.builds(Field, st.sampled_from(["findings", "impression", "description"]), WORDS),
    st.builds(Field, st.sampled_from(["modality", "patient", "label"]), WORDS),
    st.builds(Field, st.sampled_from(["present", "absent"]), st.one_of(BARE.map(Word), TEXTS.map(Phrase))),
    st.builds(Field, st.just("icd"), st.sampled_from([Word("J18"), Word("J18.9"), Word("S22.39XA")])),
    st.builds(lambda low: Field("age", NumberRange(low, None, include_low=False)), TENTHS),
    st.builds(lambda ends: Field("age", NumberRange(*ends)), st.lists(TENTHS, min_size=2, max_size=2).map(sorted)),
    st.builds(lambda low: Field("age", NumberRange(low, low + 1, include_high=False)), st.integers(0, 120).map(float)),
    st.builds(lambda day: Field("date", DateRange(day, None)), DATES),
    st.builds(lambda ends: Field("date", DateRange(*ends)), st.lists(DATES, min_size=2, max_size=2).map(sorted)),
)
TREES = st.recursive(
    LEAVES,
    lambda trees: st.one_of(
        trees.map(Not),
        st.lists(trees, min_size=1, max_size=4).map(conjunction),
        st.lists(trees, min_size=1, max_size=4).map(disjunction),
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(TREES)
def test_what_is_written_is_read_back(tree: Tree):
    assert parse(unparse(tree)) == tree


def test_an_image_is_split_off():
    assert split_like(parse("chest like:a.dcm age:60")) == (parse("chest age:60"), Like("a.dcm"))
    assert split_like(parse("like:a.dcm")) == (EVERYTHING, Like("a.dcm"))
    assert split_like(parse("chest")) == (Word("chest"), None)


def test_leaves_know_their_sign():
    tree = parse("a NOT (b OR NOT c) modality:CR")
    assert [unparse(leaf) for leaf in leaves(tree)] == ["a", "b", "c", "modality:CR"]
    assert [unparse(leaf) for leaf in leaves(tree, positive=True)] == ["a", "c", "modality:CR"]
