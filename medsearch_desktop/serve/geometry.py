"""Where the window was and how large: a small file of the user's state folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import platformdirs

from medsearch_desktop.config import APP_NAME

SMALLEST = (640, 480)
# As much of the top edge has to be on a screen for a person to take hold of the window.
_HOLD = (120, 30)
_MOST_FILE_BYTES = 10_000
_MOST_PIXELS = 100_000


def geometry_file() -> Path:
    """Return the path of the file, which need not exist."""
    return Path(platformdirs.user_state_dir(APP_NAME, appauthor=False)) / "window.json"


@dataclass(frozen=True, slots=True)
class Area:
    """A screen's rectangle on the desktop, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size and place of the window in pixels of the desktop; no place is the middle of the first screen."""

    width: int = 1280
    height: int = 860
    x: int | None = None
    y: int | None = None
    maximized: bool = False

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what was kept, or the default where nothing, or nothing sound, was."""
        try:
            with path.open("rb") as file:
                row = json.loads(file.read(_MOST_FILE_BYTES))
            found = cls(row["width"], row["height"], row["x"], row["y"], row["maximized"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return cls()
        return found if found._sound() else cls()

    def write(self, path: Path) -> None:
        """Keep it, whole or not at all; a folder that cannot be written loses it, which is no reason to fail."""
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def fitted(self, screens: Sequence[Area]) -> Self:
        """Return it no larger than a screen, and in the middle where its top edge would be out of reach."""
        if not screens:
            return self
        home = next((screen for screen in screens if self._within_reach(screen)), None)
        place = (None, None) if home is None else (self.x, self.y)
        screen = home or screens[0]
        width = max(SMALLEST[0], min(self.width, screen.width))
        height = max(SMALLEST[1], min(self.height, screen.height))
        return type(self)(width, height, *place, self.maximized)

    def _within_reach(self, screen: Area) -> bool:
        if self.x is None or self.y is None:
            return False
        across = min(self.x + self.width, screen.x + screen.width) - max(self.x, screen.x)
        return across >= _HOLD[0] and screen.y <= self.y <= screen.y + screen.height - _HOLD[1]

    def _sound(self) -> bool:
        sizes = (self.width, self.height)
        places = (self.x, self.y)
        return (
            # A truth value is a number to Python.
            all(type(size) is int and 0 < size <= _MOST_PIXELS for size in sizes)
            and (places == (None, None) or all(type(place) is int and abs(place) <= _MOST_PIXELS for place in places))
            and type(self.maximized) is bool
        )
