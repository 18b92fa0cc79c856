"""Downloads: pinned, resumed after a broken connection, never silently wrong. Against a local server."""

from __future__ import annotations

import hashlib
import http.server
import threading

import numpy as np
import pytest

from mien.core.artifacts import download as module
from mien.core.artifacts.download import download
from mien.core.errors import InputError, UsageError
from mien.data.sources import download as get_module

DATA = np.random.default_rng(0).bytes(500_000)
SHA = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA; breaks off after `cut` bytes as often as told."""

    breaks, ranges, honours_ranges = 0, [], True

    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        cls, start = type(self), 0
        asked = self.headers.get("Range")
        cls.ranges.append(asked)
        if asked and cls.honours_ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(DATA):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        body = DATA[start:]
        if cls.breaks > 0:
            cls.breaks -= 1
            body = body[:150_000]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Handler.breaks, Handler.ranges, Handler.honours_ranges = 0, [], True
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_file_comes_whole_and_only_once(server, tmp_path):
    assert download(f"{server}/x", tmp_path / "d" / "x", sha256=SHA)
    assert (tmp_path / "d" / "x").read_bytes() == DATA
    assert not download(f"{server}/x", tmp_path / "d" / "x", sha256=SHA)
    assert len(Handler.ranges) == 1
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["x"]


def test_a_broken_connection_goes_on_where_it_was(server, tmp_path):
    Handler.breaks = 2
    assert download(f"{server}/x", tmp_path / "x", sha256=SHA)
    assert (tmp_path / "x").read_bytes() == DATA
    assert Handler.ranges == [None, "bytes=150000-", "bytes=300000-"]


def test_the_next_call_goes_on_where_the_last_gave_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TRIES", 1)
    Handler.breaks = 1
    with pytest.raises(InputError, match="goes on where it broke off"):
        download(f"{server}/x", tmp_path / "x", sha256=SHA)
    assert (tmp_path / "x.part").stat().st_size == 150_000
    assert download(f"{server}/x", tmp_path / "x", sha256=SHA)
    assert Handler.ranges[-1] == "bytes=150000-"


def test_a_server_without_ranges_begins_again(server, tmp_path):
    Handler.honours_ranges = False
    (tmp_path / "x.part").write_bytes(b"z" * 1000)
    assert download(f"{server}/x", tmp_path / "x", sha256=SHA)


def test_all_came_before_the_kill(server, tmp_path):
    (tmp_path / "x.part").write_bytes(DATA)
    assert download(f"{server}/x", tmp_path / "x", sha256=SHA)


def test_another_hash_is_refused_and_leaves_nothing(server, tmp_path):
    with pytest.raises(InputError, match="It should be 000"):
        download(f"{server}/x", tmp_path / "x", sha256="0" * 64)
    assert not list(tmp_path.iterdir())
    (tmp_path / "x").write_bytes(b"mine")
    with pytest.raises(InputError, match="another file"):
        download(f"{server}/x", tmp_path / "x", sha256=SHA)
    assert (tmp_path / "x").read_bytes() == b"mine"


def test_places_that_do_not_answer(server, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="404"):
        download(f"{server}/missing", tmp_path / "x", sha256=SHA)
    monkeypatch.setattr(module, "_TRIES", 1)
    with pytest.raises(InputError, match="cannot be fetched"):
        download("http://127.0.0.1:9/x", tmp_path / "x", sha256=SHA)


def test_get_by_name(server, tmp_path, monkeypatch):
    remote = get_module.Remote("fer2013new.csv", f"{server}/x", SHA, "MIT")
    monkeypatch.setitem(get_module.REMOTES, "ferplus", (remote,))
    [line] = get_module.get("ferplus", tmp_path)
    assert "fetched" in line
    assert "MIT" in line
    assert "was there" in get_module.get("ferplus", tmp_path)[0]
    with pytest.raises(UsageError, match="agreement"):
        get_module.get("rafdb", tmp_path)
    with pytest.raises(UsageError, match="Did you mean 'ferplus'"):
        get_module.get("ferpluss", tmp_path)
