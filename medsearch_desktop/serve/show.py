"""What the command line prints: tables for people, the objects of the CLI contract for programs."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from medsearch_desktop.errors import SourceError
from medsearch_desktop.records import (
    Assertion,
    Bucket,
    Entity,
    Facet,
    Failure,
    IngestEvent,
    IngestSummary,
    MatchCurve,
    SearchAnswer,
    SwitchEvent,
    SwitchSummary,
    VisualAnswer,
)
from medsearch_desktop.serve.commands import printable

if TYPE_CHECKING:
    from medsearch_desktop.doctor import Check

COLOURS = {
    Assertion.PRESENT: "bold red",
    Assertion.ABSENT: "green",
    Assertion.UNCERTAIN: "yellow",
}
_MOST_ROWS = 15

Facets = Mapping[str, Sequence[Facet | Bucket]]


def open_console() -> Console:
    """Return where tables for people are printed."""
    # In a pipe there is no width to keep to.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


class Progress:
    """A bar on stderr while files or images are gone through: how many, images a second, time left.

    Silent where stderr is no terminal.
    """

    def __init__(self, what: str = "files") -> None:
        self._what = what
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task: TaskID | None = None
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, event: IngestEvent | SwitchEvent) -> None:
        """Take note of one step; the bar is drawn at most ten times a second."""
        if event.stage in ("file", "vector", "embedding") and event.seconds - self._shown < 0.1:
            return
        self._shown = event.seconds
        rate = f"{event.images / event.seconds:.1f} images/s" if event.seconds else ""
        if self._task is None:
            self._task = self._bar.add_task(self._what, total=None, rate=rate)
        total = event.total if event.stage != "file" or event.total >= event.settled else None
        self._bar.update(self._task, completed=event.settled, total=total, rate=rate)


def show_summary(summary: IngestSummary, *, failures: bool = True) -> None:
    """Print what an ingest did and, unless told not to, the first files that failed."""
    console = open_console()
    rate = f" ({summary.images / summary.seconds:.1f} images/s)" if summary.images and summary.seconds else ""
    console.print(
        f"{summary.discovered} files in {summary.seconds:.1f} s: {summary.indexed} indexed,"
        f" {summary.unchanged} unchanged, {summary.updated} updated, {summary.removed} removed,"
        f" {summary.duplicates} duplicates, {summary.failed} failed, {summary.ignored} of other kinds."
    )
    if summary.images or summary.reports:
        console.print(f"{summary.images} images and {summary.reports} reports were written{rate}.")
    if summary.caught_up:
        console.print(f"{summary.caught_up} images of earlier times got the vector that they lacked.")
    for root in summary.offline:
        console.print(Text(f"{root} is not there: its records are kept until it is back.", "yellow"))
    if summary.discovered and summary.discovered == summary.ignored:
        console.print("Nothing here is DICOM, a PNG or JPEG image, or a report (.txt).")
    elif not summary.discovered and not summary.offline:
        console.print("The folder is empty.")
    if summary.failures and failures:
        show_failures(summary.failures[:_MOST_ROWS])
        if len(summary.failures) > _MOST_ROWS:
            console.print(f"... and {len(summary.failures) - _MOST_ROWS} more: `medsearch failures` lists them all.")


def show_failures(failures: Sequence[Failure], *, title: str = "could not be indexed") -> None:
    """Print files and why they could not be indexed."""
    if not failures:
        open_console().print("Everything that was found could be indexed.")
        return
    table = Table("file", "why", title=title, title_justify="left")
    for failure in failures:
        table.add_row(Text(printable(failure.path), overflow="fold"), Text(failure.reason))
    open_console().print(table)


def show_hits(answer: SearchAnswer, *, offset: int) -> None:
    """Print a page of hits, best first, and the facets of all that match."""
    console = open_console()
    first, last = offset + 1, offset + len(answer.hits)
    page = f", {first} to {last} shown" if answer.hits and (offset or last < answer.total) else ""
    console.print(f"{answer.total} {'document' if answer.total == 1 else 'documents'}{page}")
    for note in answer.notes:
        console.print(Text(note, "yellow"))
    for rank, hit in enumerate(answer.hits, start=first):
        head = Text(f"{rank:>3}. ", "bold")
        head.append(printable(hit.report_id or hit.study_uid or ""), "bold cyan")
        head.append(f"   {hit.study_date or ''}")
        age = "" if hit.patient_age is None else f"{int(hit.patient_age)} y" if hit.patient_age >= 2 else "< 2 y"
        about = " ".join(filter(None, (hit.patient_sex, age, "+".join(hit.modalities))))
        head.append(f"   {printable(about)}" if about else "")
        # Fields alone make no answer better than another.
        head.append(f"   score {hit.score:.3f}" if hit.score else "")
        if len(hit.shares) > 1:
            head.append("   " + ", ".join(f"{share.signal} {share.share:.0%}" for share in hit.shares))
        head.append(f"   {len(hit.image_ids)} images", "dim")
        console.print(head)
        body = Text("     ")
        shift = len(body)
        body.append(printable(hit.snippet))
        for start, end in hit.highlights:
            body.stylize("bold underline", start + shift, end + shift)
        console.print(body)
        if hit.entities:
            console.print(_entity_line(hit.entities))
    if answer.facets:
        show_facets(answer.facets, most=5)


def _entity_line(entities: Sequence[Entity]) -> Text:
    line = Text("     ")
    seen = set()
    for entity in entities:
        key = (entity.title or entity.text, entity.assertion)
        if entity.assertion not in COLOURS or not entity.icd10cm or key in seen:
            continue
        seen.add(key)
        mark = {Assertion.PRESENT: "+", Assertion.ABSENT: "-", Assertion.UNCERTAIN: "?"}[entity.assertion]
        line.append(f"{mark}{entity.title or entity.text} ", COLOURS[entity.assertion])
        line.append(f"{entity.icd10cm}  ", "dim")
    return line


def show_facets(facets: Facets, *, most: int = _MOST_ROWS) -> None:
    """Print counts: the `most` frequent codes and findings with their four states, values of fields."""
    console = open_console()
    for name, rows in facets.items():
        if not rows:
            continue
        if isinstance(rows[0], Facet):
            table = Table(name, "title", "seen", "ruled out", "uncertain", "never mentioned", title_justify="left")
            for row in rows[:most]:
                assert isinstance(row, Facet)
                counts = (row.present, row.absent, row.uncertain, row.not_mentioned)
                table.add_row(row.code, row.title, *(str(count) for count in counts))
            console.print(table)
        else:
            values = [f"{printable(row.value)} {row.count}" for row in rows[:_MOST_ROWS] if isinstance(row, Bucket)]
            console.print(Text.assemble((f"{name}: ", "bold"), ", ".join(values)))


def show_similar(answer: VisualAnswer) -> None:
    """Print the nearest images, best first."""
    console = open_console()
    if answer.nothing_close:
        warning = "Nothing close: almost every image of this library has a nearer neighbour than this one."
        if any(hit.region is not None for hit in answer.hits):
            warning = "Nothing close: the image of this region is, as a whole, unlike the images of this library."
        elif answer.expected is not None:
            warning = "Nothing close here: the best is further than images here are apart, or matches by chance."
        console.print(Text(warning, "yellow"))
    if answer.expected is not None and answer.chance is not None:
        console.print(f"expected: {_percent(answer.expected)} share a finding (chance {_percent(answer.chance)})")
    for note in answer.notes:
        console.print(Text(note, "yellow"))
    for rank, hit in enumerate(answer.hits, start=1):
        head = Text(f"{rank:>3}. ", "bold")
        head.append(printable(hit.image_id), "bold cyan")
        head.append(f"   expected {_percent(hit.expected)}" if hit.expected is not None else "")
        if hit.region is None:
            head.append(f"   cosine {hit.score:.4f}", "dim" if hit.expected is not None else "")
        else:
            head.append(f"   {hit.score:+.2f} deviations, at {','.join(map(str, hit.region))}")
        head.append(f"   {hit.modality} {hit.view_position}   {hit.study_date or ''}")
        console.print(head)
        if hit.series_uid:
            console.print(Text(f"     of the series {printable(hit.series_uid)}"))
        if hit.impression:
            console.print(Text(f"     {printable(hit.impression)}"))
        console.print(Text(f"     {printable(hit.thumbnail)}", "dim"))


def show_switch(summary: SwitchSummary) -> None:
    """Print what a switch to another model did, and the first files that it could not embed."""
    console = open_console()
    rate = f" ({summary.images / summary.seconds:.1f} images/s)" if summary.images and summary.seconds else ""
    console.print(
        f"{summary.images} images were embedded{rate}, {summary.kept} had their vector already,"
        f" {summary.offline} wait for their file, {summary.failed} failed."
    )
    if not summary.in_use:
        console.print(f"The switch is not done: {summary.before} stays in use; the same command goes on from here.")
    elif summary.before == summary.model_id:
        console.print(f"{summary.model_id} was in use and still is.")
    else:
        console.print(f"{summary.model_id} is in use. The vectors of {summary.before} are kept: going back is instant.")
    if summary.failures:
        show_failures(summary.failures[:_MOST_ROWS], title="without a vector of this model")
        if len(summary.failures) > _MOST_ROWS:
            console.print(f"... and {len(summary.failures) - _MOST_ROWS} more: --json lists them all.")


def show_curve(curve: MatchCurve) -> None:
    """Print what the match meter measured: the curve, and how its expectations held."""
    console = open_console()
    console.print(
        f"{curve.queries} of {curve.labelled} images with a report asked, {sum(curve.pairs)} pairs with images of other"
        f" patients; model {curve.model_id}. By chance, at a cosine of {curve.chance_score:.4f} on average,"
        f" {_percent(curve.chance)} share a finding."
    )
    table = Table("from cosine", "share a finding", "error", "pairs", title="the curve", title_justify="left")
    for score, precision, error, pairs in _steps(curve):
        table.add_row(f"{score:.4f}", _percent(precision), _percent(error, digits=1), str(pairs))
    console.print(table)
    held = Table("expected", "observed", "pairs", title="on patients that it had not seen", title_justify="left")
    for expected, observed, pairs in curve.reliability:
        held.add_row(_percent(expected), _percent(observed), str(pairs))
    console.print(held)
    console.print(
        f"Calibration error: {_percent(curve.calibration_error, digits=1)} between expected and observed, on average."
    )


def _steps(curve: MatchCurve) -> list[tuple[float, float, float, int]]:
    """Return (score, precision, error, pairs) of the knots, those of one precision as one."""
    steps: list[tuple[float, float, float, int]] = []
    for score, precision, error, pairs in zip(curve.scores, curve.precision, curve.errors, curve.pairs, strict=True):
        if steps and steps[-1][1] == precision:
            first, _, before, count = steps[-1]
            steps[-1] = first, precision, max(before, error), count + pairs
        else:
            steps.append((score, precision, error, pairs))
    return steps


def show_codes(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print, for each phrase, its code with the name and rule that gave it, and the runners-up with a code."""
    console = open_console()
    for row in rows:
        console.print(Text(printable(row["phrase"]), "bold"))
        if row["icd10cm"]:
            line = Text(f"    {row['icd10cm']}", "bold cyan")
            line.append(f"   {row['title']}   {row['score']:.2f}", "default")
            console.print(line)
            console.print(Text(f"    {row['rule']}: {row['name']} ({row['source']})", "dim"))
            if not row["billable"]:
                console.print(Text("    the full code needs what the phrase does not say", "dim"))
        elif row["cui"]:
            console.print(f"    no code; {row['cui']} {escape(row['name'])}   {row['score']:.2f}")
        else:
            console.print(Text(f"    nothing close enough (a code needs {row['floor']:.2f})", "yellow"))
        for other in row["alternatives"]:
            if other["icd10cm"]:
                console.print(Text(f"      or {other['icd10cm']}   {other['title']}   {other['score']:.2f}", "dim"))
    if rows:
        console.print(Text(f"codes of {rows[0]['release']}", "dim"))


