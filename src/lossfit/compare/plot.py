"""The picture of a leaderboard: the metric over the epochs, and its final values with every seed's."""

import io
import statistics
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lossfit import runs
from lossfit.compare.leaderboard import Group, Leaderboard, curve_name, label
from lossfit.errors import UserError

DRAWN = 10  # settings: as many as there are colours that can be told apart


def picture(board: Leaderboard, top: int | None = None) -> bytes:
    """Draw the best settings, as a PNG: the curves of the metric, and its final values with every seed's."""
    groups = board.groups[: min(top or DRAWN, DRAWN)]
    if not groups:
        raise UserError(f"--png: no completed run has {board.metric} yet")
    figure = Figure(figsize=(12, 3 + 0.35 * len(groups)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    name = curve_name(board.metric)
    colors = list(colormaps["tab10"](range(len(groups))))
    _draw_curves(left, groups, name, colors)
    _draw_values(right, groups, board.metric, colors)
    labels = [f"{label(board.columns, group.options) or 'all runs'} (n={len(group.runs)})" for group in groups]
    left.set(xlabel="epoch", ylabel=name, title=f"{name} over the epochs")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel=board.metric, title=f"final {board.metric}, a dot each seed", ylim=(len(groups) - 0.5, -0.5))
    right.set_yticks(range(len(groups)), ["\n".join(wrap(text, 44)) for text in labels])
    right.yaxis.tick_right()
    right.xaxis.set_major_locator(MaxNLocator(5))
    for tick, color in zip(right.get_yticklabels(), colors, strict=True):
        tick.set_color(color)
    left.grid(alpha=0.3)
    right.grid(axis="x", alpha=0.3)
    best = f"best {len(groups)} of {len(board.groups)} settings: " if len(groups) < len(board.groups) else ""
    figure.suptitle(f"{best}mean ± standard deviation over seeds")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _draw_curves(axes: Axes, groups: Sequence[Group], name: str, colors: Sequence[Any]) -> None:
    """Draw each setting's mean over the epochs that all its runs have, and the band around it.

    The axis spans what is reached after the first third of the epochs: the first ones would press the last together.
    """
    late: list[float] = []
    for group, color in zip(groups, colors, strict=True):
        curves = [found for run in group.runs if (found := runs.curve(run.folder, name))]
        epochs = sorted(set.intersection(*map(set, curves))) if curves else []
        means = [statistics.fmean(values[epoch] for values in curves) for epoch in epochs]
        spread = [statistics.stdev(values[epoch] for values in curves) if len(curves) > 1 else 0 for epoch in epochs]
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        axes.plot(epochs, means, color=color, marker="o" if len(epochs) == 1 else None)
        axes.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
        late += low[len(epochs) // 3 :] + high[len(epochs) // 3 :]
    if late:
        margin = 0.05 * (max(late) - min(late)) or 0.01
        axes.set_ylim(min(late) - margin, max(late) + margin)
    else:
        axes.text(0.5, 0.5, f"metrics.csv has no {name}", ha="center", transform=axes.transAxes)


def _draw_values(axes: Axes, groups: Sequence[Group], metric: str, colors: Sequence[Any]) -> None:
    """Draw each setting's mean, its interval, and below them every seed's value; the best on top."""
    for place, (group, color) in enumerate(zip(groups, colors, strict=True)):
        values = group.values(metric)
        mean, deviation = statistics.fmean(values), group.deviation(metric)
        axes.errorbar(mean, place, xerr=deviation, color=color, marker="D", capsize=4)
        axes.plot(values, [place + 0.2] * len(values), "o", color=color, alpha=0.6, markersize=5, markeredgewidth=0)
