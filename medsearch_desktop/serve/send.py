"""`medsearch send`, `echo` and `open`: images to another DICOM station, or to the viewer of this machine."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsearch_desktop.serve.commands import add_command, answer, ask_library, one_line, print_json

if TYPE_CHECKING:
    from medsearch_desktop.library import Library
    from medsearch_desktop.sending import Line, Sent, Station
    from medsearch_desktop.serve.owner import RemoteLibrary

STATIONS = "stations.json"
# So many files at once are copied out of archives, or from the library's owner, to be sent.
_AT_ONCE = 50
_MOST_HITS = 100_000


def add_send_commands(commands: Any) -> None:
    """Add `send`, `echo` and `open` to the commands of a parser."""
    send = add_command(commands, "send", _send, "send images to another DICOM station (C-STORE)")
    send.add_argument("station", metavar="AE@HOST:PORT", help="where to, or the name of a remembered station")
    send.add_argument("what", nargs="+", metavar="IMAGE_ID|QUERY", help="image ids, or a question: all images it finds")
    echo = add_command(commands, "echo", _echo, "ask another DICOM station whether it is there (C-ECHO)")
    echo.add_argument("station", nargs="?", default="", metavar="AE@HOST:PORT", help="which; lists those remembered")
    for each in (send, echo):
        each.add_argument("--ae-title", default="MEDSEARCH", metavar="AE", help="own AE title (%(default)s)")
        each.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds to wait (%(default)g)")
        each.add_argument("--tls-ca", default="", metavar="PEM", help="authority of the station's certificate: encrypt")
        each.add_argument(
            "--tls-cert", default="", metavar="PEM", help="own certificate, where the station asks for one"
        )
        each.add_argument("--tls-key", default="", metavar="PEM", help="its key")
    echo.add_argument(
        "--remember", default="", metavar="NAME", help="remember the station by this name once it answers"
    )
    show = add_command(commands, "open", _open, "open an image's file in the DICOM viewer of this machine")
    show.add_argument("image", metavar="IMAGE_ID")


def _send(options: argparse.Namespace) -> int:
    from medsearch_desktop.sending import send

    line = _line(options)
    results: list[Sent] = []
    with ask_library(options) as library:
        image_ids = _chosen(library, options.what)
        for names in [image_ids[at : at + _AT_ONCE] for at in range(0, len(image_ids), _AT_ONCE)]:
            for sent in _each_sent(library, names, lambda files: send(line, files)):
                results.append(sent)
                if not options.json:
                    what = "sent" if sent.ok else "not sent"
                    print(one_line(f"{sent.name}: {what}{f' ({sent.note})' if sent.note else ''}"), flush=True)
    failed = sum(not sent.ok for sent in results)
    if options.json:
        rows = [
            {
                "image_id": s.name,
                "ok": s.ok,
                "status": None if s.status is None else f"0x{s.status:04X}",
                "note": s.note,
            }
            for s in results
        ]
        print_json({"station": str(line.station), "sent": len(results) - failed, "failed": failed, "results": rows})
    else:
        print(f"{len(results) - failed} sent to {line.station}, {failed} not")
    return 1 if failed else 0


def _each_sent(library: Library | RemoteLibrary, names: Sequence[str], send: Any) -> Iterator[Sent]:
    """Yield what becomes of images whose files are copied only where they are no files of this disk."""
    from medsearch_desktop.errors import DecodeError, NotFoundError, SourceError
    from medsearch_desktop.sending import Sent

    with tempfile.TemporaryDirectory(prefix="medsearch-send-") as folder:
        files: list[tuple[str, Path]] = []
        for number, name in enumerate(names):
            try:
                files.append((name, _file_of(library, name, Path(folder) / f"{number}.dcm")))
            except (SourceError, NotFoundError, DecodeError) as error:
                yield Sent(name, ok=False, note=error.message)
        yield from send(files)


def _file_of(library: Library | RemoteLibrary, image_id: str, copy: Path) -> Path:
    from medsearch_desktop.library import Library
    from medsearch_desktop.source.opening import is_member

    if not isinstance(library, Library):
        with copy.open("wb") as target:
            library.fetch_image(image_id, target)
        return copy
    file = library.holdings.image_file(image_id)
    if not is_member(file.path):
        return Path(file.path)
    source, _ = library.holdings.open_image(file)
    with source, copy.open("wb") as target:
        shutil.copyfileobj(source, target)
    return copy


def _chosen(library: Library | RemoteLibrary, what: Sequence[str]) -> list[str]:
    """Return one image of each instance that is named or found. Raises NotFoundError where nothing is."""
    from medsearch_desktop.errors import NotFoundError

    found: dict[str, str] = {}
    questions = [each for each in what if not _is_image_id(each)]
    for image_id in [each for each in what if _is_image_id(each)]:
        found.setdefault(image_id.partition("#")[0], image_id)
    if questions:
        hits = library.search(" ".join(questions), k=_MOST_HITS).hits
        for image_id in (each for hit in hits for each in hit.image_ids):
            # The frames of an instance are sent with it.
            found.setdefault(image_id.partition("#")[0], image_id)
    if not found:
        raise NotFoundError("finds no image", item=" ".join(what), remedy="Try it with `medsearch search` first")
    return list(found.values())


def _is_image_id(text: str) -> bool:
    uid = text.partition("#")[0]
    return uid.count(".") >= 2 and uid.replace(".", "").isdigit()


def _echo(options: argparse.Namespace) -> int:
    from medsearch_desktop.sending import echo

    if not options.station:
        known = _stations()
        return answer(options, known, *(f"{name}  {place}" for name, place in known.items()))
    line = _line(options)
    echo(line)
    if options.remember:
        _remember(options.remember, line.station)
    return answer(options, {"station": str(line.station), "ok": True}, f"{line.station} is there")


def _line(options: argparse.Namespace) -> Line:
    from medsearch_desktop.errors import ConfigError
    from medsearch_desktop.sending import Line, Station, client_tls

    if not 1 <= options.timeout <= 3600:
        raise ConfigError("must be from 1 to 3600", item="--timeout")
    tls = client_tls(authority=options.tls_ca, certificate=options.tls_cert, key=options.tls_key)
    place = options.station if "@" in options.station else _stations().get(options.station, options.station)
    return Line(Station.parse(place), options.ae_title, options.timeout, tls)


def _stations() -> dict[str, str]:
    from medsearch_desktop.errors import ConfigError

    path = _stations_path()
    try:
        rows = json.loads(path.read_text("utf-8"))
        return {str(name): str(place) for name, place in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError("cannot be read", item=str(path), remedy="Mend or remove the file") from error


def _remember(name: str, station: Station) -> None:
    from medsearch_desktop.errors import ConfigError

    if "@" in name or not name.isprintable() or not 1 <= len(name) <= 40:
        raise ConfigError("is no name for a station", item=name, remedy="Give 1 to 40 characters without @")
    path = _stations_path()
    part = path.with_name(f"{STATIONS}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**_stations(), name: str(station)}, indent=1, sort_keys=True) + "\n", "utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"cannot be written ({error.strerror})", item=str(path)) from error


def _stations_path() -> Path:
    from medsearch_desktop.config import config_file

    return config_file().with_name(STATIONS)


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
