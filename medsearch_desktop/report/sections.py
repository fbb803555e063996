"""A report's parts, found by its headings in the many ways they are written.

A heading is one of `data/headings.tsv` at the beginning of a line, before a colon, a dash, an equals
sign, the end of the line or, in capitals, before text that is not; or in the middle of a line,
capitalised, after the end of a sentence and before a colon; the plainest ones, in capitals, anywhere
before a colon, and, where a report is all in capitals and has several, before its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from medsearch_desktop.records import Section
from medsearch_desktop.report.tables import expand, read_table
from medsearch_desktop.report.words import sentence_words

# Parts of which nothing is read: names of people and places could pass for findings.
NOT_READ = frozenset({"SIGNATURE", "NOTIFICATION"})
_SEEN = frozenset({"FINDINGS", "IMPRESSION", "ADDENDUM"})
# Parts before the findings that may run into them without a heading between.
_BEFORE = frozenset({"INDICATION", "HISTORY", "COMPARISON", "TECHNIQUE", "EXAMINATION"})
_TITLE_WIDTH, _TITLE_WORDS = 60, 4
_LOOK_BACK = 80
_HEADER = "HEADER"
_ANATOMY = "ANATOMY"

# Every run of spaces is possessive: a line of a million blanks must not be tried in a million ways.
_LINE_HEADING = re.compile(
    r"^[ \t>*#_•\[-]*+(?:\d{1,2}[.)][ \t]++)?(?P<title>[A-Za-z][A-Za-z0-9 \t/&,'’+#-]{0,58}?)[ \t]*+"
    r"(?P<note>\([^()\n]{0,60}\))?[ \t*_\]]*+"
    # One or two underscores close what was marked up; more are a mask, and text.
    r"(?P<mark>[:=]++(?:\*{1,3}|_{1,2}(?!_))?[ \t]*+|-++[ \t]++|[–—]++[ \t]*+|-++[ \t]*+(?=\n|\Z)|(?=\n|\Z))",
    re.MULTILINE,
)
_BARE_HEADING = re.compile(
    r"^[ \t*#]*+(?P<title>[A-Z]{4,}(?:[ /&][A-Z]{2,}){0,4})(?P<mark>[ \t]++)(?=[A-Z0-9][a-z0-9])", re.MULTILINE
)
# A report in capitals throughout; the word after tells whether a sentence goes on.
_CAPITAL_HEADING = re.compile(
    r"^[ \t*#]*+(?P<title>[A-Z]{4,}(?:[ /&][A-Z]{2,}){0,2}?)(?P<mark>[ \t]++)(?P<next>[A-Z0-9]++)", re.MULTILINE
)
# A line under a heading, or around it.
_RULE = re.compile(r"[ \t]*+(?:[-=~*]{3,}|_{5,})[ \t]*+(?=\n|\Z)")
_SPACED_OUT = re.compile(r"(?:[a-z] ){3,}[a-z]")
_NUMBER = re.compile(r"[ #]+\d{1,2}$")
# The name of an examination on a line of its own: "XR Chest".
_EXAM_LINE = re.compile(
    r"^[ \t]*+(?:CXR|XR|CT|MR|MRI|US|USS|X-?[Rr]ay|Plain film|Chest [Xx]-?[Rr]ay|Chest [Rr]adiograph|Radiograph)\b"
    r"[^\n.:?]{0,50}(?=\n)",
    re.MULTILINE,
)
_INLINE_HEADING = re.compile(
    r"(?<=[.!?;)\]][ \t])[ \t]*+(?P<title>[A-Z][A-Za-z]{1,20}(?:[ \t/&]{1,3}[A-Za-z]{1,20}){0,5})[ \t]*+"
    r"(?P<note>\([^()\n]{0,60}\))?"
    r"(?P<mark>[ \t]*+:[ \t]*+|(?<=[ \t])[-–—]++[ \t]++|[–—]++|(?<=[A-Z][ \t])(?=[A-Z0-9][a-z0-9 ]))"
)
# The heading is a run's last words: "COUGH FINDINGS:".
_CAPITALS = re.compile(r"(?<![A-Za-z])(?P<run>[A-Z][A-Z \t&/]{2,60}+)(?P<mark>:[ \t]*+)")
_ADDENDUM = re.compile(
    r"^[ \t>*#_\[-]*+(?:(?:\d{1,2}(?:st|nd|rd|th)|attending|radiologist|resident|staff|final|first|second)[ \t]++)?"
    r"(?P<title>addend(?:um|a))\b(?P<mark>[ \t]*+(?:#?\d{1,3}[ \t]*+)?"
    r"(?:(?:by|dated|on|from|to)\b(?:[^:\n]|(?<=\d):(?=\d)){0,120}(?=:)|(?:by|dated|on)\b[^\n]{0,60}(?=\n|\Z)"
    r"|[*\]_ \t]++(?=\n|\Z)|\([^()\n]{0,80}\)[ \t]*+|[^:\n.]{0,40}+(?=:))?(?::|[-–—]++[ \t]|(?=\n|\Z))?)",
    re.MULTILINE | re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_HEADER_LINE = re.compile(r"[ \t]*+(?P<title>[A-Za-z][A-Za-z0-9 _#./()-]{0,40}?)[ \t]*+[:=][ \t]*+(?P<value>[^\n]*)")
_IDENTIFIER = re.compile(r"[A-Za-z]{0,4}[-_]?\d[\d./:_-]{4,}")
_SPACE = re.compile(r"[\s/&,'’+_#-]+")


@dataclass(frozen=True, slots=True)
class _Heading:
    name: str
    start: int
    body: int


def find_sections(text: str) -> tuple[Section, ...]:
    """Return the parts of a report in the order of its text; a part without text is left out.

    Ranges are half-open offsets into `text`, hold no heading and neither begin nor end in white
    space. A part that is headed twice comes twice. Text without any heading is FINDINGS, but for
    a head of "key: value" lines, which is PREAMBLE. Findings headed by nothing but a blank line
    after COMPARISON, TECHNIQUE and the like are FINDINGS. "FINDINGS AND IMPRESSION" is IMPRESSION.
    """
    headings = _headings(text)
    sections: list[Section] = []
    first = headings[0].start if headings else len(text)
    sections.extend(_before_headings(text, first, headed=bool(headings)))
    ends = [*(heading.start for heading in headings[1:]), len(text)]
    for heading, end in zip(headings, ends, strict=False):
        sections.extend(_trimmed(text, heading.name, heading.body, end))
    if not any(section.name == "FINDINGS" for section in sections):
        sections = _with_unheaded_findings(text, sections) or _with_findings_first(text, sections)
    return tuple(sections)


def is_header_line(text: str, position: int) -> bool:
    """Return whether the line around `position` is one of the head of a report, like "Accession: 123"."""
    start = text.rfind("\n", 0, position) + 1
    match = _HEADER_LINE.match(text, start)
    return match is not None and _is_header(match)


def _is_header(match: re.Match[str]) -> bool:
    name, _ = _known(match.group("title"))
    # An identifier or date under an unknown key is still no finding.
    return name == _HEADER or (not name and _is_data(match.group("value")))


def _is_data(value: str) -> bool:
    return _IDENTIFIER.fullmatch(value.strip()) is not None


def _before_headings(text: str, end: int, *, headed: bool) -> list[Section]:
    """Cut what stands before the first heading into a head of "key: value" lines and free text."""
    head = 0
    position = 0
    while position < end:
        line_end = text.find("\n", position, end)
        line_end = end if line_end < 0 else line_end
        if text[position:line_end].strip():
            match = _HEADER_LINE.match(text, position, line_end)
            if match is None or not _is_header(match):
                break
            head = line_end
        position = line_end + 1
    if headed:
        return _trimmed(text, "PREAMBLE", 0, end)
    return [*_trimmed(text, "PREAMBLE", 0, head), *_trimmed(text, "FINDINGS", head, end)]


def _with_unheaded_findings(text: str, sections: list[Section]) -> list[Section]:
    """Cut FINDINGS out of the last part before the impression where a blank line or the examination begins them.

    Nothing is returned when neither does.
    """
    for index in range(len(sections) - 1, -1, -1):
        section = sections[index]
        if section.name in _SEEN:
            continue
        if section.name not in _BEFORE:
            break
        gap = _PARAGRAPH.search(text, section.start, section.end) or _EXAM_LINE.search(text, section.start, section.end)
        if gap is None or not text[gap.end() : section.end].strip():
            break
        examined = text[gap.start() : gap.end()].strip()
        cut = [
            *_trimmed(text, section.name, section.start, gap.start()),
            *(_trimmed(text, "EXAMINATION", gap.start(), gap.end()) if examined else []),
            *_trimmed(text, "FINDINGS", gap.end(), section.end),
        ]
        return [*sections[:index], *cut, *sections[index + 1 :]]
    return []


def _with_findings_first(text: str, sections: list[Section]) -> list[Section]:
    """Cut FINDINGS out of what stands before all headings, past the head of the report and its title."""
    for index, section in enumerate(sections):
        if section.name != "PREAMBLE":
            continue
        start = section.start
        while start < section.end:
            line_end = text.find("\n", start, section.end)
            line_end = section.end if line_end < 0 else line_end
            line = text[start:line_end]
            if line.strip() and not _is_title(text, start, line_end, line.strip()):
                break
            start = line_end + 1
        if start < section.end:
            cut = [
                *_trimmed(text, section.name, section.start, start),
                *_trimmed(text, "FINDINGS", start, section.end),
            ]
            return [*sections[:index], *cut, *sections[index + 1 :]]
    return sections


def _is_title(text: str, start: int, end: int, line: str) -> bool:
    """Whether a line is one of a report's head, "Accession: 123", or names the examination, "CHEST, TWO VIEWS"."""
    head = _HEADER_LINE.match(text, start, end)
    if head is not None and _is_header(head):
        return True
    blank_after = not text[end : end + 2].strip()
    return blank_after and len(line) <= _TITLE_WIDTH and (line.isupper() or len(line.split()) <= _TITLE_WORDS)


