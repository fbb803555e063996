"""File systems that tests mount and pull away, where they may."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def may_mount() -> str:
    """Return why no file system can be mounted here, or an empty text."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "mounting a file system needs Linux and root"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "this container may not mount: run it with CAP_SYS_ADMIN"


needs_mount = pytest.mark.skipif(bool(may_mount()), reason=may_mount() or "it may")


@contextmanager
def mounted(folder: Path, *, size: str) -> Iterator[None]:
    """Mount an empty file system in memory at a new folder until the end of the block."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