def show_checks(checks: Sequence[Check]) -> None:
    """Print the doctor's page."""
    console = open_console()
    colours = {"ok": "green", "warning": "yellow", "failure": "bold red"}
    for check in checks:
        line = Text.assemble((f"{check.state:<8}", colours[check.state]), (f"{check.name:<12}", "bold"), check.seen)
        if check.remedy and check.state != "ok":
            line.append(f". {check.remedy}", "italic")
        console.print(line)


def show_fields(*, as_json: bool) -> None:
    """Print the fields of the query language."""
    from medsearch_desktop.search.filters import FILTERS

    if as_json:
        import json

        print(json.dumps([{"key": f.key, "aliases": list(f.aliases), "help": f.help} for f in FILTERS]))
        return
    table = Table("field", "also", "what it matches")
    for row in FILTERS:
        table.add_row(f"{row.key}:", ", ".join(row.aliases), row.help)
    open_console().print(table)


def write_vectors(output: str, vectors: NDArray[np.float32], paths: Sequence[str], *, model_id: str) -> None:
    """Write `vectors` (n, 1024), `paths` (n,) and `model_id` to an .npz file, whole or not at all.

    Raises SourceError when it cannot be written.
    """
    target = Path(output)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    names = np.array([printable(path) for path in paths], dtype=np.str_)
    try:
        with part.open("wb") as file:
            np.savez(file, vectors=vectors, paths=names, model_id=np.array(model_id))
        part.replace(target)
    except (OSError, zipfile.BadZipFile) as error:
        part.unlink(missing_ok=True)
        raise SourceError(f"cannot be written ({error})", item=output, remedy="Give -o another place") from error


def _percent(share: float, *, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"
