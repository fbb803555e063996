"""pydicom as it reads and writes values that break the rules: as they are, for as long as anybody needs it so.

pydicom knows this as a setting of the process alone. Who receives and who sends may be two threads of one server, and
the first to be through must not take it away from the other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_inside = 0
_before: tuple[Any, Any] = (None, None)


@contextmanager
def unquestioned() -> Iterator[None]:
    """Pass values on that a device wrote, and do not judge them, until the end of the block."""
    global _inside, _before
    from pydicom import config

    settings = config.settings
    with _lock:
        if not _inside:
            _before = (settings.reading_validation_mode, settings.writing_validation_mode)
            settings.reading_validation_mode = settings.writing_validation_mode = config.IGNORE
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                settings.reading_validation_mode, settings.writing_validation_mode = _before
