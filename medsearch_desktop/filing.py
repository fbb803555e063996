"""Reports into the library's order: what each is called, and which study it is joined to."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from medsearch_desktop.records import LinkRule, Report
from medsearch_desktop.source.joining import ImageRow, ReportKeys, StudyDirectory, message_keys, report_keys
from medsearch_desktop.source.seeking import NAME_SEPARATORS, keys_of_image, keys_of_report, sought
from medsearch_desktop.statements import Statement
from medsearch_desktop.store.catalogue import Catalogue
from medsearch_desktop.store.intake import Intake
from medsearch_desktop.store.joins import Joins

_MOST_CHARACTERS = 100
# Beyond these all names of a library are had at once: 1 s for 250,000 reports, where one look-up takes 2 ms.
_MOST_LOOKUPS = 64
# Reports that are joined at once: what of a large library bears on them has to fit into the memory.
_JOINED_AT_ONCE = 20_000


class ReportNames:
    """The identifiers of a library's reports, by file and place in it; a new report gets one that no other has.

    Those of reports that are withdrawn are taken, though none is searched under them.
    """

    def __init__(self, catalogue: Catalogue, intake: Intake, joins: Joins) -> None:
        self._catalogue = catalogue
        self._intake = intake
        self._joins = joins
        self._first: dict[str, str] = {}
        # Only files of many reports have these.
        self._further: dict[str, dict[int, str]] = {}
        self._taken: set[str] = set()
        # What was looked up; once all was, nothing is any more.
        self._met: set[str] = set()
        self._lookups = 0

    def name(self, report: Report, path: str) -> str:
        """Return the identifier of a report in the file at `path`: what it has, else its number or the file's name.

        For a report that names itself it holds only where none of its names is known to the library.
        """
        stated = report.stated
        position = stated.position if stated else 0
        if stated is None or not stated.names:
            self._meet(path)
            known = self._further.get(path, {}).get(position) if position else self._first.get(path)
            if known is not None:
                return known
        stem = Path(path).stem.encode("utf-8", "replace").decode("utf-8")
        wanted = _plain(stated.number) if stated else ""
        wanted = wanted or (f"{stem}-{position + 1}" if position else stem)
        if self._is_taken(wanted):
            apart = stated.names[0] if stated and stated.names else f"{path}\0{position}" if position else path
            wanted = f"{wanted}-{hashlib.sha256(apart.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        self._taken.add(wanted)
        if stated is None or not stated.names:
            self._keep(path, position, wanted)
        return wanted

    def move(self, old: str, new: str) -> None:
        """Give the reports in one file to another that has the same content."""
        self._meet(old)
        self._meet(new)
        if (report_id := self._first.pop(old, None)) is not None:
            self._first[new] = report_id
        if (further := self._further.pop(old, None)) is not None:
            self._further[new] = further

    def _is_taken(self, report_id: str) -> bool:
        if report_id in self._taken:
            return True
        return self._may_look_up() and self._joins.is_report_id(report_id)

    def _meet(self, path: str) -> None:
        """Learn what the reports in a file are called, once: what was said of them since holds."""
        if path not in self._met:
            if self._may_look_up():
                for position, report_id in self._joins.report_ids_in(path).items():
                    self._keep(path, position, report_id)
            self._met.add(path)

    def _may_look_up(self) -> bool:
        """Whether one more name may be looked up by itself; when there were too many all are there from then on."""
        if self._lookups > _MOST_LOOKUPS:
            return False
        self._lookups += 1
        if self._lookups <= _MOST_LOOKUPS:
            return True
        for (path, position), report_id in self._catalogue.report_places().items():
            self._taken.add(report_id)
            if path not in self._met:
                self._keep(path, position, report_id)
        self._taken.update(self._intake.versions.report_ids())
        return False

    def _keep(self, path: str, position: int, report_id: str) -> None:
        if position:
            self._further.setdefault(path, {})[position] = report_id
        else:
            self._first[path] = report_id


def link_reports(catalogue: Catalogue, intake: Intake, joins: Joins) -> int:
    """Join every report that has no study yet to the one it belongs to; return how many were joined.

    Images may come before or after their report: one that was looked at in vain is looked at again when something
    came or went since that may decide.
    """
    links: list[tuple[str, str | None, LinkRule | None]] = []
    unjoined = joins.unjoined
    if (places := unjoined.came_and_went()) is None:
        unjoined.forget()
    new = unjoined.never_looked_at()
    again = unjoined.sharing({key for place in places or () for key in keys_of_image(ImageRow(*place))})
    numbers, unknown = np.union1d(new, again), set(new.tolist())
    for start in range(0, len(numbers), _JOINED_AT_ONCE):
        some = catalogue.reports_to_join(numbers[start : start + _JOINED_AT_ONCE])
        keys = {(number, report_id): _keys(*rest) for number, report_id, *rest in some}
        wanted = sought(keys.values())
        near = joins.study_places(**asdict(wanted), separators=NAME_SEPARATORS)
        directory = StudyDirectory((ImageRow(*place) for place in near), joins.reports_in(wanted.folders))
        in_vain: dict[int, set[int]] = {}
        for (number, report_id), each in keys.items():
            if (found := directory.find(each)) is not None:
                links.append((report_id, *found))
            elif number in unknown:
                in_vain[number] = keys_of_report(each)
        unjoined.keep(in_vain)
    intake.link_reports(links)
    if links:
        unjoined.drop_joined()
    joins.keep_current()
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
