"""Who may speak to the server: this machine's own programs that hold the token, and nobody else.

A web page that the user visits can send requests to 127.0.0.1, and by DNS rebinding read the answers
under a name of its own; another user of the machine can reach the port. So every request
has to name this server as its Host, come from no other Origin, and carry the token of this launch, or
the cookie that a one-time login address gives the browser window. `Guard` stands before the whole
application: what it refuses, no route ever sees.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from medsearch_desktop.errors import RequestError
from medsearch_desktop.serve.commands import tell_where

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN = "/login"
UPLOADS = frozenset({("POST", "/api/similar"), ("POST", "/api/preview"), ("POST", "/api/teaching/import")})
# Their bodies go to disk as they come, so that only disk and silence bound them.
STREAMED = ("POST", "/dicomweb/studies")
MOST_STREAMED_BYTES = 64 << 30
# Questions and folders are short; only an image to ask by is large.
MOST_BODY_BYTES = 1 << 20
# A body has that long to arrive, and a second more for each MiB of its limit.
BODY_SECONDS = 20.0
# So much of a body that is too large is read and thrown away: a connection that is closed with bytes of it still
# under way is reset, and its sender never sees why.
MOST_DRAINED_BYTES = 16 << 20
SILENCE_SECONDS = 1.0
TICKET_SECONDS = 60.0
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is answered with `status` and goes no further."""

    def __init__(self, status: int, kind: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"kind": kind, "message": message, **({"remedy": remedy} if remedy else {})}}


INTERNAL = Refusal(500, "internal", "something went wrong inside", "The server's error output says where")


class Security:
    """The secrets of one launch and what they open; safe to use from several threads.

    `hosts` are the values of the Host header that name this server, with their port. `token` is for
    programs; `ticket` makes a login address for a browser window, good for one use within a minute.
    """

    def __init__(self, hosts: Iterable[str], *, port: int, most_upload_bytes: int, body_seconds: float = BODY_SECONDS):
        self.token = secrets.token_urlsafe(32)
        # Not the token: cookies of 127.0.0.1 go to every port there, whoever listens.
        self._session = secrets.token_urlsafe(32)
        self.cookie = f"medsearch-{port}"
        self.hosts = frozenset(host.lower() for host in hosts)
        self.most_upload_bytes = most_upload_bytes
        self.body_seconds = body_seconds
        self._tickets: dict[str, float] = {}
        self._lock = threading.Lock()

    def ticket(self) -> str:
        """Return a path with a secret that, opened once within a minute, logs a browser window in."""
        secret = secrets.token_urlsafe(32)
        with self._lock:
            now = time.monotonic()
            self._tickets = {each: until for each, until in self._tickets.items() if until > now}
            self._tickets[secret] = now + TICKET_SECONDS
        return f"{LOGIN}?ticket={secret}"

    def redeem(self, query: str) -> str:
        """Return the Set-Cookie value for a login address's query, which is then used up. Raises Refusal."""
        given = parse_qs(query).get("ticket", [""])[0]
        with self._lock:
            until = self._tickets.pop(given, 0.0)
        if until <= time.monotonic():
            raise Refusal(401, "auth", "this login address was used or is too old", "Open the window anew")
        return f"{self.cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    def check_place(self, headers: list[tuple[str, str]]) -> None:
        """Raise Refusal for a request under another name than the server's or from another site's page."""
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise Refusal(421, "host", "this server does not go by that name", "Use the address that it printed")
        sites = [value for name, value in headers if name == "sec-fetch-site"]
        if any(site not in ("same-origin", "none") for site in sites):
            raise Refusal(403, "origin", "requests of other sites are refused")
        for origin in (value for name, value in headers if name == "origin"):
            if origin.lower() not in {f"http://{host}" for host in self.hosts}:
                raise Refusal(403, "origin", "requests of other sites are refused")

    def check_secret(self, method: str, headers: list[tuple[str, str]]) -> None:
        """Raise Refusal for a request without the token, or without the cookie and a sign of our own page."""
        given = [value for name, value in headers if name == "authorization"]
        if given:
            scheme, _, token = given[0].partition(" ")
            if len(given) == 1 and scheme.lower() == "bearer" and _same(token.strip(), self.token):
                return
        elif any(_same(value, self._session) for value in self._cookies(headers)):
            # A browser names the origin of whatever may change something; what does not is no browser's page.
            if method in SAFE_METHODS or any(name in ("origin", "sec-fetch-site") for name, _ in headers):
                return
            raise Refusal(403, "origin", "a request that changes something has to name its origin")
        raise Refusal(
            401, "auth", "the token is missing or wrong", "Send `Authorization: Bearer TOKEN` as the server printed it"
        )

    def most_body(self, method: str, path: str) -> int:
        """Return the largest body, in bytes, that a request may have."""
        return self.most_upload_bytes if (method, path) in UPLOADS else MOST_BODY_BYTES

    def _cookies(self, headers: list[tuple[str, str]]) -> list[str]:
        found = []
        for text in (value for name, value in headers if name == "cookie"):
            try:
                jar = SimpleCookie(text)
            except CookieError:
                continue
            if self.cookie in jar:
                found.append(jar[self.cookie].value)
        return found


