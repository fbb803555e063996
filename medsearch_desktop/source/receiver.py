"""A C-STORE and C-ECHO service: what modalities and archives send, onto the disk before it is acknowledged.

The data set of an instance goes to a file as it comes, undecoded, in whatever transfer syntax its sender
prefers; it is never in memory as a whole. Nothing is indexed here. The only file that imports pynetdicom
to receive.
Source: PS3.7 9.1.1 (C-STORE), PS3.4 annex B (storage, and the statuses of B.2.3), PS3.8 (associations),
PS3.15 B.1 (TLS).
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from medsearch_desktop.errors import ConfigError, SourceError
from medsearch_desktop.source.certificate import show_certificate, trust_authority
from medsearch_desktop.source.lenience import unquestioned
from medsearch_desktop.source.sniff import os_reason
from medsearch_desktop.source.spool import NoRoomError, NotDicomError, Spool

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
DEFAULT_PORT = 11112
# No sender makes larger ones; what claims to be larger would be read into memory.
_MAX_PDU = 1 << 20
_SECONDS_FOR_HANDSHAKE = 10.0
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Reception:
    """Who may send here, and how.

    `callers` are AE titles and `networks` addresses or networks ("10.1.2.0/24"); none of a kind admits
    everybody. `idle_seconds` end an association in which nothing comes. `certificate` and `key` are PEM
    files and turn TLS on; with `authority` senders need a certificate of its own.
    """

    ae_title: str = "MEDSEARCH"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    callers: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    require_called: bool = False
    most_associations: int = 16
    max_pdu: int = 131_072
    idle_seconds: float = 60.0
    certificate: str = ""
    key: str = ""
    authority: str = ""


@dataclass(slots=True)
class Counts:
    """What has come since the beginning, in instances and bytes."""

    received: int = 0
    duplicates: int = 0
    refused: int = 0
    bytes: int = 0
    associations: int = 0
    rejected: int = 0

    def as_json(self) -> dict[str, int]:
        """Return the numbers by name."""
        return asdict(self)


@dataclass
class Receiver:
    """The service; `with` begins and ends it.

    `on_kept` is told the path of each new file after it is on the disk, from the thread of its association,
    before its sender is. `port` is the one that it listens at.
    Raises ConfigError for an AE title, address or certificate that is none, SourceError for a port that is taken.
    """

    spool: Spool
    reception: Reception
    on_kept: Callable[[str], None]
    counts: Counts = field(default_factory=Counts)
    port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stack: Any = None

    def __enter__(self) -> Receiver:
        self._stack = self._running()
        self._stack.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @contextmanager
    def _running(self) -> Iterator[None]:
        from pynetdicom import AE, evt

        reception = self.reception
        networks, tls = _networks(reception.networks), _tls(reception)
        with _as_we_need_it(self.spool.incoming):
            entity: Any = AE()
            try:
                entity.ae_title = reception.ae_title
                entity.require_calling_aet = list(reception.callers)
            except (ValueError, TypeError) as error:
                raise ConfigError(
                    "is no AE title", item=reception.ae_title, remedy="Give 1 to 16 plain characters"
                ) from error
            entity.require_called_aet = reception.require_called
            entity.maximum_associations = reception.most_associations
            entity.maximum_pdu_size = reception.max_pdu
            entity.network_timeout = entity.dimse_timeout = reception.idle_seconds
            entity.acse_timeout = min(30.0, reception.idle_seconds)
            # Storage needs no list of classes: it is unrestricted.
            entity.add_supported_context("1.2.840.10008.1.1")
            handlers = [
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_ECHO, lambda _: SUCCESS),
                (evt.EVT_ESTABLISHED, self._established),
                (evt.EVT_REJECTED, self._rejected),
                (evt.EVT_CONN_CLOSE, _leave_nothing),
            ]
            try:
                server = entity.make_server(
                    (reception.host, reception.port),
                    evt_handlers=handlers,
                    server_class=_server_class(),
                )
            except OSError as error:
                raise SourceError(
                    f"cannot listen there ({os_reason(error)})",
                    item=f"{reception.host}:{reception.port}",
                    remedy="Choose another port, or end the program that has it",
                ) from error
            server.networks, server.tls, server.idle_seconds = networks, tls, reception.idle_seconds
            entity._servers.append(server)
            self.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="receiver")
            thread.start()
            try:
                yield
            finally:
                entity.shutdown()
                thread.join()

    def _store(self, event: Any) -> int:
        request = event.request
        part = Path(event.dataset_path)
        size = 0
        try:
            # Where a file is open, Windows gives it no other name.
            request._dataset_file.close()
            size = part.stat().st_size
            if not self.spool.has_room():
                return self._refused(OUT_OF_RESOURCES)
            kept = self.spool.keep(
                part,
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax=str(event.context.transfer_syntax),
            )
        except NotDicomError:
            return self._refused(CANNOT_UNDERSTAND)
        except (NoRoomError, OSError):
            return self._refused(OUT_OF_RESOURCES)
        with self._lock:
            self.counts.received += kept.new
            self.counts.duplicates += not kept.new
            self.counts.bytes += size
        if kept.new:
            self.on_kept(kept.path)
        return SUCCESS

    def _refused(self, status: int) -> int:
        with self._lock:
            self.counts.refused += 1
        return status

    def _established(self, _: Any) -> None:
        with self._lock:
            self.counts.associations += 1

    def _rejected(self, _: Any) -> None:
        with self._lock:
            self.counts.rejected += 1


def _leave_nothing(event: Any) -> None:
    """Remove what was being received when a connection broke off."""
    message = event.assoc.dimse.message
    part = getattr(message, "_data_set_path", None)
    if part is not None:
        # Its last bytes may be what the disk does not take.
        with suppress(OSError):
            message._data_set_file.close()
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _as_we_need_it(incoming: Path) -> Iterator[None]:
    """Set pynetdicom and pydicom up for receiving, and back afterwards: they know only settings of the process."""
    from pynetdicom import _config, dimse_messages, timer

    messages: Any = dimse_messages
    log, nowhere = logging.getLogger("pynetdicom"), logging.NullHandler()
    before = (
        _config.UNRESTRICTED_STORAGE_SERVICE,
        _config.STORE_RECV_CHUNKED_DATASET,
        _config.LOG_HANDLER_LEVEL,
        messages.NamedTemporaryFile,
        log.propagate,
        vars(timer)["time"],
    )
    _config.UNRESTRICTED_STORAGE_SERVICE = _config.STORE_RECV_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    # There pynetdicom writes what comes: where it comes to rest is then a new name, and no copy.
    messages.NamedTemporaryFile = partial(tempfile.NamedTemporaryFile, dir=str(incoming))
    # It reckons silence by the time of day: a clock that is set would end all associations, or none any more.
    vars(timer)["time"] = SimpleNamespace(time=time.monotonic)
    # Its messages repeat what was sent, which may be a patient's.
    log.addHandler(nowhere)
    log.propagate = False
    try:
        # Devices send UIDs with leading zeros and titles in lower case; the instance is worth more than the rule.
        with unquestioned():
            yield
    finally:
        (
            _config.UNRESTRICTED_STORAGE_SERVICE,
            _config.STORE_RECV_CHUNKED_DATASET,
            _config.LOG_HANDLER_LEVEL,
            messages.NamedTemporaryFile,
            log.propagate,
            vars(timer)["time"],
        ) = before
        log.removeHandler(nowhere)


def _server_class() -> Any:
    from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

    class Handler(RequestHandler):
        """An association whose units are read only up to a bound, and which a failing disk ends at once."""

        def _create_association(self) -> Any:
            association = super()._create_association()
            connection: Any = association.dul.socket
            receive: Any = connection.recv

            def bounded(count: int) -> bytearray:
                if count > _MAX_PDU:
                    raise OSError("the unit is larger than any that is asked for")
                return bytearray(receive(count))

            connection.recv = bounded
            service: Any = association.dimse
            take, events = service.receive_primitive, association.dul.event_queue

            def written(primitive: Any) -> None:
                try:
                    take(primitive)
                except OSError:
                    # Of a data set that the disk does not take; its thread would end, and its sender wait in vain. The
                    # state machine takes this event for a unit that cannot be, and aborts (PS3.8 9.2.3, AA-8).
                    events.put("Evt19")

            service.receive_primitive = written
            return association

    class Server(ThreadedAssociationServer):
        """A server that knows whom it listens to, and shakes hands where nobody waits behind."""

        networks: tuple[_Network, ...] = ()
        tls: ssl.SSLContext | None = None
        idle_seconds = 60.0
        daemon_threads = True

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **{**named, "request_handler": Handler})

        def verify_request(self, _request: Any, client_address: Any) -> bool:
            """Whether a connection is from a network that may send, and not one too many."""
            if len(self.active_associations) >= 2 * self.ae.maximum_associations + 8:
                return False
            if not self.networks:
                return True
            address = ipaddress.ip_address(client_address[0].partition("%")[0])
            mapped = getattr(address, "ipv4_mapped", None)
            return any((mapped or address) in network for network in self.networks)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            """Begin an association, behind a handshake where there is TLS."""
            try:
                request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.tls is not None:
                    request.settimeout(_SECONDS_FOR_HANDSHAKE)
                    request = self.tls.wrap_socket(request, server_side=True)
                # Half a unit must not hold a thread for ever.
                request.settimeout(self.idle_seconds)
            except (OSError, ValueError):
                self.shutdown_request(request)
                return
            super().process_request_thread(request, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: what was wrong with a connection may quote it."""

    return Server


def _networks(names: tuple[str, ...]) -> tuple[_Network, ...]:
    found: list[_Network] = []
    for name in names:
        try:
            found.append(ipaddress.ip_network(name, strict=False))
        except ValueError as error:
            raise ConfigError(
                "is neither an address nor a network", item=name, remedy="Give one as 10.1.2.3 or 10.1.2.0/24"
            ) from error
    return tuple(found)


def _tls(reception: Reception) -> ssl.SSLContext | None:
    if not reception.certificate:
        if reception.key or reception.authority:
            raise ConfigError(
                "TLS needs a certificate", item=reception.key or reception.authority, remedy="Give one and its key"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    show_certificate(context, reception.certificate, reception.key)
    if reception.authority:
        trust_authority(context, reception.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
