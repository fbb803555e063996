"""HL7 version 2 messages of results (ORU) to reports: files of one message, batches, and MLLP-framed ones.

Source: HL7 v2.5.1, chapters 2 (encoding, escapes), 2.10.3 (batches) and 7 (OBR, OBX).
Split here and not by a library: python-hl7 drops an escape that it does not know, and writes the whole field, a
patient's words, to the log.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from medsearch_desktop.errors import ReportError
from medsearch_desktop.report.charsets import decode_bytes, decode_message
from medsearch_desktop.report.composing import Composer, heading_of
from medsearch_desktop.report.enclosed import Enclosed, enclosed_in
from medsearch_desktop.report.markup import without_markup
from medsearch_desktop.report.times import from_iso, iso
from medsearch_desktop.statements import ReportStatus, Statement, Written

_MARK = re.compile(rb"(?:\xef\xbb\xbf)?[\x0b\s]{0,16}(?:MSH|FHS|BHS)[^\w\s]")
# What reads an attached document: (bytes, name) -> text.
Attached = Callable[[bytes, str], str]

_UID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*)){3,}")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}(?![\w ])")
_STATUS = {
    "F": ReportStatus.FINAL,
    "C": ReportStatus.CORRECTED,
    "X": ReportStatus.CANCELLED,
    "D": ReportStatus.CANCELLED,
    "W": ReportStatus.CANCELLED,
    **dict.fromkeys("PRAISOYZMN", ReportStatus.PRELIMINARY),
}
_BATCH = (b"FHS", b"BHS", b"BTS", b"FTS")
_LINE_GONE = frozenset("DWX")
_CANCELS = frozenset(("CA", "OC", "CR"))
_TIME = re.compile(
    r"(?P<year>\d{4})(?P<month>\d\d)?(?P<day>\d\d)?(?P<hour>\d\d)?(?P<minute>\d\d)?(?P<second>\d\d)?"
    r"(?:\.(?P<fraction>\d{1,6}))?(?P<zone>[+-]\d{4})?"
)
_MOST_SPACES = 100


@dataclass(slots=True)
class _Order:
    """One OBR with the segments below it."""

    obr: list[str]
    orc: list[str]
    rest: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Message:
    """One message in segments of fields; `fields[n]` is field n, as the standard counts."""

    separators: str
    segments: list[list[str]]
    encoding: str

    def first(self, name: str) -> list[str]:
        return next((segment for segment in self.segments if segment[0] == name), [])

    def parts(self, value: str) -> list[str]:
        """Return the components of the first repetition of a field."""
        component, repetition = self.separators[1], self.separators[2]
        return [self.plain(part) for part in value.split(repetition, 1)[0].split(component)]

    def plain(self, value: str) -> str:
        """Return text with its escape sequences read; an unknown one stays as it is."""
        escape = self.separators[3]
        if not escape or escape not in value:
            return value
        pieces = value.split(escape)
        read = [pieces[0]]
        at = 1
        while at < len(pieces):
            meant = self._meant(pieces[at]) if at + 1 < len(pieces) else None
            if meant is None:
                read.append(escape + pieces[at])
                at += 1
            else:
                read += [meant, pieces[at + 1]]
                at += 2
        return "".join(read)

    def _meant(self, code: str) -> str | None:
        marks = dict(zip("FSRET", self.separators, strict=True))
        known = {**marks, "H": "", "N": "", "P": ""}
        if code in known:
            return known[code]
        if match := re.fullmatch(r"\.(br|ce|sp|sk|in|ti|fi|nf)\s*([+-]?\d{0,4})", code.lower()):
            count = min(_MOST_SPACES, abs(int(match[2] or 1)) if match[2] not in ("+", "-") else 1)
            return {"br": "\n", "ce": "\n", "sp": "\n" * count, "sk": " " * count}.get(match[1], "")
        if match := re.fullmatch(r"[Xx]((?:[0-9A-Fa-f]{2})+)", code):
            return decode_bytes(bytes.fromhex(match[1]), self.encoding)
        return "" if re.fullmatch(r"[CMZ][0-9A-Za-z]{1,8}", code) else None


def is_hl7(head: bytes) -> bool:
    """Whether a file that begins so is of messages or batches of them."""
    return _MARK.match(_as_bytes(head)) is not None


def _as_bytes(data: bytes) -> bytes:
    """Return what is UTF-16 as UTF-8, and the rest as it is."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode("utf-8")
    return data


