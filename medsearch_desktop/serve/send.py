"""`medsearch send`, `echo` and `open`: images to another DICOM station, or to the viewer of this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medsearch_desktop.serve.commands import add_command, answer, ask_library, one_line, print_json

if TYPE_CHECKING:
    from medsearch_desktop.sending import Sent
    from medsearch_desktop.stations import Remembered

_SECONDS = 30.0


def add_send_commands(commands: Any) -> None:
    """Add `send`, `echo` and `open` to the commands of a parser."""
    send = add_command(commands, "send", _send, "send images to another DICOM station (C-STORE)")
    send.add_argument("station", metavar="AE@HOST:PORT", help="where to, or the name of a remembered station")
    send.add_argument("what", nargs="+", metavar="IMAGE_ID|QUERY", help="image ids, or a question: all images it finds")
    echo = add_command(commands, "echo", _echo, "ask another DICOM station whether it is there (C-ECHO)")
    echo.add_argument("station", nargs="?", default="", metavar="AE@HOST:PORT", help="which; lists those remembered")
    for each in (send, echo):
        each.add_argument("--ae-title", default="", metavar="AE", help="own AE title (MEDSEARCH)")
        each.add_argument("--timeout", type=float, default=_SECONDS, metavar="S", help="seconds to wait (%(default)g)")
        each.add_argument("--tls-ca", default="", metavar="PEM", help="authority of the station's certificate: encrypt")
        each.add_argument(
            "--tls-cert", default="", metavar="PEM", help="own certificate, where the station asks for one"
        )
        each.add_argument("--tls-key", default="", metavar="PEM", help="its key")
    echo.add_argument(
        "--remember", default="", metavar="NAME", help="remember the station by this name once it answers"
    )
    echo.add_argument("--forget", default="", metavar="NAME", help="forget a remembered station, and ask none")
    show = add_command(commands, "open", _open, "open an image's file in the DICOM viewer of this machine")
    show.add_argument("image", metavar="IMAGE_ID")


def _send(options: argparse.Namespace) -> int:
    from medsearch_desktop.library import Library

    results: list[Sent] = []

    def tell(sent: Sent) -> None:
        results.append(sent)
        if not options.json:
            what = "sent" if sent.ok else "not sent"
            print(one_line(f"{sent.name}: {what}{f' ({sent.note})' if sent.note else ''}"), flush=True)

    images = [each for each in options.what if _is_image_id(each)]
    question = " ".join(each for each in options.what if not _is_image_id(each))
    with ask_library(options) as library:
        if isinstance(library, Library):
            line = _remembered(options).line(seconds=_seconds(options))
            place = str(line.station)
            for sent in library.outgoing.send(
                line, library.outgoing.choose(images=images, question=question).image_ids
            ):
                tell(sent)
        else:
            known = _known_to_owner(options)
            place = str(known.station)
            library.send(known.name, images=images, question=question, on_sent=tell)
    failed = sum(not sent.ok for sent in results)
    if options.json:
        rows = [sent_json(sent) for sent in results]
        print_json({"station": place, "sent": len(results) - failed, "failed": failed, "results": rows})
    else:
        print(f"{len(results) - failed} sent to {place}, {failed} not")
    return 1 if failed else 0


def sent_json(sent: Sent) -> dict[str, Any]:
    """Return what became of a file as `--json` and the interface tell of it."""
    status = None if sent.status is None else f"0x{sent.status:04X}"
    return {"image_id": sent.name, "ok": sent.ok, "status": status, "note": sent.note}


def _known_to_owner(options: argparse.Namespace) -> Remembered:
    """Return the remembered station that is meant: whoever owns the library sends to no other."""
    from medsearch_desktop.errors import ConfigError
    from medsearch_desktop.sending import Station
    from medsearch_desktop.stations import Stations

    remedy = f"Remember it so: medsearch echo {options.station} --remember NAME, with these options; then send to NAME"
    if options.ae_title or options.tls_ca or options.tls_cert or options.tls_key or options.timeout != _SECONDS:
        raise ConfigError(
            "a server owns the library, and speaks to stations as they are remembered", item="options", remedy=remedy
        )
    if "@" not in options.station:
        return Stations().get(options.station)
    station = Station.parse(options.station)
    known = next((each for each in Stations().all() if each.station == station), None)
    if known is None:
        raise ConfigError(
            "a server owns the library, and sends to remembered stations alone", item=options.station, remedy=remedy
        )
    return known


def _is_image_id(text: str) -> bool:
    uid = text.partition("#")[0]
    return uid.count(".") >= 2 and uid.replace(".", "").isdigit()


def _echo(options: argparse.Namespace) -> int:
    from medsearch_desktop.sending import echo
    from medsearch_desktop.stations import Stations

    if options.forget:
        Stations().forget(options.forget)
        return answer(options, {"forgotten": options.forget}, f"{options.forget} is forgotten")
    if not options.station:
        known = {each.name: str(each.station) for each in Stations().all()}
        return answer(options, known, *(f"{name}  {place}" for name, place in known.items()))
    asked = _remembered(options)
    echo(asked.line(seconds=_seconds(options)))
    if options.remember:
        Stations().remember(replace(asked, name=options.remember), replace=True)
    return answer(options, {"station": str(asked.station), "ok": True}, f"{asked.station} is there")


def _remembered(options: argparse.Namespace) -> Remembered:
    """Return the station that options name, as it is remembered where they do not say otherwise."""
    from medsearch_desktop.sending import Station
    from medsearch_desktop.stations import Remembered, Stations

    named = "@" not in options.station
    known = Stations().get(options.station) if named else Remembered("", Station.parse(options.station))
    said = {
        "caller": options.ae_title,
        "tls_authority": options.tls_ca and os.path.abspath(options.tls_ca),  # noqa: PTH100 - as it is typed
        "tls_certificate": options.tls_cert and os.path.abspath(options.tls_cert),  # noqa: PTH100
        "tls_key": options.tls_key and os.path.abspath(options.tls_key),  # noqa: PTH100
    }
    return replace(known, **{name: value for name, value in said.items() if value})


def _seconds(options: argparse.Namespace) -> float:
    from medsearch_desktop.errors import ConfigError

    if not 1 <= options.timeout <= 3600:
        raise ConfigError("must be from 1 to 3600", item="--timeout")
    return float(options.timeout)


def _open(options: argparse.Namespace) -> int:
    from medsearch_desktop.errors import LibraryLockedError, MedSearchError
    from medsearch_desktop.library import Library
    from medsearch_desktop.source.opening import is_member

    with ask_library(options) as library:
        if not isinstance(library, Library):
            raise LibraryLockedError(
                "a server owns the library", remedy="Save the file from its window, or end it first"
            )
        file = library.holdings.image_file(options.image)
    if is_member(file.path):
        raise MedSearchError("lies in an archive", item=file.path, remedy="Unpack that to open it")
    open_by_system(file.path)
    return answer(options, {"image_id": options.image, "path": file.path}, f"opening {file.path}")


def open_by_system(path: str) -> None:
    """Open a file with the program that the system has for it. Raises MedSearchError where there is none."""
    from medsearch_desktop.errors import MedSearchError

    if sys.platform == "win32":
        os.startfile(path)  # noqa: S606 - no shell: the file's own program
        return
    program = "open" if sys.platform == "darwin" else "xdg-open"
    found = shutil.which(program)
    remedy = "Install a DICOM viewer and make it the program for .dcm files"
    if found is None:
        raise MedSearchError(f"this system has no {program}", item=path, remedy=remedy)
    # Absolute, as all paths of records are: never taken for an option. Nobody waits for the viewer's end.
    done = subprocess.run([found, path], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise MedSearchError("no program opens it", item=path, remedy=remedy)
