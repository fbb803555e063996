"""What became of known files, over real trees that are scanned, altered and scanned again."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from medsearch_desktop.errors import SourceError
from medsearch_desktop.records import SourceFile
from medsearch_desktop.source.changes import CLOCK_STEP_NS, Change, Changes, KnownFile, Removal, Verdict
from medsearch_desktop.source.folder import walk_all
from medsearch_desktop.source.sniff import digest

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
HOUR_NS = 3_600_000_000_000


@dataclass
class Scan:
    """What one scan found, and the known files after it, kept as an ingest has to keep them."""

    verdicts: list[Verdict] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    offline: tuple[str, ...] = ()
    read: list[str] = field(default_factory=list)

    def of(self, change: Change) -> list[str]:
        return sorted(Path(verdict.file.path).name for verdict in self.verdicts if verdict.change is change)

    @property
    def counts(self) -> dict[str, int]:
        counts = Counter(verdict.change.value for verdict in self.verdicts)
        counts["removed"] = len(self.removals)
        return {name: count for name, count in counts.items() if count}


class Archive:
    """Stands for the store: applies verdicts in order and checks that no content is ever lost."""

    def __init__(self) -> None:
        self.known: dict[str, KnownFile] = {}

    def scan(
        self, *roots: Path | str, at_ns: int | None = None, emptied_roots: bool = False, late: bool = False
    ) -> Scan:
        """Scan; `late` judges all files before it settles the first, as one does who reads in threads."""
        now = time.time_ns() if at_ns is None else at_ns
        changes = Changes(dict(self.known), roots=roots, scan_started_ns=now, emptied_roots=emptied_roots)
        scan = Scan()
        waiting = []
        for file in walk_all(changes.online, on_problem=lambda path, reason: changes.blind(path)):
            verdict = changes.judge(file)
            if verdict is None:
                waiting.append(file)
                if not late:
                    self._settle(scan, changes, waiting, now)
            else:
                scan.verdicts.append(verdict)
        self._settle(scan, changes, waiting, now)
        for removal in changes.finish():
            scan.removals.append(removal)
            self._hand_over(removal.known, removal.heir)
            del self.known[removal.known.path]
        scan.offline = changes.offline
        return scan

    def records(self) -> dict[str, str]:
        """Return the path whose record stands for each content."""
        return {known.sha256: path for path, known in self.known.items() if known.state == "indexed"}

    def _settle(self, scan: Scan, changes: Changes, waiting: list[SourceFile], now: int) -> None:
        for file in waiting:
            scan.read.append(file.path)
            verdict = changes.settle(replace(file, sha256=digest(file.path)))
            scan.verdicts.append(verdict)
            self._apply(verdict, now)
        waiting.clear()

    def _apply(self, verdict: Verdict, now: int) -> None:
        file = verdict.file
        if verdict.heir:
            assert verdict.known is not None
            self._hand_over(self.known[verdict.known.path], verdict.heir)
        if verdict.change is Change.MOVED:
            state = self.known.pop(verdict.other).state
        elif verdict.change is Change.UNCHANGED:
            state = self.known[file.path].state
        else:
            state = "duplicate" if verdict.change is Change.DUPLICATE else "indexed"
        self.known[file.path] = KnownFile(file.path, file.root, file.size, file.mtime_ns, file.sha256, state, now)

    def _hand_over(self, known: KnownFile, heir: str) -> None:
        if heir:
            assert self.known[heir].sha256 == known.sha256
            self.known[heir] = replace(self.known[heir], state="indexed")


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three files, modified an hour ago, so that a scan now leaves no doubt about them."""
    root = tmp_path / "root"
    for name in ("a/1.dcm", "a/2.dcm", "b/3.dcm"):
        put(root / name, f"content of {name}")
    return root


