"""The browser interface: the files that its build has put beside this package, and its own addresses."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from medsearch_desktop.errors import NotFoundError
from medsearch_desktop.serve.api.answers import etag_of, not_modified

BUILT = Path(__file__).parents[1] / "static"
INDEX = "index.html"
# Named here: what the machine thinks of a suffix differs from one to the next, and `nosniff` makes it count.
_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}
_OTHER_ROOMS = ("api", "graphql", "login", "dicomweb")


def page_routes(folder: Path = BUILT) -> APIRouter:
    """Return the route of everything that no other route answers; to be included last.

    Files are those that lie in `folder` now, found by their whole name: nothing that is asked for becomes a
    path. Addresses inside the interface get its index: they end in no suffix of a file, though a study's name
    has dots. Names in `assets/` hold a hash of their content and are kept for good by whoever has them; all else
    is asked for again each time.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    router = APIRouter(include_in_schema=False)

    @router.get("/{name:path}")
    def page(name: str, request: Request) -> Response:
        room, _, _ = name.partition("/")
        if room in _OTHER_ROOMS or ".." in PurePosixPath(name).parts:
            raise NotFoundError("there is no such route", remedy="See /api/openapi.json")
        suffix = PurePosixPath(name).suffix
        if name not in files and room != "assets" and suffix not in _MEDIA:
            name, suffix = INDEX, ".html"
        path = files.get(name)
        if path is None and name == INDEX:
            raise NotFoundError("the browser interface is not built", item=INDEX, remedy="Run `make ui` once")
        media = _MEDIA.get(suffix)
        if path is None or media is None:
            raise NotFoundError("there is no such file")
        held = path.stat()
        etag = etag_of(name, held.st_size, held.st_mtime_ns)
        kept = "max-age=31536000, immutable" if room == "assets" else "no-cache"
        fields = {"etag": etag, "cache-control": f"private, {kept}"}
        return not_modified(request, etag) or FileResponse(path, media_type=media, headers=fields)

    return router
