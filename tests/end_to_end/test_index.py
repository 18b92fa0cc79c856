"""The index as a whole: the same bytes by any road, damaged files, kills, Ray."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import layouts
from mien.core.artifacts.index import read_index
from mien.core.config.index import IndexConfig, WorkConfig
from mien.core.images import REASONS
from mien.core.labels import LABELS
from mien.stages import index as stage

RNG = np.random.default_rng(0)


def hashes(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    mode = options.pop("mode", None)
    image = Image.fromarray(pixels) if mode is None else Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    image.save(out, kind, **options)
    return out.getvalue()


def with_chunk(png: bytes, name: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    """A PNG with one more chunk after its header."""
    import zlib

    check = zlib.crc32(name + data) if crc is None else crc
    return png[:33] + len(data).to_bytes(4) + name + data + check.to_bytes(4) + png[33:]


def with_size(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header claims another size, its checksum mended."""
    import zlib

    head = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + png[24:29]
    return png[:12] + head + zlib.crc32(head).to_bytes(4) + png[33:]


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One bit of the pixel data turned."""
    at = data.index(b"IDAT") + 4 + rng.randrange(len(data) - data.index(b"IDAT") - 24)
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def cut(data: bytes, rng: random.Random, least: int) -> bytes:
    """The beginning of a file, at least `least` bytes and not nearly all."""
    return data[: rng.randrange(least, len(data) - 60)]


def webp_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), "WEBP", lossless=True))
    bits = (width - 1) | (height - 1) << 14
    data[21:25] = ((int.from_bytes(data[21:25], "little") & 0xF0000000) | bits).to_bytes(4, "little")
    return bytes(data)


def deep() -> np.ndarray:
    return RNG.integers(0, 65535, (40, 40), dtype=np.uint16)


FAULTS = {  # name: (expected reason, bytes from a good image and a random source)
    "no bytes": ("empty", lambda p, r: b""),
    "cut PNG": ("truncated", lambda p, r: encoded(p)[: r.randrange(60, 1500)]),
    "cut JPEG": ("truncated", lambda p, r: cut(encoded(p, "JPEG", quality=95), r, 700)),
    "cut WebP": ("truncated", lambda p, r: cut(encoded(p, "WEBP", lossless=True), r, 60)),
    "cut BMP": ("truncated", lambda p, r: encoded(p, "BMP")[: r.randrange(100, 4000)]),
    "cut GIF": ("truncated", lambda p, r: cut(encoded(p, "GIF"), r, 1000)),
    "a bit of the pixels turned": ("truncated", lambda p, r: flipped(encoded(p), r)),
    "a wrong checksum": ("truncated", lambda p, r: with_chunk(encoded(p), b"tEXt", b"a\0b", crc=1)),
    "no end": ("truncated", lambda p, r: encoded(p)[:-12]),
    "noise": ("unknown_format", lambda p, r: r.randbytes(r.randrange(1, 3000))),
    "a text": ("unknown_format", lambda p, r: b"<html>" * r.randrange(1, 50)),
    "16-bit grey": ("sixteen_bit", lambda p, r: encoded(deep())),
    "16-bit TIFF": ("sixteen_bit", lambda p, r: encoded(deep(), "TIFF")),
    "CMYK": ("cmyk", lambda p, r: encoded(np.dstack([p, p[..., 0]]), "JPEG", mode="CMYK")),
    "animated GIF": (
        "animated",
        lambda p, r: encoded(p, "GIF", save_all=True, append_images=[Image.fromarray(255 - p)]),
    ),
    "animated WebP": (
        "animated",
        lambda p, r: encoded(p, "WEBP", save_all=True, append_images=[Image.fromarray(255 - p)]),
    ),
    "transparent": (
        "transparent",
        lambda p, r: encoded(np.dstack([p, np.full(p.shape[:2], r.randrange(255), np.uint8)])),
    ),
    "tiny": ("too_small", lambda p, r: encoded(p[: r.randrange(1, 16)])),
    "a header that claims gigapixels": (
        "too_large",
        lambda p, r: with_size(encoded(p), 60_000, r.randrange(50_000, 60_000)),
    ),
    "a WebP that claims 268 megapixels": ("too_large", lambda p, r: webp_of(16_000, r.randrange(15_000, 16_000))),
    "a blank bomb": ("too_large", lambda p, r: BOMB),
    "a folder": ("missing", None),
    "a link to nothing": ("missing", None),
}
BOMB = encoded(np.zeros((9000, 9000), np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_damaged_files(tmp_path, count):
    """Over 12 classes of faults: no crash, none replaced, every one listed by its reason; memory stays bounded."""
    rng, expected = random.Random(0), {}
    root = tmp_path / "f"
    for label in LABELS:
        (root / label).mkdir(parents=True)
    for k in range(140):
        (root / LABELS[k % 7] / f"good{k:03}.png").write_bytes(
            encoded(RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        )
    lines = ["path,label"] + [f"f/{LABELS[k % 7]}/good{k:03}.png,{LABELS[k % 7]}" for k in range(140)]
    # Just under the limits: what is allowed must fit, too.
    noise = np.kron(RNG.integers(0, 256, (100, 100, 3), dtype=np.uint8), np.ones((50, 49, 1), np.uint8))
    large = {
        "p.png": encoded(noise),
        "a.png": encoded(np.dstack([noise, np.full(noise.shape[:2], 255, np.uint8)])),
        "j.jpg": encoded(noise, "JPEG", progressive=True, subsampling=0),
        "w.webp": encoded(noise[:3000], "WEBP", quality=30),
        "b.bmp": encoded(noise, "BMP"),
    }
    for name, data in large.items():
        (root / "happy" / name).write_bytes(data)
        lines.append(f"f/happy/{name},happy")
    kinds = list(FAULTS)
    for k in range(count):
        kind = kinds[k % len(kinds)]
        reason, make = FAULTS[kind]
        name = f"f/{LABELS[k % 7]}/bad{k:04}.png"
        path = tmp_path / name
        if kind == "a folder":
            path.mkdir()
        elif kind == "a link to nothing":
            path.symlink_to("nowhere")
        else:
            path.write_bytes(make(RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8), rng))
        expected[f"csv:{name}"] = reason
        lines.append(f"{name},{LABELS[k % 7]}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    code = f"""
