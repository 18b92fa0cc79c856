"""Near-duplicates on real faces: is the search exact, how does it grow, what do the thresholds do.

    python benchmarks/near_duplicates.py --fer2013 …/fer2013.csv --out docs/results/near_duplicates.json

Parts (`--part`, all by default):
exact     93,675 hashes of real faces and of crops of them: all pairs within 6 against brute force and against
          faiss's IndexBinaryMultiHash, timed beside each other
growth    seconds and GiB at 10^5, 3·10^5, 10^6 hashes (radius 6) and 10^7 (radius 3), each in its own process
planted   flips, crops, re-compressions and changes of brightness of 2,000 faces among all others: recall and
          precision of the verified clusters
scores    the score's distribution on all candidates of FER2013, and `--sheet` for looking at pairs (not kept)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mien.data.duplicates.candidates import candidates
from mien.data.duplicates.hamming import HammingIndex
from mien.data.duplicates.near import components, find
from mien.data.duplicates.phash import THUMB, Hasher, area_matrix, dct_matrix, views, window_matrix
from mien.data.duplicates.verify import registered_score
from mien.data.loading.engines import Processes
from mien.data.sources import open_source

SEED = 0


def faces(path: str) -> np.ndarray:
    """The distinct images of FER2013, (n, 48, 48)."""
    rows = [item.image.load(min_side=16)[..., 0] for item in open_source(f"fer2013={path}", seed=0, size=48)]
    every = np.stack(rows)
    return every[np.sort(np.unique(every.reshape(len(every), -1), axis=0, return_index=True)[1])]


def derived(images: np.ndarray, count: int) -> np.ndarray:
    """Hashes of the images, then of random windows of them (10 to 50 % of the side gone) and mirror images."""
    rng = np.random.default_rng(SEED)
    to_low = dct_matrix() @ area_matrix(THUMB, 32)
    out = [hashes_of(images, to_low, to_low)]
    while sum(map(len, out)) < count:
        cut = rng.uniform(0.1, 0.5)
        down, right = (to_low @ window_matrix(THUMB, cut, at) for at in rng.random(2))
        out.append(hashes_of(images[:, :, ::-1] if rng.random() < 0.5 else images, down, right))
    return np.concatenate(out)[:count]


def hashes_of(images: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    out = []
    for start in range(0, len(images), 2048):
        low = (
            down.astype(np.float32) @ images[start : start + 2048].astype(np.float32) @ right.T.astype(np.float32)
        ).reshape(-1, 64)
        middle = np.partition(low[:, 1:], 31, axis=1)[:, 31:32]
        out.append(np.packbits(low > middle, axis=1).view(">u8").astype(np.uint64).ravel())
    return np.concatenate(out)


def exact(images: np.ndarray) -> dict[str, Any]:
    import faiss

    hashes, radius = derived(images, 93_675), 6
    start = time.perf_counter()
    mine = [(q[q < r], r[q < r]) for q, r, _ in HammingIndex(hashes, radius).pairs(hashes)]
    ours = time.perf_counter() - start
    found = np.sort(np.concatenate([q * len(hashes) + r for q, r in mine]))
    start = time.perf_counter()
    brute = np.concatenate(
        [
            i * len(hashes) + i + 1 + np.flatnonzero(np.bitwise_count(hashes[i] ^ hashes[i + 1 :]) <= radius)
            for i in range(len(hashes))
        ]
    )
    brute_s = time.perf_counter() - start
    faiss.omp_set_num_threads(1)
    data = hashes.view(np.uint8).reshape(-1, 8)
    start = time.perf_counter()
    index = faiss.IndexBinaryMultiHash(64, 4, 16)
    index.nflip = 1
    index.add(data)
    limits, _, rows = index.range_search(data, radius + 1)
    theirs = time.perf_counter() - start
    query = np.repeat(np.arange(len(hashes)), np.diff(limits.astype(np.int64)))
    peer = np.sort((query * len(hashes) + rows)[query < rows])
    return {
        "hashes": len(hashes),
        "radius": radius,
        "pairs": len(found),
        "equals_brute_force": bool(np.array_equal(found, brute)),
        "equals_faiss": bool(np.array_equal(found, peer)),
        "seconds_one_core": round(ours, 2),
        "faiss_seconds_one_core": round(theirs, 2),
        "times_faster_than_faiss": round(theirs / ours, 2),
        "brute_force_seconds": round(brute_s, 1),
    }


def one_size(path: str, count: int, radius: int) -> dict[str, Any]:
    """In a process of its own, so that its memory can be told."""
    hashes = derived(np.load(path), count)
    before = memory("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start, pairs = time.perf_counter(), 0
    for query, row, _ in HammingIndex(hashes, radius).pairs(hashes):
        pairs += int((query < row).sum())
    seconds = time.perf_counter() - start
    peak = memory("VmHWM")
    return {
        "hashes": count,
        "radius": radius,
        "pairs": pairs,
        "seconds_one_core": round(seconds, 2),
        "gib": round(peak, 2),
        "gib_of_the_search": round(max(0.0, peak - before), 2),
    }


def memory(name: str) -> float:
    """GiB of this process, as Linux counts them."""
    return (
        next(
            int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)
        )
        / 2**20
    )


def growth(images: np.ndarray, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, images)
        file.flush()
        rows = []
        for count, radius in sizes:
            done = subprocess.run(
                [sys.executable, __file__, "--one", file.name, str(count), str(radius)],
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append(json.loads(done.stdout))
            print(rows[-1], flush=True)
    six = [r for r in rows if r["radius"] == 6]
    slope = (
        np.polyfit(np.log([r["hashes"] for r in six]), np.log([r["seconds_one_core"] for r in six]), 1)[0]
        if len(six) > 1
        else None
    )
    return {"sizes": rows, "growth_exponent_radius_6": None if slope is None else round(float(slope), 2)}


def variants(image: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One of each kind; crops lose 1 to 5 of 48 rows and columns, anywhere."""
    side = 48 - int(rng.integers(1, 6))
    y, x = rng.integers(0, 48 - side + 1, 2)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 80))]
    return {
        "flip": image[:, ::-1],
        "crop": cv2.resize(image[y : y + side, x : x + side], (48, 48), interpolation=cv2.INTER_CUBIC),
        "jpeg": cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_GRAYSCALE),
        "brightness": np.clip(image * rng.uniform(0.7, 1.3) + rng.uniform(-30, 30), 0, 255).astype(np.uint8),
    }