def _trimmed(text: str, name: str, start: int, end: int) -> list[Section]:
    body = text[start:end]
    stripped = body.strip()
    if not stripped:
        return []
    first = start + len(body) - len(body.lstrip())
    return [Section(name, first, first + len(stripped))]


def _headings(text: str) -> list[_Heading]:
    found: dict[int, _Heading] = {}
    for match in _ADDENDUM.finditer(text):
        if match.group("title").isupper() or match.group("mark").strip() or _alone(text, match):
            found[match.start()] = _Heading("ADDENDUM", match.start(), match.end())
    for pattern in (_LINE_HEADING, _BARE_HEADING, _INLINE_HEADING):
        for match in pattern.finditer(text):
            name, anywhere = _known(match.group("title"))
            if not name or name == _HEADER:
                continue
            if pattern is _INLINE_HEADING:
                if name in (_ANATOMY, "SIGNATURE", "PREAMBLE") and not match.group("title").isupper():
                    continue
                if ":" not in match.group("mark") and not anywhere:
                    continue
            elif not match.group("mark").strip(" \t*_") and not _stands_alone(match, plain=anywhere):
                continue
            rule = _RULE.match(text, match.end() + 1) if text[match.end() : match.end() + 1] == "\n" else None
            found.setdefault(
                match.start("title"), _Heading(name, match.start(), match.end() if rule is None else rule.end())
            )
    found = {**_capital_headings(text), **found}
    for match in _CAPITALS.finditer(text):
        for word in re.finditer(r"[A-Z]+", match.group("run")):
            name, anywhere = _known(match.group("run")[word.start() :])
            if name and anywhere:
                start = match.start() + word.start()
                found.setdefault(start, _Heading(name, start, match.end()))
                break
    ordered: list[_Heading] = []
    for start in sorted(found):
        if not ordered or start >= ordered[-1].body:
            ordered.append(found[start])
    return _without_organs(ordered)


