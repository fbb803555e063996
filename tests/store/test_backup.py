"""A backup is whole, or it is not there; what was in it is in the library made from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medsearch_desktop.errors import LibraryError, LibraryFormatError, LibraryLockedError
from medsearch_desktop.store.backup import read_backup, restore, write_backup
from medsearch_desktop.store.compaction import compact
from medsearch_desktop.store.database import Database
from medsearch_desktop.store.marker import DATABASE, MARKER, prepare_folder

VECTORS = np.random.default_rng(0).standard_normal((1200, 1024)).astype(np.float32)


def fill(database: Database, first: int, count: int) -> None:
    with database.transaction():
        database.insert_vectors(np.arange(first, first + count), VECTORS[:count], model_id="m")
        database.insert("changes", {"seq": np.arange(count), "kind": ["image"] * count, "no": np.arange(count)})
        database.write("INSERT INTO labels VALUES ('study', $id, 'teaching')", {"id": str(first)})


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    prepare_folder(folder, create=True)
    database = Database(folder / DATABASE)
    fill(database, 0, 1200)
    # Numbers that were given are not given again, in the copy neither.
    database.write("SELECT nextval('image_no_seq') FROM range(1200)")
    database.close()
    return folder


def contents(folder: Path) -> dict[str, object]:
    database = Database(folder / DATABASE)
    read = database.read_arrays("SELECT image_no, vector FROM vectors ORDER BY image_no")
    found = {
        "numbers": read["image_no"].tolist(),
        "vectors": np.stack(list(read["vector"])).tobytes(),
        "labels": database.read("SELECT * FROM labels ORDER BY ALL"),
        "next": database.read("SELECT nextval('image_no_seq')"),
        "keys": database.read("SELECT table_name, constraint_text FROM duckdb_constraints() ORDER BY ALL"),
        "indexes": database.read("SELECT index_name, sql FROM duckdb_indexes() ORDER BY ALL"),
    }
    database.close()
    return found


def test_a_library_comes_back_from_its_backup(library: Path, tmp_path: Path) -> None:
    database = Database(library / DATABASE)
    made = write_backup(database, library, tmp_path / "backup")
    database.close()
    assert made.rows["vectors"] == 1200
    assert {path.name for path in (tmp_path / "backup").iterdir()} == {DATABASE, MARKER, "manifest.json"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in [tmp_path / "backup", *(tmp_path / "backup").iterdir()])
    assert read_backup(tmp_path / "backup").rows == made.rows
    restore(tmp_path / "backup", tmp_path / "restored")
    assert contents(tmp_path / "restored") == contents(library)
    assert (tmp_path / "restored").stat().st_mode & 0o077 == 0


def test_a_backup_is_of_one_moment_while_another_thread_writes(library: Path, tmp_path: Path) -> None:
    database = Database(library / DATABASE)
    done, written = threading.Event(), threading.Event()

    def write() -> None:
        step = 10_000
        while not done.is_set():
            fill(database, step, 50)
            step += 1000
            written.set()

    writer = threading.Thread(target=write)
    writer.start()
    made = []
    try:
        for step in range(3):
            made.append(write_backup(database, library, tmp_path / f"backup{step}"))
            # Whoever is quick: something more is written before the next one.
            written.clear()
            assert written.wait(60)
    finally:
        done.set()
        writer.join()
    database.close()
    for backup in made:
        # Each transaction wrote 50 vectors and one label: half of one would show.
        assert backup.rows["vectors"] - 1200 == 50 * (backup.rows["labels"] - 1)
        restore(Path(backup.path), tmp_path / f"of-{Path(backup.path).name}")
    assert made[0].rows["labels"] < made[-1].rows["labels"]


def test_nothing_is_written_over(library: Path, tmp_path: Path) -> None:
    database = Database(library / DATABASE)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LibraryError, match="is there already"):
        write_backup(database, library, tmp_path / "file")
    with pytest.raises(LibraryError, match="lies within the library"):
        write_backup(database, library, library / "indexes" / "backup")
    (tmp_path / "folder").mkdir()
    dated = write_backup(database, library, tmp_path / "folder")
    database.close()
    assert Path(dated.path).parent == tmp_path / "folder"
    with pytest.raises(LibraryError, match="not empty"):
        restore(Path(dated.path), tmp_path / "folder")
    with pytest.raises(LibraryError, match="not empty"):
        restore(Path(dated.path), library)
    with pytest.raises(LibraryFormatError, match="is no backup"):
        restore(library, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", [DATABASE, MARKER])
def test_an_altered_backup_is_refused_by_name(library: Path, tmp_path: Path, name: str) -> None:
    database = Database(library / DATABASE)
    write_backup(database, library, tmp_path / "backup")
    database.close()
    file = tmp_path / "backup" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(LibraryFormatError, match=f"{name}: is not the file that was written"):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


CHILD = """
import sys
from pathlib import Path
from medsearch_desktop.store.backup import restore, write_backup
from medsearch_desktop.store.compaction import compact
from medsearch_desktop.store.database import Database
what, library, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
print("ready", flush=True)
if what == "backup":
    database = Database(library / "library.duckdb")
    write_backup(database, library, target)
    database.close()
