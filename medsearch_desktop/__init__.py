"""Search radiology images and reports on one workstation, offline.

The public names: `open_library`, `Library`, the records that travel and the errors. Nothing heavy
is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medsearch_desktop.errors import MedSearchError

if TYPE_CHECKING:
    from medsearch_desktop.library import Library, open_library

__version__ = "0.1.0"

__all__ = ["Library", "MedSearchError", "__version__", "open_library"]


def __getattr__(name: str) -> Any:
    if name in ("Library", "open_library"):
        from medsearch_desktop import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
