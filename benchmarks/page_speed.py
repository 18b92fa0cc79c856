"""Frames a second of the live page in headless Chromium, on one WASM thread.

    python benchmarks/page_speed.py --model MODEL.onnx --video VIDEO --yunet FILE --minutes 10 --out page_speed.json

Three figures a detector: frames handed to the page's worker one after the other as fast as it answers; frames of a
camera of 60 frames a second that the page analyses (counted in the table that it saves); and the seconds from opening
the page, and from choosing a photograph, until there is an answer. With `--minutes`, the memory of the browser's
processes while the camera runs on, once a minute. The machine's load stands beside them: on a busy one they say little.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import psutil
from playwright.sync_api import Page, expect, sync_playwright

from mien.core.artifacts.models import read_catalogue, shipped_file

FLAT_OUT = """async ([count, data]) => {
    const image = await createImageBitmap(new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]));
    const worker = new Worker("/worker.js", { type: "module" });
    const next = () => new Promise((resolve) => {
        worker.addEventListener("message", ({ data }) => resolve(data), { once: true });
    });
    await next();
    let bitmap = image, begin = 0;
    const spent = [];
    for (let frame = 0; frame < count + 30; frame++) {
        if (frame === 30) begin = performance.now();
        worker.postMessage({ kind: "frame", run: 0, frame, time: frame / 60, bitmap }, [bitmap]);
        const answer = await next();
        bitmap = answer.bitmap;
        if (frame >= 30) spent.push(answer.ms);
    }
    const seconds = (performance.now() - begin) / 1000;
    const median = (name) => spent.map((ms) => ms[name]).sort((a, b) => a - b)[spent.length >> 1];
    worker.terminate();
    const p50_ms = Object.fromEntries(Object.keys(spent[0]).map((name) => [name, median(name)]));
    return { fps: count / seconds, p50_ms };
}"""


def camera(video: Path, folder: Path, seconds: float) -> tuple[Path, Path]:
    """The video's first frames as a camera of 60 frames a second (.y4m), and one frame as JPEG."""
    capture = cv2.VideoCapture(str(video))
    moving, still, frame = folder / "camera.y4m", folder / "face.jpg", None
    with moving.open("wb") as file:
        for number in range(round(60 * seconds)):
            ok, read = capture.read()
            if not ok:
                break
            frame = read
            if number == 0:
                file.write(f"YUV4MPEG2 W{frame.shape[1]} H{frame.shape[0]} F60:1 Ip A1:1 C420jpeg\n".encode())
            file.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())
    cv2.imwrite(str(still), frame)
    return moving, still


def measure(page: Page, url: str, still: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one opened page."""
    status = page.locator("#status")
    began = time.perf_counter()
    page.goto(url)
    expect(status).to_have_text("Ready.", timeout=120_000)
    ready = time.perf_counter() - began
    began = time.perf_counter()
    page.set_input_files("#file", still)
    expect(status).to_have_text(re.compile("looked at|No face"), timeout=120_000)
    first = time.perf_counter() - began
    flat = page.evaluate(FLAT_OUT, [options.frames, base64.b64encode(still.read_bytes()).decode()])
    page.click("#camera")
    expect(status).to_have_text("The camera is on.", timeout=120_000)
    page.wait_for_timeout(1000 * options.seconds)
    page.click("#stop")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(folder / "frames.csv")
    with (folder / "frames.csv").open() as file:
        times = sorted({float(row["time_s"]) for row in csv.DictReader(file)})
    live = (len(times) - 1) / (times[-1] - times[0])
    return {"ready_s": ready, "photograph_s": first, "flat_out": flat, "camera_60": {"fps": live, "seconds": times[-1]}}


def browser_mib() -> float:
    """Resident memory of all processes of the browser that this program started, MiB."""
    processes = psutil.Process().children(recursive=True)
    return sum(one.memory_info().rss for one in processes if "chrom" in one.name().lower()) / 2**20


def memory(page: Page, minutes: int) -> list[float]:
    """MiB while the camera runs: at once, and after each minute."""
    page.click("#camera")
    expect(page.locator("#status")).to_have_text("The camera is on.", timeout=120_000)
    page.wait_for_timeout(10_000)
    found = [browser_mib()]
    for _ in range(minutes):
        page.wait_for_timeout(60_000)
        found.append(browser_mib())
    page.click("#stop")
    return [round(value, 1) for value in found]


@contextmanager
def served(model: Path, cache: Path) -> Iterator[str]:
    """`mien serve`; what was fetched lies in `cache`."""
    command = [sys.executable, "-m", "mien", "serve", "--port", "0", "--model", str(model), "--json"]
    environment = {**os.environ, "MIEN_CACHE": str(cache)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            yield json.loads("".join(server.stdout.readline() for _ in range(4)))["url"]
        finally:
            server.terminate()


def main() -> None:
    """Serve the page, measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="by default the one that ships")
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, help="its ONNX file: the page is measured with it too")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--minutes", type=int, default=0, help="of memory, with BlazeFace")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = options.model or shipped_file()
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    result: dict[str, Any] = {"model": model.name, "cores": os.cpu_count(), "load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory() as place, sync_playwright() as play:
        folder = Path(place)
        caches = {"blazeface": folder / "nothing"}
        if options.yunet:
            caches["yunet"] = folder / "cache"
            fetched = caches["yunet"] / "models" / next(d.file for d in read_catalogue().downloads if d.name == "yunet")
            fetched.parent.mkdir(parents=True)
            fetched.write_bytes(options.yunet.read_bytes())
        moving, still = camera(options.video, folder, 8)
        source = f"--use-file-for-fake-video-capture={moving}"
        flags = ["--no-sandbox", "--use-fake-device-for-media-stream", source]
        browser = play.chromium.launch(executable_path=found, args=flags)
        result["browser"] = browser.version
        for name, cache in caches.items():
            with served(model, cache) as url, browser.new_context(permissions=["camera"]) as context:
                page = context.new_page()
                result[name] = measure(page, url, still, folder, options)
                if options.minutes and name == "blazeface":
                    result["memory_mib"] = memory(page, options.minutes)
        browser.close()
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
