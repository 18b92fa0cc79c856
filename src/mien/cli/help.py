"""`--help` with what most people set, by topic; `--help-all` with every flag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from attrs import evolve
from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

ALL = "--help-all"
LONGEST = 25
"""Flags that a command's help shows at most; of a command with more it shows the common ones."""
PLAIN = 12
"""Flags that a command may have before its help is divided by topic."""

TOPICS: dict[str, str] = {
    "Network": (
        "backbone stem img_size patch_size pretrained pretrained_license init_from attention drop_rate drop_path"
    ),
    "Distillation": "kd_loss kd_temperature kd_weight kd_views dkd_alpha dkd_beta",
    "Head and loss": "head scale margin subcenters joint_weight plain_logits_epochs arcface_warmup_epochs scale_start"
    " scale_warmup_epochs loss focal_gamma logit_adjust_tau label_smoothing soft_votes center_weight balanced_sampling"
    " predict_prior",
    "Suspects and hard examples": "suspects suspect_treatment suspect_weight hard_share",
    "Optimiser and schedule": "optimizer lr layer_decay weight_decay scheduler warmup_epochs min_lr epochs batch_size"
    " accumulate clip_grad sam_rho ema_decay freeze_backbone_epochs freeze_blocks patience",
    "Augmentation": "crop_min rotate flip jitter clahe randaugment randaugment_magnitude erase degrade minority_boost",
    "Mixing": "mixing mix_alpha mix_probability mix_warmup_epochs mix_off_epochs",
    "The run": "amp eval_every eval_raw save_every_steps tracker",
    "Sources and labels": "priority fallback keep drop_labels relabel max_train max_per_class max_per_source"
    " max_rejected",
    "Splits and duplicates": "near_duplicates near_radius near_threshold leaks calib_fraction val_fraction"
    " test_fraction",
    "Crops": "size color align unaligned crop_scale crop_shift_y min_side max_pixels",
    "Work and storage": "engine workers pixels shard_mib",
    "Finding faces": "detector detector_model min_confidence detect_side detect_every",
    "Following faces": "start_confidence patience max_distance box_noise acceleration",
    "Smoothing": "filter cutoff beta speed_cutoff time_constant",
    "Showing labels": "hysteresis dwell release hold thresholds",
}
"""Settings by topic, in the order in which help shows them. What has no topic is the command's own and comes first."""

COMMON = frozenset(
    [
        "backbone",
        "img_size",
        "pretrained",
        "pretrained_license",
        "init_from",
        "head",
        "loss",
        "soft_votes",
        "lr",
        "epochs",
        "batch_size",
        "patience",
        "mixing",
        "crop_min",
        "degrade",
        "amp",
        "kd_loss",
        "kd_temperature",
        "kd_weight",
        "kd_views",
        "workers",
        "keep",
        "relabel",
        "max_train",
        "priority",
        "fallback",
        "near_duplicates",
        "leaks",
        "calib_fraction",
        "val_fraction",
        "test_fraction",
        "size",
        "color",
        "align",
        "detector",
        "detector_model",
        "min_confidence",
        "detect_side",
        "detect_every",
        "filter",
        "cutoff",
        "beta",
        "time_constant",
        "hysteresis",
        "dwell",
        "release",
        "hold",
        "thresholds",
    ]
)
"""Settings with a topic that a long command's `--help` shows."""


def setting(entry: HelpEntry) -> str:
    """A flag's setting: `--img-size` is `img_size`."""
    return entry.positive_names[0].lstrip("-").replace("-", "_") if entry.positive_names else ""


def topics(panel: HelpPanel, *, everything: bool) -> Iterator[HelpPanel]:
    """A panel of flags divided by topic, the command's own flags first; without `everything`, the common ones."""
    if len(panel.entries) <= PLAIN:
        yield panel
        return
    everything = everything or len(panel.entries) <= LONGEST
    placed = {name: topic for topic, names in TOPICS.items() for name in names.split()}
    # A name may stand in two topics (`patience` of a training and of a face): the command's other flags decide.
    settings = {setting(entry) for entry in panel.entries}
    for topic, names in TOPICS.items():
        listed = names.split()
        if sum(name in settings for name in listed) == len(listed):
            placed |= dict.fromkeys(listed, topic)
    for topic in ("", *TOPICS):
        entries = [
            entry
            for entry in panel.entries
            if placed.get(setting(entry), "") == topic and (everything or not topic or setting(entry) in COMMON)
        ]
        if entries:
            yield evolve(panel, entries=entries, title=topic or panel.title)


@dataclass
class HelpByTopic:
    """cyclopts' help, with long panels of flags divided by topic and cut to the common ones unless `everything`."""

    everything: bool
    inner: DefaultFormatter = field(default_factory=DefaultFormatter)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:
        """Print the line of usage as cyclopts does."""
        self.inner.render_usage(console, options, usage)

    def render_description(self, console: Console, options: ConsoleOptions, description: object) -> None:
        """Print what a command does as cyclopts does."""
        self.inner.render_description(console, options, description)

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel."""
        if panel.format != "parameter":
            self.inner(console, options, panel)
            return
        count = 0
        for part in topics(panel, everything=self.everything):
            count += len(part.entries)
            self.inner(console, options, part if self.everything else evolve(part, entries=_without_empties(part)))
        if count < len(panel.entries):
            console.print(f"{len(panel.entries) - count} more flags, with good defaults: {ALL}.", style="dim")


def _without_empties(panel: HelpPanel) -> list[HelpEntry]:
    """Entries without the flags that empty a list, which only those need who know its default."""
    return [
        evolve(entry, negative_names=tuple(n for n in entry.negative_names if not n.startswith("--empty-")))
        for entry in panel.entries
    ]
