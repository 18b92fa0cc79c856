"""The live page in headless Chromium."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from helpers.blazeface import BlazeFace
from helpers.browser import camera_flags, chromium, mjpeg, png, video_frames
from helpers.models import colour_model
from helpers.node import PAGE
from helpers.page import served
from mien.core.artifacts.framelog import read_frame_log
from mien.core.artifacts.models import read_catalogue, shipped_file
from mien.core.config.live import DetectConfig, LiveRules
from mien.core.labels import LABELS
from mien.runtime.detect import make_finder
from mien.runtime.readers import Frame
from mien.runtime.recognizer import Recognizer, open_session
from mien.runtime.session import Session
from mien.synthetic.faces import draw_face
from mien.web import assets

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
WAIT = 60_000  # ms, for a busy machine
CRITICAL = {"serious", "critical"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The model that MIEN_MODEL names, or the one that ships, or one that tells colours."""
    if "MIEN_MODEL" in os.environ:
        return Path(os.environ["MIEN_MODEL"])
    return (
        shipped_file() if read_catalogue().default else colour_model(tmp_path_factory.mktemp("model") / "colour.onnx")
    )


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    """The page with BlazeFace: no YuNet was fetched."""
    pytest.importorskip("uvicorn", reason="no server: pip install 'mien[serve]'")
    if not assets.ready():
        pytest.skip("the page's assets are not here: `mien serve setup`")
    with served(model, MIEN_CACHE=str(tmp_path_factory.mktemp("cache"))) as address:
        yield address


@pytest.fixture(scope="module")
def yunet(real_data, tmp_path_factory) -> Path:
    """A fetched YuNet, as `mien models get yunet` leaves it below `MIEN_CACHE`."""
    name = "face_detection_yunet_2023mar.onnx"
    if not (real_data / name).is_file():
        pytest.skip(f"no {real_data / name}")
    folder = tmp_path_factory.mktemp("fetched") / "models"
    folder.mkdir()
    (folder / name).write_bytes((real_data / name).read_bytes())
    return folder / name


@pytest.fixture(scope="module")
def video(real_data) -> Path:
    path = real_data / "woman_sad_to_happy.mp4"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="module")
def camera_file(video, tmp_path_factory) -> Path:
    return mjpeg(tmp_path_factory.mktemp("camera") / "camera.mjpeg", [rgb for _, rgb in video_frames(video, 4)])


@pytest.fixture(scope="module")
def browser(camera_file):
    with chromium(*camera_flags(camera_file)) as found:
        yield found


@pytest.fixture
def page(browser, url):
    """An opened page that is ready, in a profile of its own; an error on it fails the test."""
    context = browser.new_context(permissions=["camera"], viewport={"width": 1280, "height": 900})
    opened, errors = context.new_page(), []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: message.type == "error" and errors.append(message.text))
    opened.goto(url)
    says(opened, "Ready.")
    yield opened
    context.close()
    assert errors == []


def says(page, text, wait=WAIT):
    """Wait until the status says it."""
    from playwright.sync_api import expect

    expect(page.locator("#status")).to_have_text(re.compile(text), timeout=wait)


def sees(page, text):
    """Wait until a face's card says it."""
    from playwright.sync_api import expect

    expect(page.locator("#cards h3").first).to_have_text(re.compile(text), timeout=WAIT)


def table(page, folder):
    """The rows that the page's button saves, read as a frame table."""
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(folder / "frames.csv")
    return read_frame_log(folder / "frames.csv").to_pylist()


