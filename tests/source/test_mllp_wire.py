"""What integration engines put on the wire beside sound frames: half ones, short ends, enhanced mode, many at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import messages_made as made
import pytest

from medsearch_desktop.source.mllp import Listener, Spool


def talk(folder: Path, *parts: bytes, pause: float = 0.0, answers: int = 1, **options: object) -> list[bytes]:
    """Send parts over one connection and return the answers, those that did not come within two seconds as b""."""

    async def run() -> list[bytes]:
        listener = Listener(Spool(folder), **options)
        port = await listener.begin()
        server = asyncio.create_task(listener.run())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
            found = []
            for _ in range(answers):
                try:
                    found.append(await asyncio.wait_for(reader.readuntil(b"\x1c\r"), 2))
                except (TimeoutError, asyncio.IncompleteReadError):
                    found.append(b"")
            return found
        finally:
            writer.close()
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    return asyncio.run(run())


def kept(folder: Path) -> list[bytes]:
    return sorted(file.read_bytes() for file in folder.iterdir())


def test_a_message_that_its_sender_began_anew_is_not_kept_by_halves(tmp_path: Path) -> None:
    whole = made.hl7("No effusion.", filler="2")
    half = made.hl7("Effusion that was never s", filler="1")[:-20]
    (answer,) = talk(tmp_path, b"\x0b" + half, b"\x0b" + whole + b"\x1c\r")
    assert b"MSA|AA|M2|" in answer
    assert kept(tmp_path) == [whole]


def test_too_much_is_refused_whatever_stands_at_its_end(tmp_path: Path) -> None:
    long, short = made.hl7("x" * 3000, filler="1"), made.hl7("y", filler="2")
    (answer,) = talk(tmp_path, b"\x0b" + long + b"\x0b" + short, max_bytes=2000)
    assert b"|AR|M" in answer
    assert kept(tmp_path) == []


def test_the_line_breaks_of_word_processors_begin_no_message(tmp_path: Path) -> None:
    message = made.hl7("Line one\x0bline two\x0bMSHx")
    assert b"MSA|AA|" in talk(tmp_path, b"\x0b" + message + b"\x1c\r")[0]
    assert kept(tmp_path) == [message]


@pytest.mark.parametrize("end", [b"\x1c", b"\x1c\n", b"\x1c\r\n"])
def test_frames_that_end_otherwise(tmp_path: Path, end: bytes) -> None:
    messages = [made.hl7("x", filler="1"), made.hl7("y", filler="2")]
    parts = [b"\x0b" + message + end for message in messages]
    answers = talk(tmp_path, *parts, answers=2)
    assert [b"MSA|AA|M1|" in answers[0], b"MSA|AA|M2|" in answers[1]] == [True, True]
    assert kept(tmp_path) == sorted(messages)


def test_a_mark_inside_a_message_does_not_end_it(tmp_path: Path) -> None:
    message = made.hl7("one\x1ctwo")
    data = b"\x0b" + message + b"\x1c\r"
    at = data.index(b"\x1c") + 1
    # However long the rest takes.
    assert b"MSA|AA|" in talk(tmp_path, data[:at], data[at:], pause=1.5)[0]
    assert kept(tmp_path) == [message]


@pytest.mark.parametrize(
    ("accept", "application", "good", "bad"),
    [
        ("", "", b"MSA|AA|", b"MSA|AR|"),
        ("AL", "NE", b"MSA|CA|", b"MSA|CR|"),
        ("AL", "AL", b"MSA|CA|", b"MSA|CR|"),
        ("SU", "", b"MSA|CA|", b"MSA|CR|"),
        ("NE", "AL", b"MSA|AA|", b"MSA|AR|"),
        ("", "AL", b"MSA|AA|", b"MSA|AR|"),
        # Nothing is asked for; but that a message was not taken nobody may miss.
        ("NE", "NE", b"", b"MSA|CR|"),
        ("ER", "NE", b"", b"MSA|CR|"),
    ],
)
def test_enhanced_mode(tmp_path: Path, accept: str, application: str, good: bytes, bad: bytes) -> None:
    taken, refused = (
        made.hl7("x", kind=kind).replace(b"|P|2.5.1||||||", f"|P|2.5.1|||{accept}|{application}||".encode())
        for kind in ("ORU^R01", "ADT^A01")
    )
    answers = talk(tmp_path, b"\x0b" + taken + b"\x1c\r" + b"\x0b" + refused + b"\x1c\r", answers=1 + bool(good))
    assert good in answers[0]
    assert bad in answers[-1]
    assert kept(tmp_path) == [taken]


@pytest.mark.parametrize("control", ["2024-03-15 10:15:00 #7", "x" * 199])
def test_a_message_is_acknowledged_by_the_number_that_its_sender_gave_it(tmp_path: Path, control: str) -> None:
    message = made.hl7("x").replace(b"|MA00001|", f"|{control}|".encode())
    assert f"MSA|AA|{control}|".encode() in talk(tmp_path, b"\x0b" + message + b"\x1c\r")[0]


def test_a_batch_is_refused_with_the_way_to_go(tmp_path: Path) -> None:
    batch = b"BHS|^~\\&|RIS\r" + made.hl7("x") + b"BTS|1\r"
    assert b"MSA|AR||batches are taken as files" in talk(tmp_path, b"\x0b" + batch + b"\x1c\r")[0]


def test_fifty_senders_at_once(tmp_path: Path) -> None:
    async def run() -> list[bool]:
        listener = Listener(Spool(tmp_path))
        port = await listener.begin()
        server = asyncio.create_task(listener.run())

        async def one(number: int) -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            # Two are large: there are fewer places for these, and the others do not wait behind them.
            message = made.hl7("x" * (3 << 20 if number < 2 else 9), filler=str(number))
            writer.write(b"\x0b" + message + b"\x1c\r")
            answer = await reader.readuntil(b"\x1c\r")
            writer.close()
            return f"MSA|AA|M{number}|".encode() in answer

        try:
            return await asyncio.wait_for(asyncio.gather(*map(one, range(50))), 60)
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    assert all(asyncio.run(run()))
    assert len(kept(tmp_path)) == 50
