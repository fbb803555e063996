"""spaCy without PyTorch, which it would load wherever that is installed."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

_LOCK = threading.Lock()


def import_spacy() -> ModuleType:
    """Import spaCy and return it; whatever reads reports by any part of spaCy or thinc asks for it here first.

    thinc tries `import torch` when it is imported, which takes some two seconds of a core and 200 MB, and no pipeline
    that is read here has a part that runs in PyTorch. As long as the import lasts there is no torch to be had, unless
    it was there before.
    """
    with _LOCK:
        hidden = "torch" not in sys.modules
        if hidden:
            sys.modules["torch"] = None  # type: ignore[assignment]
        try:
            import spacy
        finally:
            if hidden:
                del sys.modules["torch"]
    return spacy
