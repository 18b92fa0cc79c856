"""Figures, as SVG or PNG.

Colours are Okabe & Ito's, which colour-blind people tell apart; lines also differ by marker.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType
from numpy.typing import NDArray
from PIL import Image

from mien.core.artifacts.calibration import TemperatureSweep
from mien.core.artifacts.metrics import CorruptionScores
from mien.core.artifacts.run import Epoch
from mien.core.labels import LABELS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
SCREEN = 110  # dots per inch of figures that stand alone
_STYLE: dict[RcKeyType, object] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "lines.markersize": 4,
    "figure.dpi": SCREEN,
    "svg.hashsalt": "mien",  # ids of an SVG are the same each time
}


@dataclass(frozen=True)
class Chart:
    """A figure as vectors and as pixels, the same bytes each time."""

    figure: Figure

    @cached_property
    def _svg(self) -> bytes:
        return self._saved("svg", SCREEN, {"Date": None, "Creator": None})

    def svg(self) -> bytes:
        """An SVG file whose text is outlines: it looks the same wherever it is shown."""
        return self._svg

    def png(self, dpi: int = SCREEN) -> bytes:
        """A PNG file."""
        return self._saved("png", dpi, {"Software": None})

    def _saved(self, kind: str, dpi: int, metadata: dict[str, None]) -> bytes:
        out = io.BytesIO()
        with mpl.rc_context(_STYLE):
            self.figure.savefig(out, format=kind, dpi=dpi, metadata=metadata)
        return out.getvalue()


class _Style(TypedDict):
    color: str
    marker: str


def _styles() -> Iterator[_Style]:
    """Colour and marker of each line of a figure; two lines have the same pair only after 63."""
    for number in itertools.count():
        yield {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _grid(count: int, width: float, height: float, columns: int = 3) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def composition(distribution: Mapping[str, Mapping[str, float]], splits: tuple[str, ...]) -> Chart:
    """Images of each class on each split."""
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(len(splits), 2.4, 2.3, columns=4)
        for axis, split in zip(axes, splits, strict=True):
            bars = axis.barh(LABELS, [distribution[name][split] for name in LABELS], color=COLOURS[0])
            axis.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=7)
            axis.margins(x=0.25)
            axis.xaxis.set_visible(False)
            axis.spines["bottom"].set_visible(False)
            axis.invert_yaxis()
            axis.set_title(split)
        return Chart(figure)


def stacked(counts: dict[str, dict[str, int]], splits: tuple[str, ...]) -> Chart:
    """Images of each source, a bar each, by split."""
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _grid(1, 6.0, 1.2 + 0.4 * len(counts), columns=1)
        left = np.zeros(len(counts))
        for colour, split in zip(COLOURS, splits, strict=False):
            values = np.array([row[split] for row in counts.values()])
            axis.barh(list(counts), values, left=left, color=colour, label=split)
            left += values
        axis.invert_yaxis()
        axis.set_xlabel("images")
        axis.xaxis.set_major_formatter("{x:,.0f}")
        figure.legend(frameon=False, ncols=len(splits), loc="outside upper center")
        return Chart(figure)


def png(image: NDArray[np.uint8]) -> bytes:
    """An RGB array as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def temperature_sweep(document: TemperatureSweep) -> Chart:
    """ECE and NLL over temperatures; a line marks the fitted temperature, dots the ECE that chance alone gives."""
    curve = document["curve"]
    with mpl.rc_context(_STYLE):
        figure, (error, nll) = _grid(2, 4.2, 2.9, columns=2)
        error.plot(curve["temperature"], curve["ece"], color=COLOURS[0])
        error.axhline(document["ece_floor"], color=COLOURS[6], lw=0.9, ls=":", label="of a perfectly calibrated model")
        nll.plot(curve["temperature"], curve["nll"], color=COLOURS[1])
        for axis, title in ((error, f"ECE in {document['bins']} bins"), (nll, "NLL")):
            axis.set(title=f"{title}, {document['rows']:,} rows of calib", xlabel="temperature")
            if curve["temperature"][0] <= document["fitted_temperature"] <= curve["temperature"][-1]:
                axis.axvline(document["fitted_temperature"], color=COLOURS[2], lw=0.9, ls="--", label="fitted T")
        error.set_ylim(bottom=0)
        error.legend(frameon=False)
        return Chart(figure)


