"""The labels and lists of a library asked through its owner: what of `Lists` the command line needs.

Same answers and errors as `medsearch_desktop.lists`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medsearch_desktop.errors import ListError
from medsearch_desktop.lists import Label, SavedSearch, TeachingEntry, TeachingList, find_saved
from medsearch_desktop.packing import unpack, whole_file, whole_folder
from medsearch_desktop.serve import wire

Ask = Callable[..., Any]


class RemoteLists:
    """The lists behind an owner's interface; `ask` sends a request and returns its JSON, `fetch` its bytes to a file.

    Raises ServeError when the owner goes away meanwhile.
    """

    def __init__(self, ask: Ask, fetch: Callable[[str, dict[str, Any], Path], None]) -> None:
        self._ask = ask
        self._fetch = fetch

    def labels(self) -> dict[str, int]:
        """Return what `Lists.labels` does."""
        return {row["label"]: row["count"] for row in self._ask("GET", "/api/labels")["labels"]}

    def labelled(self, label: str) -> tuple[Label, ...]:
        """Return what `Lists.labelled` does."""
        rows = self._ask("GET", "/api/labels/targets", {"label": label})["targets"]
        return tuple(wire.record(Label, row) for row in rows)

    def saved(self) -> list[SavedSearch]:
        """Return what `Lists.saved` does."""
        return [wire.record(SavedSearch, row) for row in self._ask("GET", "/api/saved")["saved"]]

    def saved_search(self, name: str) -> SavedSearch:
        """Return what `Lists.saved_search` does."""
        return find_saved(self.saved(), name)

    def save(self, name: str, question: str, *, sort: str = "score", note: str = "") -> SavedSearch:
        """Keep a question as `Lists.save` does."""
        body = {"name": name, "question": question, "sort": sort, "note": note}
        return wire.record(SavedSearch, self._ask("POST", "/api/saved", body=body))

    def forget_saved(self, name: str) -> None:
        """Remove a saved search as `Lists.forget_saved` does."""
        self._ask("POST", "/api/saved/remove", body={"name": name})

    def teaching(self) -> list[TeachingList]:
        """Return what `Lists.teaching` does."""
        return [wire.record(TeachingList, row) for row in self._ask("GET", "/api/teaching")["lists"]]

    def teaching_list(self, name: str) -> tuple[TeachingList, list[TeachingEntry]]:
        """Return what `Lists.teaching_list` does."""
        row = self._ask("GET", "/api/teaching/list", {"name": name})
        return wire.record(TeachingList, row["about"]), [wire.record(TeachingEntry, each) for each in row["entries"]]

    def add_entry(self, name: str, target_kind: str, target_id: str, *, note: str = "") -> str:
        """Put a study or image on a list as `Lists.add_entry` does."""
        body = {"list": name, "target_kind": target_kind, "target_id": target_id, "note": note}
        return str(self._ask("POST", "/api/teaching/entries", body=body)["entry_id"])

    def remove_entry(self, entry_id: str) -> None:
        """Take an entry off its list as `Lists.remove_entry` does."""
        self._ask("POST", "/api/teaching/entries/remove", body={"entry_id": entry_id})

    def remove_teaching(self, name: str) -> None:
        """Remove a list as `Lists.remove_teaching` does."""
        self._ask("POST", "/api/teaching/remove", body={"name": name})

    def import_teaching(self, text: str, *, name: str = "", item: str = "") -> TeachingList:
        """Take over a list.json as `Lists.import_teaching` does."""
        try:
            row = self._ask("POST", "/api/teaching/import", {"name": name}, data=text.encode())
        except ListError as error:
            if error.item == "upload":
                error.item = item
            raise
        return wire.record(TeachingList, row)

    def export_zip(self, name: str, file: str | os.PathLike[str], *, with_reports: bool = False) -> int:
        """Write a list into one ZIP file as `Lists.export_zip` does."""
        about, _ = self.teaching_list(name)
        with whole_file(Path(file)) as part:
            self._fetch("/api/teaching/export", {"name": name, "reports": with_reports}, part)
        return about.entries

    def export_folder(self, name: str, folder: str | os.PathLike[str], *, with_reports: bool = False) -> int:
        """Write a list into a new or empty folder as `Lists.export_folder` does."""
        about, _ = self.teaching_list(name)
        with whole_folder(Path(folder)) as part:
            packed = part / "list.zip"
            self._fetch("/api/teaching/export", {"name": name, "reports": with_reports}, packed)
            unpack(packed, part)
            packed.unlink()
        return about.entries