def split_messages(data: bytes) -> Iterator[bytes]:
    """Yield the messages of a file without the frames of MLLP and the headers of batches, each from its MSH on."""
    data = _as_bytes(data).removeprefix(codecs.BOM_UTF8)
    message: list[bytes] = []
    for line in re.split(rb"[\r\n\x0b\x1c]+", data):
        # A line of text may begin with the same three letters.
        is_segment = not line[3:4].isalnum() and line[3:4] != b" "
        if is_segment and line.startswith(b"MSH"):
            if message:
                yield b"\r".join(message)
            message = [line]
        elif is_segment and line.startswith(_BATCH):
            if message:
                yield b"\r".join(message)
            message = []
        elif line and message:
            message.append(line)
    if message:
        yield b"\r".join(message)


def read_hl7(data: bytes, *, name: str, max_characters: int, attached: Attached) -> Iterator[Written | ReportError]:
    """Yield the reports of a file of messages, and an error in the place of each message that holds none.

    `attached` reads the documents that messages carry (PDF, RTF, HTML). Positions count from 0 over the whole file.
    """
    position = 0
    for number, raw in enumerate(split_messages(data), start=1):
        item = f"{name}, message {number}"
        try:
            message = _parse(raw, item=item)
            found = list(_reports(message, item=item, max_characters=max_characters, attached=attached))
        except ReportError as error:
            yield error
            continue
        for written in found:
            if isinstance(written, ReportError):
                yield written
                continue
            assert written.stated is not None
            yield replace(written, stated=replace(written.stated, position=position))
            position += 1


def _parse(raw: bytes, *, item: str) -> _Message:
    head = raw[:9].decode("latin-1")
    # A message may end behind its MSH, without any separator.
    separators = head[3:4] + head[4:8].split(head[3:4] or "|", 1)[0]
    if len(head) < 8 or len(separators) < 3 or len(set(separators)) != len(separators):
        raise ReportError("begins with no sound MSH segment", item=item, remedy="Export the message again")
    # The sub-component mark may be left out, and the escape before it.
    separators = separators.ljust(5, "\0")
    charset = (raw.split(b"\r", 1)[0].split(separators[0].encode("latin-1")) + [b""] * 20)[17]
    text, encoding = decode_message(raw, charset.decode("latin-1").split(separators[2]))
    segments: list[list[str]] = []
    for line in text.split("\r"):
        fields = line.split(separators[0])
        if segments and fields[0] == "ADD":
            segments[-1][-1] += separators[0].join(fields[1:])
        elif _SEGMENT.match(line) and len(fields[0]) == 3 and len(fields) > 1:
            segments.append(fields if line[:3] != "MSH" else ["MSH", separators[0], *fields[1:]])
        elif segments:
            # A line break within a text, which its sender should have escaped.
            segments[-1][-1] += f"\n{fields[0]}"
            segments[-1] += fields[1:]
    return _Message(separators, segments, encoding)


def _reports(
    message: _Message, *, item: str, max_characters: int, attached: Attached
) -> Iterator[Written | ReportError]:
    kind = message.parts(_field(message.first("MSH"), 9))[0]
    if kind not in ("ORU", ""):
        raise ReportError(f"is a message of type {kind[:8]!a}, not ORU", item=item, remedy="Send results as ORU^R01")
    orders = _orders(message)
    if not orders:
        raise ReportError("holds no OBR segment", item=item, remedy="Send results as ORU^R01")
    found: list[Written | ReportError] = []
    for order in orders:
        composer = Composer(limit=max_characters)
        problems = _compose(message, order, composer, attached, item=item)
        if composer.is_full:
            raise ReportError(
                f"holds more than {max_characters} characters of text",
                item=item,
                remedy="Raise the setting max_report_bytes",
            )
        stated = _stated(message, order)
        text = without_markup(composer.text())
        if text.strip() or stated.status is ReportStatus.CANCELLED:
            found.append(Written(text, message.encoding, stated))
        elif not problems and any(_field(segment, 2).strip().upper() == "RP" for segment in order.rest):
            problems.append(
                ReportError(
                    "only names where its text is (type RP), from where nothing is fetched here",
                    item=item,
                    remedy="Send the text in OBX segments",
                )
            )
        # What could not be read of a report is told, and the rest of it kept.
        found += problems
    if not found:
        raise ReportError("holds no text of a report", item=item, remedy="Send the text in OBX segments")
    yield from found


