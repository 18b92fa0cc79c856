"""Who gets what from the page's server, and what set-up leaves."""

from __future__ import annotations

import http.client
import json
import re
import socket
from contextlib import closing
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import mien
from helpers.models import card, colour_model
from helpers.node import node
from helpers.page import served
from mien.cli import run
from mien.core.artifacts import base
from mien.core.artifacts.framelog import SCHEMA, read_frame_log
from mien.core.config.live import SHIPPED_RULES
from mien.core.errors import InputError
from mien.core.geometry import CropSpec
from mien.core.labels import LABELS
from mien.stages import serve as stage
from mien.web import assets

PAGE = Path(mien.__file__).parent / "web" / "page"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page for a small model, from a process of its own."""
    pytest.importorskip("uvicorn", reason="no server: pip install 'mien[serve]'")
    if not assets.ready():
        pytest.skip("the page's assets are not here: `mien serve setup`")
    with served(colour_model(tmp_path_factory.mktemp("model") / "colour.onnx")) as url:
        yield urlsplit(url)


def ask(address, path="/", method="GET", body=b"", **headers):
    """(status, headers, body); a header may have several values, or none."""
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=10)) as connection:
        connection.putrequest(method, path, skip_host=True)
        sized = {"Content-Length": str(len(body))} if body else {}
        for name, value in ({"Host": address.netloc} | sized | headers).items():
            for one in value if isinstance(value, list) else [value]:
                connection.putheader(name, one)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_the_page_and_all_that_it_loads_are_served(address):
    """Every file of the page, the assets that its worker imports, the model as it is, its card and the parameters."""
    for path in PAGE.iterdir():
        status, headers, body = ask(address, f"/{path.name}")
        assert (status, body) == (200, path.read_bytes())
        if path.suffix == ".js":
            assert headers["content-type"].startswith("text/javascript")
    assert ask(address)[2] == (PAGE / "index.html").read_bytes()
    assert ask(address, "/assets/ort-wasm-simd-threaded.wasm")[1]["content-type"] == "application/wasm"
    assert ask(address, "/assets/ort.wasm.min.mjs")[1]["content-type"].startswith("text/javascript")
    told = json.loads(ask(address, "/model.json")[2])
    assert told["labels"] == list(LABELS)
    assert told["crop"] == CropSpec(size=32).model_dump()
    assert told["thresholds"] == [0.0] * 7
    assert len(ask(address, "/model.onnx")[2]) > 100
    assert json.loads(ask(address, "/live.json")[2]) == SHIPPED_RULES


@pytest.mark.parametrize(
    "path", ["/", "/worker.js", "/model.onnx", "/detector.onnx", "/nothing", "/assets/../server.py"]
)
def test_every_answer_carries_the_policy(address, path):
    status, headers, _ = ask(address, path)
    assert status == (404 if path in ("/nothing", "/assets/../server.py") else 200)
    assert headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
        "style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": []},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ["https://127.0.0.1"]},
    ],
)
def test_other_hosts_and_other_sites_are_refused(address, headers):
    status, answered, body = ask(address, "/model.onnx", **headers)
    assert status in (400, 403)  # without a host the HTTP library refuses first
    assert len(body) < 200
    if headers != {"Host": []}:
        assert status == 403
        assert "content-security-policy" in answered


def test_its_own_names_are_answered_and_nothing_can_be_sent(address):
    own = f"localhost:{address.port}"
    assert ask(address, Host=own, Origin=f"http://{own}")[0] == 200
    assert ask(address, Origin=f"http://{address.netloc}")[0] == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(address, method=method)[0] == 405


def test_the_api_says_what_recognize_says(address, tmp_path, capsys):
    """An image file's bytes to the same faces; what is no image, and what comes from another site, is refused."""
    photograph = resources.files("skimage") / "data" / "astronaut.png"
    model = colour_model(tmp_path / "colour.onnx")
    assert run(["recognize", str(photograph), "--model", str(model), "--json"]) == 0
    (expected,) = json.loads(capsys.readouterr().out)["pictures"]
    status, headers, body = ask(address, "/v1/recognize", "POST", photograph.read_bytes())
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {key: value for key, value in expected.items() if key != "image"}
    assert len(expected["faces"]) == 1
    status, _, body = ask(address, "/v1/recognize", "POST", b"no image at all")
    assert status == 422
    assert json.loads(body)["error"]
    assert ask(address, "/v1/recognize", "POST", photograph.read_bytes(), Origin="http://evil.example")[0] == 403
    assert ask(address, "/v1/recognize")[0] == 405
    assert json.loads(ask(address, "/v1/health")[2])["status"] == "ok"


def test_it_listens_on_this_machine_alone(address):
    """Another address of the loopback network reaches a server that listens on all of them, and not this one."""
    with pytest.raises(OSError):  # refused; on a Mac there is no such address
        socket.create_connection(("127.0.0.2", address.port), timeout=5).close()


