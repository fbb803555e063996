"""What keeps answers prompt and tells how prompt they were: no waiting for full packets, Server-Timing."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import Served, served

from medsearch_desktop.serve.server import LOOPBACK, _listen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    library: Path = tmp_path_factory.mktemp("prompt") / "library"
    with served(library) as running:
        yield running


def test_an_answer_in_two_parts_does_not_wait_for_the_client_to_say_that_it_has_the_first() -> None:
    """Headers and body are sent apart; with Nagle's algorithm the second waits 40 ms for the first's receipt."""

    async def option_of_a_connection() -> int:
        found: asyncio.Queue[int] = asyncio.Queue()

        async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            given = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await found.put(given)

        listener = _listen(LOOPBACK, 0)
        async with await asyncio.start_server(note, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            given = await found.get()
            writer.close()
            await writer.wait_closed()
        return given

    assert asyncio.run(option_of_a_connection()) != 0


@pytest.mark.parametrize("path", ["/api/status", "/api/search?q=effusion", "/api/images/none/thumbnail", "/api/none"])
def test_every_answer_tells_how_long_the_server_took(server: Served, path: str) -> None:
    with server.client() as client:
        told = client.get(path).headers.get_list("server-timing")
    assert len(told) == 1
    assert re.fullmatch(r"app;dur=\d+\.\d", told[0])


def test_who_is_not_let_in_is_not_told(server: Served) -> None:
    answer = httpx.get(f"{server.url}/api/status", trust_env=False, timeout=60)
    assert answer.status_code == 401
    assert "server-timing" not in answer.headers