def put(path: Path, content: str, *, age_ns: int = HOUR_NS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    set_age(path, age_ns)
    return path


def set_age(path: Path, age_ns: int) -> None:
    then = time.time_ns() - age_ns
    os.utime(path, ns=(then, then))


def test_first_all_is_new_then_unchanged_and_unread(archive: Archive, root: Path) -> None:
    assert archive.scan(root).counts == {"new": 3}
    again = archive.scan(root)
    assert again.counts == {"unchanged": 3}
    assert again.read == []
    assert [verdict.known for verdict in again.verdicts] == [archive.known[v.file.path] for v in again.verdicts]


def test_roots_are_the_same_however_they_are_written(
    archive: Archive, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.scan(root)
    monkeypatch.chdir(root.parent)
    for written in ("root", "./root/", f"{root}/", str(root / "a" / ".."), "root/../root"):
        scan = archive.scan(written)
        assert scan.counts == {"unchanged": 3}, written
        assert scan.offline == ()


def test_changed_content(archive: Archive, root: Path) -> None:
    archive.scan(root)
    put(root / "a/1.dcm", "quite another content")
    put(root / "a/2.dcm", "CONTENT OF a/2.dcm", age_ns=HOUR_NS // 2)
    scan = archive.scan(root)
    assert scan.counts == {"changed": 2, "unchanged": 1}
    assert scan.of(Change.CHANGED) == ["1.dcm", "2.dcm"]
    assert archive.scan(root).counts == {"unchanged": 3}


def test_touched_is_unchanged_and_read_only_once(archive: Archive, root: Path) -> None:
    archive.scan(root)
    set_age(root / "a/1.dcm", HOUR_NS // 2)
    set_age(root / "b/3.dcm", 2 * HOUR_NS)
    scan = archive.scan(root)
    assert scan.counts == {"unchanged": 3}
    assert len(scan.read) == 2, "also a time that went back is read"
    assert archive.scan(root).read == []


def test_same_size_and_same_time_is_caught_while_there_is_doubt(archive: Archive, root: Path) -> None:
    file = put(root / "a/1.dcm", "first one", age_ns=0)
    archive.scan(root)
    status = file.stat()
    file.write_text("other one")
    os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    scan = archive.scan(root)
    assert scan.of(Change.CHANGED) == ["1.dcm"]


def test_doubt_ends_when_the_content_was_read_after_the_clock_step(archive: Archive, root: Path) -> None:
    file = put(root / "a/1.dcm", "content", age_ns=0)
    modified = file.stat().st_mtime_ns
    archive.scan(root, at_ns=modified)
    again = archive.scan(root, at_ns=modified + CLOCK_STEP_NS + 1)
    assert again.read == [str(file)]
    assert again.counts == {"unchanged": 3}
    assert archive.scan(root, at_ns=modified + CLOCK_STEP_NS + 2).read == []


def test_a_time_in_the_future_is_never_trusted(archive: Archive, root: Path) -> None:
    file = put(root / "a/1.dcm", "content", age_ns=-HOUR_NS)
    archive.scan(root)
    archive.known[str(file)] = replace(archive.known[str(file)], checked_ns=time.time_ns() + 2 * HOUR_NS)
    assert archive.scan(root).read == [str(file)]


def test_an_unknown_time_of_reading_is_doubt(archive: Archive, root: Path) -> None:
    archive.scan(root)
    archive.known = {path: replace(known, checked_ns=0) for path, known in archive.known.items()}
    scan = archive.scan(root)
    assert len(scan.read) == 3
    assert scan.counts == {"unchanged": 3}


def test_removed(archive: Archive, root: Path) -> None:
    archive.scan(root)
    (root / "a/1.dcm").unlink()
    shutil.rmtree(root / "b")
    scan = archive.scan(root)
    assert scan.counts == {"unchanged": 1, "removed": 2}
    assert [Path(removal.known.path).name for removal in scan.removals] == ["1.dcm", "3.dcm"]
    assert archive.scan(root).counts == {"unchanged": 1}


def test_only_what_lies_below_the_roots_is_removed(archive: Archive, root: Path) -> None:
    put(root.parent / "root2" / "4.dcm", "4")
    archive.scan(root, root.parent / "root2")
    (root.parent / "root2" / "4.dcm").unlink()
    (root / "b/3.dcm").unlink()
    assert archive.scan(root / "a").counts == {"unchanged": 2}
    assert archive.scan(root).counts == {"unchanged": 2, "removed": 1}


@pytest.mark.parametrize("late", [False, True])
def test_moved_and_renamed(archive: Archive, root: Path, late: bool) -> None:
    archive.scan(root)
    before = archive.records()
    (root / "a/1.dcm").rename(root / "a/0.dcm")
    (root / "a/2.dcm").rename(root / "z.dcm")
    (root / "b").rename(root / "c")
    scan = archive.scan(root, late=late)
    assert scan.counts == {"moved": 3}
    assert {Path(v.other).name: Path(v.file.path).name for v in scan.verdicts} == {
        "1.dcm": "0.dcm",
        "2.dcm": "z.dcm",
        "3.dcm": "3.dcm",
    }
    assert archive.records().keys() == before.keys()
    assert archive.scan(root).counts == {"unchanged": 3}


@pytest.mark.parametrize("late", [False, True])
def test_two_files_that_swapped_their_names(archive: Archive, root: Path, late: bool) -> None:
    put(root / "a/1.dcm", "one", age_ns=2 * HOUR_NS)
    put(root / "a/2.dcm", "two", age_ns=3 * HOUR_NS)
    archive.scan(root)
    contents = archive.records().keys()
    (root / "a/1.dcm").rename(root / "t")
    (root / "a/2.dcm").rename(root / "a/1.dcm")
    (root / "t").rename(root / "a/2.dcm")
    scan = archive.scan(root, late=late)
    assert (scan.of(Change.MOVED), scan.of(Change.NEW)) == (["1.dcm"], ["2.dcm"])
    assert archive.records().keys() == contents
    assert {path: digest(path) for path in archive.known} == {p: k.sha256 for p, k in archive.known.items()}
    assert archive.scan(root).counts == {"unchanged": 3}


def test_a_root_that_moved(archive: Archive, root: Path) -> None:
    archive.scan(root)
    root.rename(root.parent / "mounted elsewhere")
    scan = archive.scan(root.parent / "mounted elsewhere")
    assert scan.counts == {"moved": 3}


@pytest.mark.parametrize("late", [False, True])
def test_duplicates(archive: Archive, root: Path, late: bool) -> None:
    archive.scan(root)
    put(root / "a/0.dcm", "content of a/1.dcm")
    put(root / "new/x", "twin")
    put(root / "new/y", "twin")
    scan = archive.scan(root, late=late)
    assert scan.counts == {"unchanged": 3, "duplicate": 2, "new": 1}
    assert {Path(v.file.path).name: Path(v.other).name for v in scan.verdicts if v.change is Change.DUPLICATE} == {
        "0.dcm": "1.dcm",
        "y": "x",
    }
    assert archive.scan(root).counts == {"unchanged": 6}


def test_a_duplicate_stands_in_for_a_removed_file(archive: Archive, root: Path) -> None:
    archive.scan(root)
    copy = put(root / "z/copy.dcm", "content of a/1.dcm")
    archive.scan(root)
    contents = archive.records().keys()
    (root / "a/1.dcm").unlink()
    scan = archive.scan(root)
    assert [(Path(r.known.path).name, r.heir) for r in scan.removals] == [("1.dcm", str(copy))]
    assert archive.records().keys() == contents


def test_a_duplicate_stands_in_for_a_changed_file(archive: Archive, root: Path) -> None:
    archive.scan(root)
    copy = put(root / "z/copy.dcm", "content of a/1.dcm")
    archive.scan(root)
    contents = set(archive.records())
    put(root / "a/1.dcm", "written anew")
    scan = archive.scan(root)
    assert [v.heir for v in scan.verdicts if v.change is Change.CHANGED] == [str(copy)]
    assert contents < set(archive.records())


def test_a_removed_duplicate_takes_nothing_along(archive: Archive, root: Path) -> None:
    archive.scan(root)
    put(root / "z/copy.dcm", "content of a/1.dcm")
    archive.scan(root)
    (root / "z/copy.dcm").unlink()
    scan = archive.scan(root)
    assert [(removal.known.state, removal.heir) for removal in scan.removals] == [("duplicate", "")]
    assert len(archive.records()) == 3


def test_all_copies_removed_together_have_no_heir(archive: Archive, root: Path) -> None:
    put(root / "z/copy.dcm", "content of a/1.dcm")
    archive.scan(root)
    (root / "z/copy.dcm").unlink()
    (root / "a/1.dcm").unlink()
    assert [removal.heir for removal in archive.scan(root).removals] == ["", ""]


def test_a_file_replaced_by_a_copy_of_another(archive: Archive, root: Path) -> None:
    archive.scan(root)
    shutil.copy2(root / "b/3.dcm", root / "a/1.dcm")
    set_age(root / "a/1.dcm", HOUR_NS // 2)
    scan = archive.scan(root)
    (verdict,) = (v for v in scan.verdicts if v.change is Change.DUPLICATE)
    assert verdict.known is not None
    assert verdict.known.path == str(root / "a/1.dcm")
    assert verdict.other == str(root / "b/3.dcm")


def test_a_root_that_is_away_keeps_its_files(archive: Archive, root: Path, tmp_path: Path) -> None:
    archive.scan(root)
    root.rename(tmp_path / "unplugged")
    scan = archive.scan(root)
    assert scan.counts == {}
    assert scan.offline == (str(root),)
    (tmp_path / "unplugged").rename(root)
    assert archive.scan(root).counts == {"unchanged": 3}


def test_an_empty_mount_point_is_away_unless_told(archive: Archive, root: Path) -> None:
    archive.scan(root)
    shutil.rmtree(root)
    root.mkdir()
    (root / ".Trash").mkdir()
    scan = archive.scan(root)
    assert scan.offline == (str(root),)
    assert scan.counts == {}
    scan = archive.scan(root, emptied_roots=True)
    assert scan.offline == ()
    assert scan.counts == {"removed": 3}


def test_an_empty_root_of_which_nothing_is_known_is_just_empty(archive: Archive, tmp_path: Path) -> None:
    scan = archive.scan(tmp_path)
    assert scan.counts == {}
    assert scan.offline == ()


def test_an_unknown_root_that_is_not_there_stops_the_scan(archive: Archive, root: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file") as caught:
        archive.scan(root, tmp_path / "typo")
    assert caught.value.item == str(tmp_path / "typo")
    assert archive.known == {}


def test_one_root_away_does_not_stop_the_other(archive: Archive, root: Path, tmp_path: Path) -> None:
    archive.scan(root / "a", root / "b")
    shutil.rmtree(root / "b")
    (root / "a/1.dcm").unlink()
    scan = archive.scan(root / "a", root / "b")
    assert scan.counts == {"unchanged": 1, "removed": 1}
    assert scan.offline == (str(root / "b"),)


def test_a_drive_known_by_its_own_root_is_away_though_the_folder_above_is_there(archive: Archive, root: Path) -> None:
    archive.scan(root / "b")
    archive.scan(root)
    shutil.rmtree(root / "b")
    scan = archive.scan(root)
    assert scan.counts == {"unchanged": 2}
    assert scan.offline == (str(root / "b"),)
    assert archive.scan(root, emptied_roots=True).counts == {"unchanged": 2, "removed": 1}


def test_files_that_were_their_own_roots_can_be_removed(archive: Archive, root: Path) -> None:
    archive.scan(*root.rglob("*.dcm"))
    (root / "a/1.dcm").unlink()
    scan = archive.scan(root)
    assert scan.counts == {"unchanged": 2, "removed": 1}
    assert scan.offline == ()


def test_a_file_root_that_is_gone_is_away(archive: Archive, root: Path) -> None:
    archive.scan(root / "a/1.dcm")
    (root / "a/1.dcm").unlink()
    scan = archive.scan(root / "a/1.dcm")
    assert scan.counts == {}
    assert scan.offline == (str(root / "a/1.dcm"),)


@needs_links
def test_what_lies_behind_a_dead_link_is_kept(archive: Archive, root: Path, tmp_path: Path) -> None:
    put(tmp_path / "far" / "4.dcm", "4")
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert archive.scan(root).counts == {"new": 4}
    (tmp_path / "far").rename(tmp_path / "unplugged")
    assert archive.scan(root).counts == {"unchanged": 3}
    (root / "link").unlink()
    assert archive.scan(root).counts == {"unchanged": 3, "removed": 1}


def test_a_folder_that_could_not_be_listed_keeps_its_files(archive: Archive, root: Path) -> None:
    archive.scan(root)
    changes = Changes(archive.known, roots=[root], scan_started_ns=time.time_ns())
    shutil.rmtree(root / "a")
    changes.blind(str(root / "a"))
    for file in walk_all(changes.online, on_problem=lambda path, reason: pytest.fail(reason)):
        assert changes.judge(file) is not None
    assert list(changes.finish()) == []


def test_what_the_walk_leaves_out_is_not_removed_while_it_is_there(archive: Archive, root: Path) -> None:
    archive.scan(root)
    put(root / "a" / "library.json", "{}")
    put(root / "a" / "library.duckdb", "")
    assert archive.scan(root).counts == {"unchanged": 1}


@needs_links
def test_overlapping_roots_count_each_file_once(archive: Archive, root: Path) -> None:
    assert archive.scan(root / "a", root, f"{root}/a/../a").counts == {"new": 3}
    assert archive.scan(root, root / "a").counts == {"unchanged": 3}
    (root / "a/1.dcm").unlink()
    assert archive.scan(root, root / "b").counts == {"unchanged": 2, "removed": 1}


def test_states_and_contents_that_were_never_read(archive: Archive, root: Path) -> None:
    archive.scan(root)
    path = str(root / "a/1.dcm")
    archive.known[path] = replace(archive.known[path], sha256="", state="ignored")
    assert archive.scan(root).counts == {"unchanged": 3}
    archive.known[path] = replace(archive.known[path], checked_ns=0)
    assert archive.scan(root).of(Change.CHANGED) == ["1.dcm"]


def test_many_files_as_roots(archive: Archive, tmp_path: Path) -> None:
    files = [put(tmp_path / f"{number}.dcm", str(number)) for number in range(2000)]
    assert archive.scan(*files).counts == {"new": 2000}
    assert archive.scan(*files).counts == {"unchanged": 2000}
