"""Is a setting worse than the best one? Intervals for the differences of their means over seeds."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lossfit.compare import Setting

STEPS = 20_000  # of the integral below; the quantiles are right to three digits


class Difference(NamedTuple):
    """A difference of two means with its interval."""

    value: float
    low: float
    high: float


def differences(settings: Sequence[Setting], metric: str) -> list[Difference | None]:
    """Return the mean of each setting minus that of the first, the best; None for the first itself.

    The variance over seeds is taken to be the same for all settings, and estimated from those with several runs.
    Bonferroni's correction is for all pairs of settings: with a probability of 95%, all intervals hold together,
    whichever setting is the best. All None if fewer than two runs are left to estimate the variance, or if it is 0.
    """
    every = [setting.values(metric) for setting in settings]
    means = [statistics.fmean(values) for values in every]
    freedom = sum(len(values) - 1 for values in every)
    squares = sum((v - mean) ** 2 for values, mean in zip(every, means, strict=True) for v in values)
    if len(every) < 2 or freedom < 2 or squares == 0:
        return [None] * len(every)
    pairs = len(every) * (len(every) - 1) / 2
    width = student_quantile(1 - 0.05 / 2 / pairs, freedom) * math.sqrt(squares / freedom)
    found: list[Difference | None] = [None]
    for values, mean in zip(every[1:], means[1:], strict=True):
        half = width * math.sqrt(1 / len(every[0]) + 1 / len(values))
        found.append(Difference(mean - means[0], mean - means[0] - half, mean - means[0] + half))
    return found


def student_quantile(p: float, freedom: float) -> float:
    """Return the quantile p > 1/2 of Student's t distribution.

    With t = sqrt(freedom) tan(angle) the density is proportional to cos(angle) ** (freedom - 1).
    """
    angle = np.linspace(0, math.pi / 2, STEPS + 1)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * p - 1, below / below[-1], angle)))
