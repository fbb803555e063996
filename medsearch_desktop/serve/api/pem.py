"""Files of certificates and keys that requests name: always by their whole path, on this machine."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import Field

from medsearch_desktop.errors import ConfigError

PemFile = Annotated[str, Field(max_length=4096)]


def check_pem_paths(*files: str) -> None:
    """Raise ConfigError for one that depends on the folder in which the server was started; empty is none."""
    for file in files:
        if file and (not os.path.isabs(file) or "\0" in file):  # noqa: PTH117 - as Path does, which takes no NUL
            raise ConfigError("is no whole path", item=file.replace("\0", "?"), remedy="Begin at the root of the disk")
