"""The picture of recipes.py: test accuracy against seconds of all recipes and rivals."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox
from recipes_table import Runs, by_recipe, deviation

OURS, THEIRS = "#1f5fbf", "#c2571a"
TICKS = (50, 60, 70, 76, 80, 85, 88, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99)
RINGS = (9, 16, 26, 38, 52, 68, 90, 120)  # distances of a label from its point, in points
DIRECTIONS = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]


def draw(runs: Runs, title: str, file: Path) -> None:
    """Write the picture of the runs that were tested; mean and standard deviation over seeds."""
    picture(runs, title).savefig(file, dpi=120)


def picture(runs: Runs, title: str) -> Figure:
    """Return the picture: seconds from Enter to the end on a logarithmic axis, and an axis of the error's logarithm."""
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = {}
    for name, some in by_recipe([run for run in runs if run["test"] is not None]).items():
        seconds, accuracies = [run["seconds"] for run in some], [100 * run["test"] for run in some]
        x, y = statistics.fmean(seconds), statistics.fmean(accuracies)
        rival = some[0]["rival"]
        color, marker = (THEIRS, "s") if rival else (OURS, "o")
        axes.errorbar(x, y, deviation(accuracies), deviation(seconds), marker, color=color, capsize=2, markersize=5)
        points[name] = (x, y, color)
    _scale(axes, [x for x, _, _ in points.values()], [y for _, y, _ in points.values()])
    axes.set(xlabel="seconds from the start of the command to its end", ylabel="test accuracy, %")
    axes.set_title(title, fontsize=9, wrap=True)
    axes.grid(alpha=0.3)
    for color, marker, label in ((OURS, "o", "lossfit"), (THEIRS, "s", "rivals, in plain PyTorch")):
        axes.plot([], [], marker, color=color, label=label)
    axes.legend(loc="lower right", fontsize=9)
    canvas.draw()  # decides where everything is
    _label(axes, canvas, points)
    return figure


def _scale(axes: Axes, seconds: Sequence[float], accuracies: Sequence[float]) -> None:
    """Give the axes their scales: each halving of the error is as high as any other."""
    axes.set_xscale("log")
    if seconds:
        axes.set_xlim(min(seconds) / 1.6, max(seconds) * 1.6)
        errors = [100 - max(accuracies), 100 - min(accuracies)]
        axes.set_ylim(100 - min(99.0, errors[1] * 1.15), 100 - max(0.5, errors[0] / 1.15))
    axes.set_yscale("function", functions=(_height, lambda height: 100 - 10**-height))
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _height(accuracy: np.ndarray) -> np.ndarray:
    return -np.log10(np.clip(100 - accuracy, 1e-3, None))


def _label(axes: Axes, canvas: FigureCanvasAgg, points: dict[str, tuple[float, float, str]]) -> None:
    """Write each name where it covers no other name and no point, as near to its point as possible."""
    renderer, legend = canvas.get_renderer(), axes.get_legend()
    taken = [legend.get_window_extent(renderer)] if legend else []
    scale = canvas.figure.dpi / 72
    for x, y, _ in points.values():
        centre = axes.transData.transform((x, y))
        taken.append(Bbox([centre - 5 * scale, centre + 5 * scale]))
    inside = axes.get_window_extent(renderer)
    for name, (x, y, color) in points.items():
        for dx, dy in _places():
            text = axes.annotate(
                name, (x, y), (dx, dy), textcoords="offset points", color=color, fontsize=9,
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="bottom" if dy > 0 else "top" if dy < 0 else "center",
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            if not box.count_overlaps(taken) and _contains(inside, box):
                break
            text.remove()
        else:
            dx, dy = RINGS[0], 0
            text = axes.annotate(name, (x, y), (dx, dy), textcoords="offset points", color=color, fontsize=9)
            box = text.get_window_extent(renderer)
        taken.append(box)
        if max(abs(dx), abs(dy)) > RINGS[1]:
            axes.annotate(
                "",
                (x, y),
                (dx, dy),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": color, "lw": 0.6},
            )


def _contains(outer: Bbox, inner: Bbox) -> bool:
    return all(outer.x0 <= x <= outer.x1 and outer.y0 <= y <= outer.y1 for x, y in inner.corners())


def _places() -> Iterable[tuple[int, int]]:
    return ((dx * ring, dy * ring) for ring in RINGS for dx, dy in DIRECTIONS)
