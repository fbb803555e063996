"""The interface in a browser: first paint, a large film on screen, memory over many pages, what is loaded at first.

    python -m tests.benchmarks window

The built pages, a warm `medsearch serve` of the demo library, Chromium without a graphics card (`--disable-gpu`): what
draws is the processor. Each page load has a browser context of its own, so that nothing is in the browser's cache.
"First paint" is First Contentful Paint, "answers" the frame after which the first answers stand on the page, both from
the beginning of the navigation, the redirect of the login among it. A film is on screen when the frame after the
one that drew it has begun; its clock starts at the click on its thumbnail, on a study page that has come to rest.
Memory: of JavaScript after a forced garbage collection, and what the browser's processes have for themselves (USS)
once they were told that memory is short: what they cache is theirs to use as long as it is not.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from medsearch_desktop.demo.build import build_demo_source
from medsearch_desktop.library import open_library
from medsearch_desktop.serve.api.pages import BUILT, INDEX
from tests.benchmarks.corpus import write_films
from tests.chromium import chromium
from tests.servers import Served, served

VIEWPORT = {"width": 1280, "height": 800}
PATIENCE_MS = 60_000
MOST_INITIAL_KB = 350
FILMS = 8
# As many are gone round: what the pages keep on purpose, they have by the third round; what grows then is lost.
STUDIES = 8
SECONDS_TO_SHRINK = 1.0
# Notes the times on the page's own clock; `performance.now()` begins with the navigation.
CLOCK = """
window.noted = {};
// The Content-Security-Policy lets no text be run to ask for it, so that the end is to be seen in the document.
const note = (name) => {
  window.noted[name] ??= performance.now();
  document.documentElement.setAttribute(`data-${name}`, '');
};
const drawn = (name) => requestAnimationFrame(() => requestAnimationFrame(() => note(name)));
addEventListener('click', (event) => {
  if (!event.target.closest('a[href^="/view"]')) return;
  window.noted = { clicked: performance.now() };
  document.documentElement.removeAttribute('data-whole');
}, true);
const look = () => {
  const { noted } = window;
  if (!('total' in noted) && document.querySelector('[data-testid=total]:not(:empty)')) {
    noted.total = performance.now();
    drawn('answers');
  }
  if ('clicked' in noted) {
    const state = document.querySelector('.pane')?.dataset.state;
    if (state === 'preview' && !('preview' in noted)) { noted.preview = performance.now(); drawn('seen'); }
    if (state === 'shown' && !('shown' in noted)) { noted.shown = performance.now(); drawn('seen'); drawn('whole'); }
  }
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
Row = tuple[str, str, str]


def measure(
    work: Path, *, studies: int = 120, size: int = 2048, loads: int = 7, opens: int = 7, visits: int = 500
) -> dict[str, Any]:
    """Return milliseconds of page loads and of films of `size` x `size`, and memory over `visits` pages, in MB."""
    if not (BUILT / INDEX).is_file():
        raise RuntimeError("the browser interface is not built: `make ui`")
    library = _library(work, studies=studies, size=size)
    with served(library) as running, chromium() as browser:
        _load(browser, running)
        painted = [_load(browser, running) for _ in range(loads)]
        first, again = [], []
        for _ in range(opens):
            new, known = _open_films(browser, running, size=size)
            first.append(new)
            again += known
        memory = _visit(browser, running, visits=visits)
    return {
        "what": f"demo library of {studies} studies",
        "film": f"{size} x {size}, 16 bit",
        "paint_ms": _spreads(painted),
        "first_film_ms": _spreads(first),
        "next_film_ms": _spreads(again),
        "memory": memory,
        "initial_kb": _initial_kilobytes(),
    }


def rows(result: dict[str, Any]) -> list[Row]:
    """Return what a table shows of `measure`."""
    paint, first, again = result["paint_ms"], result["first_film_ms"], result["next_film_ms"]

    def said(spread: dict[str, float]) -> str:
        return f"p50 {spread['p50']:.0f}, at most {spread['max']:.0f} ms"

    memory = result["memory"]
    early, late = memory["samples"][len(memory["samples"]) // 5], memory["samples"][-1]
    return [
        (
            f"window, {result['what']}: first paint; answers on screen",
            f"{said(paint['first_paint'])}; {said(paint['answers'])}",
            "< 1,500 ms",
        ),
        (
            f"film of {result['film']}, from the click: to be seen; in full depth",
            f"{said(first['seen'])}; {said(first['whole'])}",
            "< 1,000 ms",
        ),
        ("the same, next film", f"{said(again['seen'])}; {said(again['whole'])}", "< 1,000 ms"),
        (
            f"memory after {early['visits']} and after {late['visits']} pages",
            f"JavaScript {early['heap_mb']:.1f} and {late['heap_mb']:.1f} MB, its arrays {early['arrays_mb']:.0f} and "
            f"{late['arrays_mb']:.0f} MB; browser {early['browser_mb']:.0f} and {late['browser_mb']:.0f} MB; "
            f"server {early['server_mb']:.0f} and {late['server_mb']:.0f} MB",
            "steady",
        ),
        ("initial JavaScript, gzipped", f"{result['initial_kb']:.0f} kB", f"<= {MOST_INITIAL_KB} kB"),
    ]


def _library(work: Path, *, studies: int, size: int) -> Path:
    folder = work / f"window-{studies}-{size}"
    if not (folder / "done").exists():
        build_demo_source(folder / "source", studies=studies, size=min(1024, size))
        write_films(folder / "films", FILMS, size=size, seed=31)
        with open_library(folder / "library", create=True) as library:
            library.ingest([folder / "source", folder / "films"])
        (folder / "done").touch()
    return folder / "library"


def _page(browser: Any) -> Any:
    context = browser.new_context(viewport=VIEWPORT, color_scheme="dark")
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(CLOCK)
    return context.new_page()


def _login(running: Served) -> str:
    with running.client() as client:
        return running.url + str(client.post("/api/login").raise_for_status().json()["path"])


def _load(browser: Any, running: Served) -> dict[str, float]:
    page = _page(browser)
    page.goto(_login(running))
    page.locator("html[data-answers]").wait_for(state="attached")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    answers = page.evaluate("window.noted.answers")
    page.context.close()
    return {"first_paint": paint, "answers": answers}


def _open_films(browser: Any, running: Served, *, size: int) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Open films of different studies in a new browser context: the first, and those after it."""
    with running.client() as client:
        found = client.get("/api/search", params={"q": "", "k": 1000, "facets": False}).json()["hits"]
        studies = {hit["study_uid"]: client.get(f"/api/studies/{hit['study_uid']}").json() for hit in found}
    large = [uid for uid, study in studies.items() if study["images"] and study["images"][0]["rows"] == size][:3]
    page = _page(browser)
    page.goto(_login(running))
    taken = []
    for uid in large:
        # Within the page, as its own links go.
        page.evaluate("(path) => history.pushState({}, '', path)", f"/study/{uid}")
        link = page.locator('a[href^="/view"]').first
        link.wait_for()
        # Away from the links, where a resting pointer would have fetched already what the click asks for.
        page.mouse.move(1, 1)
        page.wait_for_load_state("networkidle")
        # An idle moment, in which the page may fetch what is likely to be wanted next.
        page.wait_for_timeout(1500)
        link.click()
        page.locator("html[data-whole]").wait_for(state="attached")
        noted = page.evaluate("window.noted")
        taken.append({name: noted[name] - noted["clicked"] for name in ("seen", "whole")})
    page.context.close()
    return taken[0], taken[1:]


def _visit(browser: Any, running: Served, *, visits: int) -> dict[str, Any]:
    """Go round the pages in one window, and sample memory 11 times on the way."""
    page = _page(browser)
    page.goto(_login(running))
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    every = max(1, visits // 10)
    samples = []
    done = 0
    started = time.perf_counter()
    for number in range(visits):
        if number % every == 0:
            samples.append({"visits": number, **_memory(session, running)})
        _go(page, number)
        done += 1
    samples.append({"visits": done, **_memory(session, running)})
    page.context.close()
    return {"seconds_a_visit": round((time.perf_counter() - started) / visits, 2), "samples": samples}


def _go(page: Any, number: int) -> None:
    """Make visit `number`: search, study, viewer, ask by a region, library, and around again with other images."""
    round_, step = divmod(number, 5)
    match step:
        case 0:
            page.get_by_role("navigation").get_by_text("Search", exact=True).click()
            page.locator('a[href^="/study/"]').first.wait_for()
        case 1:
            links = page.locator('a[href^="/study/"]')
            links.nth(round_ % min(STUDIES, links.count())).click()
            page.locator("section[aria-label=Reports]").wait_for()
        case 2:
            # The study's own first film, not one of those like it.
            page.locator('a[href^="/view"]').first.click()
            page.locator(".pane[data-state=shown]").wait_for()
        case 3:
            page.get_by_text("Ask by a region").first.click()
            page.locator("main").get_by_role("heading").first.wait_for(state="attached")
            with suppress(Exception):
                page.wait_for_load_state("networkidle", timeout=2000)
        case _:
            page.get_by_role("navigation").get_by_text("Library", exact=True).click()
            page.locator("main").get_by_role("heading").first.wait_for(state="attached")


def _memory(session: Any, running: Served) -> dict[str, Any]:
    session.send("Memory.simulatePressureNotification", {"level": "critical"})
    time.sleep(SECONDS_TO_SHRINK)
    for _ in range(2):
        session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")
    parts = _browser_megabytes()
    counters = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return {
        "heap_mb": round(heap["usedSize"] / 1e6, 2),
        "arrays_mb": round(heap.get("backingStorageSize", 0) / 1e6, 1),
        "nodes": counters["Nodes"],
        "listeners": counters["JSEventListeners"],
        "browser_mb": round(sum(parts.values())),
        "browser_parts_mb": parts,
        "server_mb": round(psutil.Process(running.process.pid).memory_info().rss / 1e6),
    }


def _browser_megabytes() -> dict[str, int]:
    """Return what each kind of the browser's processes has for itself; the one that draws is called gpu-process."""
    parts: dict[str, int] = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "chrom" in process.name():
                kinds = [word.removeprefix("--type=") for word in process.cmdline() if word.startswith("--type=")]
                kind = kinds[0] if kinds else "browser"
                parts[kind] = parts.get(kind, 0) + round(process.memory_full_info().uss / 1e6)
    return parts


def _initial_kilobytes() -> float:
    """Return what of the scripts the first page loads, by the manifest of the build, as gzip packs it."""
    manifest = json.loads((BUILT / ".vite" / "manifest.json").read_text("utf-8"))
    reached, ahead = set(), [INDEX]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += manifest[name].get("imports", ())
    files = [BUILT / manifest[name]["file"] for name in reached]
    return sum(len(gzip.compress(file.read_bytes())) for file in files if file.suffix == ".js") / 1000


def _spreads(taken: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: _spread([each[name] for each in taken]) for name in taken[0]}


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": round(float(np.median(values)), 1), "max": round(max(values), 1)}


def main() -> None:
    """Print what was measured as JSON."""
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Path(name)), indent=2))


if __name__ == "__main__":
    main()
