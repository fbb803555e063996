"""What a row of an answer says on the terminal of patient and study."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from medsearch_desktop.records import Hit, SearchAnswer
from medsearch_desktop.serve.show import show_hits


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            {"patient_sex": "F", "patient_age": 54.9, "modalities": ("CR", "DX")},
            "s1   2024-03-10   F 54 y CR+DX   0 images",
        ),
        ({"patient_sex": "M", "patient_age": 0.5}, "s1   2024-03-10   M < 2 y   0 images"),
        ({"modalities": ("CR",)}, "s1   2024-03-10   CR   0 images"),
        ({}, "s1   2024-03-10   0 images"),
    ],
)
def test_a_row_says_what_is_known(capsys: pytest.CaptureFixture[str], told: dict[str, Any], shown: str) -> None:
    show_hits(SearchAnswer(1, (Hit("s1", None, (), 0.0, study_date=date(2024, 3, 10), **told),)), offset=0)
    assert shown in capsys.readouterr().out


def test_a_header_sends_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_hits(
        SearchAnswer(1, (Hit("s1", None, (), 0.0, patient_sex="\x1b]0;x\x07", modalities=("\x1b[2J",)),)), offset=0
    )
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
