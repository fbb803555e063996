"""`medsearch receive`: take in what modalities and archives send by C-STORE, until told to end."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from medsearch_desktop.serve.commands import add_command, config_of

_SECONDS_BETWEEN_COUNTS = 5.0


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


def _receive(options: argparse.Namespace) -> int:
    from medsearch_desktop.serve.arrivals import Arrivals, Listening, take_in
    from medsearch_desktop.serve.keeping import Keeper
    from medsearch_desktop.source.receiver import Receiver
    from medsearch_desktop.source.spool import Spool

    listening = Listening(
        ae_title=options.ae_title,
        host=options.host,
        port=options.port,
        require_called=options.require_called,
        allow_ae=tuple(options.allow_ae),
        allow_ip=tuple(options.allow_ip),
        associations=options.associations,
        max_pdu=options.max_pdu,
        idle=options.idle,
        reserve_mb=options.reserve,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        tls_ca=options.tls_ca,
    )
    reception = listening.reception()
    folder = Path(options.spool).absolute() if options.spool else _own_spool(options)
    spool = Spool(folder, reserve_bytes=options.reserve << 20)
    arrivals, keeper = Arrivals(), Keeper(options)
    if not listening.address().is_loopback:
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
        told, told_at = receiver.counts.as_json(), time.monotonic()

        def tell_counts() -> None:
            nonlocal told, told_at
            counts = receiver.counts.as_json()
            if counts != told and time.monotonic() - told_at >= _SECONDS_BETWEEN_COUNTS:
                told, told_at = counts, time.monotonic()
                line = ", ".join(f"{number} {name}" for name, number in counts.items())
                keeper.tell("counts", line, counts=counts)

        take = None if options.no_ingest else keeper.take
        take_in(spool, arrivals, stop=keeper.stop, take=take, on_turn=tell_counts)
    keeper.tell("end", counts=receiver.counts.as_json())
    return 0


def _own_spool(options: argparse.Namespace) -> Path:
    """Return the folder for what comes in the library, which is made where there is none."""
    from medsearch_desktop.serve.commands import ask_library

    path = config_of(options).library_path
    with ask_library(options, create=True):
        return path / "received"