def test_a_video_file_to_its_end(page, video, tmp_path):
    """One identity, a row a frame, times of the file; nothing is asked of any server meanwhile."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_input_files("#file", video)
    says(page, "The video has ended", 6 * WAIT)  # it is played slower where the machine is busy
    rows = table(page, tmp_path)
    assert [one for one in asked if not one.startswith("blob:")] == []
    assert len(rows) > 30
    assert {row["face_id"] for row in rows} == {0}
    times = [row["time_s"] for row in rows]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(max(time for time, _ in video_frames(video)), abs=0.5)
    assert [row["frame"] for row in rows] == sorted({row["frame"] for row in rows})


def test_the_camera_opens_on_a_click_only_and_stops(page, tmp_path):
    state = "() => document.getElementById('video').srcObject?.getVideoTracks()[0].readyState ?? 'none'"
    assert page.evaluate(state) == "none"
    assert page.locator("#camera-note").is_visible()
    page.click("#camera")
    says(page, "The camera is on")
    sees(page, "face 1")
    assert page.evaluate(state) == "live"
    track = page.evaluate_handle("() => document.getElementById('video').srcObject.getVideoTracks()[0]")
    assert page.locator("#stop").is_visible()
    page.click("#stop")
    says(page, "Stopped. The camera is off")
    assert track.evaluate("(track) => track.readyState") == "ended"
    assert page.evaluate(state) == "none"
    assert page.evaluate("() => document.activeElement.id") == "camera"
    assert table(page, tmp_path)


def test_a_photograph_chosen_and_one_dropped(page, video, tmp_path):
    (tmp_path / "face.png").write_bytes(png(video_frames(video)[300][1]))
    page.set_input_files("#file", tmp_path / "face.png")
    says(page, "The photograph was looked at")
    assert len(table(page, tmp_path)) == 1
    data = base64.b64encode(png(np.full((120, 160, 3), 90, np.uint8))).decode()
    page.evaluate(DROP, data)
    says(page, "No face was found")
    assert [row["status"] for row in table(page, tmp_path)] == ["no_face"]


DROP = """(data) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const dropped = new DataTransfer();
    dropped.items.add(new File([bytes], "grey.png", { type: "image/png" }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
}"""


def test_what_cannot_be_read_is_said_and_the_page_goes_on(page, video, tmp_path):
    for name in ("broken.mp4", "broken.png"):
        (tmp_path / name).write_bytes(b"nothing that a browser reads")
        page.set_input_files("#file", tmp_path / name)
        says(page, "cannot read that file")
    page.set_input_files("#file", video)
    sees(page, "face 1")
    page.click("#stop")


@pytest.mark.parametrize("name", ["NotAllowedError", "NotFoundError", "NotReadableError", "NotSupportedError"])
def test_a_camera_that_cannot_be_had_gets_advice(browser, url, name):
    wanted = {
        "NotAllowedError": "was not allowed",
        "NotFoundError": "No camera was found",
        "NotReadableError": "another program",
        "NotSupportedError": "127.0.0.1",
    }[name]
    with browser.new_context() as context:
        opened = context.new_page()
        opened.add_init_script(
            f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{name}'); }}"
        )
        opened.goto(url)
        says(opened, "Ready.")
        opened.click("#camera")
        says(opened, wanted)
        assert not opened.locator("#stop").is_visible()


def test_a_browser_without_simd_gets_advice(browser, url):
    with browser.new_context() as context:
        opened = context.new_page()
        opened.add_init_script("WebAssembly.validate = () => false")
        opened.goto(url)
        says(opened, "no WebAssembly with SIMD")
        assert opened.locator("#camera").is_disabled()


def test_a_hidden_tab_is_said(page):
    page.click("#camera")
    says(page, "The camera is on")
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.evaluate(hide, False)
    says(page, "This tab was hidden for 0 s")


def test_nothing_is_stored(page, video, tmp_path):
    (tmp_path / "face.png").write_bytes(png(video_frames(video)[300][1]))
    page.set_input_files("#file", tmp_path / "face.png")
    says(page, "The photograph was looked at")
    kept = page.evaluate(
        "async () => [localStorage.length, sessionStorage.length, document.cookie, "
        "(await indexedDB.databases()).length, (await caches.keys()).length]"
    )
    assert kept == [0, 0, "", 0, 0]


def test_same_crops_give_pythons_probabilities(page, model):
    """Drawn faces through the model file in onnxruntime-web and in onnxruntime."""
    session, card = open_session(model, threads=1)
    crops = np.stack([draw_face(3, n, card.crop.size, label=LABELS[n % 7]).image for n in range(210)])
    crops = np.repeat(crops, 3, axis=3) if crops.shape[3] == 1 else crops
    theirs = session.run(["probabilities"], {"crops": crops})[0]
    ours = page.evaluate(RUN_MODEL, [base64.b64encode(crops.tobytes()).decode(), *crops.shape])
    ours = np.array(ours).reshape(-1, len(LABELS))
    assert np.abs(ours - theirs).max() < 0.005
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.995


RUN_MODEL = """async ([data, n, size]) => {
    const ort = await import("/assets/ort.wasm.min.mjs");
    Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: new URL("/assets/", location.href).href });
    const file = new Uint8Array(await (await fetch("/model.onnx")).arrayBuffer());
    const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const { probabilities } = await session.run({ crops: new ort.Tensor("uint8", bytes, [n, size, size, 3]) });
    return Array.from(probabilities.data);
}"""


def test_the_videos_frames_agree_with_python(page, model, video):
    check_frames(page, model, video, BlazeFace(), pixels=0.5)


def test_with_yunet_too_and_smaller_faces_are_found(browser, model, video, yunet):
    """YuNet finds her face at a quarter of its size, where BlazeFace finds none."""
    finder = make_finder(DetectConfig(detector="yunet", detector_model=yunet))
    with served(model, MIEN_CACHE=str(yunet.parents[1])) as address, browser.new_context() as context:
        opened = context.new_page()
        opened.goto(address)
        says(opened, "Ready.")
        check_frames(opened, model, video, finder, pixels=1)  # half of one where it is searched, 320 wide
        rgb = video_frames(video)[300][1]
        height, width = rgb.shape[:2]
        small = np.zeros_like(rgb)
        small[: height // 4, : width // 4] = cv2.resize(rgb, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
        assert BlazeFace()(small) == []
        opened.route("**/frames/*", lambda route: route.fulfill(body=png(small), content_type="image/png"))
        ((face,),) = opened.evaluate(RUN_WORKER, [0.0])
        assert np.abs(np.array(face["box"]) - finder(small)[0].box).max() < 1


def check_frames(page, model, video, finder, *, pixels):
    """The same frames, detector and rules in both: boxes within so many pixels, labels alike on 97 % of the frames."""
    frames = video_frames(video, 3)
    page.route(
        "**/frames/*",
        lambda route: route.fulfill(
            body=png(frames[int(route.request.url.rsplit("/", 1)[1])][1]), content_type="image/png"
        ),
    )
    ours = page.evaluate(RUN_WORKER, [time for time, _ in frames])
    rows = []
    session, card = open_session(model, threads=1)
    tables = SimpleNamespace(rows=SimpleNamespace(add=rows.append), times=SimpleNamespace(add=lambda _: None))
    python = Session(Recognizer(session, card, finder), LiveRules(), tables)
    for number, (time, rgb) in enumerate(frames):
        python.frame(Frame(number, time, rgb, 0.0))
    assert len(rows) == len(frames) == len(ours)
    same = 0
    for faces, row in zip(ours, rows, strict=True):
        (face,) = faces
        assert np.abs(np.array(face["box"]) - [row[name] for name in "xywh"]).max() < pixels
        same += row["label"] == (None if face["label"] is None else LABELS[face["label"]])
    assert same / len(rows) >= 0.97


RUN_WORKER = """async (times) => {
    const worker = new Worker("/worker.js", { type: "module" });
    const next = () => new Promise((resolve) => {
        worker.addEventListener("message", ({ data }) => resolve(data), { once: true });
    });
    await next();
    const answers = [];
    for (const [frame, time] of times.entries()) {
        const bitmap = await createImageBitmap(await (await fetch(`/frames/${frame}`)).blob());
        worker.postMessage({ kind: "frame", run: 0, frame, time, bitmap }, [bitmap]);
        const answer = await next();
        if (answer.kind !== "faces") throw new Error(answer.text);
        answer.bitmap.close();
        answers.push(answer.faces);
    }
    worker.terminate();
    return answers;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_accessibility(browser, url, video, tmp_path, scheme, width):
    """axe finds nothing serious at any time; nothing is wider than the window; keys reach every control."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'mien[dev]'")
    (tmp_path / "face.png").write_bytes(png(video_frames(video)[300][1]))
    with browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    ) as context:
        opened = context.new_page()
        opened.goto(url)
        says(opened, "Ready.")
        for step in ("before", "after"):
            found = axe.Axe().run(opened).response["violations"]
            assert [one["id"] for one in found if one["impact"] in CRITICAL] == [], (
                f"{step}: {json.dumps(found)[:2000]}"
            )
            assert opened.evaluate("() => document.documentElement.scrollWidth") <= width
            if step == "before":
                opened.set_input_files("#file", tmp_path / "face.png")
                says(opened, "The photograph was looked at")
        opened.evaluate("() => { document.activeElement.blur(); }")
        reached = []
        for _ in range(5):
            opened.keyboard.press("Tab")
            reached.append(opened.evaluate("() => document.activeElement.id || document.activeElement.href"))
        assert reached[:4] == ["camera", "file", "download", "clear"]


def test_the_page_is_small():
    """What we write of it stays readable: no file of 300 lines."""
    for path in PAGE.iterdir():
        assert len(path.read_text().splitlines()) < 300, path.name
