"""A file of reports of any format, on disk or in memory, to the reports in it.

Where `report/documents.py` reads bytes, this reads files, and Parquet tables by the database's own reader.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from medsearch_desktop.config import Config
from medsearch_desktop.errors import ReportError
from medsearch_desktop.records import FileKind, SourceFile
from medsearch_desktop.report.documents import Found, Limits, is_document, read_dicom_report, read_documents
from medsearch_desktop.report.rows import find_columns, no_columns, read_rows
from medsearch_desktop.report.sop_classes import may_hold_report
from medsearch_desktop.source.opening import is_member, open_regular
from medsearch_desktop.source.sniff import is_beside_reports, sniff_bytes, unreadable
from medsearch_desktop.statements import Written

__all__ = ["Reading", "is_feed", "kind_of", "limits_of", "may_hold_report", "read_reports"]

_PARQUET, _PARQUET_SUFFIXES = b"PAR1", (".parquet", ".pq")
_EXPANSION = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file of reports holds; `reason` tells what of it could not be read, "" where all could."""

    reports: tuple[Written, ...]
    reason: str = ""


def limits_of(config: Config) -> Limits:
    """Return what reports and their files may have, as set."""
    return Limits(report=config.max_report_bytes, file=config.max_feed_bytes, columns=config.report_columns)


def kind_of(head: bytes, *, size: int, name: str, config: Config) -> FileKind:
    """Return what a file of `size` bytes is that begins with `head`: as `sniff_bytes` says, or a file of reports."""
    kind = sniff_bytes(head, size=size, name=name)
    # What is DICOM and of no kind there is a table of contents.
    if kind is not FileKind.OTHER or not head or head[128:132] == b"DICM" or is_beside_reports(name):
        return kind
    return FileKind.REPORT if is_feed(head, name=name, config=config) else kind


def is_feed(head: bytes, *, name: str, config: Config) -> bool:
    """Whether a file that begins with `head` is of a format of reports that its content tells. Raises ConfigError."""
    return is_document(head, name, limits_of(config)) or _is_parquet(head, name)


def read_reports(data: bytes | None, file: SourceFile, *, config: Config) -> Reading:
    """Return the reports in a file, whose content is `data` where it was read already.

    A report whose message tells no time counts as of the time of the file. Raises ReportError when nothing of it
    can be read, SourceError when the file cannot, ConfigError when the setting `report_columns` is wrong.
    """
    limits = limits_of(config)
    reports: list[Written] = []
    first, problems, size = None, 0, 0
    for found in _found(data, file, limits):
        if isinstance(found, ReportError):
            first, problems = first or found, problems + 1
            continue
        reports.append(_dated(found, file.mtime_ns))
        size += len(found.text)
        if size > _EXPANSION * limits.file:
            # A compressed file of kilobytes can hold any number of the same words.
            raise ReportError(
                f"holds more than {_EXPANSION * limits.file} characters of reports",
                item=file.path,
                remedy="Raise the setting max_feed_bytes, or split the file",
            )
    if first is not None and not reports:
        raise first
    return Reading(tuple(reports), _reason(first, problems, file.path) if first else "")


def _found(data: bytes | None, file: SourceFile, limits: Limits) -> Iterator[Found]:
    if file.kind is not FileKind.DICOM and _is_parquet(data or _PARQUET, file.path):
        yield from _parquet(file, limits)
        return
    data = _content(file, limits) if data is None else data
    # A DICOM file need not begin as one.
    read = read_dicom_report if file.kind is FileKind.DICOM else read_documents
    yield from read(data, name=file.path, limits=limits)


def _parquet(file: SourceFile, limits: Limits) -> Iterator[Found]:
    if is_member(file.path):
        raise ReportError("a Parquet table in an archive is not read", item=file.path, remedy="Unpack the archive")
    # Tables of this one format need the database, which takes longer to import than most files of reports to read.
    from medsearch_desktop.store.database import Parquet

    table = Parquet(file.path)
    try:
        columns = find_columns(table.columns, columns=limits.columns)
        if columns is None:
            raise no_columns(file.path)
        wanted = sorted(set(columns.places.values()))
        places = {what: wanted.index(place) for what, place in columns.places.items()}
        rows = table.rows([table.columns[place] for place in wanted])
        yield from read_rows(rows, replace(columns, places=places), name=file.path, max_characters=limits.report)
    finally:
        table.close()


def _content(file: SourceFile, limits: Limits) -> bytes:
    if file.size > limits.file:
        # The reader says so, and whether a higher limit would help.
        raise ReportError(
            f"{file.size} bytes, more than the {limits.file} that a file of reports may have",
            item=file.path,
            remedy="Raise the setting max_feed_bytes, or split the file",
        )
    try:
        with open_regular(file.path) as handle:
            return handle.read(limits.file + 1)
    except OSError as error:
        raise unreadable(file.path, error) from error


def _is_parquet(head: bytes, name: str) -> bool:
    return head.startswith(_PARQUET) and os.path.splitext(name)[1].lower() in _PARQUET_SUFFIXES  # noqa: PTH122


def _dated(written: Written, mtime_ns: int) -> Written:
    stated = written.stated
    if stated is None or not stated.names or stated.effective:
        return written
    when = datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC).replace(tzinfo=None).isoformat()
    return replace(written, stated=replace(stated, effective=when))


def _reason(first: ReportError, problems: int, path: str) -> str:
    where = first.item.removeprefix(path).lstrip(", ")
    said = f"{where}: {first.message}" if where else first.message
    more = f", and {problems - 1} more of its reports cannot be read" if problems > 1 else ""
    return f"{said}{more}. {first.remedy}" if first.remedy else f"{said}{more}"
