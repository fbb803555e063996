"""The import rule of the house, read off the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "medsearch_desktop"
ROOMS = {"source", "image", "report", "store", "search", "serve", "demo"}
SHARED = {"bounded", "disk", "records", "config", "errors", "statements"}
# Who may import whom beside the shared modules and siblings; None is everything.
ALLOWED: dict[str, set[str] | None] = {
    "source": set(),
    "image": set(),
    "report": set(),
    "demo": set(),
    "store": set(),
    "search": {"store"},
    "inbox": {"source"},
    "serve": {
        "inbox",
        "library",
        "workbench",
        "doctor",
        "health",
        "registry",
        "demo",
        "report",
        "search",
        "image",
        "lists",
        "packing",
        "outgoing",
        "sending",
        "source",
        "stations",
        "",
    },
    "conveyor": {"source"},
    "quarantine": {"conveyor", "store"},
    "courtesy": set(),
    "log": set(),
    "feeds": {"source", "report", "store"},
    "filing": {"source", "store"},
    "work": {"conveyor", "feeds", "image", "report", "source"},
    "ingest": {"conveyor", "courtesy", "filing", "image", "quarantine", "report", "source", "store", "work"},
    "reread": {"report", "store"},
    "review": {"report", "store", "reread"},
    "reembed": {"conveyor", "quarantine", "source", "image", "store"},
    "workbench": {"conveyor", "source", "image", "report", "feeds"},
    "holdings": {"conveyor", "source", "image", "store"},
    "health": {"conveyor", "embeddings", "source", "store"},
    "handout": {"image", "store", "holdings"},
    "packing": {"store"},
    "lists": {"search", "store", "holdings", "handout", "packing"},
    "volumes": {"image", "store", "search"},
    "embeddings": {"image", "quarantine", "store", "reembed", "workbench"},
    "regions": {"image", "quarantine", "search", "store", "workbench"},
    "likeness": {"embeddings", "regions", "search", "store", "volumes", "workbench"},
    "library": {
        "source",
        "image",
        "report",
        "store",
        "search",
        "filing",
        "holdings",
        "ingest",
        "lists",
        "health",
        "log",
        "outgoing",
        "quarantine",
        "reembed",
        "likeness",
        "regions",
        "reread",
        "review",
        "embeddings",
        "volumes",
        "workbench",
    },
    "doctor": {"image", "library", "workbench"},
    "registry": {"image", "report"},
    "sending": {"image", "source"},
    "outgoing": {"holdings", "sending", "source", "store"},
    "stations": {"sending"},
    "bounded": set(),
    "disk": set(),
    "records": set(),
    "statements": set(),
    "errors": set(),
    "config": set(),
    "__init__": {"library"},
    "__main__": {"serve"},
}
# A library that only one file, or the files of one folder, may import, so that its errors are translated in one place.
SOLE_IMPORTERS = {
    "duckdb": "store/database.py",
    "hnswlib": "store/graph.py",
    "tantivy": "store/fulltext",
    "onnxruntime": "image/embed.py",
    "openvino": "image/openvino_engine.py",
    "av": "image/video.py",
    "cryptography": "image/signing.py",
    "striprtf": "report/markup.py",
    "pypdf": "report/pdf.py",
    "uvicorn": "serve/server.py",
    "ariadne": "serve/graphql.py",
    "webview": "serve/window.py",
    "PySide6": "serve/window.py",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_stay_within_the_rule(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = ALLOWED[own]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "medsearch_desktop" or len(parts) < 2:
            continue
        target = parts[1]
        if target in SHARED or target == own or target.startswith("__"):
            continue
        if target in ROOMS or (PACKAGE / f"{target}.py").exists():
            assert allowed is None or target in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize(("library", "importer"), SOLE_IMPORTERS.items())
def test_a_wrapped_library_has_one_importer(library: str, importer: str) -> None:
    users = [path for path in modules() if library in {name.split(".")[0] for name in imported(path)}]
    assert users
    assert [path for path in users if PACKAGE / importer not in (path, path.parent)] == []


def test_the_rule_knows_every_module() -> None:
    tops = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()}
    assert tops == set(ALLOWED)