def test_a_port_that_is_taken_and_a_file_that_is_no_model_are_said(tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="no server: pip install 'mien[serve]'")
    model = colour_model(tmp_path / "colour.onnx")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(["serve", "--port", str(taken.getsockname()[1]), "--model", str(model)]) == 2
    assert "Name another one" in capsys.readouterr().err
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    assert run(["serve", "--port", "0", "--model", str(tmp_path / "no.onnx")]) == 2
    assert "no ONNX model" in capsys.readouterr().err


def test_without_assets_the_api_answers_and_the_page_says_how_to_fetch_them(tmp_path, monkeypatch, capsys):
    pytest.importorskip("uvicorn", reason="no server: pip install 'mien[serve]'")
    from starlette.testclient import TestClient

    applications = []
    monkeypatch.setattr(stage.assets, "ready", lambda: False)
    monkeypatch.setattr("mien.web.server.serve", lambda app, listening: (listening.close(), applications.append(app)))
    addresses = []
    stage.run(colour_model(tmp_path / "colour.onnx"), 0, lambda url, name: addresses.append(url))
    assert "Served is the API alone." in capsys.readouterr().err
    client = TestClient(applications[0], base_url=addresses[0])
    assert client.get("/v1/model").json()["labels"]
    page = client.get("/")
    assert (page.status_code, "mien serve setup" in page.text) == (503, True)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def fake_packages(folder):
    """Stands for npm: files of a few bytes where the packages have theirs."""
    lock = json.loads((folder / "package-lock.json").read_text())
    assert all("integrity" in one for name, one in lock["packages"].items() if name)
    for name, source in assets._COPIES.items():
        path = folder / "node_modules" / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_setup_leaves_files_and_licences_once(tmp_path):
    folder = tmp_path / "assets"
    assert assets.setup(fake_packages, lambda data: b"onnx of " + data, folder)
    assert (folder / assets.DETECTOR).read_bytes() == b"onnx of face_detection_short_range.tflite"
    assert {path.name for path in folder.iterdir()} == {*assets.NAMES, base.MANIFEST}
    assert "MIT" in (folder / "LICENSE-onnxruntime.txt").read_text()
    assert not assets.setup(lambda _: pytest.fail("fetched twice"), bytes, folder)
    assert assets.ready(folder)


def test_a_setup_that_was_cut_short_is_done_again(tmp_path):
    folder = tmp_path / "assets"

    def breaks(_):
        raise InputError("damaged")

    with pytest.raises(InputError):
        assets.setup(fake_packages, breaks, folder)
    assert not assets.ready(folder)
    assert assets.setup(fake_packages, bytes, folder)


def test_the_lock_file_names_no_host_and_pins_the_runtime():
    text = (Path(assets.__file__).parent / "npm" / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert packages["node_modules/onnxruntime-web"]["version"] == "1.30.0"
    assert all("resolved" not in one for one in packages.values())


def test_the_pages_table_is_read_as_a_frame_table(tmp_path):
    """The CSV of frames with one face, with an unsure one, with two, with none, and of one that could not be read."""
    columns = stage.page_card(card(CropSpec()), "blazeface")["columns"]
    face = {"id": 4, "box": [1.5, -2.25, 30, 41], "raw": [0.1] * 7, "smooth": [0.125] * 7, "rawLabel": 3, "label": 3}
    unsure = face | {"id": 5, "label": None, "rawLabel": 0, "raw": [1e-9, 0.7, *[0.06] * 5]}
    body = """
        const { FrameTable } = await load("table.js");
        const table = new FrameTable(given.columns, given.labels);
        for (const [frame, time, faces, status] of given.frames) table.add(frame, time, faces, status ?? undefined);
        return table.csv().text();
    """
    frames = [
        [0, 0, [face], None],
        [1, 1 / 3, [unsure], None],
        [3, 0.5, [], None],
        [4, 0.6, [], "decode_error"],
        [5, 0.7, [face, unsure], None],
    ]
    path = tmp_path / "page.csv"
    path.write_text(node(body, {"columns": columns, "labels": LABELS, "frames": frames}))
    table = read_frame_log(path)
    assert table.schema.remove_metadata() == SCHEMA
    rows = table.to_pylist()
    assert [row["status"] for row in rows] == ["ok", "abstained", "no_face", "decode_error", "ok", "abstained"]
    assert [row["label"] for row in rows] == ["happy", None, None, None, "happy", None]
    assert [row["raw_label"] for row in rows] == ["happy", "angry", None, None, "happy", "angry"]
    assert rows[1]["time_s"] == 1 / 3
    assert (rows[0]["x"], rows[0]["y"], rows[0]["face_id"], rows[2]["face_id"], rows[3]["x"]) == (
        1.5,
        -2.25,
        4,
        None,
        None,
    )
    assert rows[1]["raw_angry"] == pytest.approx(1e-9)


def test_the_page_holds_no_inline_code_and_names_no_other_host():
    """What the policy would block; the law's text alone is elsewhere, behind a link."""
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", html)
    for path in PAGE.iterdir():
        hosts = {host.rstrip(".") for host in re.findall(r"https?://([-\w.]+)", path.read_text())}
        assert hosts <= {"eur-lex.europa.eu", "www.w3.org", "127.0.0.1", "localhost"}, path.name
