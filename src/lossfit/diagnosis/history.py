"""What is recorded of a run for its diagnosis: facts, a row each few steps, and a row after each validation.

Shapes: S rows of steps, E rows of evaluations, P parameters of the model, C classes, U activation modules. A value that
is not known is NaN, and null in a file. Rows of steps come before the row of evaluations at the same step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import numpy as np

from lossfit.plain_values import float32_digits

Rows = dict[str, np.ndarray]  # by column: (rows,) or (rows, width)
F = TypeVar("F", bound=Callable[..., Any])

# the columns of steps; loss and loss_max are over the steps since the row before, norms are those of the row's step
STEPS = (
    "step",  # how many optimizer steps were done
    "epoch",  # how many epochs were done: 1.5 is the middle of the second
    "loss",  # mean training loss, as it is trained
    "loss_max",
    "lr",
    "grad_norm",  # of all parameters, before clipping
    "grad",  # (S, P) norm of each parameter's gradient; NaN if it had none
    "weight",  # (S, P) norm of each parameter
    "update",  # (S, P) norm of its change in this step
)
# the columns of evaluations; sample_* is of a fixed sample of the training split in eval mode, without augmentation
EVALUATIONS = (
    "step",
    "epoch",
    "lr",
    "train_loss",  # mean training loss, as it is trained, since the validation before
    "sample_loss",  # without class weights and smoothing, as val_loss
    "sample_score",  # the headline metric
    "val_loss",
    "val_score",
    "recall",  # (E, C) of the validation, of a classification
    "predicted_share",  # (E, C) how often each class was predicted
    "dead",  # (E, U) the share of units that were active on less than 1% of the sample
    "bins",  # (E, 45) calibration of the validation: 15 x (count, sum of confidence, number correct)
    "margins",  # (E, 21) quantiles 0, 5, ... 100% of the sample's mean margins; see callbacks/training_sample.py
)
WIDE = ("grad", "weight", "update", "recall", "predicted_share", "dead", "bins", "margins")
WIDTHS = {"bins": 45, "margins": 21}
MOST_ROWS = 200_000  # of steps, and of evaluations, that are read from a file
CHECK_EVERY = 20  # rows of steps between two diagnoses within an epoch, at first


@dataclass(frozen=True)
class History:
    """The series of a run. facts: plain values about it, which callbacks/run_facts.py lists.

    known: what functions marked `once` returned for it. So neither the facts nor the rows may be changed.
    """

    facts: Mapping[str, Any]
    steps: Rows
    evaluations: Rows
    known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, facts: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]
    ) -> "History":
        """Make a history of rows; a column that a row does not have is NaN there."""
        return cls(facts, _columns(STEPS, steps), _columns(EVALUATIONS, evaluations))

    def until(self, steps: int, evaluations: int) -> "History":
        """Return the first rows."""
        return History(
            self.facts,
            {name: column[:steps] for name, column in self.steps.items()},
            {name: column[:evaluations] for name, column in self.evaluations.items()},
        )

    def joined(self, new: "History") -> "History | None":
        """Return these rows and then the new ones, with the new facts; None if a column differs in its width."""
        parts = []
        for old, more in ((self.steps, new.steps), (self.evaluations, new.evaluations)):
            if not len(more["step"]):
                parts.append(old)
            elif any(old[name].shape[1:] != more[name].shape[1:] for name in old):
                return None
            else:
                parts.append({name: np.concatenate([old[name], more[name]]) for name in old})
        return History(new.facts, *parts)

    def moments(self, ended: bool = True) -> Iterator[tuple[int, int]]:
        """Yield the numbers of rows at which a run is diagnosed while it trains, and, if it has ended, at its end."""
        step, evaluated = self.steps["step"], self.evaluations["step"]
        done = 0
        for row in range(len(evaluated) + 1):
            last = row == len(evaluated)
            before = len(step) if last else int((step <= evaluated[row]).sum())
            for count in range(done + 1, before + 1):
                if is_due_within_epoch(count):
                    yield count, row
            if ended if last else is_due(row + 1):
                yield before, min(row + 1, len(evaluated))
            done = before

    def to_plain(self) -> dict[str, Any]:
        """Return the history as plain values for a JSON file."""
        return {
            "facts": dict(self.facts),
            "steps": {name: _to_plain(column) for name, column in self.steps.items()},
            "evaluations": {name: _to_plain(column) for name, column in self.evaluations.items()},
        }

    @classmethod
    def from_plain(cls, plain: Any) -> "History":
        """Return the history that `to_plain` made plain; raise ValueError if it is not one, or is too long."""
        try:
            facts, parts = dict(plain["facts"]), []
            for part, names in (("steps", STEPS), ("evaluations", EVALUATIONS)):
                rows = {name: plain[part][name] for name in names}
                count = len(rows["step"])
                if count > MOST_ROWS:
                    raise ValueError(f"it has {count:,} rows of {part}, more than the {MOST_ROWS:,} that are read")
                if any(len(values) != count for values in rows.values()):
                    raise ValueError("its columns differ in length")
                columns = {name: np.array(_with_nan(values), dtype=float) for name, values in rows.items()}
                _check(columns)
                parts.append(columns)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"it holds no history of a run ({error})") from error
        return cls(facts, *parts)


def once(function: F) -> F:
    """Make a function of a history, and of keyword arguments, compute its value once for each history."""
    arguments = signature(function).parameters.values()
    defaults = {one.name: one.default for one in arguments if one.kind is one.KEYWORD_ONLY}

    @wraps(function)
    def call(history: History, **options: Any) -> Any:
        key = (function, *{**defaults, **options}.items())
        if key not in history.known:
            history.known[key] = function(history, **options)
        return history.known[key]

    return call  # type: ignore[return-value]


def is_due(evaluations: int) -> bool:
    """Whether a run is diagnosed after this validation: after each of the first 40, then after one in 2, 3, ..."""
    return evaluations % max(1, evaluations // 20) == 0


def is_due_within_epoch(steps: int) -> bool:
    """Whether a run is diagnosed after this row of steps: after each 20th, of many such rows after fewer."""
    return steps % CHECK_EVERY == 0 and is_due(steps // CHECK_EVERY)


def _check(columns: Rows) -> None:
    """Raise ValueError for columns that are no series of a run."""
    for name, column in columns.items():
        most = 2 if name in WIDE else 1
        if column.ndim > most or (column.ndim == 2 and column.shape[1] != WIDTHS.get(name, column.shape[1])):
            raise ValueError(f"{name} has the shape {column.shape}")
    if "update" in columns and columns["update"].shape != columns["weight"].shape:
        raise ValueError("weight and update differ in their shapes")
    step = columns["step"]
    if not np.isfinite(step).all() or (np.diff(step) < 0).any():
        raise ValueError("its steps do not increase")


def _columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Rows:
    found = {}
    for name in names:
        values = [row.get(name, np.nan) for row in rows]
        widths = {np.shape(value) for value in values}
        if len(widths) > 1:  # some rows do not have it
            width = max(widths, key=len)
            values = [np.broadcast_to(value, width) for value in values]
        found[name] = np.array(values, dtype=float)
    return found


def _to_plain(values: np.ndarray) -> list[Any]:
    if values.ndim > 1:
        return [_to_plain(row) for row in values]
    return [float32_digits(value) if np.isfinite(value) else None for value in values.tolist()]


def _with_nan(values: Any) -> Any:
    return [_with_nan(value) for value in values] if isinstance(values, list) else np.nan if values is None else values
