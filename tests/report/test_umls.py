"""A licence holder's Metathesaurus: imported whole or not at all, and used from then on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import rrf_made as made

from medsearch_desktop.errors import TerminologyError
from medsearch_desktop.report.linking import Linker
from medsearch_desktop.report.terminology import load_shipped
from medsearch_desktop.report.umls import RADIOLOGY_TYPES, import_umls, umls_path
from medsearch_desktop.report.umls_base import open_umls, read_about


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    return made.release(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_names_and_codes_come_from_the_release(tmp_path: Path, packed: bool) -> None:
    done = import_umls(made.release(tmp_path, packed=packed))
    assert (done.concepts, done.names, done.codes, done.unknown_codes, done.definitions) == (4, 6, 2, 1, 1)
    assert done.release == "UMLS 2026AA"
    assert done.path == umls_path()
    assert oct(done.path.stat().st_mode)[-3:] == "600"
    assert done.size == done.path.stat().st_size


def test_a_phrase_is_linked_by_the_imported_base(meta: Path) -> None:
    assert Linker().link("sparkling lung disease").code.cui != "C9900001"
    import_umls(meta)
    linker = Linker()
    link = linker.link("Sparkling lung disease")
    assert (link.code.cui, link.code.icd10cm, link.code.title) == ("C9900001", "J98.4", "Other disorders of lung")
    assert link.best is not None
    assert (link.best.source, link.best.name) == ("UMLS 2026AA", "Sparkling lung disease")
    side = linker.link("wobbling deformity of the left patella").code
    assert (side.cui, side.icd10cm) == ("C9900002", "M22.02")


def test_a_code_that_the_release_lacks_is_not_given(meta: Path) -> None:
    import_umls(meta)
    code = Linker().link("brumal sclerosis of the ankle").code
    assert (code.cui, code.icd10cm) == ("C9900003", "")


def test_other_languages_suppressed_names_and_other_types_are_left_out(meta: Path) -> None:
    import_umls(meta)
    base = open_umls(load_shipped())
    assert base is not None
    for name in ("pulmon brillante", "twinkling thorax", "protein zygodactyl"):
        assert base.same(" ".join(sorted(name.split()))) == []


def test_semantic_types_can_be_chosen(meta: Path) -> None:
    assert import_umls(meta, types=["Amino Acid, Peptide, or Protein"]).concepts == 1
    with pytest.raises(TerminologyError, match="no concept is of the chosen semantic types"):
        import_umls(meta, types=["Bird"])
    assert read_about(umls_path())["concepts"] == "1"


def test_definitions_may_be_missing(meta: Path) -> None:
    (meta / "MRDEF.RRF").unlink()
    assert import_umls(meta).definitions == 0


@pytest.mark.parametrize("name", ["MRCONSO.RRF", "MRSTY.RRF"])
def test_a_missing_file_is_named(meta: Path, name: str) -> None:
    (meta / name).unlink()
    with pytest.raises(TerminologyError, match=f"has neither {name} nor {name}.gz"):
        import_umls(meta)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"C9900009|ENG|P|L1\n", "line 10: has 3 columns"),
        (b"C9900009|ENG|P|L1|PF|S1|Y|A1||||MTH|PT||Cut", "line 10: is cut short"),
        (made.atom("C9900009", "x").encode() + b"more\n", "line 10: has 18 columns and a rest"),
        (made.atom("C9900009", "caf\u00e9").encode("latin-1") + b"\n", "line 10: is not UTF-8"),
        (made.atom("C9900009", "a|b").encode() + b"\n", "line 10: has 19 columns"),
    ],
)
def test_a_bad_line_is_named_and_the_base_in_use_stays(meta: Path, line: bytes, problem: str) -> None:
    import_umls(meta)
    before = umls_path().read_bytes()
    with (meta / "MRCONSO.RRF").open("ab") as file:
        file.write(line)
    with pytest.raises(TerminologyError, match=problem) as raised:
        import_umls(meta)
    assert "MRCONSO.RRF" in str(raised.value)
    assert umls_path().read_bytes() == before
    assert [path.name for path in umls_path().parent.parent.iterdir()] == ["umls"]


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    meta = made.release(tmp_path, packed=True, many=2_000)
    file = meta / "MRCONSO.RRF.gz"
    file.write_bytes(file.read_bytes()[:-2_000])
    with pytest.raises(TerminologyError, match=r"MRCONSO.RRF.gz, line \d+: cannot be unpacked"):
        import_umls(meta)
    assert not umls_path().exists()


def test_a_full_disk_is_told_and_the_base_in_use_stays(tmp_path: Path, meta: Path) -> None:
    import_umls(meta)
    before = umls_path().read_bytes()
    big = made.release(tmp_path / "big", many=20_000)
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from medsearch_desktop.report.umls import import_umls\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "import_umls(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(big)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "TerminologyError" in done.stderr
    assert "the one in use stays" in done.stderr
    assert umls_path().read_bytes() == before


def test_what_a_killed_import_left_is_swept_away(tmp_path: Path, meta: Path) -> None:
    import_umls(meta)
    before = umls_path().read_bytes()
    big = made.release(tmp_path / "big", many=2_000)
    # At the last moment: all is written, nothing is in place.
    code = (
        "import os, sys; from pathlib import Path; from medsearch_desktop.report.umls import import_umls\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "import_umls(Path(sys.argv[1]))"
    )
    died = subprocess.run([sys.executable, "-c", code, str(big)], check=False)
    assert died.returncode == -signal.SIGKILL
    home = umls_path().parent.parent
    assert list(home.glob(".import-*/*"))
    assert umls_path().read_bytes() == before
    import_umls(meta)
    assert [path.name for path in home.iterdir()] == ["umls"]


def test_memory_does_not_grow_with_the_release(tmp_path: Path) -> None:
    """What an import holds at most is the same for a release ten times as large, but for SQLite's bounded cache."""
    code = (
        "import resource, sys; from pathlib import Path; from medsearch_desktop.report.umls import import_umls\n"
        "import_umls(Path(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    most = []
    for many in (5_000, 50_000):
        meta = made.release(tmp_path / str(many), many=many)
        done = subprocess.run([sys.executable, "-c", code, str(meta)], capture_output=True, text=True, check=True)
        most.append(int(done.stdout) * (1 if sys.platform == "darwin" else 1024))
    assert most[1] - most[0] < 80 * 2**20


def test_progress_names_the_file_and_the_lines(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    import_umls(made.release(tmp_path, many=100_000), progress=lambda stage, lines: told.append((stage, lines)))
    assert ("MRSTY.RRF", 100_000) in told
    assert ("MRCONSO.RRF", 100_000) in told


def test_a_damaged_base_is_told(meta: Path) -> None:
    import_umls(meta)
    umls_path().write_bytes(b"no database")
    with pytest.raises(TerminologyError, match="import-umls"):
        Linker().link("sparkling lung disease")


def test_the_default_types_are_sorted_and_unique() -> None:
    assert list(RADIOLOGY_TYPES) == sorted(set(RADIOLOGY_TYPES))
