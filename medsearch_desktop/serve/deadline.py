"""Questions that take too long are answered all the same: with an error, so that no client waits without end."""

from __future__ import annotations

import asyncio
import json

from medsearch_desktop.serve.commands import tell_where
from medsearch_desktop.serve.security import App, Message, Receive, Scope, Send

# What only asks. Whatever changes something is waited for: nobody could tell whether it was done.
QUESTIONS = frozenset(
    {("POST", "/api/similar"), ("POST", "/api/preview"), ("POST", "/api/send/count"), ("POST", "/graphql")}
)
# What is made whole before it is sent, however long that takes.
MADE_FIRST = frozenset({"/api/teaching/export"})


class Deadline:
    """The application, whose questions have begun to answer within `seconds` or are told that they took too long.

    Nothing interrupts a search under way: it goes on in its thread to its end, and its answer is thrown away.
    A stream that has begun, such as an ingest's progress, may last.
    """

    def __init__(self, app: App, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds
        # The loop itself holds a task only weakly.
        self._late: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        asks = scope["type"] == "http" and (
            (scope["method"] in ("GET", "HEAD") and scope["path"] not in MADE_FIRST)
            or (scope["method"], scope["path"]) in QUESTIONS
        )
        if not asks:
            await self._app(scope, receive, send)
            return
        begun, late = asyncio.Event(), False

        async def answer(message: Message) -> None:
            begun.set()
            if not late:
                await send(message)

        task = asyncio.ensure_future(self._app(scope, receive, answer))
        waiting = asyncio.ensure_future(begun.wait())
        try:
            await asyncio.wait({task, waiting}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if begun.is_set() or task.done():
                await task
                return
            late = True
            self._late.add(task)
            task.add_done_callback(self._ended)
            await _tell(send, self._seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            waiting.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._late.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            # Who asked is gone; whoever keeps the server running is told where it came up.
            tell_where(error)


async def _tell(send: Send, seconds: float) -> None:
    error = {
        "kind": "slow",
        "message": f"no answer within {seconds:g} seconds",
        "remedy": "Ask for less, or raise the setting max_answer_seconds",
    }
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
