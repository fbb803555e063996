"""One target under coverage-guided fuzzing: `python -m fuzz.guided TARGET [options of libFuzzer]`.

atheris counts the branches that bytes reach in what the target names, and makes more of those that reach new ones.
Whatever gets out of a target that may not is saved, and ends the process.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import atheris
from fuzz.seen import SEEN


@contextmanager
def _deaf() -> Iterator[None]:
    """Threads that begin inside do not take the fuzzer's clock, a signal that ends the process if a thread gets it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _DeafThread(threading.Thread):
    def start(self) -> None:
        with _deaf():
            super().start()


def fuzz(module: str, name: str, arguments: list[str], *, seen: tuple[str, ...]) -> None:
    """Fuzz the target `name` of a module's TARGETS until libFuzzer's options say to end, and end the process.

    `seen` are the modules whose branches are counted.
    """
    # Of which a timer and the threads of a pool are made.
    threading.Thread = _DeafThread  # type: ignore[misc]
    threading.Timer.__bases__ = (_DeafThread,)
    # Libraries begin threads of their own when they are imported, or first used.
    with _deaf(), atheris.instrument_imports(include=list(seen)):
        target = import_module(module).TARGETS[name]
        take = import_module("fuzz.targets").take
        # What readers import at their point of use is seen too, and no input waits for it.
        for seed in target.seeds():
            take(target, seed)

    def one_input(data: bytes) -> None:
        take(target, data)

    atheris.Setup([sys.argv[0], f"-max_len={target.length}", *arguments], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz("fuzz.targets", sys.argv[1], sys.argv[2:], seen=SEEN[sys.argv[1]])
