"""Pictures of what was measured, for TensorBoard and for reports."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

MOST_NUMBERED = 20  # classes up to which a confusion matrix has numbers in its cells
MOST_DRAWN = 5000  # samples of a scatter plot


def confusion_figure(confusion: Tensor, class_names: Sequence[str]) -> Figure:
    """Draw counts (C, C), rows the true class, columns the predicted one, as percentages of each row.

    It is wider than high, as the cards of TensorBoard are.
    """
    counts = confusion.cpu().double()
    percent = (100 * counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    size = max(3.0, 1.5 + 0.3 * len(class_names))
    figure = Figure(figsize=(1.35 * size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    shown = [short(name, 30) for name in class_names]
    axes.set_xticks(range(len(shown)), shown, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(shown)), shown, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("% of the true class", fontsize="medium")
    for row, values in enumerate(percent if len(class_names) <= MOST_NUMBERED else ()):
        for column, value in enumerate(values):
            if value >= 0.5:
                color = "white" if value > 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    return figure


def confused_pairs(confusion: Tensor, class_names: Sequence[str], count: int = 8) -> list[tuple[str, str, int]]:
    """Return the commonest mistakes of counts (C, C), rows the true class: (true class, predicted class, how often)."""
    wrong = confusion.cpu().clone().fill_diagonal_(0)
    order = wrong.flatten().argsort(descending=True, stable=True)[:count].tolist()
    pairs = [divmod(k, len(class_names)) for k in order]
    return [(class_names[y], class_names[k], int(wrong[y, k])) for y, k in pairs if wrong[y, k]]


def pairs_figure(pairs: Sequence[tuple[str, str, int]]) -> Figure:
    """Draw a bar for each of `confused_pairs`, with the words on it."""
    figure = Figure(figsize=(5, max(2.0, 0.5 * len(pairs))), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(pairs)), [count for _, _, count in pairs], color="#ffc9a8")
    for row, (true, predicted, count) in enumerate(pairs):
        text = f" {short(true)} taken for {short(predicted)}: {count}"
        axes.text(0, row, text, va="center", fontsize=13, parse_math=False)
    axes.invert_yaxis()
    axes.set_axis_off()
    return figure


def short(name: str, letters: int = 18) -> str:
    """Return a name that is not longer than so many letters."""
    return name if len(name) <= letters else f"{name[: letters - 1]}\N{HORIZONTAL ELLIPSIS}"


def reliability_figure(bins: Sequence[dict[str, Any]], ece: float) -> Figure:
    """Draw a reliability diagram, accuracy against confidence, above a histogram of the confidences."""
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = [b for b in bins if b["count"]]
    left, width = [b["from"] for b in filled], 1 / len(bins)
    gaps = [b["confidence"] - b["acc"] for b in filled]
    axes.bar(
        left, [b["acc"] for b in filled], width, align="edge", color="tab:blue", edgecolor="white", label="accuracy"
    )
    axes.bar(
        left, gaps, width, [b["acc"] for b in filled], align="edge", color="none", edgecolor="tab:red", hatch="///",
        label="difference from the confidence",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", label="perfect calibration")
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    axes.set_title(f"expected calibration error {ece:.4f}")
    axes.legend(loc="upper left", fontsize="small")
    below.bar(left, [b["count"] for b in filled], width, align="edge", color="grey", edgecolor="white")
    below.set_xlim(0, 1)
    below.set_xlabel("confidence, the largest probability")
    below.set_ylabel("images")
    return figure


def bars_figure(values: Sequence[float], names: Sequence[str], label: str) -> Figure:
    """Draw a bar from 0 to 1 for each class; a value that is not a number gets none."""
    figure = Figure(figsize=(5, max(2.5, 1 + 0.25 * len(names))), layout="constrained")
    axes = figure.add_subplot()
    known = [0.0 if math.isnan(value) else value for value in values]
    axes.barh(range(len(names)), known, color="tab:blue")
    axes.set_yticks(range(len(names)), [short(name, 30) for name in names], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(label)
    for row, value in enumerate(values):
        axes.text(0.01, row, "no image" if math.isnan(value) else f"{value:.3f}", va="center", fontsize="small")
    return figure


def agreement_figure(predicted: Tensor, true: Tensor, labels: Sequence[str]) -> Figure:
    """Draw predicted against true values (N, D), with the line on which they agree."""
    figure, grid = _columns(len(labels))
    for column, (axes, label) in enumerate(zip(grid, labels, strict=True)):
        x, y = _drawn(true[:, column], predicted[:, column])
        axes.scatter(x, y, s=6, alpha=0.3, linewidths=0)
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        axes.plot([low, high], [low, high], color="black", linestyle="--", linewidth=1)
        axes.set_xlabel(f"true {label}")
        axes.set_ylabel(f"predicted {label}")
    return figure


def residuals_figure(predicted: Tensor, true: Tensor, labels: Sequence[str]) -> Figure:
    """Draw the residuals, predicted minus true, against the true values (N, D)."""
    figure, grid = _columns(len(labels))
    for column, (axes, label) in enumerate(zip(grid, labels, strict=True)):
        x, y = _drawn(true[:, column], predicted[:, column] - true[:, column])
        axes.scatter(x, y, s=6, alpha=0.3, linewidths=0)
        axes.axhline(0, color="black", linestyle="--", linewidth=1)
        axes.set_xlabel(f"true {label}")
        axes.set_ylabel("predicted - true")
    return figure


def _columns(count: int) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(4.5 * count, 4), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _drawn(*values: Tensor) -> list[Any]:
    """Return values (N,) as arrays, at most MOST_DRAWN of them, evenly spaced."""
    step = -(-len(values[0]) // MOST_DRAWN)
    return [value[::step].float().cpu().numpy() for value in values]
