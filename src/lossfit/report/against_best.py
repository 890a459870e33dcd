"""Is a setting worse than the best one? Intervals for the differences of their means over seeds."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lossfit.compare import Setting

STEPS = 20_000  # of the integral below; the quantiles are right to four digits


class Difference(NamedTuple):
    """A difference of two means with its interval."""

    value: float
    low: float
    high: float


def differences(settings: Sequence[Setting], metric: str) -> list[Difference | None]:
    """Return the mean of each setting minus that of the first, the best.

    Welch's intervals for means with different variances, with Bonferroni's correction: with a probability of 95%, all
    of them hold together. None for the first, and where either has less than two seeds or no spread.
    """
    every = [setting.values(metric) for setting in settings]
    compared = [len(values) > 1 for values in every[1:]]
    if not every or len(every[0]) < 2 or not any(compared):
        return [None] * len(every)
    chance = 0.05 / sum(compared)
    return [None, *(_difference(every[0], other, chance) for other in every[1:])]


def _difference(best: Sequence[float], other: Sequence[float], chance: float) -> Difference | None:
    if len(other) < 2:
        return None
    parts = [statistics.variance(values) / len(values) for values in (best, other)]
    if not sum(parts) > 0:
        return None
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (best, other), strict=True)
    )
    middle = statistics.fmean(other) - statistics.fmean(best)
    half = student_quantile(1 - chance / 2, freedom) * math.sqrt(sum(parts))
    return Difference(middle, middle - half, middle + half)


def student_quantile(p: float, freedom: float) -> float:
    """Return the quantile p > 1/2 of Student's t distribution.

    With t = sqrt(freedom) tan(angle) the density is proportional to cos(angle) ** (freedom - 1).
    """
    angle = np.linspace(0, math.pi / 2, STEPS + 1)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * p - 1, below / below[-1], angle)))
