"""What became of files, told by a table of the folders that are walked, is what a table of all files says."""

from __future__ import annotations

import os
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from medsearch_desktop.records import SourceFile
from medsearch_desktop.source.changes import Change, Changes, KnownFile
from medsearch_desktop.source.folder import walk_all
from medsearch_desktop.source.known import Elsewhere, FileTable, Row
from medsearch_desktop.source.sniff import digest

HOUR_NS = 3_600_000_000_000


def known_file(path: str, root: str, size: int, mtime_ns: int, sha256: str, kind: str, state: str, *rest: object):
    checked_ns = rest[0]
    assert isinstance(checked_ns, int)
    return KnownFile(path, root, size, mtime_ns, sha256, state, checked_ns, kind)


def row_of(file: SourceFile, state: str) -> Row:
    return file.path, file.root, file.size, file.mtime_ns, file.sha256, "dicom", state, time.time_ns(), ""


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    at = time.time_ns() - HOUR_NS
    os.utime(path, ns=(at, at))


def known_of(*roots: Path) -> dict[str, Row]:
    """Return the rows of all files below some roots as a first scan leaves them: copies are duplicates."""
    rows: dict[str, Row] = {}
    held: set[str] = set()
    for file in walk_all(roots, on_problem=lambda *_: None):
        read = replace(file, sha256=digest(file.path))
        rows[file.path] = row_of(read, "duplicate" if read.sha256 in held else "indexed")
        held.add(read.sha256)
    return rows


def scanned(changes: Changes) -> list[object]:
    """Return all that a scan says, in order."""
    said: list[object] = []
    files = list(walk_all(changes.online, on_problem=lambda path, _: changes.blind(path)))
    for file in files:
        verdict = changes.judge(file)
        said.append(verdict or changes.settle(replace(file, sha256=digest(file.path))))
    return [*said, *changes.finish(), changes.online, changes.offline]


def altered(rng: random.Random, roots: list[Path]) -> None:
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file())
    for path in rng.sample(files, min(len(files), 6)):
        other = rng.choice(roots) / rng.choice("xyz") / f"{rng.randrange(30)}.dcm"
        other.parent.mkdir(parents=True, exist_ok=True)
        match rng.randrange(5):
            case 0:
                shutil.copy2(path, other)
            case 1:
                path.replace(other)
            case 2:
                path.unlink()
            case 3:
                put(path, f"content {rng.randrange(12)}")
            case _:
                put(other, f"content {rng.randrange(12)}")
    if rng.random() < 0.2:
        shutil.rmtree(rng.choice(roots) / "x", ignore_errors=True)


@pytest.mark.parametrize("seed", range(25))
def test_a_part_is_told_as_the_whole_tells_it(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    roots = [tmp_path / name for name in ("a", "ab", "c")]
    for number in range(20):
        put(rng.choice(roots) / rng.choice("xyz") / f"{number}.dcm", f"content {rng.randrange(12)}")
    rows = known_of(*roots)
    altered(rng, roots)
    walked = [str(path) for path in rng.sample([*roots, roots[0] / "x", roots[1] / "y"], rng.choice([1, 2]))]
    for path in walked:
        Path(path).mkdir(parents=True, exist_ok=True)
    elsewhere = Elsewhere(tuple(walked), rows.get, lambda sha256: [each for each in rows.values() if each[4] == sha256])
    below = [each for path, each in rows.items() if not elsewhere.is_of(path)]
    now = time.time_ns()
    part = Changes(FileTable(below, elsewhere=elsewhere).view(known_file), roots=walked, scan_started_ns=now)
    whole = Changes(FileTable(rows.values()).view(known_file), roots=walked, scan_started_ns=now)
    assert scanned(part) == scanned(whole)


def test_a_file_that_was_moved_here_is_known_and_its_copy_inherits(tmp_path: Path) -> None:
    put(tmp_path / "old/1.dcm", "moved")
    put(tmp_path / "old/2.dcm", "stays")
    rows = known_of(tmp_path / "old")
    (tmp_path / "new").mkdir()
    (tmp_path / "old/1.dcm").rename(tmp_path / "new/1.dcm")
    shutil.copy2(tmp_path / "old/2.dcm", tmp_path / "new/2.dcm")
    new = str(tmp_path / "new")
    elsewhere = Elsewhere((new,), rows.get, lambda sha256: [each for each in rows.values() if each[4] == sha256])
    changes = Changes(FileTable([], elsewhere=elsewhere).view(known_file), roots=[new], scan_started_ns=time.time_ns())
    verdicts = [changes.settle(replace(file, sha256=digest(file.path))) for file in walk_all([new], on_problem=print)]
    assert [(each.change, each.other) for each in verdicts] == [
        (Change.MOVED, str(tmp_path / "old/1.dcm")),
        (Change.DUPLICATE, str(tmp_path / "old/2.dcm")),
    ]
