"""The server on this machine: the live page's files, and the HTTP API, for nobody else.

The page's images never reach it: only a program that calls the API sends one. It listens on 127.0.0.1; a request under
another host's name (DNS rebinding) or from another site's page is refused; every answer carries a policy that lets the
page load from here alone.
"""

from __future__ import annotations

import mimetypes
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien.core.errors import UsageError
from mien.web.api import RECOGNIZE, Api
from mien.web.assets import FIX, FOLDER, MISSING

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # nothing of a session stays on disk
}
# A browser runs no module of another type, and some Windows installations name another.
for _suffix, _type in {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}.items():
    mimetypes.add_type(_type, _suffix)


class Guard:
    """Refuses other hosts, other sites and other methods than reading; puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> PlainTextResponse | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return PlainTextResponse(f"This page is served as {' or '.join(sorted(self.hosts))}.", 403)
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            return PlainTextResponse("This page answers no other site.", 403)
        if method not in ("GET", "HEAD") and (method, path) != ("POST", RECOGNIZE):
            return PlainTextResponse(
                f"Only POST {RECOGNIZE} takes anything; the rest is read.", 405, {"Allow": "GET, HEAD"}
            )
        return None


def application(port: int, files: Mapping[str, bytes] | None, api: Api) -> Guard:
    """The API, and the page with the `files` (name to bytes) that it loads beside its own.

    Without files (the page's assets are not here then) the API alone: `/` says how to fetch them.
    """
    if files is None:
        missing = PlainTextResponse(f"{MISSING} {FIX} The API answers without them.", 503)
        return Guard(Starlette(routes=[*api.routes(), Route("/", lambda _: missing)]), port)
    routes: list[BaseRoute] = [
        *api.routes(),
        *(Route(f"/{name}", _answer(name, data)) for name, data in files.items()),
        Mount("/assets", StaticFiles(directory=FOLDER)),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    return Guard(Starlette(routes=routes), port)


def _answer(name: str, data: bytes) -> Callable[[Request], Response]:
    kind = "application/json" if name.endswith(".json") else "application/octet-stream"
    return lambda _: Response(data, media_type=kind)


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1; port 0 takes any that is free. Raises `UsageError` where it is taken."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UsageError(
            f"Port {port} of {HOST} cannot be used: {error.strerror}.",
            fix="Name another one: mien serve --port 0 takes any.",
        ) from None
    return listening


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none", server_header=False)
    ).run(sockets=[listening])
