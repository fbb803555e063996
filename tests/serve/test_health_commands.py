"""`medsearch verify|repair|backup|restore|compact`, alone and through the process that owns the library."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from makers import write_department
from servers import served

from medsearch_desktop.library import open_library
from medsearch_desktop.serve.cli import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("health")
    source = write_department(folder / "source", studies=2, size=64)
    for path in source.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
    return folder


@pytest.fixture
def library(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "library", tmp_path / "library")
    return tmp_path / "library"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def damage(library: Path) -> None:
    with open_library(library) as opened:
        opened._database.write("INSERT INTO vectors SELECT 999, model_id, vector FROM vectors LIMIT 1")


def test_a_fault_is_named_with_its_remedy_and_mended(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "verify", "--files", "--library", library)
    assert status == 0
    assert "sound" in out
    damage(library)
    status, out, _ = run(capsys, "verify", "--library", library, "--json")
    row = json.loads(out)
    assert (status, row["ok"], row["kinds"]["vector-without-image"]) == (1, False, 1)
    status, out, _ = run(capsys, "verify", "--library", library)
    assert status == 1
    assert "vector-without-image: 999: a vector of an image that is gone. `medsearch repair` sets it right" in out
    status, out, _ = run(capsys, "repair", "--library", library)
    assert status == 0
    assert "1 items mended: vector-without-image" in out
    assert run(capsys, "verify", "--library", library)[0] == 0
    assert run(capsys, "repair", "--library", library)[1] == "nothing was to be done\n"


def test_a_backup_is_made_and_restored(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "backup", tmp_path / "kept", "--library", library, "--json")
    assert status == 0
    assert json.loads(out)["rows"]["images"] == 4
    status, out, _ = run(capsys, "restore", tmp_path / "kept", "--library", tmp_path / "new")
    assert status == 0
    assert "4 images" in out
    assert run(capsys, "verify", "--library", tmp_path / "new")[0] == 0
    for target in (library, tmp_path / "new"):
        status, _, err = run(capsys, "restore", tmp_path / "kept", "--library", target)
        assert status == 1
        assert "nothing is written over" in err
    assert run(capsys, "backup", tmp_path / "kept" / "library.json", "--library", library)[0] == 1
    status, out, _ = run(capsys, "compact", "--library", library, "--json")
    assert (status, json.loads(out)["done"]) == (0, True)
    assert run(capsys, "verify", "--library", library)[0] == 0
    assert run(capsys, "compact", "--library", tmp_path / "nowhere")[0] == 1


def test_the_owner_of_a_library_does_it_too(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(library)
    with served(library) as server:
        assert run(capsys, "verify", "--library", library)[0] == 1
        status, out, _ = run(capsys, "repair", "--library", library, "--json")
        assert (status, json.loads(out)["mended"]) == (0, {"vector-without-image": 1})
        assert run(capsys, "verify", "--files", "--library", library)[0] == 0
        status, out, _ = run(capsys, "backup", tmp_path / "kept", "--library", library)
        assert status == 0
        assert "4 images" in out
        status, _, err = run(capsys, "backup", tmp_path / "kept" / MANIFEST, "--library", library)
        assert status == 1
        assert "is there already" in err
        status, _, err = run(capsys, "compact", "--library", library)
        assert status == 1
        assert "in use by process" in err
        with server.client() as client:
            for body in ({}, {"target": "relative"}, {"target": 5}, {"target": "/a\0b"}):
                answer = client.post("/api/health/backup", json=body)
                assert 400 <= answer.status_code < 500
    assert run(capsys, "restore", tmp_path / "kept", "--library", tmp_path / "new")[0] == 0


MANIFEST = "manifest.json"
