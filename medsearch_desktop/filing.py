"""Reports into the library's order: what each is called, and which study it is joined to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from medsearch_desktop.records import LinkRule, Report
from medsearch_desktop.source.joining import ImageRow, ReportKeys, StudyDirectory, message_keys, report_keys
from medsearch_desktop.statements import Statement
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.intake import Intake

_MOST_CHARACTERS = 100


class ReportNames:
    """The identifiers of a library's reports, by file and place in it; a new report gets one that no other has.

    `withdrawn` are identifiers that are taken, though no report is searched under them.
    """

    def __init__(self, catalogue: Catalogue, withdrawn: Iterable[str]) -> None:
        self._first: dict[str, str] = {}
        # Only files of many reports have these.
        self._further: dict[str, dict[int, str]] = {}
        for (path, position), report_id in catalogue.report_places().items():
            self._keep(path, position, report_id)
        self._taken = {*self._first.values(), *(name for each in self._further.values() for name in each.values())}
        self._taken.update(withdrawn)

    def name(self, report: Report, path: str) -> str:
        """Return the identifier of a report in the file at `path`: what it has, else its number or the file's name.

        For a report that names itself it holds only where none of its names is known to the library.
        """
        stated = report.stated
        position = stated.position if stated else 0
        if stated is None or not stated.names:
            known = self._further.get(path, {}).get(position) if position else self._first.get(path)
            if known is not None:
                return known
        stem = Path(path).stem.encode("utf-8", "replace").decode("utf-8")
        wanted = _plain(stated.number) if stated else ""
        wanted = wanted or (f"{stem}-{position + 1}" if position else stem)
        if wanted in self._taken:
            apart = stated.names[0] if stated and stated.names else f"{path}\0{position}" if position else path
            wanted = f"{wanted}-{hashlib.sha256(apart.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        self._taken.add(wanted)
        if stated is None or not stated.names:
            self._keep(path, position, wanted)
        return wanted

    def move(self, old: str, new: str) -> None:
        """Give the reports in one file to another that has the same content."""
        if (report_id := self._first.pop(old, None)) is not None:
            self._first[new] = report_id
        if (further := self._further.pop(old, None)) is not None:
            self._further[new] = further

    def _keep(self, path: str, position: int, report_id: str) -> None:
        if position:
            self._further.setdefault(path, {})[position] = report_id
        else:
            self._first[path] = report_id


def link_reports(catalogue: Catalogue, intake: Intake) -> int:
    """Join every report that has no study yet to the one it belongs to; return how many were joined.

    Runs over all reports without a study, so images may come before or after their report.
    """
    unlinked = catalogue.unlinked_reports()
    if not unlinked:
        return 0
    images = (ImageRow(*row) for row in catalogue.study_places())
    directory = StudyDirectory(images, (path for path, _ in catalogue.report_places()))
    links: list[tuple[str, str | None, LinkRule | None]] = []
    for report_id, path, root, head, stated in unlinked:
        found = directory.find(_keys(path, root, head, stated))
        if found is not None:
            links.append((report_id, *found))
    intake.link_reports(links)
    return len(links)


def _keys(path: str, root: str, head: str, stated: str) -> ReportKeys:
    if not stated:
        return report_keys(path, root, head)
    statement = Statement.from_json(stated)
    if statement.study_uids or statement.accession_numbers or statement.patient_ids or not statement.names:
        # What a message says of itself beats any guess by the name of its file, and a row has no file of its own.
        return message_keys(statement)
    return report_keys(path, root, head)


def _plain(number: str) -> str:
    return "".join(letter for letter in number if letter.isprintable())[:_MOST_CHARACTERS].strip()
