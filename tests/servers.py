"""Real servers on loopback for tests: one in this process, one as a user starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from medsearch_desktop.library import Library
from medsearch_desktop.serve.api.app import create_app
from medsearch_desktop.serve.api.pages import BUILT
from medsearch_desktop.serve.security import Security
from medsearch_desktop.serve.server import _listen

MEDSEARCH = (sys.executable, "-m", "medsearch_desktop")


@dataclass
class Local:
    """A server in this process: its library, secrets, address, and a client with the token."""

    library: Library
    security: Security
    port: int
    client: httpx.Client


@contextmanager
def local_server(
    library: Library, *, most_upload_bytes: int = 1 << 20, body_seconds: float = 20.0, pages: Path = BUILT
) -> Iterator[Local]:
    """Answer for `library` on a free port until the end of the block."""
    listener = _listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
    security = Security(hosts, port=port, most_upload_bytes=most_upload_bytes, body_seconds=body_seconds)
    settings = uvicorn.Config(create_app(library, security, pages=pages), http="h11", ws="none", log_level="warning")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {security.token}"}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
            yield Local(library, security, port, client)
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Served:
    """A `medsearch serve` of its own process, and what it printed when it was ready."""

    process: subprocess.Popen[str]
    url: str
    token: str

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def served(library: Path, *arguments: str, begin: Sequence[str] = MEDSEARCH, **environ: str) -> Iterator[Served]:
    """Run `medsearch serve` until the end of the block; `begin` begins the command line, where it is another one."""
    command = [*begin, "serve", "--library", str(library), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ}
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield Served(process, **json.loads(line))
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