def curves(histories: dict[str, list[Epoch]]) -> Chart:
    """Training loss, val macro-F1, learning rate and margin over epochs; a ring marks the epoch that is kept."""
    with mpl.rc_context(_STYLE):
        figure, (loss, score, rate, margin) = _grid(4, 4.4, 2.7, columns=2)
        for style, (name, lines) in zip(_styles(), histories.items(), strict=False):
            epochs = [line["epoch"] for line in lines]
            validated = [line for line in lines if "val" in line]
            scores = [line["val"]["macro_f1"] for line in validated]
            loss.plot(epochs, [line["train_loss"] for line in lines], lw=1.2, label=name, **style)
            score.plot([line["epoch"] for line in validated], scores, lw=1.2, **style)
            best = int(np.argmax(scores))
            score.plot(validated[best]["epoch"], scores[best], marker="o", ms=9, mfc="none", color=style["color"])
            rate.plot(epochs, [line["lr"] for line in lines], lw=1.2, **style)
            margin.plot(epochs, [line["margin"] for line in lines], lw=1.2, **style)
        loss.set(title="training loss (with margin and mixing)")
        score.set(title="val macro-F1 (ring: the weights kept)", ylim=(0, 1))
        rate.set(title="learning rate", xlabel="epoch")
        margin.set(title="margin", xlabel="epoch", ylim=(0, None))
        figure.legend(*loss.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=4)
        return Chart(figure)


def class_curves(histories: dict[str, list[Epoch]]) -> Chart:
    """Val F1 of each class over epochs, a panel a run."""
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(len(histories), 2.9, 2.3)
        for axis, (name, lines) in zip(axes, histories.items(), strict=True):
            validated = [line for line in lines if "per_class_f1" in line.get("val", {})]
            for style, label in zip(_styles(), LABELS, strict=False):
                f1 = [line["val"]["per_class_f1"][label] for line in validated]
                axis.plot(
                    [line["epoch"] for line in validated],
                    f1,
                    lw=1,
                    ms=3,
                    label=label,
                    color=style["color"],
                    marker=style["marker"],
                )
            axis.set(title=name, ylim=(0, 1), xlabel="epoch")
        axes[0].set_ylabel("F1 on val")
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=7)
        return Chart(figure)


def comparison(scores: dict[str, tuple[float, float, float]], strong: str) -> Chart:
    """A score and its interval of each model, the best below; `strong` is drawn as a diamond of its own colour."""
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _grid(1, 6.8, 0.9 + 0.24 * len(scores), columns=1)
        for y, (name, (value, low, high)) in enumerate(scores.items()):
            chosen = name == strong
            axis.errorbar(
                value,
                y,
                xerr=[[max(0, value - low)], [max(0, high - value)]],
                fmt="D" if chosen else "o",
                color=COLOURS[1 if chosen else 0],
                ms=6 if chosen else 4,
                lw=1.2,
                capsize=2,
            )
        axis.set_yticks(range(len(scores)), list(scores))
        axis.set(xlabel="macro-F1 on test, with its 95 % interval", ylim=(-0.7, len(scores) - 0.3))
        axis.grid(axis="x", color="0.9", lw=0.8)
        axis.set_axisbelow(True)
        return Chart(figure)


def sweep_curves(histories: dict[str, list[list[Epoch]]]) -> Chart:
    """Val macro-F1 over epochs, a panel a variant, a line a seed; shaded where a margin is on."""
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(len(histories), 2.6, 2.0, columns=5)
        looked = {name: [[line for line in run if "val" in line] for run in runs] for name, runs in histories.items()}
        top = max(line["val"]["macro_f1"] for runs in looked.values() for run in runs for line in run)
        for axis, (name, runs) in zip(axes, looked.items(), strict=True):
            for colour, run in zip(np.tile(COLOURS, 8), runs, strict=False):
                axis.plot(
                    [line["epoch"] for line in run], [line["val"]["macro_f1"] for line in run], color=colour, lw=1.2
                )
            margined = [line["epoch"] for line in runs[0] if line["margin"] > 0]
            if margined:
                axis.axvspan(margined[0] - 1, margined[-1], color="0.92", lw=0)
            axis.set(title=name, ylim=(0, 1.1 * top))
        for axis in axes[-min(5, len(axes)) :]:
            axis.set_xlabel("epoch")
        axes[0].set_ylabel("val macro-F1")
        return Chart(figure)