def search(every: np.ndarray, kind: str, threshold: float) -> Any:
    hasher = Hasher(kind)
    hashes = np.concatenate([hasher(every[i : i + 1024]) for i in range(0, len(every), 1024)])
    with tempfile.TemporaryDirectory() as folder, Processes(os.cpu_count() or 1) as engine:
        np.save(Path(folder) / "h.npy", np.ascontiguousarray(hashes.T))
        start = time.perf_counter()
        found = find(
            Path(folder) / "h.npy", lambda rows: every[rows], kind=kind, radius=6, threshold=threshold, engine=engine
        )
        return found, time.perf_counter() - start


def planted(images: np.ndarray, threshold: float) -> dict[str, Any]:
    """Recall: a variant is in its original's cluster. Precision: of the pairs of a variant with any image that
    the plain images' own clusters do not explain, those that are (variant, its original or another variant of it)."""
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(len(images), 2000, replace=False)
    kinds, planted_, origin = [], [], []
    for number in chosen.tolist():
        for kind, image in variants(images[number], rng).items():
            if not np.array_equal(image, images[number]):
                kinds.append(kind)
                planted_.append(image)
                origin.append(number)
    n = len(images)
    every = np.concatenate([images, np.stack(planted_)])
    out: dict[str, Any] = {"faces": len(chosen), "variants": len(planted_), "among": n, "threshold": threshold}
    base, _ = search(images, "crops", threshold)
    natural = components(n, base.a, base.b)
    family = np.concatenate([natural, natural[np.array(origin)]])  # what truly belongs together
    for kind in ("plain", "crops"):
        pairs, seconds = search(every, kind, threshold)
        cluster = components(len(every), pairs.a, pairs.b)
        hit = cluster[n:] == cluster[np.array(origin)]
        touching = pairs.b >= n
        right = family[pairs.a[touching]] == family[pairs.b[touching]]
        out[kind] = {
            "recall": round(float(hit.mean()), 4),
            "recall_of": {k: round(float(hit[np.array(kinds) == k].mean()), 4) for k in dict.fromkeys(kinds)},
            "pairs_with_a_variant": int(touching.sum()),
            "precision": round(float(right.mean()), 4),
            "seconds": round(seconds, 1),
        }
    return out


