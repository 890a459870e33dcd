"""Which option mattered in a sweep: the effect of each on the metric, and its share of the variance over all runs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from lossfit.compare import Leaderboard
from lossfit.compare.options import format_value, option_name

MOST_VALUES = 8  # of a number; a search's many values become four groups of equal size
LEAST_FREEDOM = 3  # runs beyond the number of values, below which no share is given


@dataclass(frozen=True)
class Level:
    """The runs with one value of an option: their mean, and the standard deviation of their settings' means."""

    value: str
    runs: int
    mean: float
    spread: float | None


@dataclass(frozen=True)
class Effect:
    """An option.

    levels: the runs with each value, in order. points: each run's level and metric. numbers: each run's value, if the
    levels are groups of numbers. share: of the variance of the metric that the option alone explains, corrected for
    what chance would; None if it cannot be said. note: why.
    """

    option: str
    levels: list[Level]
    points: list[tuple[int, float]]
    numbers: list[float]
    share: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Effects:
    """The options, that of the largest share first. seeds: the share of the seeds. notes: how far to trust it."""

    options: list[Effect]
    seeds: float | None
    notes: list[str]


def effects(board: Leaderboard) -> Effects:
    """Return the effect of each option that differs among the settings of a leaderboard."""
    runs = [(setting, value) for setting in board.settings for value in setting.values(board.metric)]
    found, codes = [], []
    for column in board.columns:
        values = [format_value(column, setting.options) for setting, _ in runs]
        if len(set(values)) > 1:
            names, code, numbers = _grouped(values)
            found.append(_effect(option_name(column), names, code, numbers, [value for _, value in runs], runs))
            codes.append(code)
    y = np.array([value for _, value in runs])
    total = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
    if not found or total <= 0:
        return Effects(found, None, ["All runs have the same value."] if found else [])
    shares, notes = _shares(y, total, codes)
    found = [replace(one, share=share, note=note) for one, (share, note) in zip(found, shares, strict=True)]
    found.sort(key=lambda one: -1.0 if one.share is None else one.share, reverse=True)
    return Effects(found, _seeds(board, total), notes)


def _grouped(values: Sequence[str]) -> tuple[list[str], np.ndarray, list[float]]:
    """Return the names of the levels, the level of each run, and the numbers if levels are groups of numbers."""
    different = sorted(set(values), key=_order)
    numbers = [_number(value) for value in values]
    if len(different) <= MOST_VALUES or not all(map(math.isfinite, numbers)):
        return different, np.array([different.index(value) for value in values]), []
    edges = np.quantile(numbers, [0.25, 0.5, 0.75])
    code = np.searchsorted(edges, numbers, side="left")
    levels = sorted(set(code.tolist()))
    members = [[n for n, level in zip(numbers, code, strict=True) if level == k] for k in levels]
    names = [f"{min(values):.3g} to {max(values):.3g}" for values in members]
    return names, np.array([levels.index(level) for level in code]), numbers


def _effect(
    option: str, names: list[str], code: np.ndarray, numbers: list[float], metric: list[float], runs: Sequence[tuple]
) -> Effect:
    levels = []
    for number, name in enumerate(names):
        inside = [k for k, level in enumerate(code) if level == number]
        by_setting: dict[int, list[float]] = {}
        for k in inside:
            by_setting.setdefault(id(runs[k][0]), []).append(metric[k])
        means = [statistics.fmean(values) for values in by_setting.values()]
        spread = statistics.stdev(means) if len(means) > 1 else None
        levels.append(Level(name, len(inside), statistics.fmean(means), spread))
    return Effect(option, levels, list(zip(code.tolist(), metric, strict=True)), numbers)


def _shares(
    y: np.ndarray, total: float, codes: Sequence[np.ndarray]
) -> tuple[list[tuple[float | None, str]], list[str]]:
    """Return the share of each option, or why it has none, and notes on all.

    The model is a sum of one number for each value of each option. The share of an option is what the residual sum of
    squares grows by without it, less what an option without effect would explain, over the total sum of squares.
    """
    rest, rank = _residual(y, codes)
    freedom = len(y) - rank
    if freedom < LEAST_FREEDOM:
        least = rank + LEAST_FREEDOM
        note = f"{len(y)} runs are too few to say how much each option explains: these options need at least {least}."
        return [(None, "")] * len(codes), [note]
    found: list[tuple[float | None, str]] = []
    for k in range(len(codes)):
        without, smaller = _residual(y, [code for other, code in enumerate(codes) if other != k])
        if smaller == rank:
            found.append((None, "always changes together with other options"))
        else:
            chance = (rank - smaller) * rest / freedom
            found.append((max(0.0, without - rest - chance) / total, ""))
    if all(_independent(a, b) for a, b in combinations(codes, 2)):
        return found, []
    return found, [
        "The values of the options did not all occur equally often together. So the mean of a value also has some of "
        "the effects of other options; the share has only what no other option explains."
    ]


def _residual(y: np.ndarray, codes: Sequence[np.ndarray]) -> tuple[float, int]:
    """Return the residual sum of squares of the additive model, and the number of its free parameters."""
    columns = [np.ones((len(y), 1)), *(np.eye(code.max() + 1)[code] for code in codes)]
    design = np.concatenate(columns, 1)
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    return float(((y - design @ solution) ** 2).sum()), int(rank)


def _independent(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether each value of one option has the same shares of the other's values."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    return bool(np.allclose(table * len(a), table.sum(1, keepdims=True) * table.sum(0, keepdims=True)))


def _seeds(board: Leaderboard, total: float) -> float | None:
    """Return the share of the variance that is within settings; None if no setting has two runs."""
    every = [setting.values(board.metric) for setting in board.settings]
    if not any(len(values) > 1 for values in every):
        return None
    within = sum(sum((v - statistics.fmean(values)) ** 2 for v in values) for values in every)
    return within / total


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _order(value: str) -> tuple[bool, float, str]:
    number = _number(value)
    return (math.isnan(number), 0.0 if math.isnan(number) else number, value)
