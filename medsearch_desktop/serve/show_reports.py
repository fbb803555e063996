"""What the command line prints of reports: their mentions with the evidence, and what reading them again changes."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from medsearch_desktop.records import Certainty, Entity, Report
from medsearch_desktop.serve.show import COLOURS, open_console, printable


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
