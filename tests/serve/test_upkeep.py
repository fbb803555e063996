"""A server that keeps its library current by itself: watched folders, receiving, and its database written anew."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from held import hold
from makers import Film, dataset, register_model
from pynetdicom import AE
from servers import Served, local_server, served

from medsearch_desktop.library import open_library
from medsearch_desktop.serve import upkeep
from medsearch_desktop.serve.arrivals import Listening

CR = "1.2.840.10008.5.1.4.1.1.1"


def until(look: Callable[[], Any], *, seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)
    return found


def post(client: httpx.Client, path: str, status: int = 200, /, **body: Any) -> dict[str, Any]:
    # Escaped: a name that is not UTF-8 holds what no other form can carry.
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    row: dict[str, Any] = answer.json()
    return row


def folder(client: httpx.Client, path: Path) -> dict[str, Any]:
    rows = client.get("/api/watched").json()["folders"]
    return next((row for row in rows if row["path"] == str(path)), {"state": "off", "counts": {}})


def total(client: httpx.Client) -> int:
    return int(client.get("/api/status").json()["totals"]["images"])


def send(port: int, *films: Film, title: str = "MEDSEARCH", own: str = "SENDER") -> list[int]:
    ae = AE(own)
    ae.add_requested_context(CR)
    association = ae.associate("127.0.0.1", port, ae_title=title)
    if not association.is_established:
        return []
    statuses = [association.send_c_store(dataset(film)).get("Status", -1) for film in films]
    association.release()
    return statuses


def begun(library: Path, *arguments: str, **environ: str) -> Any:
    return served(library, *arguments, MEDSEARCH_ENGINE="onnxruntime", **environ)


def test_a_watched_folder_is_kept_current_also_after_a_restart(
    tmp_path: Path, write_film: Callable[[Path, Film], Path]
) -> None:
    source, library = tmp_path / "scans", tmp_path / "library"
    write_film(source / "a.dcm", Film(image=1, size=64))
    with begun(library) as server, server.client() as client:
        assert client.get("/api/watched").json() == {"folders": []}
        assert post(client, "/api/watched/on", path=f"{source}/")["path"] == str(source)
        until(lambda: total(client) == 1 and folder(client, source)["counts"] == {"indexed": 1})
        assert folder(client, source)["state"] == "watching"
        write_film(source / "b.dcm", Film(image=2, size=64))
        until(lambda: total(client) == 2)
        (job,) = client.get("/api/jobs").json()["jobs"]
        assert (job["begun_by"], job["within"]) == ("watch", str(source))
        assert server.end() == 0
    # Without --watch it rests, and can be switched on.
    with begun(library) as server, server.client() as client:
        assert folder(client, source)["state"] == "resting"
        assert server.end() == 0
    # Its drive is away when the server begins, and comes back.
    source.rename(tmp_path / "away")
    with begun(library, "--watch") as server, server.client() as client:
        until(lambda: folder(client, source)["state"] == "away")
        assert total(client) == 2
        write_film(tmp_path / "away" / "c.dcm", Film(image=3, size=64))
        (tmp_path / "away").rename(source)
        until(lambda: total(client) == 3)
        assert folder(client, source)["state"] == "watching"
        assert post(client, "/api/watched/off", path=str(source))["state"] == "off"
        assert client.get("/api/watched").json() == {"folders": []}
        assert server.end() == 0


@pytest.fixture
def here(tmp_path: Path) -> Any:
    with open_library(tmp_path / "library", create=True) as library, local_server(library) as local:
        yield local


def test_a_batch_that_is_stopped_pauses_its_folder_until_told(
    here: Any, tmp_path: Path, write_film: Callable[[Path, Film], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    still = hold(monkeypatch, "scans")
    source = tmp_path / "scans"
    for image in range(1, 13):
        write_film(source / f"{image}.dcm", Film(image=image, size=64))
    client = here.client
    post(client, "/api/watched/on", path=str(source))
    job_id = until(lambda: folder(client, source).get("job_id"))
    post(client, f"/api/jobs/{job_id}/cancel")
    still.go_on.set()
    until(lambda: folder(client, source)["state"] == "paused")
    assert client.get(f"/api/jobs/{job_id}").json()["state"] == "stopped"
    before = total(client)
    time.sleep(1)
    assert (total(client), folder(client, source)["state"]) == (before, "paused")
    assert before < 12
    post(client, "/api/watched/on", path=str(source))
    until(lambda: total(client) == 12)
    assert folder(client, source)["state"] == "watching"


def test_a_failure_is_told_and_tried_again(
    tmp_path: Path, write_film: Callable[[Path, Film], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_SECONDS_AFTER_FAILURE", 0.5)
    source = tmp_path / "scans"
    write_film(source / "a.dcm", Film(size=64))
    network = register_model(Path(os.environ["XDG_DATA_HOME"]), "other")
    content = network.read_bytes()
    with open_library(tmp_path / "library", create=True, model="other") as library, local_server(library) as here:
        network.unlink()
        post(here.client, "/api/watched/on", path=str(source))
        error = until(lambda: folder(here.client, source).get("error"))
        assert error["kind"] == "model_missing"
        assert error["remedy"]
        network.write_bytes(content)
        until(lambda: total(here.client) == 1 and folder(here.client, source)["error"] is None)


@pytest.mark.parametrize(
    ("path", "status"), [("relative", 422), ("/nowhere/at/all", 422), ("/a\0b", 422), (5, 422), ("", 422)]
)
def test_what_is_no_folder_is_not_watched(here: Any, path: Any, status: int) -> None:
    assert post(here.client, "/api/watched/on", status, path=path)["error"]["message"]
    assert here.client.get("/api/watched").json() == {"folders": []}


def test_a_file_is_not_watched_and_too_many_folders_are_refused(
    here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert "is no folder" in post(here.client, "/api/watched/on", 422, path=str(tmp_path / "file"))["error"]["message"]
    monkeypatch.setattr(upkeep, "MOST_WATCHED", 1)
    for name, status in (("one", 200), ("two", 400), ("one", 200)):
        (tmp_path / name).mkdir(exist_ok=True)
        post(here.client, "/api/watched/on", status, path=str(tmp_path / name))
    assert post(here.client, "/api/watched/off", 404, path=str(tmp_path / "two"))["error"]["kind"] == "not_found"


def test_a_folder_that_is_forgotten_is_watched_no_more(
    here: Any, tmp_path: Path, write_film: Callable[[Path, Film], Path]
) -> None:
    source, client = tmp_path / "scans", here.client
    write_film(source / "a.dcm", Film(size=64))
    post(client, "/api/watched/on", path=str(source))
    until(lambda: folder(client, source)["counts"])
    until(lambda: client.post("/api/sources/remove", json={"path": str(source)}).status_code == 200)
    assert client.get("/api/watched").json() == {"folders": []}
    assert total(client) == 0


@pytest.mark.skipif(os.name == "nt", reason="names that are not UTF-8 are a matter of other systems")
def test_a_name_that_is_not_utf_8_is_watched(
    here: Any, tmp_path: Path, write_film: Callable[[Path, Film], Path]
) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/sc\xe4ns"))
    write_film(source / "a.dcm", Film(size=64))
    post(here.client, "/api/watched/on", path=str(source))
    until(lambda: folder(here.client, source)["counts"] == {"indexed": 1})
    # Nobody tells of events under such a name.
    until(lambda: folder(here.client, source)["state"] == "polling")
    assert here.library.standing.watched() == [str(source)]


def test_what_is_sent_is_taken_in_also_after_a_restart(tmp_path: Path) -> None:
    library = tmp_path / "library"
    with begun(library, "--watch") as server, server.client() as client:
        assert client.get("/api/receiver").json()["state"] == "off"
        row = post(
            client, "/api/receiver/on", port=0, ae_title="HERE", require_called=True, allow_ae=["CT1"], reserve_mb=0
        )
        assert (row["state"], row["listening"]["host"]) == ("listening", "127.0.0.1")
        assert send(row["port"], Film(), title="HERE", own="CT2") == []
        assert send(row["port"], Film(), title="OTHER", own="CT1") == []
        assert send(row["port"], Film(image=1), Film(image=1), title="HERE", own="CT1") == [0, 0]
        until(lambda: total(client) == 1)
        row = until(
            lambda: (now := client.get("/api/receiver").json())["taken"]["counts"] and not now["waiting"] and now
        )
        assert (row["counts"]["received"], row["counts"]["duplicates"]) == (1, 1)
        assert row["counts"]["rejected"] == 2
        # What comes in the last moment is acknowledged, and taken in by the next launch.
        assert send(row["port"], Film(image=2), title="HERE", own="CT1") == [0]
        assert server.end() == 0
    with begun(library) as server, server.client() as client:
        assert client.get("/api/receiver").json()["state"] == "resting"
        assert server.end() == 0
    with begun(library, "--watch") as server, server.client() as client:
        until(lambda: total(client) == 2)
        row = until(lambda: (now := client.get("/api/receiver").json())["state"] == "listening" and now)
        assert row["listening"]["allow_ae"] == ["CT1"]
        port = row["port"]
        assert post(client, "/api/receiver/off")["state"] == "off"
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 5):
            pass
        assert server.end() == 0


def test_where_it_cannot_listen_it_says_why_and_stays_as_it_was(here: Any) -> None:
    client = here.client
    port = post(client, "/api/receiver/on", port=0, reserve_mb=0)["port"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        error = post(client, "/api/receiver/on", 422, port=number)["error"]
        assert "cannot listen there" in error["message"]
        assert "another port" in error["remedy"]
    for wrong in ({"host": "ward"}, {"allow_ip": ["10.1.2.300"]}, {"tls_key": "/no/key.pem"}, {"tls_cert": "/no.pem"}):
        assert post(client, "/api/receiver/on", 400, **wrong)["error"]["kind"] == "config", wrong
    post(client, "/api/receiver/on", 422, ae_title="LONGER THAN SIXTEEN")
    row = until(lambda: (now := client.get("/api/receiver").json())["state"] == "listening" and now)
    assert row["listening"] == Listening(port=0, reserve_mb=0).as_json()
    assert port
    assert send(row["port"], Film()) == [0]
    assert here.library.standing.reception()["port"] == 0


def test_a_port_that_is_taken_at_the_beginning_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_SECONDS_BETWEEN_TRIES", 0.2)
    with open_library(tmp_path / "library", create=True) as library:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listening = Listening(port=taken.getsockname()[1], reserve_mb=0)
            library.standing.keep_reception({**listening.as_json(), "on": True, "of another release": 1})
            jobs = upkeep.Jobs(library)
            kept = upkeep.Upkeep(library, jobs, begin=True)
            until(lambda: kept.receiving().state is upkeep.Keeping.FAILED)
            assert "cannot listen" in str(kept.receiving().error)
        until(lambda: kept.receiving().state is upkeep.Keeping.LISTENING)
        assert kept.receiving().error is None
        kept.close()
        jobs.close()


def test_a_disk_that_is_nearly_full_is_told_of(here: Any) -> None:
    row = post(here.client, "/api/receiver/on", port=0, reserve_mb=1 << 30)
    assert send(row["port"], Film()) == [0xA700]
    row = here.client.get("/api/receiver").json()
    assert (row["room"], row["counts"]["refused"], row["counts"]["received"]) == (False, 1, 0)


def fill(path: Path, count: int, *, kept: int) -> None:
    """Leave a library whose database has the room of vectors that are gone, all but `kept`."""
    with open_library(path, create=True) as library:
        database = library._database
        vectors = np.random.default_rng(0).standard_normal((2000, 1024)).astype(np.float32)
        for start in range(0, count, 2000):
            database.insert_vectors(np.arange(start, start + 2000), vectors, model_id="old")
        database.checkpoint()
        database.write("DELETE FROM vectors WHERE image_no >= $kept", {"kept": kept})
    assert (path / "library.duckdb").stat().st_size > 64 << 20


# The program as it is, but for the new database, which takes its place when it is told to.
SLOW_COMPACTION = """
import sys, time
from pathlib import Path
from medsearch_desktop.serve.cli import main
from medsearch_desktop.store.database import Database
replace_by, go_on = Database.replace_by, Path(sys.argv[1])
def wait(self, copy, **more):
    while not go_on.exists():
        time.sleep(0.01)
    return replace_by(self, copy, **more)