def risk_coverage(models: dict[str, dict[str, list[float]]]) -> Chart:
    """Error rate over the share of images that is answered, the surest first, a line a model."""
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _grid(1, 5.2, 3.2, columns=1)
        for number, (name, curve) in enumerate(models.items()):
            dashes = ("-", "--", ":")[number // len(COLOURS) % 3]  # a repeated colour gets other dashes
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(curve["coverage"], curve["risk"], color=colour, ls=dashes, lw=1.3, label=name)
        axis.set(xlabel="share answered", ylabel="error rate of the answers", xlim=(0, 1), ylim=(0, None))
        axis.legend(frameon=False)
        return Chart(figure)


def degradations(models: dict[str, dict[str, list[CorruptionScores]]], titles: dict[str, str]) -> Chart:
    """Accuracy over strength, one panel per corruption; shaded is the interval of the change from strength 0."""
    with mpl.rc_context(_STYLE):
        names = list(next(iter(models.values())))
        figure, axes = _grid(len(names), 2.5, 2.1, columns=4)
        for axis, name in zip(axes, names, strict=True):
            for colour, (model, corruptions) in zip(np.tile(COLOURS, 8), models.items(), strict=False):
                levels = corruptions[name]
                clean = levels[0]["accuracy"] - levels[0]["change"]["accuracy"]["value"]
                x = np.array([0, *(level["strength"] for level in levels)])
                y = np.array([clean, *(level["accuracy"] for level in levels)])
                ends = clean + np.array([[0.0, 0.0], *(level["change"]["accuracy"]["ci95"] for level in levels)])
                axis.plot(x, y, color=colour, marker=".", lw=1.2, label=model)
                axis.fill_between(x, ends[:, 0], ends[:, 1], color=colour, alpha=0.15, lw=0)
            axis.set(title=titles.get(name, name), ylim=(0, 1), xticks=range(len(levels) + 1))
        for axis in axes[-4:]:
            axis.set_xlabel("strength")
        for axis in axes[::4]:
            axis.set_ylabel("accuracy")
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
        return Chart(figure)


def reliability(models: dict[str, dict[str, dict[str, list[float]]]]) -> Chart:
    """Reliability diagrams before and after calibration, a panel a model."""
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(len(models), 2.9, 2.9)
        for axis, (name, both) in zip(axes, models.items(), strict=True):
            axis.plot([0, 1], [0, 1], color="0.6", lw=1, ls=":")
            for label, colour, marker in (("before", COLOURS[1], "s"), ("after", COLOURS[0], "o")):
                bins = both[label]
                keep = [i for i, n in enumerate(bins["count"]) if n > 0]
                size = [8 + 90 * bins["count"][i] / sum(bins["count"]) for i in keep]
                x, y = [bins["confidence"][i] for i in keep], [bins["accuracy"][i] for i in keep]
                axis.plot(x, y, color=colour, lw=1, label=label)
                axis.scatter(x, y, s=size, color=colour, marker=marker)
            axis.set(title=name, xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes[0].legend(frameon=False, loc="upper left")
        return Chart(figure)


def sweeps(models: dict[str, tuple[dict[str, list[float]], float]]) -> Chart:
    """NLL and ECE over temperature on test (for illustration only) with the temperature fitted on calib."""
    with mpl.rc_context(_STYLE):
        figure, (left, right) = _grid(2, 4.4, 2.8, columns=2)
        for colour, (name, (sweep, chosen)) in zip(np.tile(COLOURS, 8), models.items(), strict=False):
            for axis, key in ((left, "nll"), (right, "ece")):
                axis.plot(sweep["temperature"], sweep[key], color=colour, label=name)
                axis.axvline(chosen, color=colour, lw=1, ls=":")
                axis.set(xscale="log", xlabel="temperature", title=key.upper())
                axis.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
                axis.minorticks_off()
        left.legend(frameon=False)
        return Chart(figure)


def confusions(models: dict[str, list[list[int]]]) -> Chart:
    """Confusion matrices, rows normalised, a panel a model."""
    short = [name[:4] for name in LABELS]
    with mpl.rc_context(_STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}):
        figure, axes = _grid(len(models), 3.3, 3.2)
        for axis, (name, counts) in zip(axes, models.items(), strict=True):
            matrix = np.asarray(counts, dtype=float)
            share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
            axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
            for i, j in np.ndindex(share.shape):
                axis.text(
                    j,
                    i,
                    f"{100 * share[i, j]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if share[i, j] > 0.55 else "black",
                )
            axis.set_xticks(range(len(short)), short, rotation=45)
            axis.set_yticks(range(len(short)), short)
            axis.set(title=name, xlabel="predicted", ylabel="label")
            axis.tick_params(length=0)
        return Chart(figure)


def matrix(names: list[str], panels: dict[str, NDArray[np.float64]]) -> Chart:
    """Square tables as heat maps, a panel a metric: rows are train sources, columns test sources."""
    with mpl.rc_context(_STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}):
        figure, axes = _grid(len(panels), 1.4 + 0.6 * len(names), 1.2 + 0.55 * len(names))
        for axis, (title, values) in zip(axes, panels.items(), strict=True):
            axis.imshow(values, cmap="Blues", vmin=0, vmax=max(1e-9, float(values.max()) / 0.9))
            for i, j in np.ndindex(values.shape):
                dark = values[i, j] > 0.55 * values.max() / 0.9
                axis.text(
                    j,
                    i,
                    f"{values[i, j]:.3f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else "black",
                )
            axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
            axis.set_yticks(range(len(names)), names)
            axis.set(title=title, xlabel="judged on", ylabel="learned from")
            axis.tick_params(length=0)
        return Chart(figure)


