"""The curves of a setting: a metric of each epoch over epochs, steps or seconds."""

import itertools
import statistics
from pathlib import Path

from lossfit import runs
from lossfit.compare.leaderboard import Setting

X_AXES = {  # of the curves: the column of metrics.csv, and what the axis is called
    "epoch": ("epoch", "epoch"),
    "step": ("step", "optimizer step"),
    "seconds": ("train/epoch_s", "seconds, validation included"),
}


def mean_curve(setting: Setting, metric: str, x: str) -> list[tuple[float, float, float]]:
    """Return (x, mean, standard deviation) of a metric over the runs that have it, for the epochs that all have.

    x is the mean over the runs too, since seeds may differ in seconds.
    """
    curves = [(curve, x_of_epochs(run.folder, x)) for run in setting.runs if (curve := runs.curve(run.folder, metric))]
    epochs = sorted(set.intersection(*(set(curve) & set(places) for curve, places in curves))) if curves else []
    points = []
    for epoch in epochs:
        values = [curve[epoch] for curve, _ in curves]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        points.append((statistics.fmean(places[epoch] for _, places in curves), statistics.fmean(values), spread))
    return points


def x_of_epochs(folder: Path, x: str) -> dict[int, float]:
    """Return where the end of each epoch lies on the x axis, as far as metrics.csv says it."""
    column = runs.curve(folder, X_AXES[x][0])
    if x == "step":
        return {epoch: step + 1 for epoch, step in column.items()}  # the first step of metrics.csv is 0
    if x != "seconds":
        return column
    without_gap = itertools.takewhile(column.__contains__, itertools.count(1))
    return dict(enumerate(itertools.accumulate(column[epoch] for epoch in without_gap), 1))
