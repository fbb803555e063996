"""What the answers about watched folders and receiving hold, field by field; see `models`."""

from __future__ import annotations

from medsearch_desktop.serve.api.models import Answer, ErrorBody
from medsearch_desktop.serve.upkeep import Keeping


class WatchedFolder(Answer):
    """A folder that the library is kept current with.

    `state` is "watching" by the system's events or "polling" where none come, "away" where its drive is not there,
    "paused" once a job of it was stopped, "resting" where the server was begun without watching, "failed" when it is
    not watched because of `error`. `job_id` is the job that takes a change in, `taken_at` when the last one had been
    (Unix seconds, 0 for not yet), `counts` the files of all since the launch. `error` is what came up last and is
    tried again.
    """

    path: str
    state: Keeping
    job_id: str
    taken_at: float
    counts: dict[str, int]
    error: ErrorBody | None


class WatchedFolders(Answer):
    """The folders that the library is kept current with, by path."""

    folders: list[WatchedFolder]


class Listening(Answer):
    """How the receiver listens; see `medsearch receive`. Nobody named in a list admits everybody."""

    ae_title: str
    host: str
    port: int
    require_called: bool
    allow_ae: list[str]
    allow_ip: list[str]
    associations: int
    max_pdu: int
    idle: float
    reserve_mb: int
    tls_cert: str
    tls_key: str
    tls_ca: str


class ReceiverCounts(Answer):
    """What has come since receiving was switched on, in instances, bytes and associations."""

    received: int
    duplicates: int
    refused: int
    bytes: int
    associations: int
    rejected: int


class Receiver(Answer):
    """How receiving by C-STORE stands.

    `state` is "listening", "off", "paused" (it receives, and takes nothing in), "resting" where the server was begun
    without it, "failed" where it cannot listen because of `error`, which is tried again. `port` is the one listened at.
    `waiting` files have come and are not yet taken in, `taken` says how the last were. `room` is false while the disk
    has less than its reserve left, and what is sent is refused.
    """

    state: Keeping
    listening: Listening
    port: int
    folder: str
    counts: ReceiverCounts
    waiting: int
    taken: WatchedFolder
    room: bool
    error: ErrorBody | None
