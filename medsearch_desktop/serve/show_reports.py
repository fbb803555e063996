"""What the command line prints of reports: their mentions with the evidence, and what reading them again changes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from medsearch_desktop.records import Certainty, Entity, Report, RereadSummary
from medsearch_desktop.serve.commands import printable
from medsearch_desktop.serve.show import COLOURS, open_console
from medsearch_desktop.statements import StoredVersion

_MOST_REPORTS = 10


def show_report(report: Report) -> None:
    """Print a report with its mentions in colour, then each mention with what is said of it and what decided it."""
    console = open_console()
    body = Text(printable(report.text))
    for entity in report.entities:
        body.stylize(COLOURS.get(entity.assertion, "dim"), entity.start, entity.end)
    console.print(body)
    if report.language != "en":
        console.print(
            Text(f"The report seems to be in another language ({report.language}): no mention is read.", "yellow")
        )
    table = Table("mention", "at", "section", "assertion", "because of", "said of it", "ICD-10-CM", "title", "score")
    for entity in report.entities:
        score = f"{entity.score:.2f}" if entity.icd10cm else ""
        at = f"{entity.start}:{entity.end}"
        cells = (entity.text, at, entity.section, _assertion(entity), entity.cue, details(entity), entity.icd10cm)
        table.add_row(*(escape(printable(str(cell))) for cell in cells), escape(entity.title), score)
    console.print(table)


def _assertion(entity: Entity) -> str:
    probable = entity.certainty is Certainty.PROBABLE
    return f"{entity.assertion}{' (probable)' if probable else ''}{' (inferred)' if entity.inferred else ''}"


def details(entity: Entity) -> str:
    """Return side, size, change and places of a finding as one reads them, "left, mild, stable; left lower lobe"."""
    said = ", ".join(filter(None, (entity.laterality, entity.severity, entity.change)))
    return "; ".join(filter(None, (said, ", ".join(entity.anatomy))))


def show_evidence(report: Report) -> None:
    """Print, for each mention, the sentence it stands in and the rows of the word tables that decided."""
    table = Table("at", "mention", "rule", "sentence", title="evidence", title_justify="left")
    for entity in report.entities:
        sentence = report.text[entity.sentence_start : entity.sentence_end] if entity.sentence_start >= 0 else ""
        cells = (f"{entity.start}:{entity.end}", entity.text, entity.rule, " ".join(sentence.split()))
        table.add_row(*(escape(printable(cell)) for cell in cells))
    open_console().print(table)


def show_versions(versions: Sequence[StoredVersion]) -> None:
    """Print the versions of a report, which of them is searched, and the file of each."""
    if not versions:
        open_console().print("It came as mere text, of which no versions are kept.")
        return
    table = Table("", "status", "as of", "file", "begins")
    for version in versions:
        beginning = " ".join(version.text.split())[:60]
        cells = (version.status.value, version.effective, version.path, beginning)
        table.add_row("searched" if version.is_current else "", *(escape(printable(cell)) for cell in cells))
    open_console().print(table)


def show_reread(summary: RereadSummary) -> None:
    """Print what reading reports again changed: the counts, then the first reports with their changes."""
    console = open_console()
    would = "would be " if summary.dry_run else ""
    console.print(
        f"{summary.read} reports were read by {summary.pipeline_version}, {summary.current} had been. Mentions:"
        f" {summary.added} {would}added, {summary.removed} {would}removed, {summary.changed} {would}changed"
        f" in {len(summary.reports)} reports."
    )
    if summary.fields:
        console.print("Changed: " + ", ".join(f"{name} {count}" for name, count in sorted(summary.fields.items())))
    for report_id, changes in summary.reports[:_MOST_REPORTS]:
        console.print(Text(printable(report_id), "bold cyan"))
        for change in changes:
            fields = "; ".join(f"{name}: {old or '-'} -> {new or '-'}" for name, (old, new) in change.fields.items())
            line = f"  {change.kind} {change.start}:{change.end} {change.text!r} {change.finding} {fields}"
            console.print(Text(printable(line).rstrip()))
    if len(summary.reports) > _MOST_REPORTS:
        console.print(f"... and {len(summary.reports) - _MOST_REPORTS} more reports: --json lists them all.")