def _alone(text: str, match: re.Match[str]) -> bool:
    return text[match.end() : match.end() + 1] in ("", "\n")


def _stands_alone(match: re.Match[str], *, plain: bool) -> bool:
    """Whether a heading without any mark after it is one: alone on its line, or in capitals before other text.

    In small letters it must be one of the plainest, and no sentence may be cut by it.
    """
    if match.re is _BARE_HEADING:
        return True
    if match.group("title")[0].isupper():
        return True
    before = match.string[max(0, match.start() - _LOOK_BACK) : match.start()].replace(" ", "")
    return plain and (not before.strip() or before.endswith("\n\n") or before.rstrip()[-1] in ".!?:")


def _capital_headings(text: str) -> dict[int, _Heading]:
    """Return the plainest headings at the beginning of lines that nothing ends, where they are several."""
    found = {}
    going_on = sentence_words("after heading word")
    for match in _CAPITAL_HEADING.finditer(text):
        name, anywhere = _known(match.group("title"))
        if name and (anywhere or name == "EXAMINATION") and match.group("next").lower() not in going_on:
            found[match.start("title")] = _Heading(name, match.start(), match.end("mark"))
    names = {heading.name for heading in found.values()}
    return found if len(names) > 1 and not names.isdisjoint(_SEEN) else {}


def _without_organs(headings: list[_Heading]) -> list[_Heading]:
    """Keep organ headings in the part they stand in; where that cannot hold findings they begin them."""
    kept: list[_Heading] = []
    for heading in headings:
        if heading.name != _ANATOMY:
            kept.append(heading)
        elif kept and kept[-1].name not in _SEEN and kept[-1].name != "RECOMMENDATION":
            # The organ's name is part of what is said, so the body begins with it.
            kept.append(_Heading("FINDINGS", heading.start, heading.start))
    return kept


def _known(title: str) -> tuple[str, bool]:
    """Return the part that a heading begins, empty if it is none, and whether it may stand anywhere."""
    words = _SPACE.sub(" ", title).strip().lower()
    if _SPACED_OUT.fullmatch(words):
        words = words.replace(" ", "")
    names = _names()
    return (
        names.get(words) or names.get(words.replace(" and ", " ")) or names.get(_NUMBER.sub("", words)) or ("", False)
    )


@lru_cache(maxsize=1)
def _names() -> dict[str, tuple[str, bool]]:
    names: dict[str, tuple[str, bool]] = {}
    for row in read_table("headings.tsv"):
        for heading in expand(row["heading"]):
            names.setdefault(heading.strip(), (row["name"], row["place"] == "anywhere"))
    return names
