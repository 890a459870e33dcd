"""Hand-made histories of runs: a healthy one, and what to change in it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lossfit.diagnosis import History

NAMES = ["1.weight", "1.bias", "3.weight", "3.bias", "5.weight", "5.bias"]
FACTS: dict[str, Any] = {
    "task": "classification",
    "headline": "val/acc",
    "direction": "max",
    "outputs": 10,
    "names": [f"class {k}" for k in range(10)],
    "train_samples": 5000,
    "val_samples": 2000,
    "batch_size": 50,
    "batches_per_epoch": 100,
    "total_steps": 1000,
    "max_epochs": 10,
    "every_n_steps": 5,
    "parameters": NAMES,
    "sizes": [784 * 64, 64, 64 * 64, 64, 640, 10],
    "dims": [2, 1, 2, 1, 2, 1],
    "frozen": [],
    "units": ["2", "4"],
    "class_share": [0.1] * 10,
    "constant_loss": 2.303,
    "first_loss": 2.31,
    "from_pretrained": False,
    "val_in_train": 0,
    "augmented": False,
    "mixed": False,
    "non_finite": None,
    "suspects": [],
}
ONE_VALUE: dict[str, Any] = {  # facts of a regression of one value
    "task": "regression",
    "headline": "val/mae",
    "direction": "min",
    "outputs": 1,
    "names": ["angle"],
    "class_share": None,
}
CALIBRATED = [0.0] * 36 + [200.0, 170.0, 170.0, 400.0, 360.0, 360.0, 1400.0, 1358.0, 1358.0]
Column = Callable[[float], Any]  # of the fraction of the training that is done, 0 to 1


def fall(start: float, end: float) -> Column:
    """Fall fast at first, then slower."""
    return lambda t: end + (start - end) * 0.5 ** (12 * t)


def each(*values: Any) -> Column:
    """Take these values, one for each row."""
    return lambda t: values[round(t * len(values)) - 1]


def updates(factor: float) -> list[float]:
    """The updates of a healthy run times a factor."""
    return [factor * update for update in (0.02, 0.001, 0.01, 0.001, 0.004, 0.001)]


def history(
    *,
    steps: dict[str, Any] | None = None,
    evaluations: dict[str, Any] | None = None,
    rows: int = 200,
    validations: int = 10,
    until: float = 1.0,
    noise: float = 0.02,
    **facts: Any,
) -> History:
    """A run that learns well, with changed columns: a value, or a function of the progress.

    until: the fraction of the training that is done. noise: the relative standard deviation of the training loss.
    """
    random = np.random.default_rng(0)
    all_facts = FACTS | facts
    total, epochs = all_facts["total_steps"], all_facts["max_epochs"]
    of_step: dict[str, Any] = {
        "loss": fall(2.3, 0.3),
        "lr": 1e-3,
        "grad_norm": 1.5,
        "grad": [1.0, 0.1, 0.8, 0.1, 0.7, 0.1],
        "weight": [10.0, 1.0, 5.0, 1.0, 2.0, 0.5],
        "update": updates(1),
    } | (steps or {})
    of_evaluation: dict[str, Any] = {
        "lr": 1e-3,
        "train_loss": fall(2.3, 0.32),
        "sample_loss": fall(2.3, 0.3),
        "val_loss": fall(2.3, 0.35),
        "sample_score": lambda t: 0.9 - 0.4 * 0.5 ** (12 * t),
        "val_score": lambda t: 0.88 - 0.4 * 0.5 ** (12 * t),
        "recall": [0.88] * 10,
        "predicted_share": [0.1] * 10,
        "dead": [0.02, 0.05],
        "bins": CALIBRATED,
        "margins": np.linspace(-0.5, 1, 21),
    } | (evaluations or {})

    def row(columns: dict[str, Any], t: float) -> dict[str, Any]:
        values = {name: column(t) if callable(column) else column for name, column in columns.items()}
        return {"step": round(t * total), "epoch": t * epochs, **values}

    step_rows = [row(of_step, i / rows) for i in range(1, round(rows * until) + 1)]
    for one in step_rows:
        one["loss"] = one["loss"] * (1 + noise * random.standard_normal())
        one["loss_max"] = one["loss"] * 1.1
    done = int(validations * until + 1e-9)
    evaluation_rows = [row(of_evaluation, i / validations) for i in range(1, done + 1)]
    return History.of(all_facts, step_rows, evaluation_rows)
