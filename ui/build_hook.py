"""Part of the package's build (hatchling calls it): whatever is packed carries the built browser interface.

An editable install does without: there the interface is whatever `make ui` has last built.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OLDEST_NODE = (20, 19)
# Beside the sources, what of this folder the built interface does not depend on.
ASIDE = frozenset({"node_modules", "pictures", "build_hook.py"})


class InterfaceHook(BuildHookInterface):
    """Builds the interface where it is missing or older than its sources, as far as Node is there."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's interface
        """See the module. Raises RuntimeError where there is neither a built interface nor Node, or building fails."""
        if version == "editable":
            return
        sources = Path(self.root, "ui")
        built = Path(self.root, "medsearch_desktop", "serve", "static", "index.html")
        if built.is_file() and not is_older(built, sources):
            return
        if not has_node():
            wanted = ".".join(map(str, OLDEST_NODE))
            if not built.is_file():
                raise RuntimeError(
                    f"the browser interface is not built, and Node {wanted} or newer, which builds it, is not here. "
                    "Install Node, or take the source distribution, which carries it built"
                )
            self.app.display_warning(
                f"The built browser interface is older than its sources, and Node {wanted} or newer is not here: "
                "it is packed as it is."
            )
            return
        npm = shutil.which("npm")
        assert npm is not None
        for command in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            self.app.display_info(f"npm {' '.join(command)}")
            if subprocess.run([npm, *command], cwd=sources, check=False).returncode:
                raise RuntimeError(f"the browser interface cannot be built: `npm {' '.join(command)}` failed in ui/")


def is_older(built: Path, sources: Path) -> bool:
    """Whether any source of the interface was changed after it was built."""
    return any(file.stat().st_mtime > built.stat().st_mtime for file in _files(sources))


def has_node() -> bool:
    """Whether npm and a Node that is new enough are there."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", told)
    return found is not None and tuple(map(int, found.groups())) >= OLDEST_NODE


def _files(sources: Path) -> Iterator[Path]:
    for entry in sources.iterdir():
        if entry.name not in ASIDE:
            yield from (path for path in ([entry] if entry.is_file() else entry.rglob("*")) if path.is_file())
