"""Sending to real stations on loopback: our own receiver, ones that take little, dcmtk's, and none."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from certificates_made import make_certificate
from makers import Film, dataset, pixels, write_department
from pydicom.uid import JPEG2000Lossless, RLELossless
from pynetdicom import AE, _config, evt
from servers import served

from medsearch_desktop.errors import ConfigError
from medsearch_desktop.library import open_library
from medsearch_desktop.sending import Station
from medsearch_desktop.serve.cli import main
from medsearch_desktop.source.receiver import Receiver, Reception
from medsearch_desktop.source.spool import Spool

CR = "1.2.840.10008.5.1.4.1.1.1"


@contextmanager
def station(tmp_path: Path, **settings: Any) -> Iterator[tuple[str, list[str]]]:
    kept: list[str] = []
    spool = Spool(tmp_path / "station", reserve_bytes=0)
    with Receiver(spool, Reception(port=0, ae_title="STATION", **settings), kept.append) as receiver:
        yield f"STATION@127.0.0.1:{receiver.port}", kept


@contextmanager
def small_station(*syntaxes: str, status: int = 0x0000) -> Iterator[tuple[str, list[pydicom.Dataset]]]:
    """A station that takes CR alone, in these transfer syntaxes."""
    came: list[pydicom.Dataset] = []

    def store(event: evt.Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        came.append(ds)
        return status

    ae = AE("SMALL")
    for syntax in syntaxes:
        ae.add_supported_context(CR, syntax)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield f"SMALL@127.0.0.1:{server.server_address[1]}", came
    finally:
        server.shutdown()


@pytest.fixture
def library(tmp_path: Path) -> str:
    with open_library(tmp_path / "library", create=True) as opened:
        opened.ingest([write_department(tmp_path / "source", studies=2)], metadata_only=True)
    return str(tmp_path / "library")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    status = main([*arguments, "--json"])
    out = capsys.readouterr().out
    return status, json.loads(out) if out else None


def test_images_are_sent_by_question_and_by_identifier(
    library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with station(tmp_path) as (place, kept):
        status, told = run(capsys, "send", place, "view:PA", "--library", library)
        assert (status, told["sent"], told["failed"]) == (0, 4, 0)
        assert {row["status"] for row in told["results"]} == {"0x0000"}
        status, told = run(capsys, "send", place, told["results"][0]["image_id"], "--library", library)
        assert (status, told["sent"]) == (0, 1)
    sent = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, (tmp_path / "source").rglob("*.dcm"))}
    assert {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, kept)} == sent


def test_a_station_that_asks_for_a_certificate_is_sent_to_through_tls(
    library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hospital = make_certificate(tmp_path, "hospital")
    theirs, ours = (str(make_certificate(tmp_path, name, issuer=hospital[:2])[2]) for name in ("theirs", "ours"))
    stranger = str(make_certificate(tmp_path, "stranger")[2])
    authority = str(hospital[2])
    with station(tmp_path, certificate=theirs, authority=authority) as (place, kept):
        assert run(capsys, "echo", place, "--tls-ca", authority, "--tls-cert", ours)[0] == 0
        command = ("send", place, "view:PA", "--library", library)
        status, told = run(capsys, *command, "--tls-ca", authority, "--tls-cert", ours, "--tls-key", ours)
        assert (status, told["sent"], len(kept)) == (0, 4, 4)
        for wrong in ((), ("--tls-ca", authority), ("--tls-ca", stranger, "--tls-cert", ours)):
            assert run(capsys, *command, "--timeout", "5", *wrong)[0] == 1, wrong
    assert len(kept) == 4


def test_a_packed_file_is_sent_as_it_is_or_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = Film(size=64)
    ds = dataset(film)
    ds.compress(RLELossless, generate_instance_uid=False)
    (tmp_path / "source").mkdir()
    ds.save_as(tmp_path / "source" / "film.dcm", enforce_file_format=True)
    library = tmp_path / "library"
    with open_library(library, create=True) as opened:
        opened.ingest([tmp_path / "source"], metadata_only=True)
    with small_station(RLELossless, pydicom.uid.ExplicitVRLittleEndian) as (place, came):
        status, told = run(capsys, "send", place, ds.SOPInstanceUID, "--library", str(library))
        assert (status, told["results"][0]["note"]) == (0, "")
        assert came[0].file_meta.TransferSyntaxUID == RLELossless
    for syntax in (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian):
        with small_station(syntax) as (place, came):
            status, told = run(capsys, "send", place, ds.SOPInstanceUID, "--library", str(library))
            assert (status, told["sent"]) == (0, 1)
            assert "unpacked" in told["results"][0]["note"]
        assert came[0].SOPInstanceUID == ds.SOPInstanceUID
        assert np.array_equal(came[0].pixel_array, pixels(film))
    with small_station(JPEG2000Lossless) as (place, came):
        status, told = run(capsys, "send", place, ds.SOPInstanceUID, "--library", str(library))
        assert (status, told["failed"]) == (1, 1)
        assert "takes no such" in told["results"][0]["note"]


def test_what_a_station_refuses_is_told_by_file(library: str, capsys: pytest.CaptureFixture[str]) -> None:
    with small_station(pydicom.uid.ExplicitVRLittleEndian, status=0xA700) as (place, _):
        status, told = run(capsys, "send", place, "view:PA", "--library", library)
    assert (status, told["sent"], told["failed"]) == (1, 0, 4)
    assert told["results"][0]["status"] == "0xA700"
    assert "out of resources" in told["results"][0]["note"]


def test_files_that_are_gone_or_no_dicom_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    source = tmp_path / "source"
    write_department(source, studies=1)
    Image.new("L", (64, 64)).save(source / "picture.png")
    with open_library(tmp_path / "library", create=True) as opened:
        opened.ingest([source], metadata_only=True)
        ids = [name for (name,) in opened._database.read("SELECT image_id FROM images")]
    next(source.rglob("image1.dcm")).unlink()
    with station(tmp_path) as (place, _):
        status, told = run(capsys, "send", place, *ids, "9.9.9", "--library", str(tmp_path / "library"))
    assert (status, told["sent"], told["failed"]) == (1, 1, 3)
    notes = {row["note"] for row in told["results"] if not row["ok"]}
    assert "is no DICOM instance" in notes
    assert "the library has no such image" in notes


def test_a_file_without_meta_information_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = dataset(Film())
    meta = ds.file_meta
    del ds.file_meta
    (tmp_path / "source").mkdir()
    pydicom.dcmwrite(tmp_path / "source" / "bare", ds, implicit_vr=True, little_endian=True)
    ds.file_meta = meta
    with open_library(tmp_path / "library", create=True) as opened:
        opened.ingest([tmp_path / "source"], metadata_only=True)
    with station(tmp_path) as (place, kept):
        assert run(capsys, "send", place, ds.SOPInstanceUID, "--library", str(tmp_path / "library"))[0] == 0
    assert pydicom.dcmread(kept[0]) == ds


def test_a_member_of_an_archive_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_department(tmp_path / "made", studies=1)
    with zipfile.ZipFile(tmp_path / "cd.zip", "w") as file:
        for path in (tmp_path / "made").rglob("*.dcm"):
            file.write(path, path.name)
    with open_library(tmp_path / "library", create=True) as opened:
        opened.ingest([tmp_path / "cd.zip"], metadata_only=True)
    with station(tmp_path) as (place, kept):
        assert run(capsys, "send", place, "view:PA", "--library", str(tmp_path / "library"))[0] == 0
    assert len(kept) == 2
    image = pydicom.dcmread(kept[0]).SOPInstanceUID
    assert main(["open", image, "--library", str(tmp_path / "library")]) == 1
    assert "archive" in capsys.readouterr().err


def test_a_served_library_is_sent_from(library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(Path(library)), station(tmp_path) as (place, kept):
        assert run(capsys, "echo", place, "--remember", "archive")[0] == 0
        status, told = run(capsys, "send", "archive", "view:PA", "--library", library)
    assert (status, told["sent"], len(kept)) == (0, 4, 4)


def test_echo_says_what_does_not_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with station(tmp_path, callers=("KNOWN",), require_called=True) as (place, _):
        assert run(capsys, "echo", place, "--ae-title", "KNOWN") == (0, {"station": place, "ok": True})
        assert main(["echo", place]) == 1
        assert "does not know who calls" in capsys.readouterr().err
        assert main(["echo", place.replace("STATION", "OTHER"), "--ae-title", "KNOWN"]) == 1
        assert "is not called that" in capsys.readouterr().err
    assert main(["echo", place]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        assert main(["echo", f"X@127.0.0.1:{silent.getsockname()[1]}", "--timeout", "1"]) == 1
        assert time.monotonic() - started < 15
    assert "cannot be reached" in capsys.readouterr().err
    with small_station(pydicom.uid.ExplicitVRLittleEndian) as (place, _):
        assert main(["echo", place]) == 1
        assert "answers no C-ECHO" in capsys.readouterr().err


def test_a_station_is_remembered_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with station(tmp_path) as (place, _):
        assert run(capsys, "echo", place, "--remember", "archive")[0] == 0
        assert run(capsys, "echo", "archive") == (0, {"station": place, "ok": True})
    assert run(capsys, "echo") == (0, {"archive": place})


@pytest.mark.parametrize(
    "text", ["", "AE", "AE@host", "AE@host:0", "AE@host:70000", "A E@h:1", "AE@h h:1", "x" * 17 + "@h:1", "A\\B@h:1"]
)
def test_what_is_no_station_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="no station"):
        Station.parse(text)


def test_stations_are_written_as_they_are_read() -> None:
    for text in ("AE@host:104", "MY-AE_1@[::1]:11112", "A@10.0.0.1:1"):
        assert str(Station.parse(text)) == text


def test_sending_leaves_the_settings_of_the_process_as_they_were(
    library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pydicom import config

    before = (_config.STORE_SEND_CHUNKED_DATASET, config.settings.reading_validation_mode)
    with station(tmp_path) as (place, _):
        run(capsys, "send", place, "view:PA", "--library", library)
    assert (_config.STORE_SEND_CHUNKED_DATASET, config.settings.reading_validation_mode) == before


@pytest.mark.skipif(shutil.which("storescp") is None, reason="needs dcmtk's storescp (apt-get install dcmtk)")
def test_dcmtk_takes_what_is_sent(library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "dcmtk").mkdir()
    with subprocess.Popen(["storescp", "-od", str(tmp_path / "dcmtk"), str(port)]) as process:
        try:
            end = time.monotonic() + 30
            while main(["echo", f"DCMTK@127.0.0.1:{port}", "--json"]):
                assert time.monotonic() < end
            capsys.readouterr()
            status, told = run(capsys, "send", f"DCMTK@127.0.0.1:{port}", "view:PA", "--library", library)
        finally:
            process.terminate()
    assert (status, told["sent"]) == (0, 4)
    assert len(list((tmp_path / "dcmtk").iterdir())) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="a program in place of xdg-open")
def test_a_file_is_opened_by_the_program_of_the_system(
    library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_library(library) as opened:
        [(image, path)] = opened._database.read("SELECT image_id, path FROM images ORDER BY image_id LIMIT 1")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "xdg-open").write_text(f'#!/bin/sh\nprintf "%s|" "$#" "$1" > {tmp_path}/opened\n')
    (programs / "xdg-open").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert run(capsys, "open", image, "--library", library) == (0, {"image_id": image, "path": path})
    assert (tmp_path / "opened").read_text() == f"1|{path}|"
    (programs / "xdg-open").write_text("#!/bin/sh\nexit 3\n")
    assert main(["open", image, "--library", library]) == 1
    assert "no program opens it" in capsys.readouterr().err
