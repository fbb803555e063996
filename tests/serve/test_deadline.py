"""A question that takes too long is refused in time; the server goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Local, local_server

from medsearch_desktop.library import open_library
from medsearch_desktop.serve.api import app
from medsearch_desktop.serve.deadline import Deadline
from medsearch_desktop.serve.security import App


class Bounds(Deadline):
    """The real one with a limit that tests change: a short one is for what waits, not for what a slow machine does."""

    limit = 60.0

    def __init__(self, inner: App, *, seconds: float) -> None:
        super().__init__(inner, seconds=seconds)
        assert seconds == 1.0

    @property
    def _seconds(self) -> float:
        return Bounds.limit

    @_seconds.setter
    def _seconds(self, seconds: float) -> None:
        """Leave it to the test."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    monkeypatch.setattr(app, "Deadline", Bounds)
    monkeypatch.setattr(Bounds, "limit", 60.0)
    with (
        open_library(tmp_path / "library", create=True, max_answer_seconds=1.0) as library,
        local_server(library) as local,
    ):
        yield local


def test_a_question_that_takes_too_long_is_told_so(served: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    release, ended = threading.Event(), threading.Event()

    def facets(*_: Any) -> dict[str, Any]:
        release.wait(300)
        ended.set()
        return {}

    monkeypatch.setattr(served.library, "facets", facets)
    monkeypatch.setattr(Bounds, "limit", 0.5)
    answer = served.client.get("/api/facets", params={"q": "effusion"})
    assert answer.status_code == 503
    assert answer.json()["error"]["kind"] == "slow"
    assert "max_answer_seconds" in answer.json()["error"]["remedy"]
    assert "content-security-policy" in answer.headers
    monkeypatch.setattr(Bounds, "limit", 60.0)
    # Others are answered meanwhile, and the same connection takes the next question.
    assert served.client.get("/api/search", params={"facets": False}).status_code == 200
    assert not ended.is_set()
    release.set()
    assert ended.wait(60)
    assert served.client.get("/api/facets").json() == {}


def test_what_fails_after_the_deadline_disturbs_nobody(
    served: Local, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    release, words = threading.Event(), "Doe^John"

    def facets(*_: Any) -> dict[str, Any]:
        release.wait(300)
        raise RuntimeError(words)

    monkeypatch.setattr(served.library, "facets", facets)
    monkeypatch.setattr(Bounds, "limit", 0.5)
    assert served.client.get("/api/facets").status_code == 503
    monkeypatch.setattr(Bounds, "limit", 60.0)
    release.set()
    assert served.client.get("/api/status").status_code == 200
    assert "Doe" not in "".join(capfd.readouterr())


def test_what_changes_something_is_waited_for(served: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(Bounds, "limit", 0.2)

    def label(*_: Any) -> None:
        done.wait(1.0)
        done.set()

    monkeypatch.setattr(served.library, "label", label)
    body = {"target_kind": "study", "target_id": "1.2.3", "label": "teaching"}
    assert served.client.post("/api/labels", json=body).status_code == 200
    assert done.is_set()


def test_an_export_is_waited_for(served: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    write = served.library.lists.export_zip
    monkeypatch.setattr(Bounds, "limit", 0.2)

    def export_zip(*given: Any, **named: Any) -> int:
        time.sleep(1.0)
        return write(*given, **named)

    served.library.lists.create_teaching("basics")
    monkeypatch.setattr(served.library.lists, "export_zip", export_zip)
    answer = served.client.get("/api/teaching/export", params={"name": "basics"})
    assert answer.status_code == 200
    assert answer.content.startswith(b"PK")


def test_a_quick_failure_is_still_its_own_error(served: Local) -> None:
    answer = served.client.get("/api/search", params={"q": "view:("})
    assert answer.status_code == 400
    assert answer.json()["error"]["kind"] == "query"