def class_f1(models: dict[str, dict[str, float]], intervals: dict[str, dict[str, list[float]]]) -> Chart:
    """F1 of each class with its 95 % interval, a colour a model."""
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _grid(1, 8.6, 2.8, columns=1)
        width = 0.8 / len(models)
        for number, (name, f1) in enumerate(models.items()):
            x = np.arange(len(LABELS)) + (number - (len(models) - 1) / 2) * width
            y = np.array([f1[label] for label in LABELS])
            ends = np.array([intervals[name][f"f1_{label}"] for label in LABELS]).T
            again = "///" if number >= len(COLOURS) else None  # a repeated colour gets hatching
            axis.bar(
                x, y, width, color=COLOURS[number % len(COLOURS)], hatch=again, edgecolor="white", lw=0, label=name
            )
            axis.errorbar(x, y, yerr=np.abs(ends - y), fmt="none", ecolor="0.25", lw=1)
        axis.set_xticks(range(len(LABELS)), LABELS)
        axis.set(ylim=(0, 1), ylabel="F1 on test")
        axis.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.2))
        return Chart(figure)


def contact_sheet(images: dict[str, NDArray[np.uint8]]) -> Chart:
    """A row of images (n, s, s, c) a class, on one sheet: an axis for each would take seconds."""
    count = max(len(row) for row in images.values())
    side = next(iter(images.values())).shape[1]
    gap = max(1, side // 12)
    sheet = np.full((len(images) * (side + gap) - gap, count * (side + gap) - gap, 3), 255, np.uint8)
    for i, row in enumerate(images.values()):
        for j, image in enumerate(row):
            sheet[i * (side + gap) :, j * (side + gap) :][:side, :side] = image
    with mpl.rc_context(_STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}):
        figure, (axis,) = _grid(1, 0.62 * count + 0.8, 0.62 * len(images), columns=1)
        axis.imshow(sheet, interpolation="none")
        axis.set_xticks([])
        axis.set_yticks([i * (side + gap) + side / 2 for i in range(len(images))], list(images))
        axis.tick_params(length=0)
        return Chart(figure)


def confusion_less(first: list[list[int]], second: list[list[int]]) -> Chart:
    """First minus second of two confusions (k, k) of the same images: labels down, names across."""
    less = np.array(first) - np.array(second)
    top = max(1, int(np.abs(less).max()))
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _grid(1, 5.2, 4.0, columns=1)
        image = axis.imshow(less, cmap="PuOr_r", vmin=-top, vmax=top)
        for i, row in enumerate(less):
            for j, value in enumerate(row):
                ink = "white" if abs(value) > 0.6 * top else "black"
                axis.text(j, i, f"{value:+d}" if value else "0", ha="center", va="center", fontsize=8, color=ink)
        axis.set_xticks(range(len(LABELS)), LABELS, rotation=30, ha="right")
        axis.set_yticks(range(len(LABELS)), LABELS)
        axis.set(xlabel="named", ylabel="label")
        axis.tick_params(length=0)
        figure.colorbar(image, ax=axis, shrink=0.8, label="more or fewer images")
        return Chart(figure)


def differences(estimates: dict[str, tuple[float, float, float]]) -> Chart:
    """A difference and its interval of each model around a line at zero."""
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _grid(1, 6.8, 0.9 + 0.24 * len(estimates), columns=1)
        axis.axvline(0, color="0.6", lw=1, ls=":")
        for y, (value, low, high) in enumerate(estimates.values()):
            ends = [[max(0, value - low)], [max(0, high - value)]]
            axis.errorbar(value, y, xerr=ends, fmt="o", color=COLOURS[0], ms=4, lw=1.2, capsize=2)
        axis.set_yticks(range(len(estimates)), list(estimates))
        axis.set(xlabel="difference in macro-F1 on test, with its 95 % interval", ylim=(-0.7, len(estimates) - 0.3))
        return Chart(figure)
