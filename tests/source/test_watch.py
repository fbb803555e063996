"""Watched folders, real ones: growing files, renames, deletes, folders that go and come back, and those listed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medsearch_desktop.errors import SourceError
from medsearch_desktop.source.watch import Away, Settled, Silent, Watcher, is_remote

Told = list[Settled | Away | Silent]


@contextmanager
def watched(watcher: Watcher) -> Iterator[Told]:
    """Collect what a watcher tells until the end of the block."""
    told: Told = []
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [told.append(each) for each in watcher.changes(stop)])
    thread.start()
    try:
        until(lambda: told)
        yield told
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def until(is_so: Callable[[], object], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def paths(told: Told) -> set[str]:
    return {path for each in told if isinstance(each, Settled) for path in each.paths}


@pytest.fixture(params=[False, True], ids=["events", "listing"])
def watcher(request: pytest.FixtureRequest, tmp_path: Path) -> Watcher:
    (tmp_path / "in").mkdir()
    return Watcher([str(tmp_path / "in")], still_seconds=0.5, poll=request.param, poll_seconds=0.3)


def test_all_of_a_folder_is_told_first(watcher: Watcher, tmp_path: Path) -> None:
    with watched(watcher) as told:
        assert told[0] == Settled(str(tmp_path / "in"))


def test_a_file_is_told_once_it_has_stopped_growing(watcher: Watcher, tmp_path: Path) -> None:
    with watched(watcher) as told:
        for attempt in range(50):
            file = tmp_path / "in" / "a" / f"film{attempt}.dcm"
            file.parent.mkdir(exist_ok=True)
            longest, begun = 0.0, time.monotonic()
            with file.open("wb", buffering=0) as growing:
                for _ in range(15):
                    growing.write(b"x" * 1000)
                    time.sleep(0.1)
                    early = str(file) in paths(told)
                    longest, begun = max(longest, time.monotonic() - begun), time.monotonic()
                    if longest >= 0.5:
                        break
                    assert not early
            until(lambda file=file: str(file) in paths(told))
            if longest < 0.5:
                return
    # A machine that is so busy that this test itself pauses for that long says nothing.
    pytest.fail("it never grew without a pause")


def test_renamed_and_deleted_files_are_told(watcher: Watcher, tmp_path: Path) -> None:
    home = tmp_path / "in" / "sub"
    home.mkdir()
    for name in ("old", "doomed"):
        (home / name).write_bytes(b"x")
    with watched(watcher) as told:
        (home / "old").rename(home / "new")
        (home / "doomed").unlink()
        until(lambda: {str(home / "new"), str(home)} <= paths(told))


def test_a_folder_that_is_moved_in_is_told_by_its_files(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "made" / "deep").mkdir(parents=True)
    (tmp_path / "made" / "deep" / "film").write_bytes(b"x")
    with watched(watcher) as told:
        (tmp_path / "made").rename(tmp_path / "in" / "moved")
        until(lambda: str(tmp_path / "in" / "moved" / "deep" / "film") in paths(told))


def test_a_folder_that_went_is_told_when_it_is_back(watcher: Watcher, tmp_path: Path) -> None:
    root = tmp_path / "in"
    with watched(watcher) as told:
        root.rename(tmp_path / "elsewhere")
        until(lambda: Away(str(root), away=True) in told)
        (tmp_path / "elsewhere").rename(root)
        until(lambda: told[-1] == Settled(str(root)) and Away(str(root), away=False) in told)
        # Another folder of that name is heard as the first was, from when it has been seen.
        shutil.rmtree(root)
        root.mkdir()
        late: list[str] = []

        def is_heard() -> bool:
            late.append(str(root / f"late{len(late)}"))
            Path(late[-1]).write_bytes(b"x")
            time.sleep(0.6)
            return not paths(told).isdisjoint(late)

        until(is_heard)


def test_what_is_hidden_or_left_out_is_not_told(tmp_path: Path) -> None:
    for name in ("in/library", "in/.hidden"):
        (tmp_path / name).mkdir(parents=True)
    watcher = Watcher([str(tmp_path / "in")], still_seconds=0.3, leave_out=[str(tmp_path / "in" / "library")])
    with watched(watcher) as told:
        for name in ("in/library/library.duckdb", "in/.hidden/a", "in/.b.part", "in/Thumbs.db", "in/seen"):
            (tmp_path / name).write_bytes(b"x")
        until(lambda: paths(told))
        time.sleep(1.0)
        assert paths(told) == {str(tmp_path / "in" / "seen")}


def test_a_folder_in_what_is_left_out_is_watched_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "library" / "received").mkdir(parents=True)
    watcher = Watcher(
        [str(tmp_path / "library" / "received")], still_seconds=0.3, leave_out=[str(tmp_path / "library")]
    )
    with watched(watcher) as told:
        (tmp_path / "library" / "received" / "a").write_bytes(b"x")
        until(lambda: paths(told))


def test_a_missed_event_is_mended_by_the_next_walk(tmp_path: Path) -> None:
    watcher = Watcher([str(tmp_path)], walk_seconds=0.5)
    with watched(watcher) as told:
        until(lambda: told.count(Settled(str(tmp_path))) >= 3)


def test_a_folder_that_was_never_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        Watcher([str(tmp_path / "gone")])


def test_a_folder_that_cannot_be_listened_to_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import watchfiles

    def full(*_: object, **__: object) -> Iterator[set[tuple[object, str]]]:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", full)
    watcher = Watcher([str(tmp_path)], still_seconds=0.2, poll_seconds=0.3)
    with watched(watcher) as told:
        until(lambda: Silent(str(tmp_path)) in told)
        # What came before the first listing is in none of them: all of the folder is looked at once more.
        until(lambda: told.count(Settled(str(tmp_path))) == 2)
        (tmp_path / "a").write_bytes(b"x")
        until(lambda: str(tmp_path / "a") in paths(told))


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="reads Linux's /proc/self/mounts")
def test_the_kind_of_a_mount_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = (
        b"/dev/sda / ext4 rw 0 0\n"
        b"//nas/films " + os.fsencode(tmp_path) + b"/my\\040films cifs rw 0 0\n"
        b"nas:/x " + os.fsencode(tmp_path) + b"/nfs nfs4 rw 0 0\n"
        b"tmpfs " + os.fsencode(tmp_path) + b"/nfs/local tmpfs rw 0 0\nbroken\n"
    )
    monkeypatch.setattr(Path, "read_bytes", lambda _: mounts)
    kinds = {name: is_remote(str(tmp_path / name)) for name in ("a", "my films/b", "nfs", "nfs/deep", "nfs/local/x")}
    assert kinds == {"a": False, "my films/b": True, "nfs": True, "nfs/deep": True, "nfs/local/x": False}


def test_what_could_not_be_taken_is_told_again_soon_the_first_of_all_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    watcher, stop = Watcher([str(tmp_path / "in")], still_seconds=0.1), threading.Event()
    # Before it has begun that is no news.
    watcher.again(Settled(str(tmp_path / "in")))
    began = time.monotonic()
    for told, change in enumerate(watcher.changes(stop), start=1):
        assert change == Settled(str(tmp_path / "in"))
        watcher.again(change)
        if told == 2:
            stop.set()
    assert 4.0 < time.monotonic() - began < 60.0


def test_a_folder_that_is_away_at_the_beginning_is_waited_for(tmp_path: Path) -> None:
    root = str(tmp_path / "drive")
    with pytest.raises(SourceError):
        Watcher([root])
    with watched(Watcher([root], wait=True, still_seconds=0.1)) as told:
        assert told == [Away(root, away=True)]
        (tmp_path / "drive").mkdir()
        until(lambda: len(told) == 3)
        assert told[1:] == [Away(root, away=False), Settled(root)]
