"""The query language: text to tree and back.

    query    := any ("OR" any)*                 AND binds tighter than OR, NOT tighter than AND
    any      := part ("AND"? part)*             side by side means AND
    part     := ("NOT" | "-") part | "(" query ")" | field | "phrase" | word | begin*
    field    := name ":" (word | "phrase" | begin* | range | "(" query ")")
    range    := ">" v | ">=" v | "<" v | "<=" v | v ".." v | v

Only upper-case AND, OR and NOT are operators; in lower case they are words, as they are in a
report. Words match all their inflections and ignore case and accents; punctuation around a word
is ignored. Quotes (straight or typographic) hold phrases and values with blanks; a doubled ""
stands for one quote. A month or year in a date stands for all of its days. `like:IMAGE`
asks for images near to one, once, and neither under NOT nor OR.
"""

from __future__ import annotations

import calendar
import difflib
import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import NoReturn

from medsearch_desktop.errors import QueryError
from medsearch_desktop.search.filters import BY_NAME, CHOICES, FILTERS, Filter, Kind, icd_code
from medsearch_desktop.search.tree import (
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
    Value,
    Word,
    conjunction,
    disjunction,
    leaves,
    split_like,
)

__all__ = [
    "EVERYTHING",
    "And",
    "DateRange",
    "Field",
    "Like",
    "Not",
    "NumberRange",
    "Or",
    "Phrase",
    "Prefix",
    "Tree",
    "Value",
    "Word",
    "conjunction",
    "disjunction",
    "leaves",
    "parse",
    "split_like",
    "unparse",
]

MAX_LENGTH = 4_000
MAX_DEPTH = 40
MAX_TERMS = 400
# The automaton that matches a beginning has at most 1,000 states, up to four for a character.
MAX_PREFIX = 100

_OPERATORS = ("AND", "OR", "NOT")
_OPERATOR = re.compile(r'(AND|OR|NOT)(?=[\s()"“”„]|$)')
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):")
_RAW = re.compile(r'[^\s()"“”„]+')
_BOUND = re.compile(r"(>=|<=|>|<|≥|≤)\s*")
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?|(\d{4})(\d{2})(\d{2})", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,6}(?:\.\d{1,6})?", re.ASCII)
_CLOSING = {'"': '"', "“": '”“"', "„": '”“"', "”": '”“"'}
_BARE_VALUE = re.compile(r'[^\s()"“”„]*[^\s()"“”„*]')


def parse(query: str) -> Tree:
    """Return the tree of a question; nothing at all, or `*`, asks for everything.

    Raises QueryError, whose `position` is the first character at fault.
    """
    if query.strip() in ("", "*"):
        return EVERYTHING
    return _Parser(query).parse()


