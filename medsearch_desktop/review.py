"""Reports under review: one with its evidence, what a person corrects in it, and reading it again.

Keeps the ledger of corrections and the stored entities in step; `Library` teaches the text index.
"""

from __future__ import annotations

import getpass
import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from medsearch_desktop.errors import NotFoundError, ReportError
from medsearch_desktop.records import Assertion, Correction, RereadSummary
from medsearch_desktop.report.corrections import apply_corrections, snapshot, title_of_code
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.reread import OnReport, read_again, read_new, reread
from medsearch_desktop.store.corrections import Corrections
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.reports import Reports, StoredReport

FORMAT = "medsearch corrections 1"


class Review:
    """Shows, corrects and rereads the reports of one library; `reader` is asked for only when needed."""

    def __init__(self, database: Database, *, reader: Callable[[], ReportReader]) -> None:
        self._reports = Reports(database)
        self.corrections = Corrections(database)
        self._reader = reader

    def report(self, report_id: str) -> StoredReport:
        """Return a report as it is stored, with its entities. Raises NotFoundError."""
        stored = self._reports.get(report_id)
        if stored is None:
            raise NotFoundError(
                "the library has no such report", item=report_id, remedy="`medsearch search` names the reports it has"
            )
        return stored

    def reread(self, *, dry_run: bool, everything: bool, on_report: OnReport | None) -> RereadSummary:
        """Read reports again; see `reread.reread`."""
        return reread(
            self._reports,
            self.corrections,
            self._reader(),
            dry_run=dry_run,
            everything=everything,
            on_report=on_report,
        )

    def read_new(self, stop: threading.Event) -> int:
        """Read the reports that nothing has read yet; see `reread.read_new`."""
        return read_new(self._reports, self.corrections, self._reader, stop=stop)

    def correct(
        self,
        report_id: str,
        span: tuple[int, int],
        *,
        assertion: Assertion | None,
        code: str | None,
        note: str,
        author: str,
    ) -> Correction:
        """Keep a correction of the mention at `span` and apply it. Raises NotFoundError; see `Library.correct`."""
        stored = self.report(report_id)
        report, (start, end) = stored.report, span
        entity = next((each for each in report.entities if (each.start, each.end) == span), None)
        if entity is None:
            raise NotFoundError(
                f"no mention stands at {start}:{end}",
                item=report_id,
                remedy=f"`medsearch reports show {report_id}` lists the mentions with their offsets",
            )
        correction = Correction(
            correction_id=uuid.uuid4().hex,
            report_id=report_id,
            start=start,
            end=end,
            text=entity.text,
            assertion=assertion,
            icd10cm=code,
            title=title_of_code(code) if code else "",
            note=note,
            author=author or _user(),
            made_at=_now(),
            before=snapshot(entity),
        )
        self._reports.rewrite(
            [(stored.report_no, apply_corrections(report, [correction]))],
            pipeline_version=stored.pipeline_version,
            together_with=lambda: self.corrections.add([correction]),
        )
        return correction

    def undo(self, report_id: str, span: tuple[int, int], *, author: str) -> Correction:
        """Undo the latest correction that holds at `span`, and read the report again. Raises NotFoundError."""
        stored, reader = self.report(report_id), self._reader()
        holding = self.corrections.holding().get(report_id, ())
        held = [each for each in holding if (each.start, each.end) == span]
        if not held:
            raise NotFoundError(
                f"nothing is corrected at {span[0]}:{span[1]}",
                item=report_id,
                remedy="`medsearch correct --list` names every correction",
            )
        undone, at = held[-1], _now()
        report = apply_corrections(read_again(stored, reader), [each for each in holding if each is not undone])
        self._reports.rewrite(
            [(stored.report_no, report)],
            pipeline_version=reader.version,
            together_with=lambda: self.corrections.undo(undone.correction_id, author=author or _user(), at=at),
        )
        return undone

    def exported(self) -> dict[str, Any]:
        """Return every correction, undone ones too, as the object that `bring` takes."""
        rows = [_row(each) for each in self.corrections.all()]
        return {"format": FORMAT, "corrections": rows}

    def bring(self, text: str, *, name: str) -> int:
        """Take over exported corrections and apply them; return how many were new. `name` is for messages.

        Those of reports that are not here are kept, and hold once their report is ingested.
        Raises ReportError when the text is no export.
        """
        try:
            value = json.loads(text)
            if value["format"] != FORMAT:
                raise ValueError(value["format"])
            found = [_from_row(row) for row in value["corrections"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ReportError(
                "is no export of corrections", item=name, remedy="`medsearch correct --export FILE` writes one"
            ) from error
        known = {each.correction_id for each in self.corrections.all()}
        self.corrections.add(found)
        self.apply({each.report_id for each in found})
        return sum(each.correction_id not in known for each in found)

    def apply(self, report_ids: set[str]) -> None:
        """Read these reports again, with the corrections that hold."""
        if not report_ids:
            # Most ingests: the reader, whose loading takes seconds, is not asked for.
            return
        reader, holding = self._reader(), self.corrections.holding()
        for report_id in sorted(report_ids):
            stored = self._reports.get(report_id)
            if stored is None:
                continue
            report = apply_corrections(read_again(stored, reader), holding.get(report_id, ()))
            self._reports.rewrite([(stored.report_no, report)], pipeline_version=reader.version)


def _row(correction: Correction) -> dict[str, Any]:
    assertion = None if correction.assertion is None else str(correction.assertion)
    names = Correction.__dataclass_fields__
    return {**{name: getattr(correction, name) for name in names}, "assertion": assertion}


def _from_row(row: dict[str, Any]) -> Correction:
    assertion = None if row["assertion"] is None else Assertion(row["assertion"])
    return Correction(**{**row, "assertion": assertion})


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
