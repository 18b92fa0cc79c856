"""The training loop. All randomness is a function of (seed, step), so a resumed run is bit-identical."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, gather_object
from torch import Tensor

from mien.core.artifacts import checkpoint
from mien.core.artifacts.index import Index
from mien.core.artifacts.run import Epoch, TrainingEvent, TrainingResult, best_epoch, write_metrics
from mien.core.config.train import DistillConfig, TrainConfig
from mien.core.errors import ArtifactError, TrainingDiverged, UsageError
from mien.core.progress import Meter, meter, say, warn
from mien.nn.devices import on_cpu, pick_precision
from mien.nn.distillation.teacher import Teacher
from mien.nn.models.backbones import likes_channels_last
from mien.nn.models.heads import ramp
from mien.nn.models.network import Network
from mien.nn.training import monitoring as watch
from mien.nn.training import state
from mien.nn.training.batches import Batch, Batches
from mien.nn.training.interrupt import on_stop_signals
from mien.nn.training.objective import TrainingObjective, freeze, frozen_names, frozen_statistics
from mien.nn.training.optimizers import MovingAverage, SharpnessAware, lr_at, make_optimizer
from mien.nn.training.priors import shown_prior
from mien.nn.training.sampler import part_of, step_seed
from mien.nn.training.train_rows import TrainRows
from mien.nn.training.validation import Score, Validation

CHECK_EVERY = 20  # steps between checks of the loss on an accelerator, where each check waits for it


@dataclass(frozen=True)
class Schedule:
    """What depends on the epoch; `scale` None: the head's own."""

    lr: float
    margin: float
    scale: float | None
    mixing: float
    frozen: bool


