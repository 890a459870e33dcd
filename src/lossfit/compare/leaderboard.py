"""Runs grouped into settings, which differ by seed and fold only, and the settings in order of a metric."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lossfit.compare.options import columns
from lossfit.compare.reading import RunSummary
from lossfit.errors import UserError
from lossfit.tasks import metric_names
from lossfit.tasks.metric_names import Direction


@dataclass(frozen=True)
class Setting:
    """Completed runs with the same options, one for each seed and fold."""

    options: Mapping[str, str]
    runs: Sequence[RunSummary]

    def values(self, metric: str) -> list[float]:
        """Return the metric of each run that has it."""
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]

    def mean(self, metric: str) -> float | None:
        """Return the mean over the runs that have the metric; None if none has."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Return the sample standard deviation; None for fewer than two values."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def findings(self) -> dict[str, int] | None:
        """Return by how many runs each finding was found, the most frequent first; None if no run has a diagnosis."""
        diagnosed = [run.findings for run in self.runs if run.findings is not None]
        return dict(Counter(name for names in diagnosed for name in names).most_common()) if diagnosed else None


@dataclass(frozen=True)
class Leaderboard:
    """Settings, the best first by the mean of `metric`, and the runs that do not count, each with its reason."""

    metric: str
    direction: Direction
    columns: Sequence[str]
    settings: Sequence[Setting]
    others: Sequence[RunSummary]

    def best(self) -> RunSummary:
        """Return the best run of the best setting; raise UserError if no run has counted yet."""
        if not self.settings:
            raise UserError(f"no completed run has {self.metric} yet")
        pick = max if self.direction == "max" else min
        return pick(self.settings[0].runs, key=lambda run: run.metrics[self.metric])


def leaderboard(
    found: Sequence[RunSummary], metric: str | None = None, direction: Direction | None = None
) -> Leaderboard:
    """Group runs into settings and sort these, in the metric's own direction unless one is given.

    metric: None for the headline metric of the runs' task. Raises UserError if runs are completed and none has the
    metric, if its direction is not known, and if there is no metric and the runs have several tasks.
    """
    metric = metric or _headline(found)
    counted: dict[tuple[Any, ...], RunSummary] = {}
    others = []
    for run in sorted(found, key=lambda run: run.started):
        if run.status != "completed":
            others.append(run)
        elif metric in run.not_finite:
            others.append(replace(run, reason=f"its {metric} is not a finite number"))
        elif metric not in run.metrics:
            others.append(replace(run, reason=f"has no {metric}"))
        else:
            repetition = (run.seed if run.seed is not None else run.folder, run.fold)
            key = (*sorted(run.options.items()), repetition)
            if key in counted:  # not an independent sample: it would make the deviation too small
                others.append(replace(counted[key], reason="repeated by a later run of the same seed"))
            counted[key] = run
    completed = [run for run in found if run.status == "completed"]
    if not counted and completed and not any(metric in run.not_finite for run in completed):
        known = ", ".join(sorted({name for run in completed for name in run.metrics}))
        raise UserError(f"--metric {metric}: no completed run has it (known: {known})")
    direction = direction or metric_names.direction_of(metric)
    if direction is None:
        raise UserError(f"--metric {metric}: its name does not tell which way is better; add --direction min or max")
    members: dict[tuple[Any, ...], list[RunSummary]] = defaultdict(list)
    for key, run in counted.items():
        members[key[:-1]].append(run)
    settings = [
        Setting(repeated[0].options, sorted(repeated, key=lambda run: (run.seed or 0, run.fold or 0)))
        for repeated in members.values()
    ]
    settings.sort(key=lambda setting: statistics.fmean(setting.values(metric)), reverse=direction == "max")
    return Leaderboard(metric, direction, columns(run.options for run in found), settings, others)


def _headline(found: Sequence[RunSummary]) -> str:
    """Return the headline metric of the completed runs, or of all if none is completed."""
    completed = [run for run in found if run.status == "completed"]
    headlines = sorted({run.headline for run in completed or found})
    if len(headlines) > 1:
        raise UserError(f"the runs are of different tasks, measured by {' and '.join(headlines)}: give --metric")
    return headlines[0] if headlines else metric_names.headline()