import json
SOURCE = {(f"csv={tmp_path / 't.csv'}",)!r}
from pathlib import Path
from mien.core.config.index import IndexConfig, WorkConfig
from mien.stages import index
import mien.data.build, mien.runtime.detect
def peak():
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) / 1024
idle = peak()
index.run(IndexConfig(source=SOURCE, max_rejected=1.0), Path({str(tmp_path / "i")!r}), work=WorkConfig(workers=1))
print(json.dumps([idle, peak()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "i" / "rejected.csv").open(newline="") as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    wrong = {path: (reason, listed.get(path)) for path, reason in expected.items() if listed.get(path) != reason}
    assert not wrong
    assert set(listed) == set(expected)
    assert set(listed.values()) <= set(REASONS)
    assert len(FAULTS) >= 12
    index = read_index(tmp_path / "i")
    assert len(index.table) == 143  # three of the large files show the same pixels
    assert Counter(p.split("/")[-1][:3] for p in index.table["path"].to_pylist())["goo"] == 140
    if sys.platform == "linux":
        idle, peak = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"idle {idle:.0f} MiB, peak {peak:.0f} MiB: +{peak - idle:.0f}")
        assert peak - idle < 300


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """1,400 small images: enough to be killed in the middle of."""
    root = tmp_path_factory.mktemp("kills") / "f"
    for k in range(1400):
        layouts.save(root / LABELS[k % 7] / f"{k:04}.png", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
    for k in range(60):
        layouts.save(
            root / LABELS[k % 7] / f"twin{k:04}.png",
            np.asarray(Image.open(root / LABELS[k % 7] / f"{k:04}.png"))[1:39, 1:39],
        )
    return root


BUILD = """
import sys
from pathlib import Path
from mien.data.loading import collect
collect.CHUNK = 64
from mien.core.config.index import IndexConfig, WorkConfig
from mien.stages import index
index.run(IndexConfig(source=('folder=' + sys.argv[1],)), Path(sys.argv[2]), work=WorkConfig(workers=int(sys.argv[3])))
"""


def start(root: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(root), str(out), str(workers)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_killed_at_random_moments_the_next_run_gives_the_same_bytes(images, tmp_path, kills):
    """Each kill comes in the middle of the work and is followed by a whole run."""
    whole = start(images, tmp_path / "whole", 1)
    works = until_at_work(whole, tmp_path / ".whole.building")
    whole.communicate()
    works = time.monotonic() - works
    assert whole.returncode == 0
    wanted = hashes(tmp_path / "whole")
    rng = random.Random(1)
    for k in range(kills):
        out = tmp_path / f"k{k}"
        kill_at_work(lambda out=out, k=k: start(images, out, 1 + k % 2), out, works * rng.random())
        again = start(images, out, 2 - k % 2)
        _, errors = again.communicate()
        assert again.returncode == 0, errors.decode()[-2000:]
        assert hashes(out) == wanted
        assert not list(tmp_path.glob(".*.building"))


def until_at_work(process: subprocess.Popen[bytes], building: Path) -> float:
    """Wait for the folder in which a build works; the time of it."""
    while process.poll() is None and not building.exists():
        time.sleep(0.002)
    return time.monotonic()


def kill_at_work(begin, out: Path, wait: float) -> None:
    """Start a build and kill it `wait` seconds into its work, sooner where it had come to its end by then."""
    building = out.with_name(f".{out.name}.building")
    while True:
        process = begin()
        until_at_work(process, building)
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL and building.exists():
            assert not out.exists()  # nothing half made in its place
            return
        assert wait > 0.001, f"it ended with {process.returncode} before it could be killed"
        shutil.rmtree(out)
        wait /= 2


def test_an_interrupted_build_reads_no_image_twice(images, tmp_path, monkeypatch):
    from mien.data.loading import collect, load

    monkeypatch.setattr(collect, "CHUNK", 64)
    config = IndexConfig(source=(f"folder={images}",))
    loads, whole = [], load.load

    def stops(task):
        if len(loads) == 9:
            raise KeyboardInterrupt
        loads.append(task)
        return whole(task)

    monkeypatch.setattr(collect, "load", stops)
    with pytest.raises(KeyboardInterrupt):
        stage.run(config, tmp_path / "i", work=WorkConfig(workers=1))
    assert not (tmp_path / "i").exists()
    loads.clear()
    touched = sorted(images.rglob("*.png"))[70]  # in the second piece: changed since, so read again
    os.utime(touched, (1, 1))
    monkeypatch.setattr(collect, "load", lambda task: (loads.append(task), whole(task))[1])
    index = stage.run(config, tmp_path / "i", work=WorkConfig(workers=1))
    assert len(loads) == -(-1460 // 64) - 9 + 1
    assert len(index.table) == 1460


@pytest.mark.slow
def test_ray_gives_the_same_bytes(images, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    one = stage.run(IndexConfig(source=(f"folder={images}",)), tmp_path / "one", work=WorkConfig(workers=1))
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        assert len(ray.nodes()) == 2
        stage.run(IndexConfig(source=(f"folder={images}",)), tmp_path / "ray", work=WorkConfig(engine="ray"))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "one")
    assert len(one.table) == 1460


def test_moving_the_data_changes_nothing(tmp_path):
    root = layouts.rafdb(tmp_path / "a" / "basic", 70, 14)
    (tmp_path / "b").mkdir()
    one = stage.run(IndexConfig(source=(f"rafdb={root}",)), tmp_path / "one")
    root.rename(tmp_path / "b" / "basic")
    two = stage.run(IndexConfig(source=(f"rafdb={tmp_path / 'b' / 'basic'}",)), tmp_path / "two")
    first, second = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    assert {k: v for k, v in first.items() if k != "manifest.json"} == {
        k: v for k, v in second.items() if k != "manifest.json"
    }
    assert one.fingerprint == two.fingerprint
    again = stage.run(IndexConfig(source=(f"rafdb={tmp_path / 'b' / 'basic'}",)), tmp_path / "one")
    assert again.fingerprint == one.fingerprint
    audit = stage.audit(tmp_path / "one")
    assert set(audit["by_attribute"]) == {"age", "gender", "race"}
    assert audit["totals"]["test"] == 14


def test_another_image_in_a_file_is_another_index(tmp_path):
    root = layouts.rafdb(tmp_path / "basic", 70, 14)
    stage.run(IndexConfig(source=(f"rafdb={root}",)), tmp_path / "i")
    layouts.save(root / "Image" / "aligned" / "train_00001_aligned.jpg", layouts.face(777))
    with pytest.raises(Exception, match="holds something else"):
        stage.run(IndexConfig(source=(f"rafdb={root}",)), tmp_path / "i")
