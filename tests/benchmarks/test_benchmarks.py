"""The benchmarks run, and what does not depend on the clock holds: at small sizes, as the command that users type."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medsearch_desktop.serve.api.pages import BUILT, INDEX

ROOT = Path(__file__).resolve().parents[2]
# Without "embed", which takes 20 seconds at any size: its subject has tests of its own.
NAMES = ("help", "start", "text", "ingest", "headers", "switch", "visual", "open", "serve", "scale", "demo")
# What sends is dcmtk's storescu (apt-get install dcmtk).
NAMES += ("receive", "receive-indexing") if shutil.which("storescu") else ()

pytestmark = pytest.mark.slow


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out, work = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("work")
    done = run("--quick", "--out", str(out), "--work", str(work), *NAMES)
    assert done.returncode == 0, done.stderr
    results = {name: json.loads((out / f"{name}.json").read_text("utf-8")) for name in NAMES}
    return {"table": done.stdout, **results}


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("name", NAMES)
def test_each_gives_rows_a_command_and_its_conditions(found: dict[str, Any], name: str) -> None:
    result = found[name]
    assert result["command"].startswith(f"python -m tests.benchmarks {name}")
    assert result["rows"]
    assert all(len(row) == 3 and row[0] and row[1] for row in result["rows"])
    assert result["conditions"]["seconds"] > 0
    assert result["conditions"]["other_cores"] >= 0
    assert all(number == number and abs(number) < 1e12 for number in numbers(result["result"]))


def test_the_table_has_a_line_for_every_row(found: dict[str, Any]) -> None:
    lines = found["table"].splitlines()
    assert all(line.startswith("| ") and line.count("|") == 6 for line in [lines[0], *lines[2:]])
    assert len(lines) == 2 + sum(len(found[name]["rows"]) for name in NAMES)


def test_approximate_search_finds_nearly_all_and_filtered_search_all(found: dict[str, Any]) -> None:
    visual = found["visual"]["result"]
    assert visual["graph_build_s"] > 0
    assert visual["recall"] >= 0.99
    assert [case["recall"] for case in visual["filtered"]] == [1.0] * 5
    assert all(case["recall"] >= 0.99 for case in visual["by_size"])


def test_an_ingest_is_told_apart_by_stages(found: dict[str, Any]) -> None:
    ingest = found["ingest"]["result"]
    stages = ingest["stages_ms_per_film"]
    assert {"read", "hash", "decode", "look-up", "thumbnail", "tensor", "model", "database"} <= set(stages)
    assert ingest["model_share_of_processor_time"] > 0
    assert ingest["cloud"] or len(ingest["ingest_over_cloud"]) == 2


def test_a_switch_is_timed_beside_the_ingest_of_the_same_run(found: dict[str, Any]) -> None:
    switch = found["switch"]["result"]
    ratio = switch["images_per_s"]["switch"]["median"] / switch["images_per_s"]["ingest"]["median"]
    assert switch["switch_over_ingest"]["median"] == pytest.approx(ratio)


def test_the_demo_is_judged_for_every_finding_it_shows(found: dict[str, Any]) -> None:
    demo = found["demo"]["result"]
    assert demo["overall"]["asked"] == sum(case["asked"] for case in demo["by_finding"].values()) > 0
    for case in (demo["overall"], *demo["by_finding"].values()):
        low, high = case["interval"]
        assert 0 <= low <= case["precision"] <= high <= 1
        # Of a finding that one patient alone has, there is nothing to find with other patients.
        assert 0 <= case["chance"] < 1
    assert demo["overall"]["chance"] > 0


def test_first_answers_and_searches_were_measured_in_a_library_of_the_size_asked_for(found: dict[str, Any]) -> None:
    result = found["open"]["result"]
    assert set(result["warm"]) == {"text", "visual", "visual, by a file from outside"}
    assert result["searches"]["reports"] == 1300
    assert result["searches"]["images"] == 3000
    assert result["searches"]["median_total"] > 0


def test_typing_is_timed_at_the_server_and_at_the_client_and_every_question_is_asked(found: dict[str, Any]) -> None:
    result = found["serve"]["result"]
    assert set(result["typing"]["requests"]) == {"completions", "answers and facets", "answers alone"}
    for kind in result["typing"]["requests"].values():
        assert kind["requests"] > 10
        assert 0 < kind["server_ms"]["p50"] <= kind["client_ms"]["p50"]
    assert len(result["graphql"]) == 20
    assert result["memory_mb"]["at_start"] > 50


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium: `apt-get install chromium`")
@pytest.mark.skipif(not (BUILT / INDEX).is_file(), reason="the interface is not built: `make ui`")
def test_the_window_is_timed_in_a_browser(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="no browser driver: `pip install playwright`")
    done = run("--quick", "--out", str(tmp_path), "--work", str(tmp_path), "window")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "window.json").read_text("utf-8"))["result"]
    assert 0 < result["paint_ms"]["first_paint"]["p50"] <= result["paint_ms"]["answers"]["p50"]
    for films in (result["first_film_ms"], result["next_film_ms"]):
        assert 0 < films["seen"]["p50"] <= films["whole"]["p50"]
    assert [sample["visits"] for sample in result["memory"]["samples"]] == list(range(11))
    assert 50 < result["initial_kb"] < 350


def test_a_library_is_measured_at_each_size_and_sound(found: dict[str, Any]) -> None:
    small, large = found["scale"]["result"]["sizes"]
    assert (small["images"], small["graph"], large["images"], large["graph"]) == (300, 0, 2000, 2000)
    assert small["recall"] == 1.0
    assert large["recall"] >= 0.98
    assert small["faults"] == large["faults"] == 0


def test_an_unknown_name_is_refused() -> None:
    done = run("nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr
