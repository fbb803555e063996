"""The wheel carries the built browser interface, or its build says what is missing; Node is kept out of the way."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="nothing to build a wheel with: `pip install hatchling`")

ROOT = Path(__file__).parents[1]
STATIC = Path("medsearch_desktop", "serve", "static")
NOT_BUILT = "the browser interface is not built, and Node 20.19 or newer, which builds it, is not here"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the build reads of the project, with an interface of two files that is newer than its sources."""
    folder = tmp_path / "project"
    wanted = ("medsearch_desktop", "models", "ui")
    aside = shutil.ignore_patterns("node_modules", "static", "__pycache__", "pictures")
    for name in wanted:
        shutil.copytree(ROOT / name, folder / name, ignore=aside)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    # The content of the network is not what is looked at, and packing it takes seconds.
    (folder / "models" / "densenet121-cxr1.onnx").write_bytes(b"")
    (folder / STATIC / "assets").mkdir(parents=True)
    (folder / STATIC / "index.html").write_text("<!doctype html>")
    (folder / STATIC / "assets" / "index.js").write_text("1")
    return folder


def build(project: Path, target: str = "wheel") -> tuple[int, str]:
    """Build where no Node can be found; return the exit status and what was said."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(project / "dist")],
        cwd=project,
        env={**os.environ, "PATH": str(project / "nothing")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def packed(project: Path) -> set[str]:
    (wheel,) = (project / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_built_interface_is_packed_without_node(copy: Path) -> None:
    status, said = build(copy)
    assert status == 0, said
    assert "older" not in said
    assert {f"{STATIC.as_posix()}/index.html", f"{STATIC.as_posix()}/assets/index.js"} <= packed(copy)


def test_one_that_is_older_than_its_sources_is_packed_and_told(copy: Path) -> None:
    os.utime(copy / STATIC / "index.html", (1, 1))
    status, said = build(copy)
    assert status == 0, said
    assert "The built browser interface is older than its sources" in said
    assert f"{STATIC.as_posix()}/index.html" in packed(copy)


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_without_either_the_build_fails_and_says_why(copy: Path, target: str) -> None:
    shutil.rmtree(copy / STATIC)
    status, said = build(copy, target)
    assert status != 0
    assert NOT_BUILT in " ".join(said.split())
    assert not list(copy.glob("dist/*"))


def test_an_editable_install_builds_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(copy / STATIC)
    monkeypatch.setenv("PATH", str(copy / "nothing"))
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "ui" / "build_hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hook = module.InterfaceHook(str(copy), {}, None, None, str(copy / "dist"), "wheel")
    hook.initialize("editable", {})
    assert not (copy / STATIC).exists()
    with pytest.raises(RuntimeError, match="not built"):
        hook.initialize("standard", {})
