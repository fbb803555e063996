"""Questions to another process and what becomes of them: a long one, a large one, an interrupted one."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from medsearch_desktop import bounded
from medsearch_desktop.bounded import Helper

# Sleeps, takes memory, ends or gives back what it is told, and says who it is.
PROGRAM = """
import os, time
from medsearch_desktop.bounded import answer_questions

def answer(head, data):
    if head.get("sleep"):
        time.sleep(head["sleep"])
    if head.get("take"):
        bytearray(head["take"])
    if head.get("end"):
        os._exit(0)
    print("a line that is no answer")
    return {"process": os.getpid(), "said": head.get("say")}, data[::-1]

raise SystemExit(answer_questions(answer, lambda head, length: (1 << 28) + length))
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    monkeypatch.setattr(bounded, "_line", lambda command: [sys.executable, str(program)])
    helper = Helper("any", most=3)
    yield helper
    helper.close()


def who(helper: Helper) -> int:
    return int(helper.ask({}, b"", seconds=60)[0]["process"])


def test_a_question_has_its_answer_and_one_process_takes_several(helper: Helper) -> None:
    head, data = helper.ask({"say": "\u00e4\udc80"}, b"abc" * 100_000, seconds=60)
    assert head["said"] == "\u00e4\udc80"
    assert data == b"cba" * 100_000
    assert who(helper) == who(helper) == head["process"]
    # That was the third.
    assert who(helper) != head["process"]


def test_what_takes_too_long_costs_the_process_and_no_other_question(helper: Helper) -> None:
    first = who(helper)
    with pytest.raises(TimeoutError):
        helper.ask({"sleep": 60}, b"", seconds=0.5)
    assert who(helper) != first


@pytest.mark.parametrize("head", [{"take": 1 << 29}, {"end": True}], ids=["memory", "end"])
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot bound the memory of a process; run it elsewhere")
def test_a_process_that_ends_is_told_at_once(helper: Helper, head: dict[str, object]) -> None:
    first = who(helper)
    with pytest.raises(MemoryError):
        helper.ask(head, b"", seconds=60)
    # At once after: whether the old one is quite gone or not.
    assert who(helper) != first


def test_a_process_that_was_killed_is_begun_again(helper: Helper) -> None:
    first = who(helper)
    assert helper._process is not None
    helper._process.kill()
    helper._process.wait()
    assert who(helper) != first


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C is no signal that a test can send to one process")
def test_an_interrupt_of_the_other_process_is_none(helper: Helper) -> None:
    first = who(helper)
    os.kill(first, signal.SIGINT)
    assert who(helper) == first


def test_an_interrupt_mixes_no_answers(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr(bounded, "_received", interrupted)
        with pytest.raises(KeyboardInterrupt):
            helper.ask({"say": 1}, b"", seconds=60)
    assert helper.ask({"say": 2}, b"", seconds=60)[0]["said"] == 2


def test_threads_are_served_one_at_a_time(helper: Helper) -> None:
    wrong = []

    def work(number: int) -> None:
        for _ in range(5):
            if helper.ask({"say": number}, b"", seconds=60)[0]["said"] != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong


def test_a_message_that_was_cut_is_none_and_the_head_is_looked_at_before_the_data_is_taken() -> None:
    pipe = io.BytesIO()
    bounded._send(pipe, {"most": 256}, bytes(5000))
    pipe.seek(0)
    seen = []
    answer = bounded._received(pipe, lambda head, length: seen.append((head["most"], length, pipe.tell() < 100)))
    assert seen == [(256, 5000, True)]
    assert answer == ({"most": 256}, bytes(5000))
    for short in (3, 14, 20, 4000):
        assert bounded._received(io.BytesIO(pipe.getvalue()[:short])) is None
