"""The listener for HL7 messages: on the disk before it is acknowledged, and whatever else may be sent to it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import messages_made as made
import pytest

from medsearch_desktop.errors import SourceError
from medsearch_desktop.library import open_library
from medsearch_desktop.source.mllp import Listener, Spool, acknowledgement, networks

Talk = Callable[[int, list[tuple[str, str]]], Awaitable[None]]


def serve(folder: Path, talk: Talk, **options: object) -> list[tuple[str, str]]:
    """Run a listener while `talk` talks to its port; return what it told."""
    told: list[tuple[str, str]] = []

    async def run() -> None:
        listener = Listener(Spool(folder), on_message=lambda *said: told.append(said), **options)
        port = await listener.begin()
        server = asyncio.create_task(listener.run())
        try:
            await asyncio.wait_for(talk(port, told), 60)
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    asyncio.run(run())
    return told


async def send(port: int, *parts: bytes, pause: float = 0) -> bytes:
    """Send bytes and return the first answer whole, or what came until the other side closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return await reader.readuntil(b"\x1c\r")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        return getattr(error, "partial", b"")
    finally:
        writer.close()


def framed(message: bytes) -> bytes:
    return b"\x0b" + message + b"\x1c\r"


def test_a_message_is_on_the_disk_when_it_is_acknowledged_and_is_found_after_an_ingest(tmp_path: Path) -> None:
    spool = tmp_path / "spool"

    async def talk(port: int, _: list[tuple[str, str]]) -> None:
        answer = await send(port, framed(made.hl7("IMPRESSION: Zebra effusion.")))
        assert b"\rMSA|AA|MA00001|\r" in answer
        assert answer.startswith(b"\x0bMSH|^~\\&|MS|H|RIS|H|")
        (file,) = spool.iterdir()
        assert file.read_bytes() == made.hl7("IMPRESSION: Zebra effusion.")
        assert file.stat().st_mode & 0o777 == 0o600

    assert [code for code, _ in serve(spool, talk)] == ["AA"]
    with open_library(tmp_path / "library", create=True) as library:
        assert library.ingest([spool]).reports == 1
        assert library.search("zebra").total == 1


def test_many_on_one_connection_in_pieces_and_with_noise_between(tmp_path: Path) -> None:
    messages = [made.hl7(f"IMPRESSION: Text {n}.", filler=str(n)) for n in range(20)]
    stream = b"noise".join(map(framed, messages))

    async def talk(port: int, told: list[tuple[str, str]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for start in range(0, len(stream), 97):
            writer.write(stream[start : start + 97])
            await writer.drain()
        for n in range(20):
            assert f"MSA|AA|M{n}|".encode() in await reader.readuntil(b"\x1c\r")
        writer.close()

    serve(tmp_path, talk)
    assert sorted(file.read_bytes() for file in tmp_path.iterdir()) == sorted(messages)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (made.hl7("x", kind="ADT^A01"), b"MSA|AR|MA00001|only results (ORU) are taken here"),
        (b"nonsense", b"MSA|AR||no sound MSH segment"),
        (b"", b"MSA|AR||no sound MSH segment"),
        (b"MSH|^~\\&|", b"MSA|AR||only results"),
        (b"MSH|^~\\&|||||||ORU^R01|\x07\xff|P|2.5", b"MSA|AA||"),
    ],
)
def test_what_it_cannot_take_it_refuses_and_says_why(tmp_path: Path, message: bytes, words: bytes) -> None:
    async def talk(port: int, _: list[tuple[str, str]]) -> None:
        assert words in await send(port, framed(message))

    serve(tmp_path, talk)
    assert len(list(tmp_path.iterdir())) == (b"AA" in words)


def test_a_message_beyond_the_limit_ends_the_connection(tmp_path: Path) -> None:
    async def talk(port: int, _: list[tuple[str, str]]) -> None:
        endless = made.hl7("x" * 100_000)
        assert b"MSA|AR|MA00001|message of more than 1000 bytes" in await send(port, b"\x0b" + endless)
        assert b"MSA|AA" in await send(port, framed(made.hl7("x")))

    serve(tmp_path, talk, max_bytes=1000)
    assert len(list(tmp_path.iterdir())) == 1


def test_too_many_connections_silent_ones_and_strangers_are_closed(tmp_path: Path) -> None:
    async def one_too_many(port: int, _: list[tuple[str, str]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(framed(made.hl7("x")))
        assert b"MSA|AA" in await reader.readuntil(b"\x1c\r")
        assert await send(port, framed(made.hl7("x"))) == b""
        writer.close()

    async def silent(port: int, _: list[tuple[str, str]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # It is ended, and there is room again.
        assert await reader.read() == b""
        writer.close()
        assert b"MSA|AA" in await send(port, framed(made.hl7("x")))

    serve(tmp_path, one_too_many, max_connections=1)
    serve(tmp_path, silent, max_connections=1, idle_seconds=0.5)
    stranger = Listener(Spool(tmp_path))
    assert not stranger._is_allowed("192.0.2.7")
    assert Listener(Spool(tmp_path), allowed=["192.0.2.0/24"])._is_allowed("::ffff:192.0.2.7")
    with pytest.raises(SourceError, match="no IP address"):
        networks(["hospital"])


def test_a_full_disk_is_answered_and_nothing_half_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def talk(port: int, _: list[tuple[str, str]]) -> None:
        monkeypatch.setattr(os, "fsync", full)
        assert b"MSA|AE|MA00001|the disk is full" in await send(port, framed(made.hl7("x")))

    serve(tmp_path, talk)
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_half_by_a_crash_goes_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".20240101.hl7.part").write_bytes(b"half")
    (tmp_path / "whole.hl7").write_bytes(b"whole")
    Spool(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["whole.hl7"]
    with pytest.raises(SourceError, match="cannot be a folder"):
        Spool(tmp_path / "whole.hl7")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async def run() -> None:
        first = Listener(Spool(tmp_path))
        port = await first.begin()
        with pytest.raises(SourceError, match="cannot be listened at"):
            await Listener(Spool(tmp_path)).begin(port=port)
        await first.end()

    asyncio.run(run())


def test_an_acknowledgement_uses_the_separators_of_its_message() -> None:
    answer = acknowledgement(b"MSH!*~\\&!A!B!C!D!1!!ORU*R01!77!T!2.3", "AA").decode().split("\r")
    assert answer[0].startswith("MSH!*~\\&!C!D!A!B!")
    assert answer[0].endswith("!T!2.3")
    assert answer[1] == "MSA!AA!77!"


def test_what_frames_messages_is_not_sent_back_within_one() -> None:
    head = b"MSH|^~\\&|RIS\x0bMSH|H\x1c|M\x0bS|H|1||ORU^R01|\x0b|\x1c|2\x0b5"
    answer = acknowledgement(head, "AR", "no")
    assert answer.decode().split("|")[:6] == ["MSH", "^~\\&", "MS", "H", "RISMSH", "H"]
    assert not {0x0B, 0x1C} & set(answer)
