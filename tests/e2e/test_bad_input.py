"""What people really hand in, through the real program: a clear message, a sane exit status, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from held import Held
from makers import Film, dataset, write_department

from medsearch_desktop.library import FORMAT, MARKER, open_library


def medsearch(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "medsearch_desktop", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )


def only_failure(library: Path, source: Path) -> str:
    """Ingest a folder with one bad file among good ones and return why it failed."""
    done = medsearch("ingest", "--json", "--library", library, source)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["failed"] == 1, answer
    assert answer["indexed"] == 3, answer
    return answer["failures"][0]["reason"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_department(tmp_path / "source", studies=1)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = medsearch("ingest", "--library", tmp_path / "library", tmp_path / "empty")
    assert (done.returncode, done.stderr) == (0, "")
    assert "The folder is empty" in done.stdout


def test_a_folder_of_junk(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.mkdir()
    for name in ("a.docx", "b.xlsx", "c", "d.log"):
        (junk / name).write_bytes(os.urandom(3000))
    done = medsearch("ingest", "--library", tmp_path / "library", junk)
    assert done.returncode == 0
    assert "Nothing here is DICOM" in done.stdout


def test_a_truncated_dicom(tmp_path: Path, source: Path) -> None:
    film = dataset(Film(patient=9, study=9))
    film.save_as(source / "cut.dcm", enforce_file_format=True)
    (source / "cut.dcm").write_bytes((source / "cut.dcm").read_bytes()[:-5000])
    assert "Copy the file again" in only_failure(tmp_path / "library", source)
    with open_library(tmp_path / "library") as library:
        assert library.search("patient:P0009").total == 1


def test_a_dicom_without_pixels(tmp_path: Path, source: Path) -> None:
    film = dataset(Film(patient=9, study=9))
    del film.PixelData
    film.save_as(source / "plan.dcm", enforce_file_format=True)
    assert "no pixel data" in only_failure(tmp_path / "library", source)
    with open_library(tmp_path / "library") as library:
        assert library.search("patient:P0009").total == 1


def set_rows(content: bytes) -> bytes:
    return content.replace(b"\x28\x00\x10\x00US\x02\x00\x60\x00", b"\x28\x00\x10\x00US\x02\x00\xff\xff").replace(
        b"\x28\x00\x11\x00US\x02\x00\x60\x00", b"\x28\x00\x11\x00US\x02\x00\xff\xff"
    )


def set_length(content: bytes) -> bytes:
    at = content.rindex(b"\xe0\x7f\x10\x00OW")
    return content[: at + 8] + struct.pack("<I", 0xFFFFFFFE) + content[at + 12 :]


# Where only the length lies and every pixel is there, the image is indexed.
@pytest.mark.parametrize(("claim", "failed"), [(set_rows, 1), (set_length, 0)])
def test_a_claim_of_four_gigabytes(tmp_path: Path, source: Path, claim: Callable[[bytes], bytes], failed: int) -> None:
    film = source / "huge.dcm"
    dataset(Film(patient=9, study=9)).save_as(film, enforce_file_format=True)
    content = film.read_bytes()
    film.write_bytes(claim(content))
    assert film.read_bytes() != content
    # A limit on the address space would stop any attempt to allocate what is claimed. Each thread takes of it, too.
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (6 << 30,) * 2)\n"
    code += "from medsearch_desktop.serve.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "ingest", "--json", "--threads", "2", "--library", tmp_path / "library", source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["failed"], answer["indexed"]) == (failed, 4 - failed)


def test_a_report_of_five_megabytes(tmp_path: Path, source: Path) -> None:
    sentences = "FINDINGS: No pneumothorax. " + "The image of the lungs was shown once more. " * 20
    (source / "endless.txt").write_text(sentences * 6000, "utf-8")
    reason = only_failure(tmp_path / "library", source)
    assert "max_report_bytes" in reason or "MEDSEARCH_MAX_REPORT_BYTES" in reason
    done = medsearch(
        "failures", "--retry", "--json", "--library", tmp_path / "library", MEDSEARCH_MAX_REPORT_BYTES="9000000"
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, [])


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig", "cp1252"])
def test_a_report_in_any_encoding(tmp_path: Path, source: Path, encoding: str) -> None:
    (source / "befund.txt").write_bytes("FINDINGS: Épanchement pleural, Größe 3 cm. Pneumothorax.".encode(encoding))
    done = medsearch("ingest", "--json", "--library", tmp_path / "library", source)
    assert json.loads(done.stdout)["failed"] == 0
    with open_library(tmp_path / "library") as library:
        (hit,) = library.search("épanchement").hits
        assert "Größe" in hit.snippet


def test_a_library_of_a_newer_format(tmp_path: Path, source: Path) -> None:
    medsearch("ingest", "--library", tmp_path / "library", source)
    (tmp_path / "library" / MARKER).write_text(json.dumps({"format": FORMAT + 1}))
    done = medsearch("search", "--json", "--library", tmp_path / "library", "effusion")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Install the release that wrote it" in done.stderr


def test_two_processes_on_one_library(tmp_path: Path, source: Path) -> None:
    write_department(source, studies=12)
    held = Held(tmp_path, "s50000006/image1")
    command = [*held.line, "ingest", "--json", "--library", str(tmp_path / "library"), str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            held.until_reached(first)
            done = medsearch("ingest", "--library", tmp_path / "library", source)
        finally:
            held.go_on()
        out, _ = first.communicate()
    assert (done.returncode, first.returncode) == (1, 0)
    assert "is in use by" in done.stderr
    assert json.loads(out)["images"] == 24


def test_a_missing_model_file(tmp_path: Path, source: Path) -> None:
    checkout = tmp_path / "checkout"
    package = Path(__file__).parents[2] / "medsearch_desktop"
    shutil.copytree(package, checkout / "medsearch_desktop", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "models", checkout / "models", ignore=shutil.ignore_patterns("*.onnx"))
    done = subprocess.run(
        [sys.executable, "-m", "medsearch_desktop", "ingest", "--library", tmp_path / "library", source],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert ".onnx" in done.stderr


def test_ctrl_c_says_that_one_may_go_on(tmp_path: Path) -> None:
    source, held = write_department(tmp_path / "source", studies=30), Held(tmp_path, "s50000015/image1")
    command = [*held.line, "ingest", "--library", str(tmp_path / "library"), str(source)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            held.until_reached(process)
            process.send_signal(signal.SIGINT)
        finally:
            held.go_on()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "goes on from there" in err
    assert "Traceback" not in err
    with open_library(tmp_path / "library") as library:
        kept = library.totals().images
    assert 0 < kept < 60
    answer = json.loads(medsearch("ingest", "--json", "--library", tmp_path / "library", source).stdout)
    assert answer["images"] == 60 - kept


def test_wrong_settings_stop_the_program(tmp_path: Path) -> None:
    done = medsearch("doctor", MEDSEARCH_BATCH_SIZE="many")
    assert (done.returncode, done.stdout) == (1, "")
    assert "MEDSEARCH_BATCH_SIZE: must be of type int" in done.stderr