def _orders(message: _Message) -> list[_Order]:
    """Return the orders of a message; those with one filler order number are one report."""
    orders: list[_Order] = []
    by_filler: dict[str, _Order] = {}
    current: _Order | None = None
    orc: list[str] = []
    for segment in message.segments:
        if segment[0] == "ORC":
            orc = segment
        elif segment[0] == "OBR":
            filler = _field(segment, 3).strip()
            current = by_filler.get(filler)
            if current is None:
                current = _Order(segment, orc)
                orders.append(current)
                if filler:
                    by_filler[filler] = current
            orc = []
        elif current is not None and segment[0] in ("OBX", "NTE", "ZDS", "IPC"):
            current.rest.append(segment)
    return orders


def _compose(
    message: _Message, order: _Order, composer: Composer, attached: Attached, *, item: str
) -> list[ReportError]:
    problems: list[ReportError] = []
    open_document: tuple[Enclosed, str] | None = None

    def close() -> None:
        nonlocal open_document
        if open_document is not None:
            (document, under), open_document = open_document, None
            try:
                composer.add(document.text(attached, item=item), heading=under)
            except ReportError as error:
                problems.append(error)

    gone = seen = False
    for segment in order.rest:
        if segment[0] == "NTE":
            # Notes below a result are part of it, those above are the order's.
            if seen and not gone:
                close()
                composer.add(_lines(message, _field(segment, 3)))
            continue
        if segment[0] != "OBX":
            continue
        seen, gone = True, _field(segment, 11).strip().upper()[:1] in _LINE_GONE
        kind, value = _field(segment, 2).strip().upper(), _field(segment, 5)
        if gone or _study_uid(message, segment):
            continue
        named = _field(segment, 3).split(message.separators[1])
        code, _, suffix = named[0].partition(message.separators[4])
        label = message.plain(named[1]) if len(named) > 1 else ""
        heading = heading_of(suffix or code, label) or heading_of(code, label)
        if kind == "ED":
            for each in value.split(message.separators[2]):
                content, coding = _enclosed(message, each)
                if open_document is None or not open_document[0].takes(content, coding):
                    close()
                    open_document = Enclosed(content, coding), heading
            continue
        text = _lines(message, value)
        is_text = kind in ("TX", "FT", "ST", "")
        if is_text and open_document is not None and open_document[0].takes(text, open_document[0].coding):
            continue
        close()
        if is_text and (document := enclosed_in(text)) is not None:
            open_document = document, heading
        elif is_text:
            composer.add(text, heading=heading)
        elif kind in ("CE", "CWE", "CNE", "CF"):
            for each in value.split(message.separators[2]):
                parts = [message.plain(part) for part in each.split(message.separators[1])]
                said = next((part for part in (*parts[1:2], *parts[8:9], parts[0]) if part.strip()), "")
                composer.add(said if heading or not said or not label else f"{label}: {said}", heading=heading)
        elif kind in ("NM", "SN", "DT", "TM", "TS"):
            said = " ".join(filter(None, (*message.parts(value), message.parts(_field(segment, 6))[0])))
            composer.add(f"{label}: {said}" if label and said else said, heading=heading)
    close()
    return problems


def _lines(message: _Message, value: str) -> str:
    return "\n".join(message.plain(part) for part in value.split(message.separators[2]))


def _enclosed(message: _Message, value: str) -> tuple[str, str]:
    """Return the content of an ED value and its encoding: "base64", "hex" or "" for text as it is."""
    parts = value.split(message.separators[1])
    coding, content = (parts[3].strip().lower(), parts[4]) if len(parts) >= 5 else ("", parts[-1])
    content = message.plain(content)
    if coding not in ("base64", "hex"):
        # Some leave out components, the encoding among them.
        coding = document.coding if (document := enclosed_in(content)) is not None else ""
    return content, coding


