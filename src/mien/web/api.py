"""The HTTP API: an image in, faces with calibrated probabilities out.

One recogniser answers one image at a time; at most `WAITING` requests are open, and further ones get 503. A body is
read up to a limit. Nothing is stored or logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mien.core.errors import InputError

RECOGNIZE = "/v1/recognize"
LARGEST = 20_000_000  # bytes of a request's body
WAITING = 16  # requests that may wait or be answered at a time
USE = (
    f"POST an image file's bytes: curl --data-binary @photo.jpg http://127.0.0.1:PORT{RECOGNIZE}, "
    "with this server's port"
)
Answer = Callable[[bytes], Mapping[str, object]]


class Api:
    """Routes of the API over a function that answers an image file's bytes; it is called by one thread at a time."""

    def __init__(self, answer: Answer, model: Mapping[str, object]) -> None:
        self._answer, self._model = answer, model
        self._turn, self._waiting = asyncio.Lock(), 0

    def routes(self) -> list[Route]:
        """POST /v1/recognize, GET /v1/model and GET /v1/health."""
        return [
            Route(RECOGNIZE, self._recognize, methods=["POST"]),
            Route(RECOGNIZE, lambda _: _error(405, "Nothing was sent.", fix=USE, headers={"Allow": "POST"})),
            Route("/v1/model", lambda _: JSONResponse(self._model)),
            Route("/v1/health", lambda _: JSONResponse({"status": "ok", "waiting": self._waiting})),
        ]

    async def _recognize(self, request: Request) -> Response:
        """Faces of the image that is the request's body."""
        if self._waiting >= WAITING:
            return _error(503, f"{WAITING} requests are waiting.", fix="Come again.", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            data = await _body(request)
            if data is None:
                return _error(
                    413, "The image is too large.", rule=f"At most {LARGEST:,} bytes.", fix="Send a smaller one."
                )
            async with self._turn:
                return JSONResponse(await run_in_threadpool(self._answer, data))
        except InputError as error:
            return _error(422, error.seen, rule=error.rule, fix=error.fix)
        except ClientDisconnect:
            return Response(status_code=499)  # the client is gone
        finally:
            self._waiting -= 1


async def _body(request: Request) -> bytes | None:
    """The request's body, None where it is larger than `LARGEST`; no more than that is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > LARGEST:
        return None
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST:
            return None
        parts.append(part)
    return b"".join(parts)


def _error(
    status: int, message: str, *, rule: str | None = None, fix: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    document = {key: text for key, text in (("error", message), ("rule", rule), ("fix", fix)) if text}
    return JSONResponse(document, status_code=status, headers=headers)
