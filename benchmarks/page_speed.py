"""Frames a second of the live page in headless Chromium, on one WASM thread.

    python benchmarks/page_speed.py --model MODEL.onnx --video VIDEO --out page_speed.json

Three figures: frames handed to the page's worker one after the other as fast as it answers; frames of a camera of 60
frames a second that the page looks at (counted in the table that it saves); and the seconds from opening the page, and
from choosing a photograph, until there is an answer. The load of the machine stands beside them: on a busy one they say little.
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
from pathlib import Path
from typing import Any

import cv2
from playwright.sync_api import Page, expect, sync_playwright

FLAT_OUT = """async ([count, data]) => {
    const image = await createImageBitmap(new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]));
    const worker = new Worker("/worker.js", { type: "module" });
    const next = () => new Promise((found) => worker.addEventListener("message", ({ data }) => found(data), { once: true }));
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
    return { fps: count / seconds, p50_ms: Object.fromEntries(Object.keys(spent[0]).map((name) => [name, median(name)])) };
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


def main() -> None:
    """Serve the page, measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    command = [sys.executable, "-m", "mien", "serve", "--port", "0", "--model", str(options.model), "--json"]
    with tempfile.TemporaryDirectory() as place, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = json.loads("".join(server.stdout.readline() for _ in range(4)))["url"]
            moving, still = camera(options.video, Path(place), 8)
            flags = [
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={moving}",
            ]
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=found, args=flags)
                page = browser.new_context(permissions=["camera"]).new_page()
                result = measure(page, url, still, Path(place), options)
                result |= {
                    "browser": browser.version,
                    "model": options.model.name,
                    "cores": os.cpu_count(),
                    "load": os.getloadavg(),
                }
                browser.close()
        finally:
            server.terminate()
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
