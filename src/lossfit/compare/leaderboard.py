"""Run folders read and laid side by side: which options differ, and the metrics of each setting over its seeds.

An option is a group's choice, `optimizer`, or a key of the config, `optimizer.lr`; its value is held as text, as it is
typed on the command line. Runs whose options are all equal are of one group: they differ by their seed. Imports no
torch.
"""

import math
import os
import re
import shlex
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lossfit import runs
from lossfit.config import Config
from lossfit.errors import UserError
from lossfit.system import locks

Direction = Literal["min", "max"]

WATCHING = frozenset({"epoch_report", "last_checkpoint", "lr_monitor", "pictures", "progress_bar", "pruning"})
LEFT_OUT = frozenset(  # what cannot change the metrics of a completed run
    {
        *("seed", "choices", "logger", "experiment", "debug", "search", "resume", "test", "metrics"),
        "data.eval_batch_size",
        *(f"trainer.{key}" for key in ("log_every_n_steps", "enable_model_summary", "detect_anomaly", "profiler")),
        *(f"callbacks.{name}" for name in WATCHING),
    }
)
LOWER = frozenset({"loss", "nll", "cost", "brier", "ece", "s", "seconds", "parameters"})
HIGHER = frozenset({"acc", "recall", "precision", "f1"})


@dataclass(frozen=True)
class Run:
    """What a run folder says.

    status: running, completed, failed, diverged, interrupted or pruned, as in result.json; killed where the process of
    a running one is gone, waiting without one, unreadable where it or config.yaml is damaged. reason: why it failed, or
    why it does not count. metrics: of result.json, with the timings in seconds; finite numbers only.
    """

    folder: Path
    status: str
    reason: str
    options: Mapping[str, str]
    seed: int | None
    started: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Group:
    """Completed runs of the same options, one a seed."""

    options: Mapping[str, str]
    runs: Sequence[Run]

    def values(self, metric: str) -> list[float]:
        """Return the metric of each run that has it."""
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]

    def mean(self, metric: str) -> float | None:
        """Return the mean over the runs that have the metric; None where none has."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Return the sample standard deviation; None of fewer than two values."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Leaderboard:
    """Groups, the best first by the mean of `metric`, and the runs that are in none, each with its reason."""

    metric: str
    direction: Direction
    columns: Sequence[str]
    groups: Sequence[Group]
    others: Sequence[Run]

    def best(self) -> Run:
        """Return the best run of the best group; raise UserError where there is none yet."""
        if not self.groups:
            raise UserError(f"no completed run has {self.metric} yet")
        pick = max if self.direction == "max" else min
        return pick(self.groups[0].runs, key=lambda run: run.metrics[self.metric])


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the run folders that are, or lie below, the paths; each once, whichever way it is reached.

    Raises UserError for a path without any.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        below = {folder.resolve(): folder for folder in _below(path)}
        if not below:
            problem = "no folder with a config.yaml, it or below it" if path.is_dir() else "no such folder"
            raise UserError(f"{path} holds no run: {problem}; name run folders, sweeps or parents of them")
        found = below | found
    return [found[real] for real in sorted(found, key=_natural)]


def _below(path: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or "config.yaml" in files:
            subfolders.clear()
            if real not in seen:
                yield Path(folder)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        seen.add(real)


def _natural(path: Path) -> list[tuple[str, int]]:
    """Order 2 before 10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", str(path))]


def read(folder: Path) -> Run:
    """Read a run folder, however far its run has come."""
    try:
        config = runs.read_config(folder)
    except UserError as error:
        return Run(folder, "unreadable", str(error), {}, None, "", {})
    result = runs.read_result(folder)
    status, reason = result.get("status"), result.get("reason") or ""
    if status == "running" and not locks.is_held(folder):
        status, reason = "killed", "its process is gone"
    if not status:
        torn = (folder / "result.json").exists()
        status, reason = ("unreadable", "result.json is damaged") if torn else ("waiting", "")
    metrics = (
        _numbers(result.get("metrics"))
        | _numbers(result.get("timings"))
        | _numbers({"parameters": result.get("parameters")})
    )
    started = str(result.get("started", ""))
    return Run(folder, str(status), str(reason), options(config), config.get("seed"), started, metrics)


def options(config: Config) -> dict[str, str]:
    """Return the options that can change results, the groups' choices first."""
    chosen = {group: _text(option) for group, option in (config.get("choices") or {}).items() if group not in LEFT_OUT}
    chosen["callbacks"] = ", ".join(sorted(set(config.get("callbacks") or ()) - WATCHING)) or "none"
    return chosen | dict(_flat(config, ""))


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if name in LEFT_OUT:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value) if whole else value)


def _numbers(node: Any) -> dict[str, float]:
    items = node.items() if isinstance(node, dict) else ()
    return {key: float(value) for key, value in items if isinstance(value, (int, float)) and math.isfinite(value)}


