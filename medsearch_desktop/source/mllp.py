"""A listener for HL7 version 2 messages over MLLP: each is on the disk before it is acknowledged.

It keeps messages and reads none: the files in its folder are ingested like any others.
Source: HL7 v2 Transport Specification, MLLP release 1; acknowledgements by HL7 v2.5.1, 2.9.2 and 2.9.3.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from medsearch_desktop.disk import sync_folder
from medsearch_desktop.errors import SourceError

_BEGIN, _FILE_SEPARATOR, _END = b"\x0b", b"\x1c", b"\x1c\r"
# Within a message word processors leave the same byte as a line break.
_MESSAGE = re.compile(rb"\x0b(?=\s{0,16}(?:MSH|BHS|FHS)[^\w\s])")
# Some senders end a frame without its carriage return, or with a line feed instead.
_SECONDS_FOR_END = 1.0
# Larger messages wait for one of a few places, so that many senders together take no more memory than these.
_LARGE, _LARGE_AT_ONCE = 1 << 20, 8
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
# What a sender knows its message by, up to the length that 2.7 allows; without it an acknowledgement is of nothing.
_CODE = re.compile(r"[\x20-\x7e]{1,199}")
_CONTROLS = re.compile(r"[\x00-\x1f]")
_READ = 1 << 16

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
OnMessage = Callable[[str, str], None]


def networks(allowed: Iterable[str]) -> tuple[_Network, ...]:
    """Return the addresses and networks that `allowed` names, loopback first. Raises SourceError."""
    found: list[_Network] = list(_LOOPBACK)
    for each in allowed:
        try:
            found.append(ipaddress.ip_network(each, strict=False))
        except ValueError as error:
            raise SourceError(
                "is no IP address or network", item=each, remedy="Write 192.0.2.7 or 192.0.2.0/24"
            ) from error
    return tuple(found)


class Spool:
    """A folder that messages are kept in; its files are readable by their owner alone. Raises SourceError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in folder.glob(".*.part"):
                # It was never acknowledged: its sender sends it again.
                left.unlink()
        except OSError as error:
            raise SourceError(
                f"cannot be a folder for messages ({error.strerror})", item=os.fspath(folder), remedy="Name another"
            ) from error

    def keep(self, message: bytes) -> Path:
        """Write a message durably to a file of its own and return it. Raises OSError, and leaves nothing then."""
        when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        name = f"{when}-{uuid.uuid4().hex[:8]}.hl7"
        # Hidden until it is whole: an ingest leaves hidden files out.
        part, whole = self.folder / f".{name}.part", self.folder / name
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(message)
                file.flush()
                os.fsync(file.fileno())
            part.replace(whole)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(self.folder)
        return whole


