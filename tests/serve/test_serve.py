"""`medsearch serve` as a process, and the command line that speaks to it: the same answers, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from held import Held
from makers import uid, write_department
from running import spoken
from servers import Served, served

from medsearch_desktop.library import open_library
from medsearch_desktop.serve.cli import main
from medsearch_desktop.serve.owner import FILE, Owner, ask_owner, find_owner


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    source = write_department(folder / "source", studies=6)
    (source / "bad.dcm").write_bytes(b"junk")
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
        library.index_regions()
    return folder


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[Served]:
    # What the command line prints without an owner, from a copy that nobody owns.
    shutil.copytree(made / "library", made / "alone")
    with served(made / "library") as running:
        yield running


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_it_says_where_it_is_and_tells_its_own_programs(server: Served, made: Path) -> None:
    file = made / "library" / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    row = json.loads(file.read_text())
    assert (row["url"], row["token"], row["pid"]) == (server.url, server.token, server.process.pid)
    assert httpx.get(f"{server.url}/api/status", trust_env=False, timeout=60).status_code == 401
    with server.client() as client:
        assert client.get("/api/status").json()["totals"]["images"] == 12


def test_it_listens_on_loopback_and_opens_nothing_else(server: Served) -> None:
    with server.client() as client:
        client.get("/api/search", params={"q": f"effusion like:{uid(1, 1, 1)}"})
        process = psutil.Process(server.process.pid)
        sockets = process.net_connections("inet")
        assert process.children() == []
    assert [s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN] == ["127.0.0.1"]
    assert {s.laddr.ip for s in sockets} == {"127.0.0.1"}
    assert {s.raddr.ip for s in sockets if s.raddr} <= {"127.0.0.1"}


FILM = "FILM"


@pytest.mark.parametrize("form", [["--json"], []], ids=["json", "text"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "effusion", "-k", "3"],
        ["search", "study", "-k", "2", "--offset", "3"],
        ["search", "", "--sort", "patient"],
        ["search", f"effusion like:{uid(1, 1, 1)}", "-k", "4"],
        ["search", "nothing-like-it"],
        ["similar", uid(1, 1, 1), "-k", "3"],
        ["similar", uid(1, 1, 1), "--roi", "10,10,40,40", "--where", "view:LL"],
        ["similar", FILM, "-k", "2"],
        ["facets"],
        ["facets", "view:PA"],
        ["failures"],
    ],
    ids=" ".join,
)
def test_through_the_owner_the_answer_is_the_same(
    server: Served, made: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], form: list[str]
) -> None:
    film = str(min((made / "source").rglob("image1.dcm")))
    arguments = [film if part == FILM else part for part in arguments]
    alone = run(capsys, *arguments, *form, "--library", made / "alone")
    through = run(capsys, *arguments, *form, "--library", made / "library")
    assert alone[0] == through[0] == 0
    # Each library has its thumbnails in its own folder.
    assert through[1] == alone[1].replace(str(made / "alone"), str(made / "library"))
    assert through[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "(effusion"],
        ["search", "nofield:x"],
        ["similar", "no-such-image"],
        ["similar", uid(1, 1, 1), "--roi", "0,0,5000,5000"],
        ["similar", uid(1, 1, 1), "--model", "none"],
        ["similar", "NOT-AN-IMAGE"],
        ["ingest", "/nowhere/at/all"],
    ],
    ids=" ".join,
)
def test_through_the_owner_the_error_is_the_same(
    server: Served, made: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    text = made / "no image.txt"
    text.write_text("no image")
    arguments = [str(text) if part == "NOT-AN-IMAGE" else part for part in arguments]
    alone = run(capsys, *arguments, "--library", made / "alone")
    through = run(capsys, *arguments, "--library", made / "library")
    assert alone[0] == through[0] == 1
    assert through[1:] == alone[1:]
    assert through[2]


def test_an_ingest_through_the_owner_is_the_same(
    server: Served, made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_department(made / "more", studies=1, first=20)
    # A relative path is relative to where the command runs.
    monkeypatch.chdir(made)
    rows = []
    for library in ("alone", "library"):
        status, out, _ = run(capsys, "ingest", "more", "--json", "--library", made / library)
        row = json.loads(out)
        assert status == 0
        assert row.pop("seconds") > 0
        rows.append(row)
    assert rows[0] == rows[1]
    assert list(rows[0]) == list(rows[1])
    assert rows[0]["indexed"] == 3
    again = json.loads(run(capsys, "ingest", "more", "--json", "--library", made / "library")[1])
    assert again["unchanged"] == 3
    retried = run(capsys, "failures", "--retry", "--json", "--library", made / "library")
    assert [Path(row["path"]).name for row in json.loads(retried[1])] == ["bad.dcm"]


def test_an_image_outside_the_library_is_not_asked_by_its_path_in_words(
    server: Served, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = min((made / "source").rglob("image1.dcm"))
    status, out, err = run(capsys, "search", f'like:"{film}"', "--library", made / "library")
    assert (status, out) == (1, "")
    assert "the library has no such image" in err


def test_a_second_server_says_who_owns_it(server: Served, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "serve", "--library", made / "library")
    assert (status, out) == (1, "")
    assert f"process {server.process.pid} at {server.url}" in err
    # The file of the first is still the first's.
    assert find_owner(made / "library") is not None


def test_other_commands_say_who_owns_it(server: Served, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "reports", "show", "s50000001", "--library", made / "library")
    assert status == 1
    assert f"process {server.process.pid}" in err


def test_a_port_that_is_taken_is_told(
    server: Served, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = server.url.rpartition(":")[2]
    status, out, err = run(capsys, "serve", "--port", port, "--library", tmp_path / "own")
    assert (status, out) == (1, "")
    assert "--port" in err
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org", "localhost", "224.0.0.1"])
def test_it_listens_at_one_address(tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str) -> None:
    status, out, err = run(capsys, "serve", "--host", host, "--library", tmp_path / "own")
    assert (status, out) == (1, "")
    assert f"--host {host}" in err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 for loopback; run it there")
def test_at_another_address_it_is_there_for_this_machines_programs_too(tmp_path: Path) -> None:
    with served(tmp_path / "library", "--host", "127.0.0.2") as running:
        assert running.url.startswith("http://127.0.0.2:")
        with running.client() as client:
            assert client.get("/api/status").status_code == 200
        owner = find_owner(tmp_path / "library")
        assert owner is not None
        assert owner.url.startswith("http://127.0.0.1:")
        remote = ask_owner(tmp_path / "library")
        assert remote is not None
        assert remote.failures() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_parks_an_ingest_and_the_library_is_whole(tmp_path: Path, number: int) -> None:
    source, held = write_department(tmp_path / "source", studies=30), Held(tmp_path, "s50000012/image1")
    with served(tmp_path / "library", begin=held.line) as running:
        with running.client() as client:
            job = client.post("/api/jobs", json={"paths": [str(source)]}).json()
            with client.stream("GET", f"/api/jobs/{job['job_id']}/events") as events:
                held.until_reached(running.process)
                running.process.send_signal(number)
                # They end when every job has been told to stop: this one, which stands still, as well.
                told = [json.loads(line[6:])["state"] for line in events.iter_lines() if line.startswith("data: ")]
                assert told[-1] == "running"
            held.go_on()
            assert running.process.wait(60) == 0
        assert running.process.stderr is not None
        assert spoken(running.process.stderr.read()) == ""
    assert not (tmp_path / "library" / FILE).exists()
    with open_library(tmp_path / "library") as library:
        kept = library.totals()
        assert 0 < kept.files < 90
        assert library.vectors.count == kept.vectors == kept.images
        assert library.fulltext.document_count == library.catalogue.document_count()
        summary = library.ingest([source])
        assert (summary.unchanged, summary.indexed) == (kept.files, 90 - kept.files)
        assert library.totals().images == 60


@pytest.mark.parametrize("left", ["nothing", "dead", "reused", "elsewhere", "open", "garbage", "pipe"])
def test_a_file_that_nobody_stands_behind_counts_for_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    folder = tmp_path / "library"
    shutil.copytree(made / "library", folder, ignore=shutil.ignore_patterns("*.wal", FILE))
    own = Owner.of_this_process("http://127.0.0.1:9", "token")
    file = folder / FILE
    if left == "dead":
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            process.wait()
        Owner(own.url, own.token, process.pid, time.time()).write(folder)
    elif left == "reused":
        Owner(own.url, own.token, own.pid, own.began - 1000).write(folder)
    elif left == "elsewhere":
        Owner("http://192.0.2.1:80", own.token, own.pid, own.began).write(folder)
    elif left == "open":
        own.write(folder)
        file.chmod(0o644)
    elif left == "garbage":
        file.write_text("{")
        file.chmod(0o600)
    elif left == "pipe":
        os.mkfifo(file, 0o600)
    assert find_owner(folder) is None
    assert ask_owner(folder) is None
    status, out, _ = run(capsys, "search", "effusion", "--json", "--library", folder)
    assert status == 0
    assert json.loads(out)["total"] > 0


def test_a_port_where_somebody_else_answers_is_no_owner(made: Path, tmp_path: Path) -> None:
    with served(tmp_path / "other") as other:
        Owner.of_this_process(other.url, "not its token").write(tmp_path)
        assert find_owner(tmp_path) is not None
        assert ask_owner(tmp_path) is None


def test_an_owner_that_goes_away_is_told(tmp_path: Path) -> None:
    with served(tmp_path / "library") as running:
        remote = ask_owner(tmp_path / "library")
        assert remote is not None
        assert remote.search("x").total == 0
        assert running.end() == 0
        from medsearch_desktop.errors import ServeError

        with pytest.raises(ServeError, match=f"process {running.process.pid}"):
            remote.search("x")


def test_the_environment_cannot_make_it_report_elsewhere(tmp_path: Path) -> None:
    environ = {
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.1:4318",
        "HTTP_PROXY": "http://192.0.2.1:3128",
    }
    with served(tmp_path / "library", **environ) as running, running.client() as client:
        assert client.get("/api/status").status_code == 200
        sockets = psutil.Process(running.process.pid).net_connections("inet")
        assert {s.raddr.ip for s in sockets if s.raddr} <= {"127.0.0.1"}


def test_doctor_opens_no_socket_beside_a_server(server: Served, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from medsearch_desktop.serve.cli import main\n"
        "sys.exit(main(['doctor', '--json', '--library', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, made / "library"], capture_output=True, text=True, check=False, env=os.environ
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["network"]["state"] == "ok"
    assert f"process {server.process.pid}" in checks["library"]["seen"]
