"""What the rules ask of recorded series: medians without NaN, trends with their intervals, learning rates, layers."""

from collections.abc import Callable
from math import comb, sqrt
from typing import Any

import numpy as np

from lossfit.diagnosis.history import History, once

PAIRS = 200  # points of a series from which a trend is computed; a longer one is thinned


def median(values: np.ndarray) -> float:
    """Return the median of the values that are finite, NaN if there are none."""
    return float(medians(values.ravel(), 0))


def medians(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the medians along an axis of the values that are finite, NaN where there are none; no warning."""
    finite, length = np.isfinite(values), values.shape[axis]
    if not length:
        return np.full(np.delete(values.shape, axis), np.nan)
    if finite.all():
        ordered = np.sort(values, axis)
        return (ordered.take((length - 1) // 2, axis) + ordered.take(length // 2, axis)) / 2
    count = np.expand_dims(finite.sum(axis), axis)
    ordered = np.sort(np.where(finite, values, np.nan), axis)  # NaN is last
    low, high = (np.take_along_axis(ordered, at, axis) for at in (np.maximum(count - 1, 0) // 2, count // 2 % length))
    return np.squeeze(np.where(count > 0, (low + high) / 2, np.nan), axis)


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Return the median of each `width` values in a row: one value less than `width` shorter than the series."""
    if len(values) < width:
        return np.zeros(0)
    return medians(np.lib.stride_tricks.sliding_window_view(values, width), 1)


def trend(x: np.ndarray, y: np.ndarray, deviations: float = 2.0) -> tuple[float, float, float]:
    """Return the Theil-Sen slope of y over x and its interval; NaN of fewer than three points.

    The interval holds the slopes whose Kendall statistic is within so many standard deviations of 0 (Sen 1968).
    """
    use = np.isfinite(x) & np.isfinite(y)
    x, y = x[use], y[use]
    if len(x) > PAIRS:
        chosen = np.linspace(0, len(x) - 1, PAIRS).round().astype(int)
        x, y = x[chosen], y[chosen]
    n = len(x)
    first, second = np.triu_indices(n, 1)
    apart = x[second] != x[first]
    if n < 3 or not apart.any():
        return np.nan, np.nan, np.nan
    slopes = np.sort((y[second] - y[first])[apart] / (x[second] - x[first])[apart])
    spread = deviations * sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, round((len(slopes) - spread) / 2) - 1)
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])


def mean_deviation(n: int, p: float) -> float:
    """Return the mean of |k / n - p| for k successes of n with probability p (De Moivre's formula)."""
    if n < 1 or not 0 < p < 1:
        return 0.0
    if n > 500:
        return sqrt(2 * p * (1 - p) / (np.pi * n))
    k = int(n * p) + 1
    return float(2 * k * comb(n, k) * p**k * (1 - p) ** (n - k + 1) / n) if k <= n else 0.0


def number(value: float) -> str:
    """Return a number for a sentence: two to three digits."""
    if not np.isfinite(value):
        return str(value)
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2g}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def change(before: float, after: float) -> str:
    """Return `from A to B` for a sentence, with so many digits that they differ."""
    texts = (number(before), number(after))
    for digits in range(3, 8):
        if texts[0] != texts[1]:
            break
        texts = (f"{before:.{digits}g}", f"{after:.{digits}g}")
    return f"from {texts[0]} to {texts[1]}"


def percent(share: float) -> str:
    """Return a share for a sentence."""
    return f"{100 * share:.3g}%"


def listed(names: list[str], most: int = 3) -> str:
    """Return names for a sentence: the first ones, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


@once
def starting_loss(history: History) -> float:
    """Return the loss of outputs that are all zero, which say nothing; else the untrained model's or the first one."""
    for name in ("constant_loss", "first_loss"):
        value = history.facts.get(name)
        if value is not None and np.isfinite(value):
            return float(value)
    losses = history.steps["loss"]
    losses = losses[np.isfinite(losses)]
    return float(losses[0]) if len(losses) else np.nan


def progress(history: History) -> float:
    """Return the fraction of the training that is done."""
    steps = [part["step"][-1] for part in (history.steps, history.evaluations) if len(part["step"])]
    return float(max(steps, default=0) / max(1, history.facts.get("total_steps") or 1))


def validated(history: History) -> float:
    """Return the fraction of the training that was done at the last validation."""
    steps = history.evaluations["step"]
    return float(steps[-1] / max(1, history.facts.get("total_steps") or 1)) if len(steps) else 0.0


def at_work(history: History, share: float = 0.5) -> np.ndarray:
    """Return for each row of steps whether its learning rate is at least this share of the largest one so far."""
    lr = np.where(np.isfinite(history.steps["lr"]), history.steps["lr"], 0.0)
    return (lr > 0) & (lr >= share * lr.max(initial=0.0))


@once
def matrices(history: History) -> np.ndarray:
    """Return the numbers of the parameters that are matrices or kernels, get a gradient, and were not frozen."""
    facts = history.facts
    frozen = set(facts.get("frozen") or ())
    names, dims = facts.get("parameters") or [], facts.get("dims") or []
    found = [i for i, (name, ndim) in enumerate(zip(names, dims, strict=True)) if ndim >= 2 and name not in frozen]
    grads = history.steps["grad"]
    if grads.ndim != 2:
        return np.zeros(0, dtype=int)
    without = always(np.isnan(grads))
    return np.array([i for i in found if i < len(without) and not without[i]], dtype=int)


@once
def update_ratios(history: History) -> np.ndarray:
    """Return the update of each of `matrices` over its weight, (S, matrices); NaN for a weight of zero."""
    chosen = matrices(history)
    if not len(chosen):
        return np.full((len(history.steps["step"]), 0), np.nan)
    weight, update = history.steps["weight"][:, chosen], history.steps["update"][:, chosen]
    return np.divide(update, weight, out=np.full(update.shape, np.nan), where=weight > 0)


def always(holds: np.ndarray) -> np.ndarray:
    """Return for each column whether a condition (S, P) holds in all rows."""
    return np.asarray(holds.all(axis=0))


def mean_update(ratios: np.ndarray) -> float:
    """Return the mean over the rows of the typical update of a layer, 0 where it is not known."""
    return float(np.nan_to_num(medians(ratios, 1)).mean()) if len(ratios) else 0.0


def place(rows: dict[str, np.ndarray], row: int) -> dict[str, Any]:
    """Return epoch and step of a row, as a Finding has them."""
    return {"epoch": float(rows["epoch"][row]), "step": int(rows["step"][row])}


def since(holds: np.ndarray) -> int:
    """Return the first of the last rows for which a condition holds without a break."""
    broken = np.flatnonzero(~holds)
    return int(broken[-1]) + 1 if len(broken) else 0


def module_of(parameter: str) -> str:
    """Return the module that a parameter is of: `3` of `3.weight`."""
    return parameter.rpartition(".")[0] or parameter


def by_module(history: History, column: str, combine: Callable[..., Any]) -> tuple[list[str], np.ndarray]:
    """Return the modules that have trainable parameters, in their order, and a column (S, modules) of theirs."""
    facts, values = history.facts, history.steps[column]
    frozen = set(facts.get("frozen") or ())
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(facts.get("parameters") or []):
        if name not in frozen and values.ndim == 2 and i < values.shape[1]:
            groups.setdefault(module_of(name), []).append(i)
    if not groups:
        return [], np.zeros((len(values), 0))
    return [*groups], np.stack([combine(values[:, chosen], axis=1) for chosen in groups.values()], axis=1)
