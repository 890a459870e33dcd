"""The course of the loss: it jumps up and down, or stays where it is."""

from math import sqrt
from typing import Annotated, Any

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History, once
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.labels import label_noise
from lossfit.diagnosis.rules.layers import all_dead, exploding_gradients, unused_parameters, vanishing_gradients
from lossfit.diagnosis.rules.learning_rate import lr_too_small, update_ratio
from lossfit.diagnosis.rules.loss import divergence
from lossfit.diagnosis.rules.series import number, percent
from lossfit.ranges import Between0And1, Count, From0To1, Positive, at_least, checked


@once
@checked
def oscillation(
    history: History,
    *,
    flips: From0To1 = 0.5,
    amplitude: Positive = 0.06,
    remaining: Between0And1 = 0.2,
    sampling: Positive = 6.0,
    rows: Annotated[int, at_least(3)] = 30,
    evaluations: Annotated[int, at_least(3)] = 8,
) -> Finding | None:
    """The loss jumps up and down by more than the random choice of batches explains, at a learning rate that is high.

    Of the last `rows` rows of the training loss, or of the last `evaluations` losses of the same training images in
    eval mode, at least the share `flips` of the changes is opposite to the one before, and the standard deviation
    around the course of the loss is above `amplitude` of the starting loss, and the level above `remaining` of it. The
    training loss must also deviate by `sampling` times what batches of this size
    give.
    """
    steps, facts = history.steps, history.facts
    start, working = abs(series.starting_loss(history)), series.at_work(history)
    if len(working) < rows or not working[-rows:].all() or not np.isfinite(start):
        return None
    lr = float(steps["lr"][-1])
    samples = max(1, (facts.get("every_n_steps") or 1) * (facts.get("batch_size") or 1))
    for column, last in ((steps["loss"], rows), (history.evaluations["sample_loss"], evaluations)):
        recent = column[-last:]
        if len(recent) < last or not np.isfinite(recent).all():
            continue
        level = float(np.median(recent))
        spread, turned = _around(recent)
        by_chance = sqrt(max(level, 0.0) * start / samples) if column is steps["loss"] else 0.0
        if level > remaining * start and turned >= flips and spread > max(amplitude * start, sampling * by_chance):
            break
    else:
        return None
    what = "train/loss" if column is steps["loss"] else "the loss of the same training images"
    text = (
        f"{what} jumps up and down by {number(spread)} around {number(level)} between measurements, at lr {number(lr)}"
    )
    evidence = {"deviation": spread, "level": level, "by_chance": by_chance, "flips": turned, "lr": lr}
    part = steps if column is steps["loss"] else history.evaluations
    return Finding(
        "oscillation", "warning", text, **series.place(part, len(part["step"]) - last), evidence=evidence,
        series=("steps.loss", "evaluations.sample_loss", "steps.lr"),
    )  # fmt: skip


def _around(values: np.ndarray) -> tuple[float, float]:
    """Return the standard deviation of values around their course, from second differences, and the share of turns."""
    changes = np.diff(values)
    turned = float((changes[1:] * changes[:-1] < 0).mean())
    around = values[1:-1] - (values[2:] + values[:-2]) / 2
    return 1.4826 * float(np.median(np.abs(around))) / sqrt(1.5), turned  # 1.4826: of normal values


@once
@checked
def plateau(
    history: History,
    *,
    start: Between0And1 = 0.985,
    level: Between0And1 = 0.7,
    evaluations: Count = 5,
    done: From0To1 = 0.2,
    path: Positive = 0.1,
) -> Finding | None:
    """The loss does not fall any more, far above where a trained model's is, and the learning rate is still high.

    Either it never left the starting loss: it was above `start` of it throughout, after a fraction `done` of the
    training; or over the validations of the last `evaluations` epochs the interval of its slope includes 0, with the
    loss above `level` of the starting loss, the learning rate at least a tenth of the largest, and half of the training
    done. It is what no other finding explains: not with gradients that vanish or explode, a layer without a living
    unit, parameters that are not used, wrong labels, or updates of a wrong size, nor where all updates together are
    below `path` of the weights.
    """
    begin, rows = series.starting_loss(history), history.steps
    ratios, done_now = series.update_ratios(history), series.progress(history)
    if not begin > 0 or not ratios.shape[1] or done_now < done:
        return None
    typical = series.mean_update(ratios)
    place = _stuck_at_start(history, begin, start)
    flat = None if place else _flat(history, begin, level, evaluations)
    if not (place or flat) or typical * (history.facts.get("total_steps") or 1) < path:
        return None
    layers = (vanishing_gradients, exploding_gradients, all_dead, unused_parameters)
    causes = (*layers, divergence, update_ratio, lr_too_small, label_noise)
    if any(rule(history) for rule in causes):
        return None
    if place:
        text = (
            f"train/loss has stayed at {number(series.median(rows['loss'][-20:]))}: answering 0 for all images gives "
            f"{number(begin)}, so nothing has been learned"
        )
    else:
        now = series.median(history.evaluations["sample_loss"][-evaluations:])
        text = (
            f"the loss of the training images has stayed at {number(now)} over {evaluations} epochs, "
            f"{percent(now / begin)} of where it started"
        )
    evidence = {"start": begin, "ratio": typical, "lr": float(np.nanmax(rows["lr"])), "stuck": bool(place)}
    return Finding(
        "plateau", "warning", text, **(place or flat or {}), evidence=evidence,
        series=("steps.loss", "evaluations.sample_loss", "steps.lr"),
    )  # fmt: skip


def _stuck_at_start(history: History, begin: float, share: float) -> dict[str, Any] | None:
    """Return since when the loss has never been below a share of the starting loss; None if it has."""
    rows, held = history.steps, history.evaluations["sample_loss"]
    smooth = series.smoothed(rows["loss"], 10)
    if len(smooth) < 20 or rows["epoch"][-1] < 1 or (held < share * begin).any():
        return None
    return series.place(rows, 0) if smooth.min() > share * begin and smooth[-1] < 1.3 * begin else None


def _flat(history: History, begin: float, level: float, evaluations: int) -> dict[str, Any] | None:
    """Return since when the loss of the training images has not fallen, high above its floor; None if it has."""
    rows = history.evaluations
    count = int((rows["epoch"] > rows["epoch"][-1:] - evaluations + 1e-6).sum())  # validations of the last epochs
    x, y = rows["epoch"][-count:], rows["sample_loss"][-count:]
    if count < evaluations or x[0] < 0.5 or x[-1] - x[0] < evaluations - 1.5 or not np.isfinite(y).all():
        return None
    _, low, high = series.trend(x, y, 1.3)
    working = rows["lr"][-1] >= 0.1 * np.nanmax(history.steps["lr"], initial=0) and series.progress(history) >= 0.5
    flat = low <= 0 <= high and level * begin < y.min() and y[-1] < 1.5 * begin
    return series.place(rows, len(rows["step"]) - count) if flat and working else None
