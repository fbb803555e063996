"""How the full-text index compares text, and what a document says of a finding on the whole."""

from __future__ import annotations

import pytest

from medsearch_desktop.store import fulltext


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Effusions", ["effus"]),
        ("X-ray of T12; J18.9", ["x", "ray", "of", "t12", "j18", "9"]),
        ("Épanchement", fulltext.analyse("epanchement")),
        ("E\N{COMBINING ACUTE ACCENT}panchement", fulltext.analyse("epanchement")),
        ("Pleural_Thickening", fulltext.analyse("pleural thickening")),
        ("— & ...", []),
    ],
)
def test_analysis(text: str, tokens: list[str]):
    assert fulltext.analyse(text) == tokens


@pytest.mark.parametrize(
    ("assertions", "state"),
    [
        (["absent", "present", "uncertain"], "present"),
        (["absent", "uncertain"], "uncertain"),
        (["absent", "historical"], "absent"),
        (["historical", "family", "hypothetical"], None),
        ([], None),
    ],
)
def test_standing(assertions: list[str], state: str | None):
    assert fulltext.standing(assertions) == state
