"""Processes of the program's own that read hostile bytes for it, bounded in memory and time.

A crafted file of a few kilobytes can keep some libraries busy for hours or fill the memory, and nothing from outside
bounds them. Here it costs its own process, and the next file gets a new one.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

# A head in JSON and bytes, either way.
Message = tuple[dict[str, Any], bytes]
_LENGTHS = struct.Struct("!IQ")


class Helper:
    """Another process, started for the first question; it stays, and is begun anew when it has ended.

    `command` is the one of this program that runs `answer_questions`. After `most` questions a new process takes over:
    whatever a library keeps of what it has read goes with the old one. Threads may share it; one is served at a time.
    """

    def __init__(self, command: str, *, most: int) -> None:
        self._command = command
        self._most = most
        self._asked = 0
        self._using = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, head: Mapping[str, Any], data: bytes, *, seconds: float) -> Message:
        """Return the answer.

        Raises TimeoutError when it takes longer than `seconds`, MemoryError when the process ended instead, of which
        a want of memory is the usual reason. Either way the next question goes to a new process.
        """
        with self._using:
            process = self._running()
            late = threading.Event()

            def stop() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(seconds, stop)
            timer.start()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                _send(process.stdin, head, data)
                answer = _received(process.stdout)
            except OSError:
                answer = None
            except BaseException:
                # Interrupted between question and answer: the next would be given this one's.
                self._end()
                raise
            finally:
                timer.cancel()
            if answer is None or late.is_set():
                self._end()
            if answer is None:
                raise TimeoutError(seconds) if late.is_set() else MemoryError
            return answer

    def close(self) -> None:
        """End the process, if there is one; the next question starts it again."""
        with self._using:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and (self._process.poll() is not None or self._asked >= self._most):
            self._end()
        if self._process is None:
            self._asked = 0
            self._process = subprocess.Popen(
                _line(self._command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
            atexit.unregister(self.close)
            atexit.register(self.close)
        self._asked += 1
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                # What was still to be written has nowhere to go.
                continue
        process.wait()


def answer_questions(
    answer: Callable[[dict[str, Any], bytes], Message], memory: Callable[[dict[str, Any], int], int]
) -> int:
    """Be the other process: answer what comes from standard input until it ends; return the exit status.

    `memory` says how many bytes the process may take for a question of this head and so many bytes of data.
    """
    # Ctrl-C is for the program that asks, which still wants its answer; its end is seen by its pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = sys.stdout.buffer
    # What a library prints must not stand between the answers.
    sys.stdout = sys.stderr
    try:
        while asked := _received(sys.stdin.buffer, lambda head, length: _bound(memory(head, length))):
            _send(answers, *answer(*asked))
    except MemoryError:
        # What is left may be in any state: the end is the answer.
        return 1
    return 0


def _line(command: str) -> list[str]:
    # A frozen program is its own interpreter. -P: nothing is imported from the folder that the user stands in.
    own = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-P", "-m", "medsearch_desktop"]
    return [*own, command]


def _environment() -> dict[str, str]:
    package = str(Path(__file__).parents[1])
    path = os.environ.get("PYTHONPATH", "")
    return {
        **os.environ,
        "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package,
        # Each thread of numpy's would claim memory that none of them uses.
        "OPENBLAS_NUM_THREADS": "1",
    }


def _send(target: IO[bytes], head: Mapping[str, Any], data: bytes) -> None:
    coded = json.dumps(head).encode("ascii")
    target.write(_LENGTHS.pack(len(coded), len(data)) + coded)
    target.write(data)
    target.flush()


def _received(source: IO[bytes], prepare: Callable[[dict[str, Any], int], None] | None = None) -> Message | None:
    """Return a message, or None where it ends early; `prepare` is told its head and length before the data is read."""
    lengths = source.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head_length, length = _LENGTHS.unpack(lengths)
    coded = source.read(head_length)
    if len(coded) < head_length:
        return None
    head = json.loads(coded)
    if prepare is not None:
        prepare(head, length)
    data = source.read(length)
    return (head, data) if len(data) == length else None


def _bound(limit: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        # The soft limit alone: the next question may need more.
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    except (ImportError, ValueError, OSError):
        # Windows has no such limits; time still ends what grows.
        return