def _stated(message: _Message, order: _Order) -> Statement:
    msh, pid, obr = message.first("MSH"), message.first("PID"), order.obr
    repetition = message.separators[2]
    patients = [message.parts(each)[0].strip() for number in (3, 2) for each in _field(pid, number).split(repetition)]
    patients = [each for each in dict.fromkeys(patients) if each]
    filler, placer = message.parts(_field(obr, 3)), message.parts(_field(obr, 2))
    orc_filler, orc_placer = message.parts(_field(order.orc, 3)), message.parts(_field(order.orc, 2))
    others = [message.parts(_field(obr, number))[0] for number in (18, 19, 20, 21)]
    accession = [message.parts(_field(segment, 1))[0] for segment in order.rest if segment[0] == "IPC"]
    numbers = (*accession, filler[0], orc_filler[0], *others, placer[0], orc_placer[0])
    uids = [uid for segment in order.rest if (uid := _study_uid(message, segment))]
    # A ZDS belongs to the message; it often stands at its end or before the first OBR.
    zds = _study_uid(message, message.first("ZDS"))
    own = next((each for each in (filler, orc_filler, placer, orc_placer) if each[0].strip()), [])
    own = own or next(([each] for each in others if each.strip()), [])
    names = []
    if own:
        # Each of a patient's identifiers, for their order is no promise.
        parts = [part.strip() for part in own[:2]]
        names = ["\x1f".join(("hl7", patient, *parts)).casefold() for patient in patients or [""]]
    # 2.A.22: times without a zone are in that of the message.
    zone = (_TIME.match(_field(msh, 7).strip()) or {"zone": ""})["zone"] or ""
    return Statement(
        status=_status(message, order),
        names=tuple(names),
        number=own[0].strip() if own else "",
        effective=_time(_field(obr, 22), zone=zone) or _time(_field(msh, 7)) or _time(_field(obr, 7), zone=zone),
        sent=_time(_field(msh, 7)),
        study_uids=tuple(dict.fromkeys([*uids, *filter(None, [zds])])),
        accession_numbers=tuple(dict.fromkeys(each.strip() for each in numbers if each.strip())),
        patient_ids=tuple(patients),
        # As it stands there: the date of a study is that of its place.
        study_date=_time(_field(obr, 7)[:8])[:10],
    )


def _status(message: _Message, order: _Order) -> ReportStatus:
    said = [segment for segment in order.rest if segment[0] == "OBX" and not _study_uid(message, segment)]
    lines = {_field(segment, 11).strip().upper()[:1] for segment in said}
    if lines and lines <= _LINE_GONE:
        # So a report of the wrong patient is taken back (table 0085), whatever its order is said to be.
        return ReportStatus.CANCELLED
    stated = _field(order.obr, 25).strip().upper()[:1]
    if stated in _STATUS:
        return _STATUS[stated]
    if _field(order.orc, 1).strip().upper() in _CANCELS:
        return ReportStatus.CANCELLED
    found = {_STATUS[each] for each in lines if each in _STATUS}
    for status in (ReportStatus.PRELIMINARY, ReportStatus.CORRECTED):
        if status in found:
            return status
    return ReportStatus.FINAL


def _study_uid(message: _Message, segment: list[str]) -> str:
    """Return the StudyInstanceUID that a ZDS, an IPC or an OBX says, or ""."""
    if not segment:
        return ""
    if segment[0] == "OBX":
        what = _field(segment, 3).casefold()
        if not ("113014" in what or "0020,000d" in what or "studyinstanceuid" in what.replace(" ", "")):
            return ""
        value = message.parts(_field(segment, 5))[0].strip()
    else:
        value = message.parts(_field(segment, 3 if segment[0] == "IPC" else 1))[0].strip()
    return value if _UID.fullmatch(value) and len(value) <= 64 else ""


def _field(segment: list[str], number: int) -> str:
    return segment[number] if number < len(segment) else ""


def _time(value: str, *, zone: str = "") -> str:
    """Return a TS or DTM value as a statement writes it, "" where it is none; `zone` is that of one without."""
    value = value.strip()
    match = _TIME.match(value)
    if not match:
        return ""
    if value[match.end() : match.end() + 1] == "-":
        # Written with hyphens, as elsewhere; what stands before the first is no year alone.
        return from_iso(value)
    year, month, day, hour, minute, second = (int(part) if part else None for part in match.groups()[:6])
    micro = int((match["fraction"] or "").ljust(6, "0"))
    zone = match["zone"] or zone
    return iso(year or 1, month or 1, day or 1, hour or 0, minute or 0, second or 0, micro, zone=zone)
