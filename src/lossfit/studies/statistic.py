"""What a study's numbers say: mean and standard deviation over seeds, and the paired difference from the baseline."""

import itertools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lossfit.tasks.metric_names import direction_of

COMPARED = {"val", "test"}  # splits; a time, or a value of the training split, has no better and worse here
ERRORS = 2.0  # standard errors by which a row must be ahead


@dataclass(frozen=True)
class Cell:
    """A metric of a row in a setting. values: by seed. difference, error: from the baseline, None if it has none."""

    values: Mapping[int, float]
    difference: float | None = None
    error: float | None = None
    ahead: bool = False  # by more than ERRORS times the standard error

    @property
    def mean(self) -> float:
        """Return the mean over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def deviation(self) -> float:
        """Return the sample standard deviation; 0 of one seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else 0.0


def cell(content: Mapping[str, Any], metric: str, row: str, setting: str) -> Cell:
    """Return a metric of a row in a setting of a study, with its difference from the baseline on the same seeds."""
    values = of_seeds(content, metric, row, setting)
    direction = direction_of(metric)
    if content["baseline"] in (row, "none") or direction is None or not COMPARED & {*metric.split("/")}:
        return Cell(values)
    base = of_seeds(content, metric, content["baseline"], setting)
    pairs = [values[seed] - base[seed] for seed in values if seed in base]
    if len(pairs) < 2:
        return Cell(values)
    difference, error = statistics.fmean(pairs), statistics.stdev(pairs) / math.sqrt(len(pairs))
    gain = difference if direction == "max" else -difference
    return Cell(values, difference, error, gain > ERRORS * error)


def of_seeds(content: Mapping[str, Any], metric: str, row: str, setting: str) -> dict[int, float]:
    """Return a metric by seed, of the runs that have it."""
    return {
        one["seed"]: one["metrics"][metric]
        for one in content["results"]
        if (one["row"], one["setting"]) == (row, setting) and metric in one["metrics"]
    }


def comparisons(content: Mapping[str, Any]) -> int:
    """Return how many differences from the baseline a study has."""
    every = itertools.product(content["metrics"], content["rows"], content["settings"])
    return sum(cell(content, *one).difference is not None for one in every)


def chance(seeds: int) -> float:
    """Return how often a row that is as good as the baseline is ahead by more than ERRORS standard errors.

    This is the upper tail of Student's t with seeds - 1 degrees of freedom, for normally distributed differences.
    """
    df, parts = seeds - 1, 20_000
    # t = tan(angle) sqrt(df) turns the density into cos(angle)^(df - 1)
    low = math.atan(ERRORS / math.sqrt(df))
    step = (math.pi / 2 - low) / parts
    area = step * sum(math.cos(low + (i + 0.5) * step) ** (df - 1) for i in range(parts))
    return area * math.gamma((df + 1) / 2) / (math.gamma(df / 2) * math.sqrt(math.pi))
