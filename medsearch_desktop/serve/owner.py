"""The process that owns a library: the file that tells of it, and asking it in place of the library.

The file lies in the library's private folder with mode 0600: address, token, process and when that began. One
that a dead process left behind is seen by that, and by a port where nobody or somebody else answers.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode, urlsplit

from medsearch_desktop.errors import MedSearchError, NotFoundError, RequestError, ServeError, SourceError
from medsearch_desktop.records import (
    Bucket,
    Facet,
    Failure,
    IngestEvent,
    IngestSummary,
    SearchAnswer,
    VisualAnswer,
)
from medsearch_desktop.serve import wire
from medsearch_desktop.serve.cursors import write_cursor
from medsearch_desktop.serve.errors import error_from_json
from medsearch_desktop.source.opening import open_on_disk

if TYPE_CHECKING:
    from medsearch_desktop.sending import Sent
    from medsearch_desktop.serve.owner_lists import RemoteLists

FILE = "owner.json"
_MOST_FILE_BYTES = 10_000
_SECONDS_TO_CONNECT = 5.0
# A page of a question asked through the owner; more are asked for page by page.
_MOST_HITS = 1000
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a library: where it answers, its token, its process and when that began, in seconds."""

    url: str
    token: str
    pid: int
    began: float

    @classmethod
    def of_this_process(cls, url: str, token: str) -> Self:
        """Return what tells of this process."""
        return cls(url, token, os.getpid(), _began(os.getpid()))

    @property
    def alive(self) -> bool:
        """Whether the process is still there, and not another one of the same number."""
        import psutil

        try:
            return abs(_began(self.pid) - self.began) < 1.0
        except (psutil.Error, ValueError, OverflowError):
            return False

    def write(self, library: Path) -> None:
        """Tell of this owner in the library's folder, in place of whoever was there before."""
        part = library / f"{FILE}.{os.getpid()}.part"
        part.unlink(missing_ok=True)
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(self), file)
            part.replace(library / FILE)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ServeError(f"cannot be written ({error.strerror})", item=str(library / FILE)) from error

    def remove(self, library: Path) -> None:
        """Take the file away again, unless it tells of another owner by now."""
        if _read(library) == self:
            with suppress(OSError):
                (library / FILE).unlink(missing_ok=True)