def scores(images: np.ndarray, sheet: Path | None) -> dict[str, Any]:
    """Registered scores of every candidate, however hopeless."""
    hashes = Hasher("crops")(images)
    with tempfile.TemporaryDirectory() as folder, Processes(os.cpu_count() or 1) as engine:
        np.save(Path(folder) / "h.npy", np.ascontiguousarray(hashes.T))
        met = candidates(Path(folder) / "h.npy", "crops", 6, engine)
    known = views("crops")
    value = np.array(
        [registered_score(images[q], images[r], known[v]) for q, r, v in zip(met.query, met.row, met.view, strict=True)]
    )
    plain = (met.view == 0) & (met.distance <= 6)
    if sheet is not None:
        look(images, met, value, sheet)
    edges = np.round(np.arange(0, 1.01, 0.05), 2)
    return {
        "candidates": len(value),
        "edges": edges.tolist(),
        "count": np.histogram(value, edges)[0].tolist(),
        "not_registered": int((value < 0).sum()),
        "whole_pictures_within_6": int(plain.sum()),
        "of_these_under_the_threshold": round(float((value[plain] < 0.6).mean()), 4),
    }


def look(images: np.ndarray, met: Any, value: np.ndarray, path: Path) -> None:
    """Pairs in bands of their score, .40 to .80, for the eye."""
    rng, bands = np.random.default_rng(SEED), []
    for low in np.arange(0.4, 0.8, 0.05):
        here = rng.permutation(np.flatnonzero((value >= low) & (value < low + 0.05)))[:16]
        tiles = [
            np.vstack([images[met.query[i]][:, :: -1 if views("crops")[met.view[i]].flip else 1], images[met.row[i]]])
            for i in here
        ]
        tiles += [np.zeros((96, 48), np.uint8)] * (16 - len(tiles))
        bands.append(np.pad(np.hstack(tiles), ((2, 6), (0, 0))))
    cv2.imwrite(str(path), cv2.resize(np.vstack(bands), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))


def figure(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        drawn = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = drawn.subplots(1, 2)
        for radius, colour in ((6, "#0072B2"), (3, "#D55E00")):
            rows = [r for r in result["growth"]["sizes"] if r["radius"] == radius]
            left.loglog(
                [r["hashes"] for r in rows],
                [r["seconds_one_core"] for r in rows],
                "o-",
                color=colour,
                label=f"radius {radius}",
            )
        left.set_xlabel("hashes")
        left.set_ylabel("seconds, one core")
        left.legend(frameon=False)
        edges = np.array(result["scores"]["edges"])
        right.bar(edges[:-1], result["scores"]["count"], width=0.045, align="edge", color="#0072B2")
        right.axvline(0.6, color="#D55E00")
        right.set_xlabel("registered high-pass correlation (line: the threshold)")
        right.set_ylabel("candidate pairs of FER2013")
        drawn.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one_size(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fer2013", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", action="append", choices=["exact", "growth", "planted", "scores"])
    parser.add_argument("--largest", type=int, default=10**7, help="leave larger sizes out")
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    images = faces(given.fer2013)
    result = json.loads(given.out.read_text()) if given.out.is_file() else {}
    sizes = [s for s in ((10**5, 6), (3 * 10**5, 6), (10**6, 6), (10**6, 3), (10**7, 3)) if s[0] <= given.largest]
    parts = {
        "exact": lambda: exact(images),
        "growth": lambda: growth(images, sizes),
        "planted": lambda: planted(images, 0.6),
        "scores": lambda: scores(images, given.sheet),
    }
    for name in given.part or parts:
        result[name] = parts[name]()
        print(name, json.dumps(result[name], indent=2), flush=True)
        given.out.write_text(json.dumps(result, indent=2) + "\n")
    if {"growth", "scores"} <= set(result):
        figure(result, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