def columns(found: Sequence[Run]) -> list[str]:
    """Return the options that differ among runs that chose the same.

    optimizer.lr is one where it differs between two runs with optimizer=sgd, not where sgd and adam have other
    defaults. A key of a node with a _target_ is held only against runs with that _target_.
    """
    every = [run.options for run in found if run.options]
    known = dict.fromkeys(key for chosen in every for key in chosen)
    differing = []
    for key in known:
        context = [name for name in (group_of(key, known), _target_of(key)) if name]
        values: dict[tuple[str | None, ...], set[str | None]] = defaultdict(set)
        for chosen in every:
            values[tuple(chosen.get(name) for name in context)].add(chosen.get(key))
        if any(len(some) > 1 for some in values.values()):
            differing.append(key)
    return differing


def group_of(key: str, known: Iterable[str]) -> str | None:
    """Return the innermost group that a key is of: data/mix of data.mix.alpha, where that is a group."""
    parts = key.split(".")[:-1]
    groups = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((group for group in groups if group in known), None)


def _target_of(key: str) -> str | None:
    node, _, name = key.rpartition(".")
    return f"{node}._target_" if node and name != "_target_" else None


def label(columns: Sequence[str], options: Mapping[str, str]) -> str:
    """Return the differing options in short, as `optimizer=sgd, lr=0.1`."""
    ends = Counter(title(column).rpartition(".")[2] for column in columns)
    parts = []
    for column in columns:
        end = title(column).rpartition(".")[2]
        if column in options:
            parts.append(f"{end if ends[end] == 1 else title(column)}={shown(column, options)}")
    return ", ".join(parts)


def title(column: str) -> str:
    """Return an option's name; a node's _target_ goes by the node's."""
    return column.removesuffix("._target_")


def shown(column: str, options: Mapping[str, str]) -> str:
    """Return an option's value, with four digits of a long number, and a class without its module."""
    value = options.get(column, "-")
    if column.endswith("._target_"):
        return value.rpartition(".")[2]
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value


def direction_of(metric: str) -> Direction:
    """Return which way a metric is better, by its name; raise UserError for a name that does not tell."""
    words = set(re.split(r"[/_]", metric))
    if words & LOWER:
        return "min"
    if words & HIGHER:
        return "max"
    raise UserError(f"--metric {metric}: its name does not tell which way is better; add --direction min or max")


def leaderboard(found: Sequence[Run], metric: str, direction: Direction | None = None) -> Leaderboard:
    """Group the runs and order the groups, in the direction that the metric's name tells unless one is given.

    Raises UserError where runs are completed but none has the metric, or for want of a direction.
    """
    counted: dict[tuple[Any, ...], Run] = {}
    others = []
    for run in sorted(found, key=lambda run: run.started):
        if run.status != "completed":
            others.append(run)
        elif metric not in run.metrics:
            others.append(replace(run, reason=f"has no {metric}"))
        else:
            place = (*sorted(run.options.items()), run.seed if run.seed is not None else run.folder)
            if place in counted:  # the same training again: it would narrow the deviation without being new evidence
                others.append(replace(counted[place], reason="repeated by a later run of the same seed"))
            counted[place] = run
    completed = [run for run in found if run.status == "completed"]
    if completed and not counted:
        known = ", ".join(sorted({name for run in completed for name in run.metrics}))
        raise UserError(f"--metric {metric}: no completed run has it (known: {known})")
    members: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for place, run in counted.items():
        members[place[:-1]].append(run)
    groups = [Group(some[0].options, sorted(some, key=lambda run: run.seed or 0)) for some in members.values()]
    direction = direction or direction_of(metric)
    groups.sort(key=lambda group: statistics.fmean(group.values(metric)), reverse=direction == "max")
    return Leaderboard(metric, direction, columns(found), groups, others)


def curve_name(metric: str) -> str:
    """Return the metric whose curve goes with one: the validation split's for the test's, val/acc for a run's times."""
    split, _, name = metric.rpartition("/")
    return metric if split in ("train", "val") else f"val/{name if split else 'acc'}"


def command(run: Run) -> str:
    """Return the command that repeats a run; raise UserError where overrides.yaml does not say what was typed.

    Hydra's own settings and pruning are left out. The seed is always given: it may have been drawn.
    """
    kept = [text for text in runs.read_overrides(run.folder) if not _not_of_the_run(text.split("=")[0].lstrip("+~"))]
    seed = [] if run.seed is None else [f"seed={run.seed}"]
    return shlex.join(["python", "train.py", *kept, *seed])


def _not_of_the_run(key: str) -> bool:
    return key in ("seed", "resume") or f"{key}.".startswith(("hydra.", "hydra/", "callbacks.pruning."))
