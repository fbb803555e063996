"""`medsearch receive`: take in what modalities and archives send by C-STORE, until told to end."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from medsearch_desktop.serve.commands import add_command, config_of

# What has come is taken in when nothing more came for a while, or at the latest after another.
_SECONDS_QUIET, _SECONDS_LATEST = 3.0, 30.0
_SECONDS_BETWEEN_COUNTS = 5.0
_SECONDS_BETWEEN_SWEEPS = 3600.0


def add_receive_command(commands: Any) -> None:
    """Add `receive` to the commands of a parser."""
    receive = add_command(commands, "receive", _receive, "take in what is sent by C-STORE, until told to end")
    add = receive.add_argument
    add(
        "--port", type=int, default=11112, metavar="N", help="port to listen at (%(default)s); 0 takes any that is free"
    )
    add("--host", default="127.0.0.1", metavar="IP", help="address to listen at (%(default)s)")
    add("--ae-title", default="MEDSEARCH", metavar="AE", help="own AE title (%(default)s)")
    add("--require-called", action="store_true", help="refuse who calls another AE title than that")
    add("--allow-ae", action="append", default=[], metavar="AE", help="AE title that may send; may be repeated (all)")
    add("--allow-ip", action="append", default=[], metavar="NET", help="address or network that may send (all)")
    add("--associations", type=int, default=16, metavar="N", help="associations at once (%(default)s)")
    add("--max-pdu", type=int, default=131_072, metavar="BYTES", help="largest unit that is asked for (%(default)s)")
    add(
        "--idle", type=float, default=60.0, metavar="S", help="seconds of silence that end an association (%(default)g)"
    )
    add("--reserve", type=int, default=1024, metavar="MB", help="disk space that is left free (%(default)s)")
    add("--spool", metavar="DIR", help="where to keep what comes (default: received/ in the library)")
    add("--tls-cert", default="", metavar="PEM", help="certificate: encrypt")
    add("--tls-key", default="", metavar="PEM", help="its key")
    add("--tls-ca", default="", metavar="PEM", help="authority whose certificates senders must show")
    add("--no-ingest", action="store_true", help="only receive; `medsearch watch` or `ingest` of the folder indexes it")


class _Arrivals:
    """What has come and is not yet taken in; may be shared between threads."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._first = self._last = 0.0
        self._lock = threading.Lock()

    def add(self, path: str) -> None:
        """Note one file."""
        with self._lock:
            self._last = time.monotonic()
            if not self._paths:
                self._first = self._last
            self._paths.append(path)

    def due(self) -> list[str]:
        """Return and forget what is to be taken in now; empty where more may be on its way."""
        now = time.monotonic()
        with self._lock:
            waited = now - self._last >= _SECONDS_QUIET or now - self._first >= _SECONDS_LATEST
            paths: list[str] = []
            if self._paths and waited:
                paths, self._paths = self._paths, paths
            return paths


def _receive(options: argparse.Namespace) -> int:
    from medsearch_desktop.errors import ConfigError
    from medsearch_desktop.serve.keeping import Keeper
    from medsearch_desktop.source.receiver import Receiver, Reception
    from medsearch_desktop.source.spool import Spool

    try:
        loopback = ip_address(options.host).is_loopback
    except ValueError as error:
        raise ConfigError("is no IP address", item=f"--host {options.host}", remedy="Give one, or 0.0.0.0") from error
    for name, value, low, high in (
        ("--port", options.port, 0, 65535),
        ("--associations", options.associations, 1, 1000),
        ("--max-pdu", options.max_pdu, 4096, 1 << 20),
        ("--idle", options.idle, 1, 1800),
        ("--reserve", options.reserve, 0, 1 << 30),
    ):
        if not low <= value <= high:
            raise ConfigError(f"must be from {low} to {high}", item=name)
    reception = Reception(
        ae_title=options.ae_title,
        host=options.host,
        port=options.port,
        callers=tuple(options.allow_ae),
        networks=tuple(options.allow_ip),
        require_called=options.require_called,
        most_associations=options.associations,
        max_pdu=options.max_pdu,
        idle_seconds=options.idle,
        certificate=options.tls_cert,
        key=options.tls_key,
        authority=options.tls_ca,
    )
    folder = Path(options.spool).absolute() if options.spool else _own_spool(options)
    spool = Spool(folder, reserve_bytes=options.reserve << 20)
    arrivals, keeper = _Arrivals(), Keeper(options)
    if not loopback:
        how = "" if options.tls_cert else " and without encryption"
        print(f"medsearch: listening at {options.host}, beyond this machine{how}", file=sys.stderr)
    with keeper.until_told(), Receiver(spool, reception, arrivals.add) as receiver:
        keeper.tell(
            "listening",
            f"receiving as {options.ae_title} at {options.host}:{receiver.port} into {folder}; Ctrl-C ends it",
            ae_title=options.ae_title,
            host=options.host,
            port=receiver.port,
            spool=str(folder),
        )
        # What an earlier launch acknowledged, and ended before it was taken in.
        left = not options.no_ingest
        told, told_at, swept_at = receiver.counts.as_json(), time.monotonic(), 0.0
        while not keeper.stop.wait(0.2):
            now = time.monotonic()
            if now - swept_at > _SECONDS_BETWEEN_SWEEPS:
                spool.sweep()
                swept_at = now
            paths = arrivals.due()
            if not options.no_ingest and (left or paths):
                # Of a drive that is away nothing is taken in, and what lies on it all when it is back.
                left = not (spool.is_there and keeper.take(str(folder), () if left else paths) and spool.is_there)
                if left:
                    keeper.stop.wait(_SECONDS_QUIET)
            counts = receiver.counts.as_json()
            if counts != told and now - told_at >= _SECONDS_BETWEEN_COUNTS:
                told, told_at = counts, now
                line = ", ".join(f"{number} {name}" for name, number in counts.items())
                keeper.tell("counts", line, counts=counts)
    keeper.tell("end", counts=receiver.counts.as_json())
    return 0


def _own_spool(options: argparse.Namespace) -> Path:
    """Return the folder for what comes in the library, which is made where there is none."""
    from medsearch_desktop.serve.commands import ask_library

    path = config_of(options).library_path
    with ask_library(options, create=True):
        return path / "received"
