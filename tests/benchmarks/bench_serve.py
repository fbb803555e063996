"""Search as you type, and every GraphQL question, asked of a real server over loopback.

    python -m tests.benchmarks serve

Questions are typed letter by letter. At each letter the client asks what the page asks: what the last word may
become, and the first page of answers with all facets; then that page without facets. The page waits 120 ms before it
asks for answers, so that whoever types fast asks for fewer than are asked for here. No text is asked for twice, and
texts without an answer, such as most beginnings of words, are left out of the times: nothing is quicker.
Server time is what the server says in Server-Timing, from a request's arrival to the beginning of its answer; client
time has the loopback, and reading and parsing JSON in this process, added to it.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from tests.benchmarks.bench_text import questions
from tests.benchmarks.corpus import image_id, large_library
from tests.servers import served

# As ui/src asks for them.
PAGE, COMPLETIONS = 20, 8
WANTED_MS = 100
Row = tuple[str, str, str]


def measure(
    work: Path, *, images: int = 100_000, reports: int = 100_000, typed: int = 60, rounds: int = 5, **settings: Any
) -> dict[str, Any]:
    """Return milliseconds of every kind of request, and the memory of the server in MB.

    `typed` questions are typed; each GraphQL question is asked `rounds` times with other values.
    """
    library, _ = large_library(work, images=images, reports=reports, **settings)
    path = library.path
    library.close()
    environ = {f"MEDSEARCH_{name.upper()}": str(value) for name, value in settings.items()}
    with served(path, **environ) as running, running.client() as client:
        process = psutil.Process(running.process.pid)
        first = _timed(client, "GET", "/api/search", params={"q": "", "k": PAGE, "facets": True})
        assert first.pop("told")["total"] == max(images, reports)
        memory = {"at_start": _megabytes(process)}
        typing = _type(client, questions(typed, seed=23))
        memory["after_typing"] = _megabytes(process)
        # The first image loads the index of all.
        film = f"{{ getSimilarImages(ImageId: {json.dumps(image_id(0))}) {{ ImageId }} }}"
        loading = _timed(client, "POST", "/graphql", json={"query": film})
        assert len(loading.pop("told")["data"]["getSimilarImages"]) == 10
        memory["with_vectors"] = _megabytes(process)
        graphql = _graphql(client, images=images, reports=reports, rounds=rounds)
        memory["after_graphql"] = _megabytes(process)
    return {
        "what": f"server of {images} images and {reports} reports",
        "first_page_ms": first,
        "typing": typing,
        "first_image_ms": loading,
        "graphql": graphql,
        "memory_mb": memory,
    }


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    lines = []
    typing = result["typing"]
    for kind, found in typing["requests"].items():
        server, client = found["server_ms"], found["client_ms"]
        lines.append(
            (
                f"{result['what']}: each letter, {kind}",
                f"p50 {server['p50']:.1f}, p95 {server['p95']:.1f}, at most {server['max']:.1f} ms; "
                f"at the client {client['p50']:.1f}, {client['p95']:.1f}, {client['max']:.1f} ms",
                f"p95 < {WANTED_MS} ms",
            )
        )
    by_median = sorted((found["server_ms"]["p50"], name) for name, found in result["graphql"].items())
    lines.append(
        (
            f"{result['what']}: {len(by_median)} GraphQL questions",
            f"median of each {by_median[0][0]:.1f} ({by_median[0][1]}) to {by_median[-1][0]:.1f} ms "
            f"({by_median[-1][1]}); the first by an image, which loads the index, "
            f"{result['first_image_ms']['server_ms']:.0f} ms",
            "",
        )
    )
    memory = result["memory_mb"]
    lines.append(
        (
            f"{result['what']}: memory",
            f"{memory['at_start']:.0f} MB at first, {memory['after_typing']:.0f} after typing, "
            f"{memory['with_vectors']:.0f} with the image index, {memory['after_graphql']:.0f} after GraphQL",
            "",
        )
    )
    return lines


def _type(client: httpx.Client, asked: list[str]) -> dict[str, Any]:
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "completions": ("/api/complete", {"k": COMPLETIONS}),
        "answers and facets": ("/api/search", {"k": PAGE, "facets": True}),
        "answers alone": ("/api/search", {"k": PAGE, "facets": False}),
    }
    times: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    unfinished = empty = 0
    for text in _prefixes(asked):
        for kind, (route, parameters) in kinds.items():
            taken = _timed(client, "GET", route, params={"q": text, **parameters})
            told = taken.pop("told")
            if taken["status"] != 200:
                # A phrase without its end, for one, is no question yet; the page says so.
                unfinished += 1
            elif not (told.get("total") or told.get("completions")):
                empty += 1
            else:
                times[kind].append({**taken, "asked": text})
    requests = {}
    for kind, taken in times.items():
        slowest = sorted(taken, key=lambda each: -each["server_ms"])[:5]
        requests[kind] = {
            "requests": len(taken),
            **_spreads(taken),
            "slowest": [{"asked": each["asked"], "server_ms": each["server_ms"]} for each in slowest],
        }
    return {"questions": len(asked), "no_question_yet": unfinished, "no_answer": empty, "requests": requests}


def _prefixes(asked: list[str]) -> Iterator[str]:
    seen: set[str] = set()
    for question in asked:
        for end in range(1, len(question) + 1):
            text = question[:end]
            # What ends with a blank means what it meant before.
            if not text.endswith(" ") and text not in seen:
                seen.add(text)
                yield text


def _graphql(client: httpx.Client, *, images: int, reports: int, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(29)
    times: dict[str, list[dict[str, Any]]] = {}
    words = ("effusion", "pneumothorax nodule", "left basilar", "granuloma", "no acute cardiomegaly")
    for number in range(rounds):
        image = image_id(int(rng.integers(images)))
        report = f"r{int(rng.integers(reports))}"
        listed = json.dumps([f"r{each}" for each in rng.integers(0, reports, 100).tolist()])
        for name, text in _questions(image, report, words[number % len(words)], listed, start=number * 100).items():
            taken = _timed(client, "POST", "/graphql", json={"query": text})
            assert set(taken.pop("told")["data"]) == {name}
            times.setdefault(name, []).append(taken)
    return {name: _spreads(taken) for name, taken in times.items()}


def _questions(image: str, report: str, words: str, listed: str, *, start: int) -> dict[str, str]:
    """Return every question of the schema, by name."""
    film = "{ ImageId ReportId Bucket Key Modality ViewPosition BodyPartExamined }"
    text = f"{{ ReportId Findings Impression Indication PositiveDiagnoses NegativeICD10CMs Images {film} }}"
    buckets = "{ key doc_count }"
    asked = {
        "getImage": f"getImage(ImageId: {json.dumps(image)}) {film}",
        "getImages": f"getImages(ReportId: {json.dumps(report)}) {film}",
        "getReport": f"getReport(ReportId: {json.dumps(report)}) {text}",
        "listReports": f"listReports(from: {start}, size: 20) {text}",
        "searchReports": f"searchReports(input: {json.dumps(words)}) {text}",
        "getSimilarImages": f"getSimilarImages(ImageId: {json.dumps(image)}, k: 20) {film}",
        "getAllPositiveICD10CMs": f"getAllPositiveICD10CMs {buckets}",
        "getAllNegativeICD10CMs": f"getAllNegativeICD10CMs {buckets}",
    }
    for state in ("Positive", "Negative"):
        asked |= {f"get{state}ICD10CMs": f"get{state}ICD10CMs(input: {json.dumps(words)}) {buckets}"}
        for kind in ("ICD10CMs", "Signs", "Diagnoses", "Symptoms"):
            name = f"get{state}{kind}byReports"
            asked[name] = f"{name}(input: {json.dumps(listed)}) {buckets}"
        name = f"get{state}ICD10CMsbySimilarReport"
        asked[name] = f"{name}(input: {json.dumps(report)}) {buckets}"
    return {name: f"{{ {text} }}" for name, text in asked.items()}


def _timed(client: httpx.Client, method: str, route: str, **asked: Any) -> dict[str, Any]:
    started = time.perf_counter()
    answer = client.request(method, route, **asked)
    told = answer.json()
    taken = 1e3 * (time.perf_counter() - started)
    assert answer.status_code in (200, 400, 422), told
    # A GraphQL error comes with 200.
    assert not (answer.status_code == 200 and "errors" in told), told
    server = float(answer.headers["server-timing"].partition("dur=")[2])
    return {"status": answer.status_code, "told": told, "server_ms": server, "client_ms": round(taken, 1)}


def _spreads(taken: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {name: _spread([each[name] for each in taken]) for name in ("server_ms", "client_ms")}


def _spread(values: list[float]) -> dict[str, float]:
    return {
        **{f"p{level}": round(float(np.percentile(values, level)), 1) for level in (50, 95)},
        "max": round(max(values), 1),
    }


def _megabytes(process: psutil.Process) -> float:
    return round(float(process.memory_info().rss) / 1e6, 1)


def main() -> None:
    """Print what was measured as JSON."""
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Path(name)), indent=2))


if __name__ == "__main__":
    main()
