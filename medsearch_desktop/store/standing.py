"""What the owner of a library does by itself, kept with the library: folders it watches, and receiving."""

from __future__ import annotations

import json
from typing import Any

from medsearch_desktop.store.database import Database, disk_path, stored_path


class Standing:
    """The standing orders of one library; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def watched(self) -> list[str]:
        """Return the folders that the library is kept current with, by path."""
        return [disk_path(path) for (path,) in self._database.read("SELECT path FROM watched ORDER BY path")]

    def watch(self, path: str) -> None:
        """Keep the library current with a folder from now on."""
        self._database.write("INSERT INTO watched VALUES ($path) ON CONFLICT DO NOTHING", {"path": stored_path(path)})

    def unwatch(self, path: str) -> None:
        """Keep it current with that folder no more."""
        self._database.write("DELETE FROM watched WHERE path = $path", {"path": stored_path(path)})

    def reception(self) -> dict[str, Any]:
        """Return the settings of receiving as they were kept; empty where nobody ever switched it on."""
        for (settings,) in self._database.read("SELECT settings FROM reception"):
            kept: dict[str, Any] = json.loads(settings)
            return kept
        return {}

    def keep_reception(self, settings: dict[str, Any]) -> None:
        """Keep the settings of receiving in place of those of before."""
        with self._database.transaction():
            self._database.write("DELETE FROM reception")
            self._database.write("INSERT INTO reception VALUES ($settings)", {"settings": json.dumps(settings)})