Database.replace_by = wait
sys.exit(main(sys.argv[2:]))
"""


def test_a_server_writes_its_database_anew_once_nobody_asks(tmp_path: Path) -> None:
    library, go_on = tmp_path / "library", tmp_path / "go-on"
    fill(library, 36_000, kept=12_000)
    file, part = library / "library.duckdb", library / "library.duckdb.compact"
    before, idle, paths = file.stat().st_size, 4, ("/api/status", "/api/failures", "/api/search?q=view:PA")
    begin = [sys.executable, "-c", SLOW_COMPACTION, str(go_on)]
    with begun(library, begin=begin, MEDSEARCH_COMPACT_IDLE=str(idle)) as server, server.client() as client:
        asked, longest = time.monotonic(), 0.0
        for _ in range(12):
            # While somebody asks it waits.
            began = time.monotonic()
            assert client.get("/api/search", params={"q": "view:PA"}).status_code == 200
            longest, asked = max(longest, time.monotonic() - asked), began
            time.sleep(0.5)
        early = part.exists()
        # Unless this machine is so busy that nobody asked for so long.
        assert not early or max(longest, time.monotonic() - asked) >= idle
        until(part.exists)
        for path in paths * 3:
            assert client.get(path).status_code == 200
        assert part.exists()
        assert file.stat().st_size == before
        go_on.touch()
        while file.stat().st_size == before:
            for path in paths:
                assert client.get(path).status_code == 200
        assert file.stat().st_size < before / 2
        post(client, "/api/saved", name="mine", question="effusion")
        assert server.end() == 0
    assert "database compacted" in (library / "medsearch.log").read_text()
    with open_library(library) as opened:
        assert opened._database.read("SELECT count(*) FROM vectors") == [(12_000,)]
        assert [each.name for each in opened.lists.saved()] == ["mine"]


def test_the_server_ends_within_a_moment_while_it_watches_and_receives(tmp_path: Path) -> None:
    def seconds_to_end(server: Served) -> float:
        began = time.monotonic()
        assert server.end() == 0
        return time.monotonic() - began

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with begun(tmp_path / "library") as server:
        # As long as it takes on this machine.
        idle = seconds_to_end(server)
    with begun(tmp_path / "library", "--watch") as server, server.client() as client:
        for name in ("one", "two"):
            post(client, "/api/watched/on", path=str(tmp_path / name))
        port = post(client, "/api/receiver/on", port=0, reserve_mb=0)["port"]
        ae = AE()
        ae.add_requested_context(CR)
        association = ae.associate("127.0.0.1", port)
        assert association.is_established
        # What it would wait for at most, where something hangs, is twenty seconds.
        assert seconds_to_end(server) < 15 + 2 * idle
