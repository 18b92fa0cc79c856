"""The HTTP API: what it answers, what it refuses, and how many may wait."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from mien.core.errors import RejectedImage

pytest.importorskip("starlette", reason="no server: pip install 'mien[serve]'")

from starlette.applications import Starlette

from mien.web import api as module
from mien.web.api import LARGEST, RECOGNIZE, WAITING, Api


def application(answer):
    return Starlette(routes=Api(answer, {"name": "m"}).routes())


async def ask(app, path=RECOGNIZE, parts=(b"",), method="POST", **headers):
    """(status, headers, JSON body, parts of the request's body that were read)."""
    sent, read = [], []

    async def receive():
        read.append(len(read))
        number = len(read) - 1
        return {"type": "http.request", "body": parts[number], "more_body": number + 1 < len(parts)}

    async def send(message):
        sent.append(message)

    names = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": names,
        "query_string": b"",
        "http_version": "1.1",
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, json.loads(body) if "json" in found.get("content-type", "") else body, len(read)


def test_the_image_goes_to_the_recogniser_in_whole():
    app = application(lambda data: {"bytes": data.decode()})
    status, _, body, _ = asyncio.run(ask(app, parts=(b"ab", b"", b"c")))
    assert (status, body) == (200, {"bytes": "abc"})
    assert asyncio.run(ask(app, "/v1/model", method="GET"))[2] == {"name": "m"}
    assert asyncio.run(ask(app, "/v1/health", method="GET"))[2] == {"status": "ok", "waiting": 0}
    assert asyncio.run(ask(app, method="GET"))[0] == 405


def test_what_is_no_image_is_said_in_words():
    def answer(data):
        raise RejectedImage("truncated", "it ends in the middle")

    status, _, body, _ = asyncio.run(ask(application(answer)))
    assert status == 422
    assert body["error"] == "truncated: it ends in the middle."
    assert "copy it again" in body["fix"]


def test_no_more_is_read_than_may_come(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 10)
    app = application(lambda data: pytest.fail("nothing is to be recognised"))
    status, _, body, read = asyncio.run(ask(app, parts=(b"12345678", b"90a", b"never read")))
    assert (status, read) == (413, 2)
    assert "at most 10 bytes" in body["rule"].lower()
    assert asyncio.run(ask(app, content_length=str(LARGEST + 1)))[3] == 0


def test_so_many_may_wait_and_further_ones_come_again():
    """One image at a time is recognised; the queue is bounded, and is free again afterwards."""
    gate, inside, most = threading.Event(), [], []

    def answer(data):
        inside.append(data)
        most.append(len(inside))
        gate.wait(10)
        inside.remove(data)
        return {"n": int(data)}

    async def crowd():
        app = application(answer)
        asked = [asyncio.create_task(ask(app, parts=(str(n).encode(),))) for n in range(WAITING + 3)]
        while sum(task.done() for task in asked) < 3:
            await asyncio.sleep(0.01)
        gate.set()
        answers = [await task for task in asked]
        return answers, await ask(app, parts=(b"99",))

    answers, after = asyncio.run(crowd())
    refused = [headers for status, headers, *_ in answers if status == 503]
    assert len(refused) == 3
    assert all(headers["retry-after"] == "1" for headers in refused)
    assert sorted(body["n"] for status, _, body, _ in answers if status == 200) == list(range(WAITING))
    assert max(most) == 1
    assert after[2] == {"n": 99}
