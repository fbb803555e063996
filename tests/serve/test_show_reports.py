"""What people see of a report's mentions."""

from __future__ import annotations

import pytest

from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.serve.show_reports import details, show_report


def test_a_report_shows_what_is_said_of_each_mention(capsys: pytest.CaptureFixture[str]) -> None:
    report = ReportReader().read("Probable small left effusion, unchanged. Lungs are clear.", report_id="r")
    assert details(report.entities[0]) == "left, mild, stable"
    show_report(report)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("(probable)", "(inferred)", "left, mild", "J90"))
