"""Reads the reports of a library again by the present pipeline, and says what that changes.

Reports are taken in batches, each committed whole with the version of the pipeline, so a run that was
cut off goes on with what is left when it is run again. Corrections are applied over what was read.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from medsearch_desktop.records import Entity, EntityChange, Report, RereadSummary
from medsearch_desktop.report.corrections import apply_corrections
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.store.corrections import Corrections
from medsearch_desktop.store.reports import Reports, StoredReport

REPORTS_PER_COMMIT = 256
# What is compared of a mention, beside where it stands and which finding it is.
_FIELDS = (
    "assertion",
    "certainty",
    "icd10cm",
    "category",
    "section",
    "anatomy",
    "laterality",
    "severity",
    "change",
    "inferred",
)

OnReport = Callable[[int, int], None]


def reread(
    reports: Reports,
    corrections: Corrections,
    reader: ReportReader,
    *,
    dry_run: bool,
    everything: bool = False,
    on_report: OnReport | None = None,
) -> RereadSummary:
    """Read reports again that another pipeline has read, or all with `everything`, and return what changed.

    With `dry_run` nothing is written. `on_report` is told (done, total) after each batch.
    """
    began = time.monotonic()
    total = len(reports.numbers())
    numbers = reports.numbers(not_of="" if everything else reader.version)
    holding = corrections.holding()
    found: list[tuple[str, tuple[EntityChange, ...]]] = []
    done = 0
    for batch in _batches(numbers):
        rewritten: list[tuple[int, Report]] = []
        for stored in reports.read(batch):
            report = read_again(stored, reader)
            report = apply_corrections(report, holding.get(report.report_id, ()))
            if changes := differences(stored.report.entities, report.entities):
                found.append((report.report_id, changes))
            rewritten.append((stored.report_no, report))
        if not dry_run:
            reports.rewrite(rewritten, pipeline_version=reader.version)
        done += len(rewritten)
        if on_report is not None:
            on_report(done, len(numbers))
    every = [change for _, each in found for change in each]
    kinds = Counter(change.kind for change in every)
    return RereadSummary(
        pipeline_version=reader.version,
        dry_run=dry_run,
        read=done,
        current=total - len(numbers),
        added=kinds["added"],
        removed=kinds["removed"],
        changed=kinds["changed"],
        fields=dict(Counter(name for change in every for name in change.fields)),
        reports=tuple(found),
        seconds=time.monotonic() - began,
    )


def read_new(
    reports: Reports, corrections: Corrections, reader: Callable[[], ReportReader], *, stop: threading.Event
) -> int:
    """Read the reports that are stored and that nothing has read yet, and return how many there were.

    Each batch is committed; once `stop` is set the rest is left to the next time. `reader` is asked for where there
    is anything to read.
    """
    numbers = reports.unread()
    holding = corrections.holding() if numbers else {}
    done = 0
    for batch in _batches(numbers):
        if stop.is_set():
            break
        found = [
            (each.report_no, apply_corrections(read_again(each, reader()), holding.get(each.report.report_id, ())))
            for each in reports.read(batch)
        ]
        reports.rewrite(found, pipeline_version=reader().version)
        done += len(found)
    return done


def read_again(stored: StoredReport, reader: ReportReader) -> Report:
    """Return a stored report as the present pipeline reads it, without corrections."""
    old = stored.report
    return reader.read(old.text, report_id=old.report_id, encoding=old.encoding)


def differences(before: Sequence[Entity], after: Sequence[Entity]) -> tuple[EntityChange, ...]:
    """Return what tells two readings of one text apart, in the order of the text."""
    old, new = _by_place(before), _by_place(after)
    found = []
    for key in sorted(old.keys() | new.keys()):
        entity = new.get(key) or old[key]
        if key not in new:
            found.append(_change("removed", entity, {}))
        elif key not in old:
            found.append(_change("added", entity, {}))
        else:
            pairs = {name: (_plain(old[key], name), _plain(new[key], name)) for name in _FIELDS}
            if fields := {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}:
                found.append(_change("changed", entity, fields))
    return tuple(found)


def _by_place(entities: Sequence[Entity]) -> dict[tuple[int, int, str], Entity]:
    return {(entity.start, entity.end, entity.finding): entity for entity in entities}


def _plain(entity: Entity, name: str) -> str:
    value: Any = getattr(entity, name)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _change(kind: str, entity: Entity, fields: dict[str, tuple[str, str]]) -> EntityChange:
    return EntityChange(kind, entity.text, entity.start, entity.end, entity.finding, fields)


def _batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(numbers), REPORTS_PER_COMMIT):
        yield numbers[first : first + REPORTS_PER_COMMIT]
