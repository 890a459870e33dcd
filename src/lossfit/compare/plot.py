"""A leaderboard as a picture: the metric's curves, and for every seed its value in the best epoch."""

import io
import statistics
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lossfit import runs
from lossfit.compare.curves import X_AXES, mean_curve
from lossfit.compare.leaderboard import Leaderboard, Setting
from lossfit.compare.options import label
from lossfit.errors import UserError
from lossfit.tasks.metric_names import curve_of

MOST = 10  # settings in a picture: as many as there are distinct colours


def picture(board: Leaderboard, top: int | None = None, x: str = "epoch") -> bytes:
    """Return `figure_of` as a PNG."""
    file = io.BytesIO()
    with rc_context({"text.parse_math": False}):  # a folder may be named $x$
        figure_of(board, top, x).savefig(file, format="png", dpi=120)
    return file.getvalue()


def figure_of(
    board: Leaderboard, top: int | None = None, x: str = "epoch", names: Sequence[str] | None = None
) -> Figure:
    """Draw the best settings: the metric's curves over x, and for every seed its value in the best epoch.

    names: of the settings, the best first; None for their options.
    """
    settings = board.settings[: min(top or MOST, MOST)]
    if not settings:
        raise UserError(f"--png: no completed run has {board.metric} yet")
    figure = Figure(figsize=(12, 3 + 0.35 * len(settings)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    name = curve_of(board.metric, settings[0].runs[0].headline)
    colors = list(colormaps["tab10"](range(len(settings))))
    _draw_curves(left, settings, name, x, colors)
    _draw_values(right, settings, board.metric, colors)
    names = names or [label(board.columns, one.options) or "all runs" for one in settings]
    labels = [f"{name} (n={len(one.runs)})" for name, one in zip(names, settings, strict=False)]
    left.set(xlabel=X_AXES[x][1], ylabel=name, title=f"{name} of each epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    kept = " of the best epoch" if "/" in board.metric else ""  # not of a timing
    right.set(xlabel=board.metric, title=f"{board.metric}{kept}, one dot per seed", ylim=(len(settings) - 0.5, -0.5))
    right.set_yticks(range(len(settings)), ["\n".join(wrap(text, 44)) for text in labels])
    right.yaxis.tick_right()
    right.xaxis.set_major_locator(MaxNLocator(5))
    for tick, color in zip(right.get_yticklabels(), colors, strict=True):
        tick.set_color(color)
    left.grid(alpha=0.3)
    right.grid(axis="x", alpha=0.3)
    best = f"best {len(settings)} of {len(board.settings)} settings: " if len(settings) < len(board.settings) else ""
    figure.suptitle(f"{best}mean ± standard deviation over seeds")
    return figure


def _draw_curves(axes: Axes, settings: Sequence[Setting], name: str, x: str, colors: Sequence[Any]) -> None:
    """Draw each setting's mean curve and the band of one standard deviation around it.

    The y axis spans what is reached after the first third of the epochs, so that differences at the end are visible.
    """
    late: list[float] = []
    for setting, color in zip(settings, colors, strict=True):
        points = mean_curve(setting, name, x)
        if not points:
            continue
        places, means, _ = zip(*points, strict=True)
        low, high = ([mean + sign * spread for _, mean, spread in points] for sign in (-1, 1))
        axes.plot(places, means, color=color, marker="o" if len(points) == 1 else None)
        axes.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
        late += low[len(points) // 3 :] + high[len(points) // 3 :]
    if late:
        margin = 0.05 * (max(late) - min(late)) or 0.01
        axes.set_ylim(min(late) - margin, max(late) + margin)
    elif any(runs.curve(run.folder, name) for setting in settings for run in setting.runs):
        raise UserError(f"--x {x}: the runs' metrics.csv has no {X_AXES[x][0]}; take --x epoch")
    else:
        axes.text(0.5, 0.5, f"metrics.csv has no {name}", ha="center", transform=axes.transAxes)


def _draw_values(axes: Axes, settings: Sequence[Setting], metric: str, colors: Sequence[Any]) -> None:
    """Draw each setting's mean ± standard deviation, and below it every seed's value; the best setting on top."""
    for place, (setting, color) in enumerate(zip(settings, colors, strict=True)):
        values = setting.values(metric)
        mean, deviation = statistics.fmean(values), setting.deviation(metric)
        axes.errorbar(mean, place, xerr=deviation, color=color, marker="D", capsize=4)
        axes.plot(values, [place + 0.2] * len(values), "o", color=color, alpha=0.6, markersize=5, markeredgewidth=0)