elif what == "restore":
    restore(target, library)
else:
    compact(library)
"""


def killed(what: str, library: Path, target: Path, *, after: float) -> bool:
    command = [sys.executable, "-c", CHILD, what, str(library), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert process.wait(after) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
    return False


@pytest.mark.parametrize("what", ["backup", "restore", "compact"])
def test_a_kill_in_the_middle_leaves_all_or_nothing(library: Path, tmp_path: Path, what: str) -> None:
    database = Database(library / DATABASE)
    write_backup(database, library, tmp_path / "kept")
    database.write("DELETE FROM vectors WHERE image_no < 400")
    database.close()
    before = contents(library)["numbers"]
    place = tmp_path / "restored" if what == "restore" else library
    target = tmp_path / ("kept" if what == "restore" else "new")
    began = time.monotonic()
    assert not killed(what, place, target, after=60)
    whole = time.monotonic() - began
    for path in (tmp_path / "restored", tmp_path / "new"):
        if path.exists():
            path.rename(path.with_name(f"{path.name}-whole"))
    kills = 0
    for step in range(6):
        kills += killed(what, place, target, after=whole * step / 8)
        if what == "backup" and target.exists():
            read_backup(target)
            target.rename(tmp_path / f"whole{step}")
        if what == "restore" and (place / DATABASE).exists():
            assert len(contents(place)["numbers"]) == 1200
            place.rename(tmp_path / f"whole{step}")
        assert contents(library)["numbers"] == before
    assert kills
    # What was cut off is in nobody's way, and is gone after the next one.
    assert not killed(what, place, target, after=60)
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]
    assert not [path.name for path in library.iterdir() if path.name.startswith(f"{DATABASE}.")]
    assert contents(library)["numbers"] == before


def test_compaction_gives_room_back_and_keeps_everything(library: Path) -> None:
    assert compact(library, always=False).reason == "it would not pay"
    database = Database(library / DATABASE)
    for step in range(25):
        fill(database, 10_000 * (step + 1), 1200)
    database.checkpoint()
    database.write("DELETE FROM vectors WHERE image_no > 9000 AND image_no % 7 != 0")
    database.close()
    before = contents(library)
    done = compact(library, always=False)
    assert not done.reason
    assert done.after < done.before / 3
    after = contents(library)
    assert {name: after[name] for name in after if name != "next"} == {
        name: before[name] for name in before if name != "next"
    }
    assert after["next"][0][0] > before["next"][0][0]


def test_compaction_leaves_a_library_in_use_alone(library: Path) -> None:
    database = Database(library / DATABASE)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, "compact", library, library], capture_output=True, text=True, check=False
    )
    database.close()
    assert LibraryLockedError.__name__ in child.stderr


def test_compaction_needs_room_for_a_copy(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with pytest.raises(LibraryError, match="no room for a second copy"):
        compact(library)
    assert len(contents(library)["numbers"]) == 1200


def test_who_opens_the_new_file_at_once_keeps_what_he_writes(library: Path) -> None:
    """What lets go of the old file must not take the log of the new one along."""
    database = Database(library / DATABASE)
    database.checkpoint()
    database.copy_to(library / "new")
    (library / "new").replace(library / DATABASE)
    code = (
        "import os, sys; from pathlib import Path; from medsearch_desktop.store.database import Database;"
        " Database(Path(sys.argv[1])).write(\"INSERT INTO labels VALUES ('study', 'new', 'kept')\"); os._exit(9)"
    )
    child = subprocess.run([sys.executable, "-c", code, str(library / DATABASE)], check=False)
    assert child.returncode == 9
    database.close()
    assert ("study", "new", "kept") in contents(library)["labels"]
