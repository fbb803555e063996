"""C-ECHO and C-STORE to another DICOM station: files as they are where it takes them so, unpacked where it does not.

Nothing is ever sent by itself: whoever sends names the station. The only file that imports pynetdicom to send.
Source: PS3.7 9.1 (services), PS3.8 7.1 and 9.3 (associations), PS3.4 annex B (statuses).
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medsearch_desktop.errors import ConfigError, DecodeError, StationError
from medsearch_desktop.source.certificate import show_certificate, trust_authority
from medsearch_desktop.source.lenience import unquestioned

DEFAULT_CALLER = "MEDSEARCH"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# Of one frame, samples counted; what it takes is bounded by what is there besides.
_MOST_PIXELS = 1 << 30
_FLOATS = {0x7FE00008: "OF", 0x7FE00009: "OD"}
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002)
_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
# An association negotiates so many contexts (PS3.8 9.3.2.2, odd numbers up to 255).
_MOST_CONTEXTS = 128
_ADDRESS = re.compile(
    r"(?P<ae>[\x21-\x3f\x41-\x5b\x5d-\x7e]{1,16})@(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s@:/]+):(?P<port>\d{1,5})"
)
# Status classes of PS3.7 annex C by which an instance was taken: success, and the warnings of PS3.4 B.2.3.
_TAKEN = frozenset((0x0000, 0xB000, 0xB006, 0xB007))
_STATUSES = {0xA7: "out of resources", 0xA9: "the data set does not match its class", 0xC0: "cannot understand it"}
_REJECTIONS = {
    (1, 1): "it gives no reason",
    (1, 2): "it does not know this application context",
    (1, 3): "it does not know who calls; let it know the calling AE title",
    (1, 7): "it is not called that; check the AE title before the @",
    (3, 1): "it is congested",
    (3, 2): "it has too many associations",
}


@dataclass(frozen=True, slots=True)
class Station:
    """Where to send: AE title, host and port."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Station:
        """Return the station that AE@HOST:PORT names. Raises ConfigError."""
        match = _ADDRESS.fullmatch(text.strip())
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ConfigError("is no station", item=text, remedy="Give AE@HOST:PORT, such as ARCHIVE@10.1.2.3:104")
        return cls(match["ae"], match["host"].strip("[]"), int(match["port"]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one file: whether it was taken, the status of its answer (None without one), and a note."""

    name: str
    ok: bool
    status: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """How to speak to a station; with `tls` encrypted."""

    station: Station
    caller: str = DEFAULT_CALLER
    seconds: float = 30.0
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    path: Path
    sop_class: str
    syntax: str
    # Without file meta information (PS3.10 7.1), which would say the syntax.
    bare: bool = False


def client_tls(*, authority: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext | None:
    """Return what TLS needs: the station's `authority`, and an own certificate where it asks for one; None for neither.

    PEM files. Raises ConfigError.
    """
    if not (authority or certificate):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Devices are known by their certificate's authority; few are named in it by the address that is dialled.
    context.check_hostname = False
    if authority:
        trust_authority(context, authority)
    else:
        context.load_default_certs()
    if certificate:
        show_certificate(context, certificate, key)
    return context


def echo(line: Line) -> None:
    """Ask a station whether it is there (C-ECHO). Raises StationError saying what it is that does not work."""
    with _association(line, [(VERIFICATION, (IMPLICIT, EXPLICIT))]) as association:
        if not association.accepted_contexts:
            raise _station_error(line, "is there, but answers no C-ECHO", "Sending may work all the same")
        status = association.send_c_echo()
        if status.get("Status") != 0x0000:
            raise _station_error(line, f"answered C-ECHO with {_told(status.get('Status'))}", "Ask who runs it")


def send(line: Line, files: Sequence[tuple[str, Path]]) -> Generator[Sent, None, None]:
    """Send files, each by its name in messages, and yield what became of each, in any order.

    Raises StationError when the station cannot be reached or refuses the association; a station that goes
    away in the middle makes failures of the files that are left.
    """
    items = []
    for name, path in files:
        item = _examined(name, path)
        if isinstance(item, Sent):
            yield item
        else:
            items.append(item)
    for group, contexts in _grouped(items):
        with _association(line, contexts) as association:
            for item in group:
                yield _sent(association, item)


def _examined(name: str, path: Path) -> _Item | Sent:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with _unquestioned():
            ds = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"], force=True)
            sop_class, syntax = str(ds.get("SOPClassUID", "")), str(ds.file_meta.get("TransferSyntaxUID", ""))
            guessed = IMPLICIT if ds.original_encoding[0] else EXPLICIT
            if not (sop_class and ds.get("SOPInstanceUID")):
                return Sent(name, ok=False, note="is no DICOM instance")
    except (OSError, InvalidDicomError, ValueError, TypeError, AttributeError, NotImplementedError, EOFError):
        return Sent(name, ok=False, note="cannot be read as DICOM")
    return _Item(name, path, sop_class, syntax or guessed, bare=not syntax)


def _grouped(items: Sequence[_Item]) -> Iterator[tuple[list[_Item], list[tuple[str, tuple[str, ...]]]]]:
    """Yield files that fit into one association, and the contexts to propose for them."""
    group: list[_Item] = []
    contexts: dict[tuple[str, tuple[str, ...]], None] = {}
    for item in items:
        # As it is; and, so that the station may choose, not packed.
        wanted = dict.fromkeys(((item.sop_class, (item.syntax,)), (item.sop_class, (EXPLICIT, IMPLICIT))))
        if len(contexts | wanted) > _MOST_CONTEXTS:
            yield group, list(contexts)
            group, contexts = [], {}
        group.append(item)
        contexts |= wanted
    if group:
        yield group, list(contexts)


@contextmanager
def _association(line: Line, contexts: Sequence[tuple[str, tuple[str, ...]]]) -> Iterator[Any]:
    from pynetdicom import AE, build_context

    _reach(line)
    with _quiet():
        try:
            entity = AE(ae_title=line.caller)
        except (ValueError, TypeError) as error:
            raise ConfigError("is no AE title", item=line.caller, remedy="Give 1 to 16 plain characters") from error
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = line.seconds
        entity.connection_timeout = min(10.0, line.seconds)
        asked = [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in contexts]
        tls = (line.tls, line.station.host) if line.tls is not None else None
        try:
            association = entity.associate(
                line.station.host,
                line.station.port,
                contexts=asked,
                ae_title=line.station.ae_title,
                tls_args=tls,
                max_pdu=131_072,
            )
        except (OSError, ValueError) as error:
            raise _station_error(line, "cannot be reached", "Check the host's name and the network") from error
        try:
            if association.is_rejected:
                answer = association.acceptor.primitive
                source, reason = (answer.result_source or 0, answer.diagnostic or 0) if answer else (0, 0)
                why = _REJECTIONS.get((source, reason), "it gives no reason")
                raise _station_error(line, f"refuses the association: {why}", "Ask who runs it")
            # Without a context that both know it is no association, but the station is there.
            if not association.is_established and not association.rejected_contexts:
                raise _station_error(
                    line, "cannot be reached, or speaks no DICOM there", "Check host, port, firewall and encryption"
                )
            yield association
        finally:
            if association.is_established:
                association.release()
            elif association.is_alive():
                association.abort()
            connection = association.dul.socket
            # pynetdicom leaves the socket of a connection that the other side broke off to the collector.
            if connection is not None and connection.socket is not None:
                connection.socket.close()
            entity.shutdown()


def _reach(line: Line) -> None:
    """Connect once and let go: pynetdicom tells nobody why it could not, and leaves the socket open."""
    try:
        socket.create_connection((line.station.host, line.station.port), min(10.0, line.seconds)).close()
    except (OSError, UnicodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it does not answer"
        raise _station_error(line, f"cannot be reached ({why})", "Check host, port and firewall") from error


def _sent(association: Any, item: _Item) -> Sent:
    accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    plain = next((each for each in (EXPLICIT, IMPLICIT) if (item.sop_class, each) in accepted), "")
    note = ""
    try:
        with _unquestioned():
            if association.accepted_contexts and not association.is_established:
                return Sent(item.name, ok=False, note="the station ended the association")
            if (item.sop_class, item.syntax) in accepted:
                what: Any = _read(item) if item.bare else item.path
            elif plain:
                what = _unpacked(item)
                note = "unpacked, as the station takes no other"
            else:
                return Sent(item.name, ok=False, note="the station takes no such instances")
            status = association.send_c_store(what).get("Status")
    except DecodeError as error:
        return Sent(item.name, ok=False, note=f"cannot be unpacked: {error.message}")
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError, KeyError, MemoryError):
        # Their words may hold what the file holds.
        ended = not association.is_established
        return Sent(item.name, ok=False, note="the station ended the association" if ended else "cannot be unpacked")
    if status is None:
        return Sent(item.name, ok=False, note="the station gave no answer")
    if status not in _TAKEN:
        return Sent(item.name, ok=False, status=status, note=_told(status))
    return Sent(item.name, ok=True, status=status, note=note)


def _read(item: _Item) -> Any:
    from pydicom import dcmread
    from pydicom.uid import UID

    ds = dcmread(item.path, force=True)
    ds.file_meta.TransferSyntaxUID = UID(item.syntax)
    return ds


def _unpacked(item: _Item) -> Any:
    from pydicom.dataelem import DataElement
    from pydicom.uid import ExplicitVRLittleEndian

    from medsearch_desktop.image.unpack import unpack

    pixels = unpack(item.path, max_pixels=_MOST_PIXELS)
    ds = _read(item)
    if item.syntax == _BIG_ENDIAN:
        # Numbers are turned round as they are encoded anew; of words nobody does that.
        ds.walk(_turn)
    if pixels is not None:
        # The same image, and so the same identifier.
        ds.Rows, ds.Columns, ds.SamplesPerPixel = pixels.rows, pixels.columns, pixels.samples
        ds.PhotometricInterpretation = pixels.photometric_interpretation
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = pixels.bits_allocated, pixels.bits_stored, pixels.high_bit
        if pixels.samples > 1:
            ds.PlanarConfiguration = 0
        vr = _FLOATS.get(pixels.tag) or ("OB" if pixels.bits_allocated <= 8 else "OW")
        ds[pixels.tag] = DataElement(pixels.tag, vr, pixels.data)
        for table in _OFFSET_TABLES:
            ds.pop(table, None)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.set_original_encoding(False, True, ds.original_character_set)
    return ds


def _turn(_: Any, element: Any) -> None:
    width = _WORDS.get(element.VR, 1)
    if width > 1 and isinstance(element.value, bytes) and len(element.value) % width == 0:
        element.value = np.frombuffer(element.value, f"u{width}").byteswap().tobytes()


@contextmanager
def _unquestioned() -> Iterator[None]:
    """Read and write values as they are; what a device wrote is passed on, not judged."""
    from pynetdicom import _config

    before = _config.STORE_SEND_CHUNKED_DATASET
    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        with unquestioned():
            yield
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = before


# Who speaks with a station now: a server may ask one whether it is there while it sends to another.
_speaking: list[list[tuple[logging.Logger, bool]]] = []
_speaking_lock = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    # Its messages repeat what is sent, which may be a patient's.
    with _speaking_lock:
        names = [name for name in logging.Logger.manager.loggerDict if name.startswith("pynetdicom.")]
        logs = [logging.getLogger(name) for name in ("pynetdicom", *names)]
        mine = [(log, log.disabled) for log in logs]
        # The first knows how they were; the last sets them back.
        _speaking.append(_speaking[0] if _speaking else mine)
        for log in logs:
            log.disabled = True
    try:
        yield
    finally:
        with _speaking_lock:
            before = _speaking.pop()
            if not _speaking:
                for log, disabled in before:
                    log.disabled = disabled


def _station_error(line: Line, message: str, remedy: str) -> StationError:
    return StationError(message, item=str(line.station), remedy=remedy)


def _told(status: int | None) -> str:
    if status is None:
        return "nothing"
    words = _STATUSES.get(status >> 8) or _STATUSES.get((status >> 8) & 0xF0, "")
    return f"0x{status:04X}" + (f" ({words})" if words else "")
