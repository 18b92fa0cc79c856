"""The training loop. All randomness is a function of (seed, step), so a resumed run is bit-identical."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mien.core.artifacts import checkpoint
from mien.core.artifacts.index import Index
from mien.core.artifacts.run import write_metrics
from mien.core.config.train import ALIASES, DistillConfig, TrainConfig
from mien.core.errors import TrainingDiverged
from mien.core.labels import N_CLASSES
from mien.core.progress import Meter, meter, say
from mien.nn.augment import Augmentation, mixup
from mien.nn.backbones import BF16_GAINS, CHANNELS_LAST, Network, make_network
from mien.nn.batches import Sampler, step_seed, to_tensor
from mien.nn.heads import margin_at
from mien.nn.losses import distillation, smooth, soft_cross_entropy
from mien.nn.optim import MovingAverage, lr_at, make_optimizer
from mien.nn.predict import predict_logits

Score = Callable[[NDArray[np.float64], NDArray[np.int64]], dict[str, float]]
Teacher = Callable[[Tensor], Tensor]


def pick_precision(choice: str, backbone: str, device: torch.device) -> str:
    """`auto` resolved: bf16 where the device computes in it and the family gains by it."""
    if choice != "auto":
        return choice
    gains = ALIASES.get(backbone, backbone).startswith(BF16_GAINS)
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if gains and device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "no"


class Trainer:
    """Trains one network on an index and leaves a run's files in `out`."""

    def __init__(
        self, config: TrainConfig, index: Index, out: Path, *, score: Score, teacher: Teacher | None = None
    ) -> None:
        AcceleratorState._reset_state(reset_partial_state=False)
        tracked = config.tracker != "none"
        self.accelerator = Accelerator(
            log_with=config.tracker if tracked else None, project_dir=out if tracked else None
        )
        if tracked:
            self.accelerator.init_trackers(
                "tracker", config={k: v for k, v in config.model_dump().items() if v is not None}
            )
        self.config, self.index, self.out, self.score, self.teacher = config, index, out, score, teacher
        self.device: torch.device = self.accelerator.device
        self.precision = pick_precision(config.amp, config.backbone, self.device)
        torch.manual_seed(config.seed)
        network = make_network(config.model_dump(), crop_size=index.crop.size, color=index.crop.color).to(self.device)
        if ALIASES.get(config.backbone, config.backbone).startswith(CHANNELS_LAST):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: Network = network
        optimizer = make_optimizer(network, config)
        self.ema = MovingAverage(network, config.ema_decay) if config.ema_decay else None
        self.wrapped, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        rows, val = index.rows("train"), index.rows("val")
        self.train_rows, self.val_rows, self.val_labels = rows, val, index.labels[val]
        one_hot = np.eye(N_CLASSES, dtype=np.float32)[index.labels[rows]]
        self.targets = torch.from_numpy(index.votes[rows] if config.soft_votes else one_hot)
        self.sampler = Sampler(index.labels[rows], config.batch_size, config.seed, config.balanced_sampling)
        self.augment = Augmentation(config.crop_min, config.rotate, config.flip, config.jitter, config.erase)
        self.total = config.epochs * self.sampler.steps_per_epoch
        self.step, self.best = 0, -1.0
        self.history: list[dict[str, Any]] = []
        self.sums = {"loss": 0.0, "hits": 0.0, "seen": 0.0}
        self.seconds, self.stop = 0.0, False

    def run(self) -> dict[str, Any]:
        """Train to the end (from where a killed run stopped) and return what is worth keeping."""
        self._restore()
        title = f"{self.out.name}: {self.config.backbone}"
        with self._signals(), meter(title, self.total * self.sampler.batch_size) as progress:
            progress.skip(self.step * self.sampler.batch_size)
            while self.step < self.total:
                self._one_step(progress)
                end_of_epoch = self.step % self.sampler.steps_per_epoch == 0
                if end_of_epoch:
                    self._finish_epoch()
                if end_of_epoch or self.step % self.config.save_every_steps == 0 or self.stop:
                    self._save()
                if self.stop:
                    raise KeyboardInterrupt
        self.accelerator.end_training()
        return {"best_epoch": self._best_epoch(), "best_val_macro_f1": self.best, "steps": self.total, "precision": self.precision,
                "seconds": round(self.seconds, 1), "device": str(self.device)}  # fmt: skip

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction."""
        return self.step / self.sampler.steps_per_epoch

    def _one_step(self, progress: Meter) -> None:
        started = time.perf_counter()
        config = self.config
        lr = lr_at(self.epoch, config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        frozen = self.epoch < config.freeze_backbone_epochs
        self.network.backbone.requires_grad_(not frozen)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed(step_seed(config.seed, self.step, 100 + rank))
        x, target = self._batch(rank, world)
        self.wrapped.train()
        if frozen:
            self.network.backbone.eval()
        loss, logits = self._loss(x, target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"The loss is {value} at step {self.step + 1} (epoch {self.epoch:.2f}, learning rate {lr:.2g}).",
                fix="Lower --lr, --scale or --margin, or lengthen --warmup-epochs." + self._kept(),
            )
        self._update(loss)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.network, self.step)
        self.sums["loss"] += value * len(x)
        self.sums["hits"] += float((logits.argmax(1) == target.argmax(1)).sum())
        self.sums["seen"] += len(x)
        self.seconds += time.perf_counter() - started
        shown = f"loss {value:.3f}" + (f", val macro-F1 best {self.best:.3f}" if self.best >= 0 else "")
        progress.advance(len(x) * world, note=shown)

    def _batch(self, rank: int, world: int) -> tuple[Tensor, Tensor]:
        """Augmented pictures and their target shares."""
        generator = torch.Generator().manual_seed(step_seed(self.config.seed, self.step, rank))
        rows = self.sampler.rows(self.step, rank=rank, world=world)
        x = self.augment(to_tensor(self.index.pixels, self.train_rows[rows], self.device), generator)
        target = smooth(self.targets[rows].to(self.device), self.config.label_smoothing)
        return mixup(x, target, self.config.mixup, generator)

    def _loss(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        margin = margin_at(
            self.epoch, margin=config.margin, plain=config.plain_logits_epochs, ramp=config.arcface_warmup_epochs
        )
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.precision in ("bf16", "fp16")):
            logits = self.wrapped(x, target, margin)
        loss = soft_cross_entropy(logits, target)
        if self.teacher is not None and isinstance(config, DistillConfig) and config.kd_weight > 0:
            taught = distillation(logits, self.teacher(x), config.kd_temperature)
            loss = (1 - config.kd_weight) * loss + config.kd_weight * taught
        return loss, logits.detach()

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(self.scaler.scale(loss) if self.scaler.is_enabled() else loss)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer.optimizer)
        if self.config.clip_grad:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_grad)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()

    def _finish_epoch(self) -> None:
        """Log the epoch; look at val; keep the weights that val likes best."""
        epoch = self.step // self.sampler.steps_per_epoch
        seen = max(1.0, self.sums["seen"])
        line: dict[str, Any] = {
            "epoch": epoch, "step": self.step, "lr": lr_at(self.epoch, self.config),
            "margin": margin_at(self.epoch, margin=self.config.margin, plain=self.config.plain_logits_epochs, ramp=self.config.arcface_warmup_epochs)
            if self.config.head == "arcface" else 0.0,
            "train_loss": self.sums["loss"] / seen, "train_accuracy": self.sums["hits"] / seen,
        }  # fmt: skip
        self.sums = dict.fromkeys(self.sums, 0.0)
        if epoch % self.config.eval_every == 0 or self.step == self.total:
            line["val"] = self._look_at_val()
            if line["val"]["macro_f1"] > self.best:
                self.best = line["val"]["macro_f1"]
                if self.accelerator.is_main_process:
                    checkpoint.save_weights(self.out, self._averaged())
        self.history.append(line)
        if self.accelerator.is_main_process:
            write_metrics(self.out, self.history)
        scalars = {k: v for k, v in line.items() if isinstance(v, float)}
        self.accelerator.log(scalars | {f"val/{k}": v for k, v in line.get("val", {}).items()}, step=self.step)

    def _averaged(self) -> dict[str, Tensor]:
        return self.ema.state if self.ema is not None else self.network.state_dict()

    def _look_at_val(self) -> dict[str, float]:
        """Score the averaged weights on val."""
        present = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self._averaged())
        logits = predict_logits(
            self.network, self.index.pixels, self.val_rows, device=self.device, bf16=self.precision == "bf16"
        )
        self.network.load_state_dict(present)
        if not np.isfinite(logits).all():
            raise TrainingDiverged(
                f"The logits on val are not finite after step {self.step}.",
                fix="Lower --lr." + self._kept(),
            )
        return self.score(logits, self.val_labels)

    def _kept(self) -> str:
        return f" The weights of the best epoch so far are kept in {self.out}." if self.best >= 0 else ""

    def _best_epoch(self) -> int:
        looked = [line for line in self.history if "val" in line]
        return int(max(looked, key=lambda line: (line["val"]["macro_f1"], -line["epoch"]))["epoch"])

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{k}": v for k, v in self.ema.state.items()}
        for number, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in entry.items() if isinstance(v, Tensor)}
        scaler = self.scaler.state_dict() if self.scaler.is_enabled() else {}
        checkpoint.save_state(
            self.out, tensors,
            {"step": self.step, "best": self.best, "sums": self.sums, "history": self.history, "scaler": scaler, "seconds": self.seconds},
        )  # fmt: skip

    def _restore(self) -> None:
        found = checkpoint.load_state(self.out)
        if found is None:
            return
        tensors, progress = found
        self.network.load_state_dict(_under(tensors, "network."))
        if self.ema is not None:
            for key, value in _under(tensors, "ema.").items():
                self.ema.state[key].copy_(value)
        state = self.optimizer.state_dict()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, "optimizer.").items():
            number, name = key.split(".", 1)
            like = parameters[int(number)]
            # Fused kernels walk raw memory: moments must have their parameter's strides (channels last).
            fitting = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            entries.setdefault(int(number), {})[name] = fitting
        state["state"] = entries
        self.optimizer.load_state_dict(state)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(progress["scaler"])
        self.step, self.best, self.sums, self.history = (
            progress["step"],
            progress["best"],
            progress["sums"],
            progress["history"],
        )
        self.seconds = progress["seconds"]
        say(f"{self.out}: goes on after step {self.step} of {self.total}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the present step, save, and then interrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: Any) -> None:
            self.stop = True

        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def ensemble_teacher(members: list[tuple[Network, float, float]], pool: str, temperature: float) -> Teacher:
    """A frozen ensemble as a function from crops to log-probabilities (b, 7).

    `members` are (network, weight, temperature); the result is pooled and calibrated as
    `mien.evaluate.pooling` does it, so the student learns from calibrated probabilities.
    """
    for network, _, _ in members:
        network.eval().requires_grad_(False)

    @torch.inference_mode()
    def teach(x: Tensor) -> Tensor:
        logs = torch.stack([weight * _member(network, x, t, pool) for network, weight, t in members]).sum(0)
        pooled = logs.clamp_min(1e-12).log() if pool == "probability" else logs
        return F.log_softmax(pooled / temperature, dim=1)

    return lambda x: teach(x).clone()


def _member(network: Network, x: Tensor, temperature: float, pool: str) -> Tensor:
    bf16 = x.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16 or x.device.type == "cuda"):
        logits = network(x).float() / temperature
    return F.softmax(logits, 1) if pool == "probability" else F.log_softmax(logits, 1)
