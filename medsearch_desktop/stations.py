"""The DICOM stations that the user of this machine has remembered: where images may be sent from a window or server.

They are of the user, not of a library, and lie beside the configuration file: {name: "AE@HOST:PORT"}, or an
object where more is to be known, such as how to encrypt.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medsearch_desktop.config import config_file
from medsearch_desktop.errors import ConfigError, NotFoundError
from medsearch_desktop.sending import DEFAULT_CALLER, Line, Station, client_tls

FILE = "stations.json"
MOST_NAME = 40
# Another process that changes the file needs a moment; a lock of that age was left by one that died.
_SECONDS_TO_WAIT = 5.0
_SECONDS_OF_A_LOCK = 10.0


@dataclass(frozen=True, slots=True)
class Remembered:
    """A station by its name: where it is, as whom to call it, and the PEM files by which it is spoken to encrypted."""

    name: str
    station: Station
    caller: str = DEFAULT_CALLER
    tls_authority: str = ""
    tls_certificate: str = ""
    tls_key: str = ""

    @property
    def is_encrypted(self) -> bool:
        """Whether it is spoken to by TLS."""
        return bool(self.tls_authority or self.tls_certificate)

    def line(self, *, seconds: float = 30.0) -> Line:
        """Return how to speak to it, waiting `seconds` for each answer. Raises ConfigError for files of TLS."""
        tls = client_tls(authority=self.tls_authority, certificate=self.tls_certificate, key=self.tls_key)
        return Line(self.station, self.caller, seconds, tls)


class Stations:
    """The remembered stations in a file, the user's own where none is named; other processes may change it any time."""

    def __init__(self, file: Path | None = None) -> None:
        self._named = file

    @property
    def _file(self) -> Path:
        return self._named or config_file().with_name(FILE)

    def all(self) -> list[Remembered]:
        """Return every station by name. Raises ConfigError for a file that cannot be read."""
        return [_remembered(name, value, self._file) for name, value in sorted(self._read().items())]

    def get(self, name: str) -> Remembered:
        """Return the station of that name. Raises NotFoundError, ConfigError."""
        rows = self._read()
        if name not in rows:
            raise NotFoundError(
                "is no station that is remembered",
                item=name,
                remedy="Remember it on the Library page, or by `medsearch echo AE@HOST:PORT --remember NAME`",
            )
        return _remembered(name, rows[name], self._file)

    def remember(self, new: Remembered, *, replace: bool = False) -> None:
        """Keep a station by its name; with `replace` in place of another of that name. Raises ConfigError."""
        if "@" in new.name or not new.name.isprintable() or new.name != new.name.strip() or not new.name:
            raise ConfigError("is no name for a station", item=new.name, remedy="Give plain characters without @")
        if len(new.name) > MOST_NAME:
            raise ConfigError(f"a station's name has at most {MOST_NAME} characters", item=new.name)
        # What does not work is told now, not when something is to be sent.
        new.line()
        _check_caller(new.caller)
        with self._changed() as rows:
            if new.name in rows and not replace:
                raise ConfigError(
                    "is remembered already", item=new.name, remedy="Forget it first, or name it otherwise"
                )
            rows[new.name] = _stored(new)

    def forget(self, name: str) -> None:
        """Forget a station. Raises NotFoundError, ConfigError."""
        self.get(name)
        with self._changed() as rows:
            rows.pop(name, None)

    def _read(self) -> dict[str, Any]:
        try:
            rows = json.loads(self._file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise _unreadable(self._file) from error
        if not isinstance(rows, dict):
            raise _unreadable(self._file)
        return rows

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        """Lend what the file holds, and write it whole at the end of the block; one process at a time."""
        part = self._file.with_name(f"{FILE}.{os.getpid()}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self._file.with_name(f"{FILE}.lock")):
                rows = self._read()
                yield rows
                part.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", "utf-8")
                part.replace(self._file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ConfigError(f"cannot be written ({error.strerror})", item=str(self._file)) from error


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    end = time.monotonic() + _SECONDS_TO_WAIT
    while True:
        try:
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError as error:
            if time.monotonic() > end:
                raise ConfigError("is being changed by another process", item=FILE, remedy="Try again") from error
            try:
                if abs(time.time() - lock.stat().st_mtime) > _SECONDS_OF_A_LOCK:
                    lock.unlink(missing_ok=True)
            except FileNotFoundError:
                continue
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _check_caller(caller: str) -> None:
    # PS3.5 6.2: 16 characters at most, of the basic set without backslash.
    if not 1 <= len(caller.strip()) <= 16 or not caller.isascii() or not caller.isprintable() or "\\" in caller:
        raise ConfigError("is no AE title", item=caller, remedy="Give 1 to 16 plain characters")


def _stored(new: Remembered) -> Any:
    row = {name: value for name, value in asdict(new).items() if name not in ("name", "station") and value}
    if row == {"caller": DEFAULT_CALLER}:
        return str(new.station)
    return {"address": str(new.station), **row}


def _remembered(name: str, value: Any, file: Path) -> Remembered:
    if isinstance(value, str):
        return Remembered(name, Station.parse(value))
    try:
        more = {
            what: str(value[what])
            for what in ("caller", "tls_authority", "tls_certificate", "tls_key")
            if what in value
        }
        return Remembered(name, Station.parse(str(value["address"])), **more)
    except (TypeError, KeyError) as error:
        raise _unreadable(file) from error


def _unreadable(file: Path) -> ConfigError:
    return ConfigError("cannot be read", item=str(file), remedy="Mend or remove the file")
