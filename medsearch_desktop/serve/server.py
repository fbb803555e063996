"""`medsearch serve`: own a library and answer for it on this machine, until told to end.

The only file that imports uvicorn.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from medsearch_desktop.config import Config
from medsearch_desktop.disk import is_full
from medsearch_desktop.errors import ConfigError, LibraryLockedError, ServeError
from medsearch_desktop.library import Library
from medsearch_desktop.serve.api.app import create_app
from medsearch_desktop.serve.api.dicomweb import RECEIVED
from medsearch_desktop.serve.front import Front
from medsearch_desktop.serve.jobs import JobKind, Jobs
from medsearch_desktop.serve.owner import Owner, find_owner
from medsearch_desktop.serve.security import Security
from medsearch_desktop.serve.upkeep import Upkeep

LOOPBACK = "127.0.0.1"
# Answers that are being sent have that long to end; an ingest's files in hand are waited for in any case.
_SECONDS_TO_END = 5
# More at once are told to come again: each holds a thread or a body.
_MOST_CONNECTIONS = 200


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers: its library's folder, its address, its secrets, and `end`, which any thread may call.

    Whoever opens a window onto it says so to `front`.
    """

    library: Path
    url: str
    security: Security
    end: Callable[[], None]
    front: Front


def announce(running: Running) -> None:
    """Print the one line that says where a server is, {"url", "token"}."""
    print(json.dumps({"url": running.url, "token": running.security.token}), flush=True)


def serve(
    config: Config,
    *,
    port: int = 0,
    host: str = LOOPBACK,
    watch: bool = False,
    on_ready: Callable[[Running], None] = announce,
) -> None:
    """Own the library and answer until SIGTERM, SIGINT or `Running.end`; `on_ready` is called once, and has to return.

    With `watch` it keeps the library current as was switched on by an earlier launch: see `Upkeep`.
    `port` 0 takes any that is free. With another `host` than a loopback address, machines that reach it can
    ask too, with the token and without encryption; this machine's own programs use loopback all the same.
    Raises LibraryLockedError naming who owns it, ServeError for a port that is taken, ConfigError for a
    host that is no single address.
    """
    sockets = _bind(host, port)
    try:
        port = sockets[0].getsockname()[1]
        names = [f"{name}:{port}" for name in dict.fromkeys((_bracketed(host), LOOPBACK, "localhost"))]
        security = Security(names, port=port, most_upload_bytes=config.max_upload_bytes)
        with _owned(config) as library:
            url = f"http://{_bracketed(host)}:{port}"
            owner = Owner.of_this_process(f"http://{LOOPBACK}:{port}", security.token)
            try:
                owner.write(library.path)
            except ServeError as error:
                if not is_full(error.__cause__):
                    raise
                # It can be read all the same, in the window and by its address.
                print(f"medsearch: {error}: commands cannot ask this server until it is begun again", file=sys.stderr)
            try:
                _run(library, security, sockets, url=url, watch=watch, on_ready=on_ready)
            finally:
                owner.remove(library.path)
    finally:
        for each in sockets:
            each.close()


class _Server(uvicorn.Server):
    """uvicorn, which says when it is ready and leaves the signals to us."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer and say so."""
        await super().startup(sockets=sockets)
        self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: uvicorn would raise them once more at the end, and the status would not be 0."""
        yield


def _run(
    library: Library,
    security: Security,
    sockets: list[socket.socket],
    *,
    url: str,
    watch: bool,
    on_ready: Callable[[Running], None],
) -> None:
    jobs, front = Jobs(library), Front()
    # What hands in jobs ends before them.
    with closing(jobs), closing(Upkeep(library, jobs, begin=watch)) as upkeep:
        if (received := library.path / RECEIVED).is_dir():
            # What an earlier launch acknowledged, and ended before it was taken in.
            jobs.submit(JobKind.INGEST, [str(received)])
        settings = uvicorn.Config(
            create_app(library, security, jobs, front=front, upkeep=upkeep),
            http="h11",
            ws="none",
            loop="asyncio",
            # An access log would keep questions, which may name patients.
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_SECONDS_TO_END,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=64 << 10,
        )
        server = _Server(settings, lambda: on_ready(Running(library.path, url, security, end, front)))

        def end() -> None:
            server.should_exit = True
            upkeep.begin_closing()
            jobs.begin_closing()

        def end_by_signal(_signal: int, _frame: FrameType | None) -> None:
            end()

        before = {number: signal.signal(number, end_by_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            asyncio.run(server.serve(sockets=sockets))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _owned(config: Config) -> Iterator[Library]:
    try:
        library = Library(config, create=True)
    except LibraryLockedError as error:
        owner = find_owner(config.library_path)
        if owner is None:
            raise
        raise LibraryLockedError(
            f"the library is served by process {owner.pid} at {owner.url}",
            item=error.item,
            remedy="Use that one, or end it first",
        ) from error
    with library:
        yield library


def _bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets: of `host`, and of loopback at the same port where that is another."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigError("is no IP address", item=f"--host {host}", remedy="Give one, such as 127.0.0.1") from error
    if address.is_unspecified or address.is_multicast:
        raise ConfigError("is not one address", item=f"--host {host}", remedy="Name the one to listen at")
    if not address.is_loopback:
        print(f"medsearch: listening at {host}, beyond this machine and without encryption", file=sys.stderr)
    sockets = [_listen(host, port)]
    if host != LOOPBACK:
        try:
            sockets.append(_listen(LOOPBACK, sockets[0].getsockname()[1]))
        except ServeError:
            sockets[0].close()
            raise
    return sockets


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: asyncio leaves Nagle's algorithm on for sockets without, and each answer waits 40 ms for it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            # There it would let two programs share the port; here it only spares the wait for the one before.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "no such port"
        raise ServeError(
            f"cannot listen there ({why})", item=f"{host}:{port}", remedy="Give --port another number, or none"
        ) from error
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
