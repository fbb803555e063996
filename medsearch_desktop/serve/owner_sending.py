"""Sending by a library's owner: its job is begun, followed, and told of file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from medsearch_desktop.errors import ServeError
from medsearch_desktop.sending import Sent
from medsearch_desktop.serve.cursors import write_cursor
from medsearch_desktop.serve.errors import error_from_json

_AT_ONCE = 1000


def send_by_owner(
    ask: Callable[..., Any],
    events: Callable[[str], Iterator[dict[str, Any]]],
    station: str,
    *,
    images: Sequence[str],
    question: str,
    on_sent: Callable[[Sent], None],
) -> None:
    """Have the owner send images, and those of a question, to a remembered station, and wait until it has.

    `ask` sends a request and returns its JSON, `events` yields the states of a job. Cut off here, it is cancelled
    there. Raises as `Outgoing.choose` and `Outgoing.send` do, ServeError for a job that somebody stopped.
    """
    body = {"station": station, "images": list(images), "question": question}
    job = ask("POST", "/api/send", body=body)
    about, told = f"files {job['job_id']} False", 0
    try:
        for now in events(job["job_id"]):
            job = now
            settled = job["progress"]["settled"] if job["progress"] else 0
            while told < settled:
                cursor = write_cursor(told, generation=None, about=about)
                page = ask("GET", f"/api/jobs/{job['job_id']}/files", {"k": _AT_ONCE, "cursor": cursor})["files"]
                for row in page:
                    status = None if row["status"] is None else int(row["status"], 16)
                    on_sent(Sent(row["image_id"], row["ok"], status, row["note"]))
                told += len(page)
    except KeyboardInterrupt:
        ask("POST", f"/api/jobs/{job['job_id']}/cancel")
        raise
    if job["error"]:
        raise error_from_json(job)
    if job["state"] != "done":
        raise ServeError(
            "sending was stopped at the library's owner", remedy="What was left is sent by Go on, on the Library page"
        )