def _began(pid: int) -> float:
    """Return when a process began, in seconds. Raises psutil.Error where there is none."""
    try:
        # Since the machine began: as a time of day it would change whenever the clock is set, as psutil's does.
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        # Not Linux, or nobody.
        import psutil

        return float(psutil.Process(pid).create_time())
    # The name of the program stands before it in brackets and may hold anything.
    return int(stat.rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def find_owner(library: Path) -> Owner | None:
    """Return who answers for a library, or None; a file that is stale, foreign or not private counts for nothing."""
    owner = _read(library)
    return owner if owner is not None and owner.alive else None


def _read(library: Path) -> Owner | None:
    try:
        # A pipe of that name would be waited on for ever, by every command.
        with open_on_disk(os.fspath(library / FILE)) as file:
            held = os.fstat(file.fileno())
            if hasattr(os, "geteuid") and (held.st_uid != os.geteuid() or held.st_mode & 0o077):
                return None
            row = json.loads(file.read(_MOST_FILE_BYTES))
        owner = Owner(str(row["url"]), str(row["token"]), int(row["pid"]), float(row["began"]))
        place = urlsplit(owner.url)
        # Wherever the file came from: the token goes nowhere but to this machine.
        sound = place.scheme == "http" and place.hostname in _LOOPBACK and place.port is not None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return owner if sound else None


def ask_owner(library: Path) -> RemoteLibrary | None:
    """Return the library behind its owner's interface, or None where nobody, or somebody else, answers there."""
    owner = find_owner(library)
    if owner is None:
        return None
    remote = RemoteLibrary(owner)
    return remote if remote.answers() else None


class RemoteLibrary:
    """A library asked through its owner: what of `Library` the command line needs, with the same answers and errors.

    Raises ServeError when the owner goes away meanwhile.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        place = urlsplit(owner.url)
        self._host, self._port = str(place.hostname), int(place.port or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def answers(self) -> bool:
        """Whether the owner is there and takes the token."""
        try:
            self._ask("GET", "/api/jobs")
        except MedSearchError:
            return False
        return True

    def login_address(self) -> str:
        """Return an address that logs one browser window in, once, within a minute."""
        return f"{self._owner.url}{self._ask('POST', '/api/login')['path']}"

    def bring_window(self, screen: str) -> bool:
        """Have the owner bring its window on that screen to the front; return whether it has one there."""
        try:
            return bool(self._ask("POST", "/api/window", body={"screen": screen})["raised"])
        except NotFoundError:
            # A release that knows no such route.
            return False

    def begin_ingest(self, paths: Iterable[str]) -> None:
        """Have the owner ingest absolute paths, and do not wait for it. Raises as the owner's route does."""
        self._ask("POST", "/api/jobs", body={"paths": list(paths)})

    def search(
        self, query: str, *, k: int = 10, offset: int = 0, sort: str = "score", with_facets: bool = False
    ) -> SearchAnswer:
        """Answer a question as `Library.search` does; an image that it names has to be one of the library."""
        hits: list[Any] = []
        whole: SearchAnswer | None = None
        cursor = write_cursor(offset, generation=None, about=f"{sort} {query}") if offset else ""
        while whole is None or (len(hits) < k and cursor):
            asked = {"q": query, "k": min(k - len(hits), _MOST_HITS), "sort": sort, "cursor": cursor}
            row = self._ask("GET", "/api/search", {**asked, "facets": with_facets and whole is None})
            answer, cursor = wire.search_answer(row), row["next"]
            whole = whole or answer
            hits += answer.hits
        return SearchAnswer(whole.total, tuple(hits), whole.facets, whole.notes)

    def facets(self, query: str = "") -> dict[str, tuple[Facet | Bucket, ...]]:
        """Count as `Library.facets` does."""
        return wire.facets(self._ask("GET", "/api/facets", {"q": query}))

    def similar(
        self,
        image: str,
        *,
        k: int = 10,
        roi: tuple[int, int, int, int] | None = None,
        where: str = "",
        model: str = "",
    ) -> VisualAnswer:
        """Answer by likeness as `Library.similar` does; a file is read here and sent."""
        asked = {"k": k, "roi": ",".join(map(str, roi)) if roi else "", "where": where, "model": model}
        try:
            row = self._ask("GET", "/api/similar", {**asked, "image": image})
        except NotFoundError as error:
            if error.item != image:
                raise
            row = self._ask_by_file(image, asked)
        return wire.record(VisualAnswer, {**row, "query": image})

    def ingest(
        self,
        paths: Iterable[str],
        *,
        metadata_only: bool = False,
        on_event: Callable[[IngestEvent], None] | None = None,
        within: str = "",
    ) -> IngestSummary:
        """Ingest through the owner as `Library.ingest` does, and wait for it; cut off here, it is cancelled there."""
        # Relative paths are relative to here, not to where the owner was started.
        places = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - keeps names that are not UTF-8
        return self._follow(
            self._ask("POST", "/api/jobs", body={"paths": places, "metadata_only": metadata_only, "within": within}),
            on_event,
        )

    def retry_failures(self, *, on_event: Callable[[IngestEvent], None] | None = None) -> IngestSummary:
        """Try again as `Library.retry_failures` does."""
        return self._follow(self._ask("POST", "/api/failures/retry"), on_event)

    def failures(self) -> list[Failure]:
        """Return what could not be indexed, and why."""
        found: list[Failure] = []
        cursor, more = "", True
        while more:
            row = self._ask("GET", "/api/failures", {"k": _MOST_HITS, "cursor": cursor})
            found += [wire.record(Failure, each) for each in row["failures"]]
            cursor = row["next"]
            more = bool(cursor)
        return found

    @property
    def lists(self) -> RemoteLists:
        """The labels, saved searches and teaching lists of the library."""
        from medsearch_desktop.serve.owner_lists import RemoteLists

        return RemoteLists(self._ask, self._fetch)

    def label(self, target_kind: str, target_id: str, label: str) -> None:
        """Put a label on its target as `Library.label` does."""
        self._ask("POST", "/api/labels", body={"target_kind": target_kind, "target_id": target_id, "label": label})

    def unlabel(self, target_kind: str, target_id: str, label: str) -> None:
        """Take a label off as `Library.unlabel` does."""
        body = {"target_kind": target_kind, "target_id": target_id, "label": label}
        self._ask("POST", "/api/labels/remove", body=body)

    def _fetch(self, path: str, query: dict[str, Any], file: Path) -> None:
        from medsearch_desktop.packing import receive

        given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
        with self._sent("GET", f"{path}?{urlencode(given)}") as response:
            receive(iter(lambda: response.read(1 << 20), b""), file)

    def send(self, station: str, *, images: Sequence[str], question: str, on_sent: Callable[[Sent], None]) -> None:
        """Send to a remembered station as `owner_sending.send_by_owner` does."""
        from medsearch_desktop.serve.owner_sending import send_by_owner

        send_by_owner(self._ask, self._events, station, images=images, question=question, on_sent=on_sent)

    def look_after(
        self, action: str, body: dict[str, Any], *, on_progress: Callable[[str, int, int], None]
    ) -> dict[str, Any]:
        """Have the owner "verify", "repair" or "backup" the library, and return its answer as JSON values.

        `on_progress` is told (what, done, total) as by `Health`. Cut off here, it is stopped there.
        """
        row: dict[str, Any] = self._ask("POST", f"/api/health/{action}", body=body)
        if "job_id" not in row:
            return row

        def note(event: IngestEvent) -> None:
            on_progress(event.stage, event.settled, event.total)

        job = self._followed(row, note)
        if job["summary"] is None:
            raise ServeError("its owner ended before it was done", remedy="Run the same command again")
        found: dict[str, Any] = job["summary"]
        return found

    def _ask_by_file(self, name: str, asked: dict[str, Any]) -> Any:
        from medsearch_desktop.workbench import neither_image_nor_file

        if not Path(name).is_file():
            raise neither_image_nor_file(name)
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise SourceError(
                f"cannot be read ({error.strerror})", item=name, remedy="Check that it is there and may be read"
            ) from error
        try:
            return self._ask("POST", "/api/similar", asked, data=data)
        except MedSearchError as error:
            if error.item == "upload":
                error.item = name
            raise

    def _follow(self, begun: dict[str, Any], on_event: Callable[[IngestEvent], None] | None) -> IngestSummary:
        job = self._followed(begun, on_event)
        if job["state"] != "done" or job["summary"] is None:
            raise ServeError(
                "the ingest was stopped at its owner; what was finished is kept",
                remedy="The same command goes on from there",
            )
        return wire.record(IngestSummary, job["summary"])

    def _followed(self, begun: dict[str, Any], on_event: Callable[[IngestEvent], None] | None) -> dict[str, Any]:
        """Return a job as it ended, or as it was last heard of. Raises the error that it ended with."""
        job = begun
        try:
            for job in self._events(begun["job_id"]):
                if on_event is not None and job["progress"]:
                    on_event(wire.record(IngestEvent, job["progress"]))
        except KeyboardInterrupt:
            self._ask("POST", f"/api/jobs/{begun['job_id']}/cancel")
            raise
        if job["error"]:
            raise error_from_json(job)
        return job

    def _events(self, job_id: str) -> Iterator[dict[str, Any]]:
        with self._sent("GET", f"/api/jobs/{job_id}/events", timeout=60.0) as response:
            for line in response:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        *,
        body: Any = None,
        data: bytes | None = None,
    ) -> Any:
        if query:
            given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
            try:
                path = f"{path}?{urlencode(given)}"
            except UnicodeEncodeError as error:
                raise RequestError("a question holds characters that are no text") from error
        kind = "application/octet-stream" if data is not None else "application/json"
        if body is not None:
            data = json.dumps(body).encode()
        with self._sent(method, path, data=data, kind=kind) as response:
            return json.loads(response.read())

    @contextmanager
    def _sent(
        self, method: str, path: str, *, data: bytes | None = None, kind: str = "", timeout: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request and lend its answer. Raises the error that it tells of."""
        headers = {"Authorization": f"Bearer {self._owner.token}"}
        if data is not None:
            headers["Content-Type"] = kind
        # No proxy of the environment is asked: http.client knows none.
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_SECONDS_TO_CONNECT)
        with closing(connection):
            try:
                connection.connect()
                assert isinstance(connection.sock, socket.socket)
                # A question may take long; only whether anybody is there is known at once.
                connection.sock.settimeout(timeout)
                connection.request(method, path, body=data, headers=headers)
                response = connection.getresponse()
                if response.status >= 400:
                    raise error_from_json(json.loads(response.read()))
                yield response
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ServeError(
                    "the library's owner does not answer any more",
                    item=f"process {self._owner.pid}",
                    remedy="Run the same command again",
                ) from error
