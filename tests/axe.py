"""Pages in a browser looked at by axe-core, which knows what keeps whom from using them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXE = Path(__file__).parents[1] / "ui" / "node_modules" / "axe-core" / "axe.min.js"
FADED = """Promise.all(
  document.getAnimations()
    .filter((each) => Number.isFinite(each.effect?.getComputedTiming().endTime))
    .map((each) => each.finished.catch(() => {}))
)"""


def check_by_axe(page: Any) -> None:
    """Have axe look at what the page shows, in one theme after the other; nothing serious may come of it."""
    page.evaluate(AXE.read_text("utf-8"))
    for theme in ("dark", "light"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        # What fades from one colour into another has done so.
        page.evaluate(FADED)
        found = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] })")
        serious = [
            (theme, rule["id"], [node["html"][:200] for node in rule["nodes"][:3]])
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        assert serious == []
        assert len(found["passes"]) > 5
