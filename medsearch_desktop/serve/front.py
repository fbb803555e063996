"""The window of the process that owns a library: whoever asks for a window of that library is shown this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

RAISE = "raise"
"""What the window's process reads when it is to come to the front."""


def screen_of(environ: Mapping[str, str] = os.environ, *, system: str = sys.platform) -> str:
    """Return the name of the screen that this process would open a window on; empty where there is but one."""
    return environ.get("WAYLAND_DISPLAY") or environ.get("DISPLAY", "") if system == "linux" else ""


class Front:
    """How to bring the window to the front, where there is one; safe to use from several threads."""

    def __init__(self) -> None:
        self._bring: Callable[[str], bool] | None = None

    def offer(self, bring: Callable[[str], bool]) -> None:
        """Have `bring` called with the name of the screen that a window is wanted on; it says whether it came."""
        self._bring = bring

    def bring(self, screen: str) -> bool:
        """Bring the window on `screen` to the front; return False where there is none."""
        return self._bring is not None and self._bring(screen)
