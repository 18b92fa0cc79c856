"""How near real training comes to the machine's speed, beside ordinary data loops.

    python benchmarks/training.py --out docs/results/training_speed.json

For each setting, in processes of their own, one after the other, on the same 2,000 drawn faces:

- resident: forward, backward and update on one batch that lies in memory, without augmentation: the limit.
- mien: `Trainer`'s own steps with the default augmentation; the same network, precision, memory format and
  update (AdamW, clipping, moving average).
- pil: an ordinary loop: PNG files, Pillow, torchvision transforms, `DataLoader` with 2 workers.
- timm: timm's own pipeline (`ImageDataset`, `create_transform`, `create_loader`, its default PIL loader, 2 workers).

How near mien is to the limit is measured in one process that takes turns, a step on the resident batch and a step of
training, since a shared machine's speed varies by more than the difference: the ratio of the medians of their times,
with a bootstrap interval over pairs. The four speeds are medians over rounds that alternate between four processes.

All four do the same update. Augmentation of the ordinary loops: random resized crop, mirror image, brightness and
contrast, erasing; rotation too in ours. Peak memory is each process's largest resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SETTINGS = (("resnet18", 48), ("resnet18", 64), ("mobilenetv3_large", 64))
KINDS = ("resident", "mien", "pil", "timm")
BATCH = 64


def trainer(backbone: str, folder: Path) -> Any:
    """A trainer on the drawn faces, as `mien train` makes it."""
    import torch

    from mien.core.artifacts.index import read_index
    from mien.core.config import TrainConfig, resolve
    from mien.evaluate.metrics import score_logits
    from mien.nn.models.network import make_network
    from mien.nn.training.train_rows import train_rows
    from mien.nn.training.trainer import Trainer

    config, _ = resolve(
        TrainConfig, ("flag", {"backbone": backbone, "batch_size": BATCH, "epochs": 1000, "head": "linear"})
    )
    index = read_index(folder / "index")
    torch.manual_seed(0)
    network = make_network(config, crop_size=index.crop.size, color=index.crop.color)
    taught = train_rows(config, index)
    return Trainer(config, index, folder / f"run-{os.getpid()}", network, taught, score=score_logits)


def update(one: Any, batch: Any) -> None:
    """The same forward, backward and update in all four loops."""
    one.wrapped.train()
    one._learn(batch, one.current_schedule())
    one.step += 1
    one.ema.update(one.network, one.step)
    from mien.nn.training.trainer import CHECK_EVERY

    if one.device.type == "cpu" or one.step % CHECK_EVERY == 0:  # as often as `Trainer` looks at the loss
        one._look()


def wait(one: Any) -> None:
    """Until a GPU has done what it was given."""
    import torch

    if one.device.type == "cuda":
        torch.cuda.synchronize(one.device)


def resident(one: Any, folder: Path) -> Iterator[int]:
    batch = one.batches(0, 0.0)
    while True:
        update(one, batch)
        yield len(batch.images)


def mien(one: Any, folder: Path) -> Iterator[int]:
    from mien.core.progress import Meter

    progress = Meter(None, None, "", 1 << 40)
    one._finish_epoch = lambda: None  # steady state: no looks at val, no saves
    one._save = lambda: None
    while True:
        one._one_step(progress)
        yield BATCH


def ordinary(one: Any, loader: Callable[[], Any]) -> Iterator[int]:
    import torch

    from mien.nn.training.batches import Batch

    eye = torch.eye(7)
    while True:
        for x, y in loader():
            update(one, Batch(x.to(one.device), eye[y].to(one.device)))
            yield len(x)


def pil(one: Any, folder: Path) -> Iterator[int]:
    import torch
    from torchvision import datasets, transforms

    size = one.network.preprocess.crop_size
    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.7, 1)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.2, 0.2),
            transforms.PILToTensor(),
            transforms.Lambda(lambda t: t.float()),
            transforms.RandomErasing(0.1, value=127),
        ]
    )
    dataset = datasets.ImageFolder(folder / "png", augment)
    loader = torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    return ordinary(one, lambda: loader)


def timm(one: Any, folder: Path) -> Iterator[int]:
    from timm.data import create_dataset, create_loader

    size = one.network.preprocess.crop_size
    dataset = create_dataset("", folder / "png", is_training=True)
    loader = create_loader(
        dataset,
        (3, size, size),
        BATCH,
        is_training=True,
        use_prefetcher=False,
        scale=(0.7, 1),
        ratio=(0.8, 1.25),
        hflip=0.5,
        color_jitter=0.2,
        re_prob=0.1,
        num_workers=2,
        mean=(0, 0, 0),
        std=(1 / 255,) * 3,
        persistent_workers=True,
        interpolation="bilinear",
    )
    return ordinary(one, lambda: loader)


def peak_memory(one: Any) -> dict[str, float]:
    """MiB: the process's largest resident set, its workers' together, and a GPU's."""
    import torch

    own = Path("/proc/self/task") / str(os.getpid()) / "children"
    peaks = []
    for number in own.read_text().split() if own.is_file() else []:
        status = Path("/proc") / number / "status"
        peaks += [int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    gpu = torch.cuda.max_memory_allocated(one.device) / 2**20 if one.device.type == "cuda" else 0.0
    return {"main": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "workers": sum(peaks), "gpu": gpu}


def worker(kind: str, backbone: str, folder: Path) -> None:
    """Take "go SECONDS" on stdin, train for as long, answer with images/s; answer "end" with the peak memory."""
    from mien.nn.torchvision_cure import import_timm

    import_timm()
    one = trainer(backbone, folder)
    steps = {"resident": resident, "mien": mien, "pil": pil, "timm": timm}[kind](one, folder)
    for _ in range(8):
        next(steps)
    print("ready", flush=True)
    for line in sys.stdin:
        if line.startswith("end"):
            print(json.dumps(peak_memory(one)), flush=True)
            os._exit(0)
        for _ in range(5):  # what workers had read ahead while they waited
            next(steps)
        wait(one)
        seconds, seen, begin = float(line.split()[1]), 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            seen += next(steps)
        wait(one)
        print(seen / (time.perf_counter() - begin), flush=True)


def paired(backbone: str, folder: Path, pairs: int) -> None:
    """Print the ratio of a resident step's time to a training step's, taking turns."""
    import numpy as np

    from mien.nn.torchvision_cure import import_timm

    import_timm()
    one = trainer(backbone, folder)
    turns = (resident(one, folder), mien(one, folder))
    times = np.empty((pairs + 5, 2))
    for row in times:
        for number, steps in enumerate(turns):
            wait(one)
            begin = time.perf_counter()
            next(steps)
            wait(one)
            row[number] = time.perf_counter() - begin
    times = times[5:]
    drawn = np.random.default_rng(0).integers(0, pairs, (2000, pairs))
    medians = np.median(times[drawn], 1)
    low, high = np.percentile(medians[:, 0] / medians[:, 1], [2.5, 97.5])
    ratio = np.median(times[:, 0]) / np.median(times[:, 1])
    milliseconds = {
        name: round(float(1000 * v), 2) for name, v in zip(("resident", "mien"), np.median(times, 0), strict=True)
    }
    print(
        json.dumps(
            {
                "ratio": round(float(ratio), 4),
                "ci95": [round(float(low), 4), round(float(high), 4)],
                "pairs": pairs,
                "ms_a_step": milliseconds,
            }
        )
    )


def measure(backbone: str, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """All four, alternating; a process that does not have its turn waits on its stdin."""
    speeds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    memory: dict[str, Any] = {}
    started = {}
    for kind in KINDS:
        started[kind] = subprocess.Popen(
            [sys.executable, __file__, "--worker", kind, "--backbone", backbone, "--folder", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert started[kind].stdout.readline().strip() == "ready"  # type: ignore[union-attr]
    for number in range(rounds):
        for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
            process = started[kind]
            print(f"go {seconds}", file=process.stdin, flush=True)
            speeds[kind].append(float(process.stdout.readline()))  # type: ignore[union-attr]
    for kind, process in started.items():
        print("end", file=process.stdin, flush=True)
        memory[kind] = {k: round(v) for k, v in json.loads(process.stdout.readline()).items()}  # type: ignore[union-attr]
        process.wait()
    command = [sys.executable, __file__, "--worker", "paired", "--backbone", backbone, "--folder", str(folder)]
    turns = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "images_per_second": {kind: round(statistics.median(v), 1) for kind, v in speeds.items()},
        "all_rounds": {k: [round(x, 1) for x in v] for k, v in speeds.items()},
        "mien_of_resident": turns,
        "mien_to_pil": round(statistics.median(speeds["mien"]) / statistics.median(speeds["pil"]), 2),
        "mien_to_timm": round(statistics.median(speeds["mien"]) / statistics.median(speeds["timm"]), 2),
        "peak_memory_mib": memory,
    }


def faces(folder: Path, size: int) -> None:
    """An index of drawn faces, and the same train images as a folder of PNG files."""
    import numpy as np
    from PIL import Image

    from mien.core.artifacts.index import read_index
    from mien.core.config.index import IndexConfig
    from mien.core.labels import LABELS
    from mien.stages import index as stage

    stage.run(IndexConfig(source=("synthetic=2000",), size=size), folder / "index")
    index = read_index(folder / "index")
    for row in index.rows("train"):
        place = folder / "png" / LABELS[index.labels[row]] / f"{row}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image = np.asarray(index.pixels[int(row)])
        Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--worker", choices=(*KINDS, "paired"))
    parser.add_argument("--backbone")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.worker == "paired":
        paired(given.backbone, given.folder, pairs=60)
        return
    if given.worker:
        worker(given.worker, given.backbone, given.folder)
        return
    from mien.core.artifacts.run import environment

    found = []
    for size in sorted({size for _, size in SETTINGS}):
        with tempfile.TemporaryDirectory() as place:
            faces(Path(place), size)
            for backbone in [name for name, wanted in SETTINGS if wanted == size]:
                found.append(
                    {
                        "backbone": backbone,
                        "size": size,
                        "batch": BATCH,
                        **measure(backbone, Path(place), given.rounds, given.seconds),
                    }
                )
                print(json.dumps(found[-1], indent=1), flush=True)
    document = {
        "command": shlex.join(["python", *sys.argv]),
        "settings": found,
        "environment": environment(),
    }
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
