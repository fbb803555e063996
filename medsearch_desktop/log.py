"""What the program did to a library and when, in a file of its folder that does not grow: words and numbers of ours.

No path, name, question or message of an error is written, for each may be a patient's.
"""

from __future__ import annotations

import logging
import logging.handlers
from contextlib import suppress
from pathlib import Path

FILE = "medsearch.log"
_BYTES, _OLD_FILES = 1_000_000, 4


class Log:
    """The log of one library: five files of 1 MB at most, `medsearch.log` the latest, readable by its owner only."""

    def __init__(self, folder: Path) -> None:
        self._handler = _Handler(folder / FILE, maxBytes=_BYTES, backupCount=_OLD_FILES, encoding="utf-8", delay=True)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(message)s"))
        self._logger = logging.Logger("medsearch")
        self._logger.addHandler(self._handler)

    def note(self, event: str, **numbers: object) -> None:
        """Write a line: `event`, a word of ours, and numbers by name; what is no number is left out."""
        told = " ".join(f"{name}={number:.10g}" for name, number in numbers.items() if isinstance(number, int | float))
        self._logger.info("%s", f"{event} {told}".strip())

    def close(self) -> None:
        """Let go of the file."""
        with suppress(OSError):
            # What a full disk did not take is tried once more here.
            self._handler.close()


class _Handler(logging.handlers.RotatingFileHandler):
    def _open(self) -> object:  # type: ignore[override]
        stream = super()._open()
        Path(self.baseFilename).chmod(0o600)
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Leave it: a full disk, which everything else says, needs no line here."""
