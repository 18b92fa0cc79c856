"""Training from outside: killed at random moments, interrupted, on two processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mien.core.artifacts.run import read_metrics, read_run

pytestmark = pytest.mark.trains

# Everything is imported once; each training runs in a child of its own, which the parent kills.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
from mien.core.config import TrainConfig, resolve
from mien.stages import train as stage
import mien.nn.training.run, mien.nn.torchvision_cure
mien.nn.torchvision_cure.import_timm()
index, root, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
settings = json.loads(sys.argv[4])

def child(out):
    pid = os.fork()
    if pid == 0:
        stage.run(*resolve(TrainConfig, ("flag", settings)), index, out)
        os._exit(0)
    return pid

begin = time.monotonic()
assert os.waitpid(child(root / "whole"), 0)[1] == 0
takes = time.monotonic() - begin
rng, hits, steps, number = random.Random(3), 0, [], 0
while True:
    out = root / f"killed-{number}"
    pid = child(out)
    if hits < kills:
        end = time.monotonic() + takes * rng.random()
        while time.monotonic() < end and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        if time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
            hits += os.WIFSIGNALED(os.waitpid(pid, 0)[1])  # not where it had just come to its end
            state = out / "last" / "state.json"
            steps.append(json.loads(state.read_text())["step"] if state.is_file() else 0)
            continue
    else:
        assert os.waitpid(pid, 0)[1] == 0
    number += 1  # this one came to its end: the next kill hits another
    if hits >= kills:
        break
print(json.dumps({"hits": hits, "steps": steps, "runs": number}))
"""
SETTINGS = {
    "backbone": "cnn",
    "batch_size": 32,
    "epochs": 5,
    "save_every_steps": 3,
    "drop_rate": 0.3,
    "mixing": "mixcut",
    "center_weight": 0.01,
    "randaugment": 1,
    "plain_logits_epochs": 2,
    "eval_raw": False,
}


def results(run: Path) -> dict[str, str]:
    """Hashes of all that a kill must not change: weights, the exact state, metrics, settings."""
    files = [run / "best.safetensors", run / "metrics.jsonl", run / "config.json", *sorted((run / "last").iterdir())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kills", [1, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_kills_at_random_steps_change_no_bit(small_index, tmp_path, kills):
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(small_index), str(tmp_path), str(kills), json.dumps(SETTINGS)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["hits"] == kills
    assert len(set(told["steps"])) >= min(kills, 4) - 1
    assert sum(step > 0 for step in told["steps"]) >= kills / 4  # after the first save, so with something to lose
    per_epoch = len(read_metrics(tmp_path / "whole")) and read_metrics(tmp_path / "whole")[0]["step"]
    assert any(step % per_epoch for step in told["steps"])  # in the middle of epochs too
    whole = results(tmp_path / "whole")
    assert len(whole) == 5
    for number in range(told["runs"]):
        assert results(tmp_path / f"killed-{number}") == whole


def command(index: Path, out: Path, *flags: str) -> list[str]:
    return [
        "-m",
        "mien",
        "train",
        "--index",
        str(index),
        "--out",
        str(out),
        "--backbone",
        "cnn",
        "--batch-size",
        "32",
        *flags,
    ]


def test_sigterm_saves_and_exits_130_and_the_same_command_goes_on(small_index, tmp_path):
    out, flags = tmp_path / "r", ("--epochs", "8", "--eval-every", "4")
    process = subprocess.Popen([sys.executable, *command(small_index, out, *flags)], stderr=subprocess.PIPE)
    state = out / "last" / "state.json"
    for _ in range(1200):
        if state.is_file() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()[-2000:]
    stopped = json.loads(state.read_text())["step"]
    assert stopped > 0
    done = subprocess.run(
        [sys.executable, *command(small_index, out, *flags)], capture_output=True, text=True, check=True
    )
    assert f"goes on after step {stopped}" in done.stderr
    assert len(read_metrics(out)) == 8


EQUAL = (
    "--backbone",
    "test_vit",
    "--batch-size",
    "320",
    "--epochs",
    "6",
    "--eval-every",
    "6",
    "--amp",
    "no",
    "--drop-path",
    "0",
    "--mixing",
    "mixcut",
    "--randaugment",
    "1",
    "--plain-logits-epochs",
    "2",
    "--arcface-warmup-epochs",
    "2",
    "--optimizer",
    "sgd",
    "--lr",
    "0.02",
    "--warmup-epochs",
    "0",
    "--clip-grad",
    "0",
)


def several(processes: int, arguments: list[str]) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(processes),
        "--master-port",
        str(21000 + os.getpid() % 20000),
        *arguments,
    ]


@pytest.mark.long
def test_two_processes_stop_together_and_go_on(small_index, tmp_path):
    """SIGTERM to the launcher: both processes agree on the step, the first saves, and the epoch's sums go on whole."""
    flags = ("--epochs", "60", "--eval-every", "20", "--no-eval-raw", "--save-every-steps", "1000")
    told = os.environ | {"OMP_NUM_THREADS": "1"}
    out = tmp_path / "r"
    process = subprocess.Popen(several(2, command(small_index, out, *flags)), stderr=subprocess.PIPE, env=told)
    state = out / "last" / "state.json"
    for _ in range(1200):
        if (state.is_file() and json.loads(state.read_text())["step"] >= 22) or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    stopped = json.loads(state.read_text())
    assert 22 <= stopped["step"] < 660, errors.decode()[-2000:]
    done = subprocess.run(
        several(2, command(small_index, out, *flags)), capture_output=True, text=True, check=False, env=told
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count(f"goes on after step {stopped['step']}") == 1
    whole = subprocess.run(
        several(2, command(small_index, tmp_path / "whole", *flags)),
        capture_output=True,
        text=True,
        check=False,
        env=told,
    )
    assert whole.returncode == 0, whole.stderr[-3000:]
    for a, b in zip(read_metrics(out), read_metrics(tmp_path / "whole"), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-9)
        assert a["train_accuracy"] == b["train_accuracy"]


def test_two_processes_with_half_the_batch_each_learn_the_same(small_index, tmp_path):
    """Six steps of a ViT, one an epoch, in fp32: the same losses; and the first process alone writes and speaks."""

    def flags(out):
        return ["-m", "mien", "train", "--index", str(small_index), "--out", str(out), *EQUAL]

    one = subprocess.run([sys.executable, *flags(tmp_path / "one")], capture_output=True, text=True, check=True)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_machines",
        "1",
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        str(20000 + os.getpid() % 20000),
    ]
    # Without a GPU accelerate starts processes by its launcher for several GPUs, told to compute on the CPU.
    told = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    two = subprocess.run([*launch, *flags(tmp_path / "two")], capture_output=True, text=True, check=False, env=told)
    assert two.returncode == 0, two.stderr[-3000:]
    losses = [[line["train_loss"] for line in read_metrics(tmp_path / name)] for name in ("one", "two")]
    assert len(losses[0]) == 6
    # The same to rounding: 6 steps in fp32, whose sums come in another order.
    assert np.abs(np.subtract(*losses)).max() < 1e-4
    assert losses[0][0] != losses[0][-1]
    runs = [read_run(tmp_path / name) for name in ("one", "two")]
    assert runs[1].environment["training"]["processes"] == 2
    assert runs[1].manifest["best"]["best_val_macro_f1"] == pytest.approx(
        runs[0].manifest["best"]["best_val_macro_f1"], abs=0.05
    )
    assert one.stdout.count("val macro-F1") == two.stdout.count("val macro-F1") == 1
