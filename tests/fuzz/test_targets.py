"""The fuzz targets over their seeds and over some damage to them, and the fuzzer itself over a planted defect.

FUZZED_INPUTS sets how many damaged inputs each target gets. `make fuzz` gives each as many as fit into a minute.
"""

from __future__ import annotations

import os
import random
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzz.__main__ import SECONDS_PER_INPUT, run
from fuzz.mutations import damaged
from fuzz.seen import SEEN
from fuzz.targets import TARGETS, take

from medsearch_desktop.report.pdf import HELPER

COUNT = int(os.environ.get("FUZZED_INPUTS", "100"))
# A tenth of a second each.
DEAR = {"parquet"}
TESTS = Path(__file__).parents[1]
# As in the readers themselves: what pydicom warns of is no news here.
pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")

# A reader with a defect that bytes lead to step by step, which is what branches are counted for.
PLANTED = """
from fuzz.targets import Target
def reader(data):
    if data[:1] == b"M":
        if data[1:2] == b"S":
            if data[2:3] == b"H":
                raise IndexError("planted")
TARGETS = {"planted": Target(reader, lambda: [b"none"])}
"""
HARNESS = """
import sys
from fuzz.guided import fuzz
fuzz("planted", sys.argv[1], sys.argv[2:], seen=("planted",))
"""


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_survives_damage_to_them(name: str) -> None:
    target, rng = TARGETS[name], random.Random(name)
    seeds = list(target.seeds())
    outcomes = [take(target, seed) for seed in seeds]
    assert all(outcomes), [number for number, taken in enumerate(outcomes) if not taken]
    try:
        for number in range(COUNT // 5 if name in DEAR else COUNT):
            data = damaged(rng.choice(seeds), rng)
            began = time.process_time()
            outcomes.append(take(target, data))
            assert time.process_time() - began < SECONDS_PER_INPUT, (name, number)
    finally:
        HELPER.close()
    # Damage that is never noticed would show that nothing is looked at.
    assert not target.refusals or not all(outcomes)


def test_the_branches_that_are_counted_for_a_target_are_those_of_modules_there_are() -> None:
    assert SEEN.keys() == TARGETS.keys()
    for modules in SEEN.values():
        assert [module for module in modules if find_spec(module) is None] == []


@pytest.mark.slow
def test_the_fuzzer_finds_a_planted_defect_and_keeps_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris", reason="no atheris: `pip install 'medsearch-desktop[fuzz]'` (Linux)")
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "harness.py").write_text(HARNESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(TESTS), str(TESTS.parent))))
    folders = {"corpus": tmp_path / "corpus", "findings": tmp_path / "findings"}
    count, found = run("planted", seconds=120, module="harness", **folders)
    assert count > 10
    ((path),) = found
    assert path.read_bytes()[:3] == b"MSH"
    assert "planted" in path.with_name(f"{path.name}.txt").read_text("utf-8")
    # One that has no such defect comes to its end without a finding.
    (tmp_path / "planted.py").write_text(PLANTED.replace("raise IndexError", "print"))
    assert run("planted", seconds=120, module="harness", executions=2000, **folders) == (2000, [])
    (tmp_path / "harness.py").write_text("import sys; sys.exit('no such thing')")
    with pytest.raises(RuntimeError, match="no such thing"):
        run("planted", seconds=5, module="harness", **folders)
    assert sys.modules.get("planted") is None
