"""spaCy without PyTorch, which it would load wherever that is installed, and without its command line."""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType
from typing import Any

_LOCK = threading.Lock()
_COMMANDS, _INFO = "spacy.cli", "spacy.cli.info"


def import_spacy() -> ModuleType:
    """Import spaCy and return it; whatever reads reports by any part of spaCy or thinc asks for it here first.

    thinc tries `import torch` when it is imported, which takes some two seconds of a core and 200 MB, and no pipeline
    that is read here has a part that runs in PyTorch. As long as the import lasts there is no torch to be had, unless
    it was there before. spaCy imports its command line, with all that this downloads by, for the one function
    `spacy.info`: a third of the import. Here that function imports it when called, as does `import spacy.cli`.
    """
    with _LOCK:
        stand_ins = {"torch": None, _COMMANDS: ModuleType(_COMMANDS), _INFO: _info_module()}
        hidden = [] if "spacy" in sys.modules else [name for name in stand_ins if name not in sys.modules]
        for name in hidden:
            sys.modules[name] = stand_ins[name]  # type: ignore[assignment]
        try:
            import spacy
        finally:
            for name in hidden:
                del sys.modules[name]
    return spacy


def _info_module() -> ModuleType:
    def info(*arguments: Any, **options: Any) -> Any:
        return importlib.import_module(_INFO).info(*arguments, **options)

    module = ModuleType(_INFO)
    module.info = info  # type: ignore[attr-defined]
    return module