class _Parser:
    """Recursive descent over the characters; `field` is the filter whose parentheses it is in."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.at = 0
        self.depth = 0
        self.terms = 0
        self.field: Filter | None = None
        self.like_at: int | None = None

    def fail(self, message: str, position: int, remedy: str = "") -> NoReturn:
        raise QueryError(message, query=self.query, position=position, remedy=remedy)

    def parse(self) -> Tree:
        if len(self.query) > MAX_LENGTH:
            self.fail(f"the query is longer than {MAX_LENGTH} characters", MAX_LENGTH, "Shorten it")
        tree = self.any_of()
        if self.at < len(self.query):
            self.fail("nothing opens this parenthesis", self.at, "Remove it or add the opening one")
        if self.like_at is not None and split_like(tree)[1] is None:
            self.fail("like: cannot stand under NOT or OR", self.like_at, "Put it beside the rest of the query")
        return tree

    def any_of(self) -> Tree:
        alternatives = [self.all_of()]
        while (operator_at := self.operator("OR")) is not None:
            if not self.begins_part():
                self.fail("OR has nothing after it", operator_at, "Add a second alternative or remove OR")
            alternatives.append(self.all_of())
        return disjunction(alternatives)

    def all_of(self) -> Tree:
        start = self.at
        parts: list[Tree] = []
        while True:
            operator_at = self.operator("AND")
            if operator_at is not None:
                if not parts:
                    self.fail("AND has nothing before it", operator_at, "Remove it, or quote it to search for the word")
                if not self.begins_part():
                    self.fail("AND has nothing after it", operator_at, "Add a term or remove AND")
            elif not self.begins_part():
                break
            parts.append(self.part())
        if not parts:
            if self.peek_operator() == "OR":
                self.fail("OR has nothing before it", self.at, "Remove it, or quote it to search for the word")
            self.fail("there is nothing to search for", start, "Write a word, a phrase or a filter")
        return conjunction(parts)

    def part(self) -> Tree:
        start = self.skip()
        if self.operator("NOT") is not None or self.minus():
            if not self.begins_part():
                self.fail("NOT has nothing after it", start, "Add a term or remove NOT")
            return Not(self.nested(start, self.part))
        if self.query[start] == "(":
            return self.group()
        self.terms += 1
        if self.terms > MAX_TERMS:
            self.fail(f"the query has more than {MAX_TERMS} terms", start, "Shorten it")
        name = _FIELD.match(self.query, start)
        if name is not None and self.field is None:
            return self.filter(name[1], name.end())
        if name is not None and self.field is not None and (name[1].lower() in BY_NAME or name[1].lower() == "like"):
            self.fail(
                f"{name[1]}: cannot stand within the parentheses of {self.field.key}:",
                start,
                "Close the parentheses before it",
            )
        return self.value(self.field) if self.field is not None else self.words(*self.text())

    def nested(self, start: int, read: Callable[[], Tree]) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"the query is nested more than {MAX_DEPTH} deep", start, "Simplify it")
        tree = read()
        self.depth -= 1
        return tree

    def group(self) -> Tree:
        start = self.at
        self.at += 1
        if self.skip() == len(self.query):
            self.fail("this parenthesis is not closed", start, "Add )")
        if self.query.startswith(")", self.at):
            self.fail("the parentheses are empty", start, "Write a term between them or remove them")
        tree = self.nested(start, self.any_of)
        if not self.query.startswith(")", self.at):
            self.fail("this parenthesis is not closed", start, "Add )")
        self.at += 1
        return tree

    # Filters

    def filter(self, name: str, value_at: int) -> Tree:
        start = self.at
        lowered = name.lower()
        row = BY_NAME.get(lowered)
        if row is None and lowered != "like":
            known = [*BY_NAME, "like"]
            near = dict.fromkeys(
                BY_NAME[each].key if each in BY_NAME else each
                for each in difflib.get_close_matches(lowered, known, n=3, cutoff=0.6)
            )
            keys = ", ".join(row.key for row in FILTERS)
            meant = (
                f"Did you mean {' or '.join(f'{each}:' for each in near)}?" if near else f"Filters are: {keys}, like"
            )
            self.fail(f"there is no filter {name}:", start, f"{meant} Quote it to search for the words")
        self.at = value_at
        while self.at < len(self.query) and self.query[self.at].isspace():
            self.at += 1
        if self.at == len(self.query) or self.query[self.at] == ")":
            self.fail(f"{name}: has no value", start, row.help if row else "Write an image id or a path after it")
        if row is None:
            return self.like(start)
        if self.query[self.at] == "(":
            self.field = row
            tree = self.group()
            self.field = None
            return tree
        return self.value(row)

    def like(self, start: int) -> Tree:
        if self.like_at is not None:
            self.fail("like: stands here a second time", start, "Keep one image")
        if self.query[self.at] == "(":
            self.fail("like: takes one image", self.at, "Write an image id or a path, in quotes if it has blanks")
        self.like_at = start
        text, _, text_at = self.text()
        if not text.strip():
            self.fail("like: has no value", text_at, "Write an image id or a path after it")
        return Like(text)

    def value(self, row: Filter) -> Tree:
        bound = _BOUND.match(self.query, self.at) if row.kind in (Kind.NUMBER, Kind.DATE) else None
        if bound is not None:
            self.at = bound.end()
            if _RAW.match(self.query, self.at) is None:
                self.fail(f"{bound[1]} has nothing after it", bound.start(), row.help)
        text, quoted, text_at = self.text()
        sign = bound[1].replace("≥", ">=").replace("≤", "<=") if bound else ""
        if row.kind is Kind.NUMBER:
            return Field(row.key, self.numbers(row, text, sign, text_at))
        if row.kind is Kind.DATE:
            return Field(row.key, self.dates(row, text, sign, text_at))
        if row.kind is Kind.TEXT:
            leaf = self.words(text, quoted, text_at)
            assert isinstance(leaf, Word | Phrase | Prefix)
            return Field(row.key, leaf)
        if row.kind is Kind.CHOICE:
            if text.lower() not in CHOICES:
                self.fail(f"{row.key}: knows no such value", text_at, row.help)
            return Field(row.key, Word(text.lower()))
        if row.kind is Kind.CODE:
            code = icd_code(text.rstrip("*").rstrip("."))
            if code is None:
                self.fail("this is no ICD-10-CM code", text_at, "Write a category such as J18 or a code such as J18.9")
            return Field(row.key, Word(code))
        begins = not quoted and text.endswith("*")
        text = text.rstrip("*") if begins else text
        if not any(character.isalnum() for character in text):
            self.fail(f"{row.key}: has no value", text_at, row.help)
        if row.kind is Kind.STATE and begins:
            code = icd_code(text.rstrip("."))
            if code is None:
                self.fail(
                    f"{row.key}: takes a whole name", text_at + len(text), "Write it out, or search for the words"
                )
            return Field(row.key, Word(code))
        if begins:
            return Field(row.key, self.prefix(text, text_at))
        return Field(row.key, Phrase(text) if quoted else Word(text))

    def numbers(self, row: Filter, text: str, sign: str, text_at: int) -> NumberRange:
        low_text, dots, high_text = text.partition("..")
        numbers: list[float | None] = []
        for part, part_at in ((low_text, text_at), (high_text, text_at + len(low_text) + 2)):
            if not part and dots and text != "..":
                numbers.append(None)
            elif _NUMBER.fullmatch(part):
                numbers.append(float(part))
            elif part_at == text_at or dots:
                self.fail(f"{row.key}: takes a number here", part_at, row.help)
        low = numbers[0]
        if not dots:
            assert low is not None
            if sign:
                return NumberRange(
                    low if sign[0] == ">" else None, low if sign[0] == "<" else None, sign != ">", sign != "<"
                )
            # Ages are kept with their fraction, but a person is 60 for a whole year.
            return NumberRange(low, low + 1, True, False) if low.is_integer() else NumberRange(low, low)
        high = numbers[1]
        if sign:
            self.fail(f"{row.key}: takes a bound or a range, not both", text_at, row.help)
        if low is not None and high is not None and low > high:
            self.fail("the range is reversed", text_at, f"Write {row.key}:{high_text}..{low_text}")
        return NumberRange(low, high)

    def dates(self, row: Filter, text: str, sign: str, text_at: int) -> DateRange:
        low_text, dots, high_text = text.partition("..")
        if not dots:
            first, last = self.period(text, text_at)
            day = timedelta(days=1)
            if (sign == ">" and last == date.max) or (sign == "<" and first == date.min):
                self.fail("no day is left on that side", text_at, row.help)
            match sign:
                case ">":
                    return DateRange(last + day, None)
                case ">=":
                    return DateRange(first, None)
                case "<":
                    return DateRange(None, first - day)
                case "<=":
                    return DateRange(None, last)
                case _:
                    return DateRange(first, last)
        if sign:
            self.fail(f"{row.key}: takes a bound or a range, not both", text_at, row.help)
        if text == "..":
            self.fail(f"{row.key}: takes a date here", text_at, row.help)
        low = self.period(low_text, text_at)[0] if low_text else None
        high = self.period(high_text, text_at + len(low_text) + 2)[1] if high_text else None
        if low is not None and high is not None and low > high:
            self.fail("the range is reversed", text_at, f"Write {row.key}:{high_text}..{low_text}")
        return DateRange(low, high)

    def period(self, text: str, text_at: int) -> tuple[date, date]:
        found = _DATE.fullmatch(text)
        if found is None:
            self.fail("this is no date", text_at, "Write it as 2024-03-05, 2024-03 or 2024")
        year, month, day = (int(part) if part else 0 for part in ((found[1] or found[4]), *self.months(found)))
        try:
            if day or found[3] or found[6]:
                return date(year, month, day), date(year, month, day)
            if found[2]:
                return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])
            return date(year, 1, 1), date(year, 12, 31)
        except (ValueError, calendar.IllegalMonthError):
            self.fail("the calendar has no such date", text_at, "Write it as 2024-03-05, 2024-03 or 2024")

    @staticmethod
    def months(found: re.Match[str]) -> tuple[str, str]:
        return found[2] or found[5] or "", found[3] or found[6] or ""

    # Characters

    def skip(self) -> int:
        """Step over blanks, and outside a filter over punctuation that means nothing, to where a part may begin."""
        while self.at < len(self.query):
            character = self.query[self.at]
            if not character.isspace() and (
                character in '()"“”„' or character.isalnum() or self.field is not None or self.is_minus()
            ):
                break
            self.at += 1
        return self.at

    def begins_part(self) -> bool:
        at = self.skip()
        return at < len(self.query) and self.query[at] != ")" and self.peek_operator() not in ("AND", "OR")

    def peek_operator(self) -> str:
        found = _OPERATOR.match(self.query, self.skip())
        return found[1] if found else ""

    def operator(self, name: str) -> int | None:
        if self.peek_operator() != name:
            return None
        start = self.at
        self.at += len(name)
        return start

    def is_minus(self) -> bool:
        before, after = self.query[self.at - 1 : self.at], self.query[self.at + 1 : self.at + 2]
        if self.query[self.at] != "-" or not (not before or before.isspace() or before in "(-"):
            return False
        return after.isalnum() or (after != "" and after in '("“„-')

    def minus(self) -> bool:
        if not self.is_minus():
            return False
        self.at += 1
        return True

    def text(self) -> tuple[str, bool, int]:
        """Read a quoted text or one up to the next blank: the text, whether quoted, where it begins."""
        start = self.at
        opening = self.query[start]
        if opening not in _CLOSING:
            found = _RAW.match(self.query, start)
            if found is None:
                self.fail("a value is missing here", start, "Write one, or put it in quotes")
            self.at = found.end()
            return found[0], False, start
        characters: list[str] = []
        at = start + 1
        while True:
            if at == len(self.query):
                self.fail("this quote is not closed", start, 'Add "')
            if self.query[at] in _CLOSING[opening]:
                if opening != '"' or self.query[at + 1 : at + 2] != '"':
                    break
                at += 1
            characters.append(self.query[at])
            at += 1
        self.at = at + 1
        return "".join(characters), True, start + 1

    def words(self, text: str, quoted: bool, text_at: int) -> Word | Phrase | Prefix:
        first = next((index for index, character in enumerate(text) if character.isalnum()), None)
        if first is None:
            self.fail("there is no word here", text_at, "Write at least one letter or digit")
        if quoted:
            return Phrase(text)
        last = max(index for index, character in enumerate(text) if character.isalnum())
        bare, begins = text[first : last + 1], "*" in text[last + 1 :]
        if "*" in bare:
            self.fail("* stands only at the end of a word", text_at + text.index("*", first), "Move or quote it")
        if begins:
            return self.prefix(bare, text_at)
        return Phrase(bare) if bare in _OPERATORS else Word(bare)

    def prefix(self, text: str, text_at: int) -> Prefix:
        if len(text) > MAX_PREFIX:
            self.fail(f"a beginning has at most {MAX_PREFIX} characters", text_at + MAX_PREFIX, "Shorten it")
        return Prefix(text)


def unparse(tree: Tree) -> str:
    """Return a query that `parse` reads as the same tree."""
    match tree:
        case And(children):
            return " ".join(f"({unparse(child)})" if isinstance(child, Or) else unparse(child) for child in children)
        case Or(children):
            return " OR ".join(unparse(child) for child in children)
        case Not(child):
            return f"NOT ({unparse(child)})" if isinstance(child, And | Or) else f"NOT {unparse(child)}"
        case Like(image):
            return f"like:{_unparse_value(Word(image))}"
        case Field(key, value):
            return f"{key}:{_unparse_value(value)}"
        case _:
            return _unparse_value(tree)


def _unparse_value(value: Value) -> str:
    match value:
        case NumberRange(low, high, include_low, include_high):
            if low is not None and high is not None:
                single = not include_high if low.is_integer() else low == high
                return _number(low) if single else f"{_number(low)}..{_number(high)}"
            if low is not None:
                return f"{'>=' if include_low else '>'}{_number(low)}"
            assert high is not None
            return f"{'<=' if include_high else '<'}{_number(high)}"
        case DateRange(first, last):
            if first is not None and last is not None:
                return f"{first}" if first == last else f"{first}..{last}"
            return f">={first}" if first is not None else f"<={last}"
        case Prefix(text):
            return f"{text}*"
        case Word(text) if _BARE_VALUE.fullmatch(text):
            return text
        case Word(text) | Phrase(text):
            quoted = text.replace('"', '""')
            return f'"{quoted}"'


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
