"""What is received by C-STORE and taken in: how it is listened, and the loop that takes in batches of what has come.

Both `medsearch receive` and a server that receives run this one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from medsearch_desktop.errors import ConfigError

if TYPE_CHECKING:
    from medsearch_desktop.source.receiver import Reception
    from medsearch_desktop.source.spool import Spool

Take = Callable[[str, Sequence[str]], bool]

# What has come is taken in when nothing more came for a while, or at the latest after another.
_SECONDS_QUIET, _SECONDS_LATEST = 3.0, 30.0
_SECONDS_BETWEEN_SWEEPS = 3600.0
# Name, lowest and highest value.
_RANGES = (
    ("port", 0, 65_535),
    ("associations", 1, 1000),
    ("max_pdu", 4096, 1 << 20),
    ("idle", 1, 1800),
    ("reserve_mb", 0, 1 << 30),
)


@dataclass(frozen=True, slots=True)
class Listening:
    """How to receive; the options of `medsearch receive` by their names.

    `allow_ae` and `allow_ip` are who may send, everybody where there are none; `idle` is in seconds, `max_pdu` in
    bytes, `reserve_mb` is left free on the disk. The three of TLS are PEM files.
    """

    ae_title: str = "MEDSEARCH"
    host: str = "127.0.0.1"
    port: int = 11112
    require_called: bool = False
    allow_ae: tuple[str, ...] = ()
    allow_ip: tuple[str, ...] = ()
    associations: int = 16
    max_pdu: int = 131_072
    idle: float = 60.0
    reserve_mb: int = 1024
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""

    def address(self) -> IPv4Address | IPv6Address:
        """Return the address to listen at; other machines can send to one that is no loopback. Raises ConfigError."""
        try:
            return ip_address(self.host)
        except ValueError as error:
            raise ConfigError("is no IP address", item=f"host {self.host}", remedy="Give one, or 0.0.0.0") from error

    def reception(self) -> Reception:
        """Return it as the receiver takes it. Raises ConfigError for what is out of range."""
        from medsearch_desktop.source.receiver import Reception

        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"must be from {low} to {high}", item=name)
        # Before anything is opened: a name would be looked up.
        self.address()
        return Reception(
            ae_title=self.ae_title,
            host=self.host,
            port=self.port,
            callers=self.allow_ae,
            networks=self.allow_ip,
            require_called=self.require_called,
            most_associations=self.associations,
            max_pdu=self.max_pdu,
            idle_seconds=self.idle,
            certificate=self.tls_cert,
            key=self.tls_key,
            authority=self.tls_ca,
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "allow_ae": list(self.allow_ae), "allow_ip": list(self.allow_ip)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Listening:
        """Return what `as_json` gave; what another release knew beside it is left out."""
        known: dict[str, Any] = {each.name: row[each.name] for each in fields(cls) if each.name in row}
        for name in known.keys() & {"allow_ae", "allow_ip"}:
            known[name] = tuple(known[name])
        return cls(**known)


class Arrivals:
    """What has come and is not yet taken in; may be shared between threads."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._first = self._last = 0.0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._paths)

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


def take_in(
    spool: Spool,
    arrivals: Arrivals,
    *,
    stop: threading.Event,
    take: Take | None,
    on_turn: Callable[[], None] = lambda: None,
) -> None:
    """Have `take` bring the library up to date with what arrives in a spool folder, until `stop` is set.

    All of the folder comes first: an earlier launch may have ended before it took in what it had acknowledged. What
    could not be taken (False) is tried again. Without `take` only left-overs are swept.
    """
    left, swept_at = True, -_SECONDS_BETWEEN_SWEEPS
    while not stop.wait(0.2):
        now = time.monotonic()
        if now - swept_at >= _SECONDS_BETWEEN_SWEEPS:
            spool.sweep()
            swept_at = now
        paths = arrivals.due()
        if take is not None and (left or paths):
            # Of a drive that is away nothing is taken in, and what lies on it all when it is back.
            left = not (spool.is_there and take(str(spool.folder), () if left else paths) and spool.is_there)
            if left:
                stop.wait(_SECONDS_QUIET)
        on_turn()
