"""`medsearch mllp`: take HL7 results over MLLP into a folder, which is then ingested like any other."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from medsearch_desktop.serve.commands import add_command, config_of, one_line, print_json


def add_mllp_command(commands: Any) -> None:
    """Add `mllp` to the commands of a parser."""
    help = "take HL7 results (ORU) over MLLP into a folder, until stopped; ingest the folder to find them"
    mllp = add_command(commands, "mllp", _mllp, help)
    mllp.add_argument("folder", metavar="DIR", help="where the messages are kept, a file each")
    mllp.add_argument("--port", type=_port, default=0, metavar="N", help="port (default: any that is free)")
    mllp.add_argument("--host", default="127.0.0.1", metavar="IP", help="address to listen at (%(default)s)")
    mllp.add_argument(
        "--allow", action="append", default=[], metavar="IP|NETWORK", help="who may send, beside this machine"
    )


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port, which are 0 to 65535")
    return number


def _mllp(options: argparse.Namespace) -> int:
    import asyncio

    try:
        asyncio.run(_listen(options))
    except asyncio.CancelledError:
        # A signal asked it to end.
        return 0
    return 0


async def _listen(options: argparse.Namespace) -> None:
    import asyncio

    from medsearch_desktop.inbox import listen

    def ready(port: int) -> None:
        if options.json:
            print_json({"host": options.host, "port": port, "folder": str(Path(options.folder).absolute())})
        else:
            print(f"HL7 results are taken at {options.host}:{port} into {options.folder}; Ctrl-C ends it.")
        sys.stdout.flush()

    def tell(code: str, said: str) -> None:
        print(one_line(f"{code} {said}"), file=sys.stderr, flush=True)

    task = asyncio.current_task()
    assert task is not None
    # Windows knows no such handlers; there the process ends, and whatever was acknowledged is on the disk.
    with suppress(NotImplementedError):
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await listen(
        config_of(options),
        Path(options.folder),
        host=options.host,
        port=options.port,
        allowed=options.allow,
        on_ready=ready,
        on_message=tell,
    )