class Trainer:
    """Trains one network on an index and leaves a run's files in `out`."""

    def __init__(
        self,
        config: TrainConfig,
        index: Index,
        out: Path,
        network: Network,
        train: TrainRows,
        *,
        score: Score,
        teacher: Callable[[], Teacher] | None = None,
        views: Path | None = None,
    ) -> None:
        AcceleratorState._reset_state(reset_partial_state=False)
        tracked = config.tracker != "none"
        self.accelerator = Accelerator(
            cpu=on_cpu(),
            log_with=config.tracker if tracked else None,
            project_dir=out if tracked else None,
            # Our settings decide these, not `accelerate config`.
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=config.freeze_backbone_epochs > 0)],
        )
        self.config, self.out = config, out
        self.device: torch.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.precision = pick_precision(config.amp, config.backbone, self.device)
        if config.sam_rho and self.precision == "fp16":
            raise UsageError(
                "--sam-rho in fp16.", rule="It needs gradients that are not scaled.", fix="Add --amp no, or bf16."
            )
        self.batches = Batches(config, index, train, self.device, rank=self.rank, world=self.world)
        self.teacher: Teacher | None = None
        if isinstance(config, DistillConfig):
            taught = teacher if config.kd_weight > 0 else None
            if config.kd_views:
                self.batches.use_views(config.kd_views, out / "views" if views is None else views, taught)
            elif taught is not None:
                self.teacher = taught()
        self.sampler = self.batches.sampler
        self.total = config.epochs * self.sampler.steps_per_epoch
        self.validation = Validation(self.accelerator, index, score, bf16=self.precision == "bf16")
        shares = shown_prior(train.targets, train.labels, balanced=config.balanced, chance=train.chance)
        prior = torch.tensor(shares, dtype=torch.float32, device=self.device)
        self.objective = TrainingObjective(network.to(self.device), config, prior).to(self.device)
        if likes_channels_last(config.backbone, self.device, self.precision):
            self.objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = self.objective.network
        self.frozen = (
            frozen_names(network.backbone, config.freeze_blocks) if config.freeze_backbone_epochs else frozenset()
        )
        safe = config.optimizer == "adamw-safe"
        self.ema = MovingAverage(self.network, config.ema_decay, foreach=not safe) if config.ema_decay else None
        self.wrapped, self.optimizer = self.accelerator.prepare(self.objective, make_optimizer(self.objective, config))
        self.sam = SharpnessAware(list(self.objective.parameters()), config.sam_rho) if config.sam_rho else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        # To stop: this process by a signal, and all of them by agreement.
        self.stop_requested, self.stopping = False, False
        self.last_schedule = self.current_schedule()  # of the last step
        self.history: list[Epoch] = []
        self.events: list[TrainingEvent] = []
        # Sums over the epoch: loss, right answers, images. And the first step whose loss was not finite, or -1.
        self.epoch_sums = torch.zeros(
            3, dtype=torch.float32 if self.device.type == "mps" else torch.float64, device=self.device
        )
        self.first_bad_step = torch.full((), -1, dtype=torch.int64, device=self.device)

    def run(self) -> TrainingResult:
        """Train to the end (from where a killed run stopped) and return what is worth keeping."""
        if self.config.tracker != "none":
            settings = {k: v for k, v in self.config.model_dump().items() if v is not None}
            self.accelerator.init_trackers("mien", config=settings)
        self._restore()
        batch = self.sampler.batch_size
        try:
            with (
                on_stop_signals(self._ask_to_stop),
                meter(f"{self.out.name}: {self.config.backbone}", self.total * batch) as progress,
            ):
                progress.skip(self.step * batch)
                while self.step < self.total and not self._is_over():
                    self._one_step(progress)
        finally:
            self.batches.close()
            for tracker in self.accelerator.trackers:
                tracker.finish()
        best = best_epoch(self.history)
        return {
            "best_epoch": int(best["epoch"]),
            "best_val_macro_f1": self.best,
            "steps": self.step,
            "precision": self.precision,
            "seconds": round(self.seconds, 1),
            "device": str(self.device),
            "processes": self.world,
            "events": self.events,
        }

    def _ask_to_stop(self) -> None:
        self.stop_requested = True

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction."""
        return self.step / self.sampler.steps_per_epoch

    def current_schedule(self) -> Schedule:
        """The schedule at this step."""
        config, epoch = self.config, self.epoch
        grown = ramp(epoch, start=config.plain_logits_epochs, length=config.arcface_warmup_epochs)
        scale = None
        if config.scale_start is not None:
            share = ramp(epoch, start=0, length=config.scale_warmup_epochs)
            scale = config.scale_start + share * (config.scale - config.scale_start)
        mixed = config.mix_probability * ramp(epoch, start=0, length=config.mix_warmup_epochs)
        return Schedule(
            lr=lr_at(epoch, config),
            margin=0.0 if config.head == "linear" else config.margin * grown,
            scale=scale,
            mixing=0.0 if epoch >= config.epochs - config.mix_off_epochs else mixed,
            frozen=epoch < config.freeze_backbone_epochs,
        )

    def _one_step(self, progress: Meter) -> None:
        """One update, and what follows from it: a check of the loss, the epoch's end, saving, stopping."""
        started = time.perf_counter()
        schedule = self.last_schedule = self.current_schedule()
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.lr * group["lr_scale"]
        self.wrapped.train()
        if self.frozen:
            freeze(self.network.backbone, self.frozen if schedule.frozen else frozenset())
        batch = self.batches(self.step, schedule.mixing)
        self._learn(batch, schedule)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.network, self.step)
        self.seconds += time.perf_counter() - started
        self.stopping = self.stop_requested and self.world == 1
        ends = self.step % self.sampler.steps_per_epoch == 0
        saves = ends or self.step % self.config.save_every_steps == 0
        note = f"val macro-F1 best {self.best:.3f}" if self.best >= 0 else ""
        if saves or self.device.type == "cpu" or self.step % CHECK_EVERY == 0:
            note = f"loss {self._check_loss():.3f} {note}".rstrip()
            if self._is_over():
                return
        progress.advance(len(batch.images) * self.world, note=note)
        if ends:
            self._finish_epoch()
        if (saves or self.stopping) and not self._broke():
            self._save()
        if self.stopping:
            raise KeyboardInterrupt

    def _learn(self, batch: Batch, schedule: Schedule) -> None:
        """Gradient, sharpness-aware where asked, clipping, update."""
        x, target, teacher_log_probs = batch.images, batch.target, batch.teacher_log_probs
        if teacher_log_probs is None and self.teacher is not None:
            teacher_log_probs = self.teacher(x)
        loss, hits = self._gradient(x, target, teacher_log_probs, schedule)
        finite = loss.isfinite()
        self.first_bad_step = torch.where((self.first_bad_step < 0) & ~finite, self.step + 1, self.first_bad_step)
        self.epoch_sums += torch.stack([torch.where(finite, loss, 0.0) * len(x), hits, hits.new_full((), len(x))]).to(
            self.epoch_sums
        )
        if self.sam is not None:
            self.sam.climb()
            with frozen_statistics(self.objective):  # the first pass has updated them from this batch
                self._gradient(x, target, teacher_log_probs, schedule)
            self.sam.descend()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer.optimizer)
        if self.config.clip_grad:
            foreach = False if self.config.optimizer == "adamw-safe" else None
            torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip_grad, foreach=foreach)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()

    def _gradient(
        self, x: Tensor, target: Tensor, teacher_log_probs: Tensor | None, schedule: Schedule
    ) -> tuple[Tensor, Tensor]:
        """Leave the gradient of the batch's mean loss; returns that loss and the number of right answers."""
        config = self.config
        torch.manual_seed(step_seed(config.seed, self.step, 100 + self.rank))
        self.optimizer.zero_grad(set_to_none=True)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        loss_sum = torch.zeros((), device=self.device)
        hits = torch.zeros((), device=self.device)
        for number in range(config.accumulate):
            part = part_of(len(x), number, config.accumulate)
            waits = number + 1 < config.accumulate
            with self.accelerator.no_sync(self.wrapped) if waits and self.world > 1 else nullcontext():
                with torch.autocast(self.device.type, dtype=dtype, enabled=self.precision in ("bf16", "fp16")):
                    loss, logits = self.wrapped(
                        x[part],
                        target[part],
                        schedule.margin,
                        schedule.scale,
                        None if teacher_log_probs is None else teacher_log_probs[part],
                    )
                loss = loss / config.accumulate
                self.accelerator.backward(self.scaler.scale(loss) if self.scaler.is_enabled() else loss)
            loss_sum = loss_sum + loss.detach()
            hits = hits + (logits.argmax(1) == target[part].argmax(1)).sum()
        return loss_sum, hits

    def _check_loss(self) -> float:
        """Mean loss of the epoch so far; all processes agree on whether it is finite, and whether to stop."""
        bad = int(self.first_bad_step)
        if self.world > 1:
            reports = gather_object([(bad, self.stop_requested)])
            bad = min((b for b, _ in reports if b >= 0), default=-1)
            self.stopping = any(s for _, s in reports)
        if bad >= 0:
            self._diverged(bad, "the loss is not finite")
        loss, _, images = self.epoch_sums.tolist()
        return float(loss / max(1.0, images))

    def _diverged(self, step: int, what: str) -> None:
        """End the training at `step`: with the best weights so far, or, before the first validation, by an error."""
        text = (
            f"{what} at step {step} (epoch {step / self.sampler.steps_per_epoch:.2f}, learning rate "
            f"{self.last_schedule.lr:.2g})"
        )
        if self.best < 0:
            raise TrainingDiverged(
                f"{text[0].upper()}{text[1:]}, before the first validation.",
                fix="Lower --lr, --scale or --margin, or lengthen --warmup-epochs.",
            )
        warn(f"{self.out}: {text}; training ends here, with the best weights so far.")
        self.events.append(
            {"kind": "not finite", "step": step, "epoch": step / self.sampler.steps_per_epoch, "text": text}
        )

    def _broke(self) -> bool:
        """Whether something was not finite: such a state is never saved."""
        return any(event["kind"] == "not finite" for event in self.events)

    def _is_over(self) -> bool:
        """Whether the run ends before its last step: it broke, or its patience is exhausted."""
        return self._broke() or any(event["kind"] == "patience exhausted" for event in self.events)

    def _finish_epoch(self) -> None:
        """Log the epoch, validate, and keep the best weights."""
        epoch = self.step // self.sampler.steps_per_epoch
        sums = self.accelerator.reduce(self.epoch_sums.clone()) if self.world > 1 else self.epoch_sums
        loss, hits, images = sums.tolist()
        line: Epoch = {
            "epoch": epoch,
            "step": self.step,
            "lr": self.last_schedule.lr,
            "margin": self.last_schedule.margin,
            "train_loss": loss / images,
            "train_accuracy": hits / images,
        }
        self.epoch_sums.zero_()
        self.history.append(line)
        if epoch % self.config.eval_every == 0 or self.step == self.total:
            self._validate(line)
        if self.accelerator.is_main_process:
            write_metrics(self.out, self.history)
        self.accelerator.log(scalars(line), step=self.step)

    def _validate(self, line: Epoch) -> None:
        """Score the averaged weights, and the raw ones beside them; note a collapse."""
        raw_too = self.ema is not None and self.config.eval_raw
        raw = self.validation(self.network, None) if raw_too else None
        val = self.validation(self.network, self.ema.state if self.ema is not None else None)
        if val is None or (raw_too and raw is None):
            self.history.remove(line)
            self._diverged(self.step, "the logits on val are not finite")
            return
        if raw is not None:
            line["val_raw"] = raw
        line["val"] = val
        if line["val"]["macro_f1"] > self.best:
            self.best = line["val"]["macro_f1"]
            if self.accelerator.is_main_process:
                checkpoint.save_weights(self.out, self.ema.state if self.ema is not None else self.network.state_dict())
        fallen = watch.collapse(self.history)
        if fallen is not None and not any(event["kind"] == fallen["kind"] for event in self.events):
            self.events.append(fallen)
            warn(f"{self.out}: {fallen['text']}; the best weights are kept.")
        if watch.exhausted(self.history, self.config.patience):
            text = f"no better val macro-F1 for {self.config.patience} validations"
            self.events.append({"kind": "patience exhausted", "step": self.step, "epoch": line["epoch"], "text": text})

    def _save(self) -> None:
        sums = self.accelerator.reduce(self.epoch_sums.clone()) if self.world > 1 else self.epoch_sums
        if not all(v.isfinite().all() for v in self.objective.state_dict().values()):
            self._diverged(self.step, "the weights are not finite")
            return
        if not self.accelerator.is_main_process:
            return
        scaler = self.scaler.state_dict() if self.scaler.is_enabled() else {}
        checkpoint.save_state(
            self.out,
            state.pack(self.objective, self.optimizer, self.ema),
            {
                "step": self.step,
                "best": self.best,
                "sums": sums.tolist(),
                "history": self.history,
                "events": self.events,
                "scaler": scaler,
                "precision": self.precision,
            },
            seconds=self.seconds,
        )

    def _restore(self) -> None:
        saved = checkpoint.load_state(self.out)
        if saved is None:
            return
        tensors, kept = saved
        if kept["precision"] != self.precision:
            raise ArtifactError(
                f"{self.out} was begun in precision {kept['precision']!r} and would go on in {self.precision!r}.",
                rule="A training goes on as it began.",
                fix=(
                    "Go on with a device that computes in it, or remove the run and train again with --amp "
                    f"{self.precision}."
                ),
            )
        state.unpack(tensors, self.objective, self.optimizer, self.ema, f"{self.out / 'last'}")
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(kept["scaler"])
        self.step, self.best, self.history, self.events = kept["step"], kept["best"], kept["history"], kept["events"]
        if self.rank == 0:  # they are sums over all processes
            self.epoch_sums.copy_(torch.tensor(kept["sums"], dtype=self.epoch_sums.dtype))
        self.seconds = checkpoint.seconds_spent(self.out)
        say(f"{self.out}: goes on after step {self.step} of {self.total}")


def scalars(line: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    """The figures of a metrics line as trackers take them: flat, nested keys joined by slashes."""
    out: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            out |= scalars(value, f"{prefix}{key}/")
        elif isinstance(value, float):
            out[f"{prefix}{key}"] = value
    return out
