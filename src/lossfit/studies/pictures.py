"""The pictures of a study: dots with error bars for each row and setting, and mean curves."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lossfit.compare.curves import X_AXES
from lossfit.studies.statistic import ERRORS, cell
from lossfit.studies.tables import is_share
from lossfit.system import files

WIDTH = 9.0  # inches
DPI = 110
TITLE = 20  # characters of a line of a title
MOST = 3  # metrics in a picture, the first ones of the study
WIDE = 30.0  # ratio of the largest to the smallest value from which an axis is logarithmic
AHEAD, OTHER, BASE = "#1f5fbf", "#666666", "#c2571a"


def draw(content: Mapping[str, Any], file: Path) -> list[Path]:
    """Write the picture of a study into a file, and beside it that of its curves if it has any; return their paths."""
    paths = [file.with_name(name) for name in pictures_of(content, file.name)]
    for path, figure in zip(paths, (dots, curves), strict=False):
        with files.replacing(path) as part:
            figure(content).savefig(part, dpi=DPI, format="png")
    return paths


def pictures_of(content: Mapping[str, Any], name: str) -> list[str]:
    """Return the names of a study's pictures, given that of the first: NAME.png, and NAME_curves.png if it has any."""
    return [name, name.replace(".png", "_curves.png")] if content["curves"] else [name]


def dots(content: Mapping[str, Any]) -> Figure:
    """Draw mean ± standard deviation and each seed's value; panels: rows are metrics, columns are settings."""
    rows, settings, metrics = [*content["rows"]], [*content["settings"]], [*content["metrics"]][:MOST]
    single = len(settings) == 1
    shape = (1, len(metrics)) if single else (len(metrics), len(settings))
    height = 0.9 + 0.27 * len(rows)
    figure = Figure(figsize=(WIDTH, 0.4 + shape[0] * height), layout="constrained")
    grid = figure.subplots(*shape, squeeze=False, sharey=True)
    for panel, (metric, setting) in zip(grid.flat, itertools.product(metrics, settings), strict=True):
        _draw_panel(panel, content, metric, setting)
        name = content["metrics"][metric]
        panel.set_xlabel(name if single or setting == settings[len(settings) // 2] else "", fontsize=9)
        panel.set_title("" if single or metric != metrics[0] else fill(setting, TITLE), fontsize=9)
    for left in grid[:, 0]:
        left.set_yticks(range(len(rows)), rows, fontsize=9)
        left.set_ylim(len(rows) - 0.5, -0.5)
    title = f"mean ± standard deviation over {len(content['seeds'])} seeds"
    if content["baseline"] in rows:
        title += f"; blue: ahead of {content['baseline']} by more than {ERRORS:g} standard errors"
    figure.suptitle(title, fontsize=9)
    return figure


def _draw_panel(axes: Axes, content: Mapping[str, Any], metric: str, setting: str) -> None:
    factor = 100 if is_share(metric) else 1
    every: list[float] = []
    for place, row in enumerate(content["rows"]):
        one = cell(content, metric, row, setting)
        if not one.values:
            axes.text(
                0.5, place, "no value", transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=8
            )
            continue
        color = BASE if row == content["baseline"] else AHEAD if one.ahead else OTHER
        values = [factor * value for value in one.values.values()]
        every += values
        axes.plot(values, [place + 0.22] * len(values), "o", color=color, alpha=0.45, markersize=3, markeredgewidth=0)
        axes.errorbar(
            factor * one.mean, place, xerr=factor * one.deviation, fmt="o", color=color, capsize=3, markersize=5
        )
        if row == content["baseline"]:
            axes.axvline(factor * one.mean, color=BASE, linewidth=0.8, linestyle="--", alpha=0.7)
    if every and min(every) > 0 and max(every) > WIDE * min(every):
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.3)


def curves(content: Mapping[str, Any]) -> Figure:
    """Draw the mean curve of each row in the first setting, a panel for each x axis."""
    metric, names = content["curves"]["metric"], content["curves"]["x"]
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    grid: Sequence[Axes] = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    setting = next(iter(content["settings"]))
    colors = colormaps["tab20" if len(content["rows"]) > 10 else "tab10"]
    lows: list[float] = []
    for number, axes in enumerate(grid, 1):
        every: list[float] = []
        for index, row in enumerate(content["rows"]):
            own = [one["curve"] for one in content["results"] if (one["row"], one["setting"]) == (row, setting)]
            points = [_mean(some, number) for some in zip(*own, strict=False)]
            if not points:
                continue
            x, y = zip(*points, strict=True)
            every += x
            lows += y
            axes.plot(
                x, y, color=colors(index), label=row, linewidth=1.4, marker="o" if len(x) < 8 else None, markersize=3
            )
        if every and max(every) > WIDE * min(every):
            axes.set_xscale("log")
        axes.set_xlabel(X_AXES[names[number - 1]][1], fontsize=9)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    if lows and max(lows) > WIDE * min(lows) > 0:
        grid[0].set_yscale("log")
    grid[0].set_ylabel(metric, fontsize=9)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _mean(points: Sequence[Sequence[float]], column: int) -> tuple[float, float]:
    """Return the mean place on an x axis and the mean value of the runs' points of one epoch."""
    return statistics.fmean(point[column] for point in points), statistics.fmean(point[0] for point in points)