class Guard:
    """The application behind `Security`: checks before it, a bounded and timely body, headers after it.

    Server-Timing tells whoever was let in how many milliseconds passed until the answer began.
    """

    def __init__(self, app: App, security: Security) -> None:
        self._app = app
        self._security = security

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see the module."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = False
        came = time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), *_missing(message.get("headers", ()))]
            await send(message)

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                taken = f"app;dur={1e3 * (time.perf_counter() - came):.1f}"
                message["headers"] = [*message.get("headers", ()), (b"server-timing", taken.encode())]
            await answer(message)

        try:
            replay = await self._admit(scope, receive, answer)
            if replay is not None:
                await self._app(scope, replay, timed)
        except Refusal as refusal:
            await _refuse(answer, refusal)
        except Exception as error:  # noqa: BLE001 - the last resort: nothing of what failed may reach the outside
            tell_where(error)
            if not begun:
                await _refuse(answer, INTERNAL)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Return what the application may receive, or None for a request that is answered already."""
        method, path = scope["method"], scope["path"]
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        self._security.check_place(headers)
        if path == LOGIN and method == "GET":
            cookie = self._security.redeem(scope["query_string"].decode("latin-1"))
            fields = [(b"location", b"/"), (b"set-cookie", cookie.encode("latin-1"))]
            await send({"type": "http.response.start", "status": 303, "headers": fields})
            await send({"type": "http.response.body"})
            return None
        self._security.check_secret(method, headers)
        if method == STREAMED[0] and (path == STREAMED[1] or path.startswith(f"{STREAMED[1]}/")):
            return self._streaming(receive)
        body = await self._read(method, path, headers, receive)
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    def _streaming(self, receive: Receive) -> Receive:
        """Return what hands a body on piece by piece, up to a limit and without long silences."""
        size = 0

        async def bounded() -> Message:
            nonlocal size
            try:
                async with asyncio.timeout(self._security.body_seconds):
                    message = await receive()
            except TimeoutError as error:
                raise RequestError("the body did not arrive in time") from error
            size += len(message.get("body", b""))
            if size > MOST_STREAMED_BYTES:
                raise RequestError(f"the body is larger than {MOST_STREAMED_BYTES} bytes", remedy="Send less at once")
            return message

        return bounded

    async def _read(self, method: str, path: str, headers: list[tuple[str, str]], receive: Receive) -> bytes:
        most = self._security.most_body(method, path)
        too_large = Refusal(413, "too_large", f"the body is larger than {most} bytes", "Send less")
        stated = next((value for name, value in headers if name == "content-length"), "0")
        if not stated.isdecimal() or int(stated[:20]) > most:
            await _drain(receive)
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._security.body_seconds + most / (1 << 20)):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "request", "the body was cut off")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        await _drain(receive)
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError as error:
            raise Refusal(408, "slow", "the body did not arrive in time") from error


async def _drain(receive: Receive) -> None:
    """Throw a body away to its end, its limit, or a silence."""
    size = 0
    with suppress(TimeoutError):
        while size <= MOST_DRAINED_BYTES:
            message = await asyncio.wait_for(receive(), SILENCE_SECONDS)
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return
            size += len(message.get("body", b""))


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), secret.encode())


def _missing(given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    there = {name.lower() for name, _ in given}
    wanted = {**HEADERS, "cache-control": "no-store"}
    return [(name.encode(), value.encode()) for name, value in wanted.items() if name.encode() not in there]


async def _refuse(send: Send, refusal: Refusal) -> None:
    body = json.dumps(refusal.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    # Whatever of the request was not read must not be taken for the next one.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