class Listener:
    """Takes messages over MLLP from allowed addresses, at most `max_connections` at a time.

    A message of more than `max_bytes` ends its connection, as does one of which nothing comes for
    `idle_seconds`. Of one that is begun anew on its connection only the last is kept. `on_message` is told
    (acknowledgement code, name of the file or the reason) of each.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        allowed: Iterable[str] = (),
        max_bytes: int = 16_000_000,
        max_connections: int = 64,
        idle_seconds: float = 300.0,
        on_message: OnMessage | None = None,
    ) -> None:
        self._spool = spool
        self._allowed = networks(allowed)
        self._max_bytes = max_bytes
        self._max_connections = max_connections
        self._idle_seconds = idle_seconds
        self._on_message = on_message
        self._open = 0
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._server: asyncio.Server | None = None

    async def begin(self, *, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, and return the port. Raises SourceError where it is taken or forbidden."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_READ)
        except OSError as error:
            raise SourceError(
                f"cannot be listened at ({error.strerror})", item=f"{host}:{port}", remedy="Name another port"
            ) from error
        own: int = self._server.sockets[0].getsockname()[1]
        return own

    async def run(self) -> None:
        """Serve until cancelled."""
        assert self._server is not None, "begin() first"
        async with self._server:
            await self._server.serve_forever()

    async def end(self) -> None:
        """Stop listening; what was acknowledged is on the disk."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        try:
            if self._open < self._max_connections and peer and self._is_allowed(str(peer[0])):
                self._open += 1
                try:
                    await self._talk(reader, writer)
                finally:
                    self._open -= 1
        except (ConnectionError, TimeoutError):
            # The sender went away; whatever has no acknowledgement it sends again.
            pass
        finally:
            writer.close()

    def _is_allowed(self, address: str) -> bool:
        found = ipaddress.ip_address(address.split("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped
        return any(found in network for network in self._allowed)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = bytearray()
        while (frame := await self._frame(reader, buffer)) is not None:
            at = max((begun.start() for begun in _MESSAGE.finditer(frame)), default=frame.find(_BEGIN))
            message = bytes(frame[at + 1 :]) if at >= 0 else b""
            if len(frame) > self._max_bytes:
                # What is left of it may look whole and is not.
                await self._answer(writer, message[:_READ], "AR", f"message of more than {self._max_bytes} bytes")
                return
            code, said = await self._take(message)
            await self._answer(writer, message, code, said)

    async def _frame(self, reader: asyncio.StreamReader, buffer: bytearray) -> bytearray | None:
        """Return what came up to the end of a message, or more than `max_bytes` of it; None where no more comes."""
        searched, is_large = 0, False
        try:
            while True:
                end = buffer.find(_FILE_SEPARATOR, searched)
                is_last = 0 <= end == len(buffer) - 1
                if end >= 0 and not is_last:
                    after = bytes(buffer[end + 1 : end + 2])
                    if after in (b"\r", b"\n", _BEGIN):
                        return _cut(buffer, end, end + 1 + (after != _BEGIN))
                    searched = end + 1
                    continue
                if len(buffer) > self._max_bytes:
                    return _cut(buffer, len(buffer), len(buffer))
                if not is_large and len(buffer) > _LARGE:
                    await self._large.acquire()
                    is_large = True
                searched = end if is_last else len(buffer)
                # Behind a whole segment only: within one it would cut off a text.
                may_end = is_last and bytes(buffer[end - 1 : end]) in (b"\r", b"\n")
                try:
                    seconds = _SECONDS_FOR_END if may_end else self._idle_seconds
                    part = await asyncio.wait_for(reader.read(_READ), seconds)
                except TimeoutError:
                    if not may_end:
                        raise
                    part = b""
                if not part:
                    return _cut(buffer, end, end + 1) if may_end else None
                buffer += part
        finally:
            if is_large:
                self._large.release()

    async def _take(self, message: bytes) -> tuple[str, str]:
        """Return the code of the acknowledgement, and the name of the file or what is wrong."""
        fields = _head(message)
        if not fields:
            if message.lstrip()[:3] in (b"BHS", b"FHS"):
                return "AR", "batches are taken as files, by an ingest"
            return "AR", "no sound MSH segment"
        kind = re.split(r"[\W_]", fields[8])[0] if len(fields) > 8 else ""
        if kind != "ORU":
            return "AR", "only results (ORU) are taken here"
        try:
            file = await asyncio.to_thread(self._spool.keep, message)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return "AE", "the disk is full" if full else f"cannot be kept ({error.strerror})"
        return "AA", file.name

    async def _answer(self, writer: asyncio.StreamWriter, message: bytes, code: str, said: str) -> None:
        if self._on_message is not None:
            self._on_message(code, said)
        if code := _asked_for(message, code):
            reason = "" if code[1] == "A" else said
            writer.write(_BEGIN + acknowledgement(message, code, reason) + _END)
            await writer.drain()


def _cut(buffer: bytearray, end: int, after: int) -> bytearray:
    """Return a buffer's content up to `end` and leave in it what is behind `after`."""
    frame = buffer[:end]
    del buffer[:after]
    return frame


def _asked_for(message: bytes, code: str) -> str:
    """Return the code as the sender asks for it (HL7 v2.5.1, 2.9.3, MSH-15 and MSH-16), "" where it wants none.

    In enhanced mode what is told here is that a message is kept (CA), for it is read later. A refusal is
    told to everybody: a message that was not taken must not pass for one that was.
    """
    head = [*_head(message), *[""] * 16]
    accept, application = head[14].strip().upper(), head[15].strip().upper()
    if accept not in ("AL", "NE", "ER", "SU"):
        return code
    if accept == "NE" and application in ("AL", "SU"):
        return code
    return "" if code == "AA" and accept in ("NE", "ER") else f"C{code[1]}"


def acknowledgement(message: bytes, code: str, reason: str = "") -> bytes:
    """Return the ACK of a message, sent back to where it came from; `code` is AA, AE or AR, or CA, CE or CR."""
    # What begins and ends a message on the wire would end this one before its end.
    head = _head(message)
    fields = [_CONTROLS.sub("", field) for field in [*head, *[""] * 12][:12]]
    # Their separators; in a message without any the usual ones.
    mark, others = head[0][3:4] if head else "|", fields[1] or "^~\\&"
    control = fields[9] if _CODE.fullmatch(fields[9]) else ""
    version = fields[11] if _CODE.fullmatch(fields[11]) else "2.5.1"
    when = datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")
    msh = [f"MSH{mark}{others}", *fields[4:6], *fields[2:4], when, "", "ACK", uuid.uuid4().hex[:20]]
    msh += [fields[10] if _CODE.fullmatch(fields[10]) else "P", version]
    return f"{mark.join(msh)}\rMSA{mark}{code}{mark}{control}{mark}{reason}\r".encode("utf-8", "replace")


def _head(message: bytes) -> list[str]:
    """Return the fields of the MSH segment, of which the first is "MSH" with the field separator behind; [] without."""
    line = re.split(rb"[\r\n]", message.lstrip(b"\r\n\xef\xbb\xbf")[:4096], maxsplit=1)[0].decode("latin-1")
    if not line.startswith("MSH") or len(line) < 9 or line[3].isalnum() or line[3].isspace():
        return []
    fields = line.split(line[3])
    return [line[:4], *fields[1:]] if 2 <= len(fields[1]) <= 5 else []
