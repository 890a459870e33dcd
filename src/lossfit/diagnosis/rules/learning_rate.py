"""What a wrong learning rate does: the loss oscillates, hardly falls or stays where it is, updates are too large."""

from math import sqrt

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.layers import dead_units, exploding_gradients, vanishing_gradients
from lossfit.diagnosis.rules.loss import divergence
from lossfit.diagnosis.rules.series import number, percent
from lossfit.ranges import Between0And1, Count, From0To1, Positive, checked

NORMAL = 1.4826  # standard deviation of normal values over their median absolute value


@checked
def oscillation(
    history: History, *, flips: From0To1 = 0.6, amplitude: Positive = 0.15, sampling: Positive = 4.0, rows: Count = 20
) -> Finding | None:
    """The training loss jumps up and down by more than the random choice of batches explains.

    In the last `rows` rows at least the share `flips` of the changes is opposite to the one before, and the standard
    deviation around the course of the loss is above `amplitude` of its level and above `sampling` times what batches of
    this size give.
    """
    steps, facts = history.steps, history.facts
    loss = steps["loss"]
    if len(loss) < rows or not series.at_work(history)[-rows:].all() or not np.isfinite(loss[-rows:]).all():
        return None
    recent = loss[-rows:]
    changes = np.diff(recent)
    turned = float((changes[1:] * changes[:-1] < 0).mean())
    around = recent[1:-1] - (recent[2:] + recent[:-2]) / 2
    spread = NORMAL * float(np.median(np.abs(around))) / sqrt(1.5)
    level, start = float(np.median(recent)), abs(series.starting_loss(history))
    samples = max(1, (facts.get("every_n_steps") or 1) * (facts.get("batch_size") or 1))
    by_chance = sqrt(max(level, 0.0) * start / samples)
    if not (turned >= flips and spread > amplitude * level and spread > sampling * by_chance and level > 0):
        return None
    text = (
        f"train/loss jumps up and down by {number(spread)} around {number(level)} from one measurement to the next, at "
        f"lr {number(steps['lr'][-1])}"
    )
    evidence = {
        "deviation": spread,
        "level": level,
        "by_chance": by_chance,
        "flips": turned,
        "lr": float(steps["lr"][-1]),
    }
    return Finding(
        "oscillation", "warning", text, **series.place(steps, len(loss) - rows), evidence=evidence,
        series=("steps.loss", "steps.lr"),
    )  # fmt: skip


@checked
def lr_too_small(
    history: History,
    *,
    fall: Between0And1 = 0.01,
    path: Positive = 0.1,
    remaining: Between0And1 = 0.5,
    epochs: Positive = 1.0,
    steps: Count = 30,
) -> Finding | None:
    """The weights hardly move, and the loss hardly falls.

    path: the sum of the updates over all steps, relative to the weights, of the typical matrix or kernel. A run is slow
    if after `epochs` epochs and `steps` steps, most of them near the largest learning rate so far, the loss has fallen
    by less than `fall` of where it started and the path is below path / 10; or if at the end of the run the path is
    below `path` and the loss still above `remaining` of where it started.
    """
    rows = history.steps
    ratios, working = series.update_ratios(history), series.at_work(history)
    start = series.starting_loss(history)
    if not ratios.shape[1] or not np.isfinite(start) or len(rows["step"]) < 3 or history.facts.get("from_pretrained"):
        return None
    if vanishing_gradients(history) or dead_units(history):
        return None
    step, epoch, done = int(rows["step"][-1]), float(rows["epoch"][-1]), series.progress(history)
    typical = float(np.nan_to_num(series.medians(ratios, 1)).mean())
    width = min(10, max(3, len(rows["loss"]) // 4))
    level = series.median(rows["loss"][-width:])
    fallen = (start - level) / abs(start) if start else 0.0
    moved = typical * step
    validated = len(history.evaluations["step"]) or epoch >= 2 * epochs  # whether units are dead is known
    early = (
        validated
        and epoch >= epochs
        and step >= steps
        and working.mean() > 0.5
        and abs(fallen) < fall
        and moved < path / 10
    )
    late = done >= 0.9 and moved < path and level > remaining * start and fallen > -fall
    if not np.isfinite(moved) or not (early or late):
        return None
    text = (
        f"train/loss fell from {number(start)} to {number(level)} only in {step} steps: an update changes the weights "
        f"by {number(typical)} of their norm, at lr {number(np.nanmax(rows['lr']))}"
    )
    evidence = {
        "ratio": float(typical),
        "path": float(moved),
        "fall": float(fallen),
        "lr": float(np.nanmax(rows["lr"])),
    }
    return Finding(
        "lr_too_small", "warning", text, **series.place(rows, 0), evidence=evidence,
        series=("steps.loss", "steps.update", "steps.lr"),
    )  # fmt: skip


@checked
def plateau(
    history: History,
    *,
    start: Between0And1 = 0.97,
    level: Between0And1 = 0.6,
    evaluations: Count = 5,
    done: From0To1 = 0.3,
    path: Positive = 0.1,
) -> Finding | None:
    """The loss does not fall any more, far above where a trained model's is, and the learning rate is still high.

    Either it never left the starting loss: it was above `start` of it throughout, after a fraction `done` of the
    training; or over the last `evaluations` validations the interval of its slope includes 0, with the loss above
    `level` of the starting loss and the learning rate at least a tenth of the largest. A run whose gradients vanish,
    whose units are dead or whose updates are too small does not count: those findings name the cause.
    """
    begin = series.starting_loss(history)
    ratios = series.update_ratios(history)
    if not np.isfinite(begin) or begin <= 0 or not ratios.shape[1]:
        return None
    causes = (vanishing_gradients, exploding_gradients, dead_units, divergence, update_ratio)
    typical = float(np.nan_to_num(series.medians(ratios, 1)).mean())
    if any(rule(history) for rule in causes) or typical * (history.facts.get("total_steps") or 1) < path:
        return None
    evidence = {"start": begin, "ratio": float(typical), "lr": float(np.nanmax(history.steps["lr"]))}
    rows = history.steps
    smooth = series.smoothed(rows["loss"], 10)
    held = history.evaluations["sample_loss"]
    stuck = (
        len(smooth) >= 20
        and series.progress(history) >= done
        and rows["epoch"][-1] >= 1
        and smooth.min() > start * begin
        and smooth[-1] < 1.3 * begin
        and not (held < start * begin).any()
    )
    if stuck:
        text = (
            f"train/loss has stayed at {number(series.median(smooth[-10:]))}: answering 0 for all images gives "
            f"{number(begin)}, so nothing has been learned"
        )
        return Finding(
            "plateau", "warning", text, **series.place(rows, 0), evidence=evidence, series=("steps.loss", "steps.lr")
        )
    x, y = history.evaluations["epoch"], held
    lr = history.evaluations["lr"]
    if len(y) < evaluations or x[-1] - x[-evaluations] < evaluations - 1 or not np.isfinite(y[-evaluations:]).all():
        return None
    x, y = x[-evaluations:], y[-evaluations:]
    _, low, high = series.trend(x, y, 1.3)
    flat = (
        series.progress(history) >= 0.5
        and low <= 0 <= high
        and y.min() > level * begin
        and lr[-1] >= 0.1 * np.nanmax(rows["lr"], initial=0)
    )
    if not flat or y[-1] > 1.5 * begin:
        return None
    text = (
        f"the loss of the training images has stayed at {number(float(np.median(y)))} over {evaluations} validations, "
        f"{percent(float(np.median(y)) / begin)} of where it started"
    )
    return Finding(
        "plateau", "warning", text, **series.place(history.evaluations, len(held) - evaluations), evidence=evidence,
        series=("evaluations.sample_loss", "evaluations.lr"),
    )  # fmt: skip


@checked
def update_ratio(
    history: History, *, high: Positive = 3e-2, rows: Count = 20, level: Between0And1 = 0.3
) -> Finding | None:
    """Updates are so large, relative to the weights, that a step undoes what the steps before have learned.

    The median over the matrices and kernels, and over `rows` rows after the first ones, is above `high`, while the loss
    is still above `level` of where it started. Updates that are too small are the finding lr_too_small.
    """
    ratios, steps = series.update_ratios(history), history.steps
    start = series.starting_loss(history)
    if not ratios.shape[1] or len(ratios) < rows + 2 or not np.isfinite(start):
        return None
    typical = series.medians(ratios, 1)[2:]  # without the first steps, which adapt
    smooth = series.smoothed(np.where(np.isfinite(typical), typical, 0.0), rows)
    at = int(smooth.argmax())
    now = series.median(steps["loss"][-10:])
    if not (smooth[at] > high and now > level * start):
        return None
    per_layer = series.medians(ratios[at + 2 : at + 2 + rows], 0)
    largest = int(np.nanargmax(per_layer))
    name = series.module_of(history.facts["parameters"][series.matrices(history)[largest]])
    text = (
        f"an update changes the weights by {percent(float(smooth[at]))} of their norm, and those of {name} by "
        f"{percent(float(per_layer[largest]))}, at lr {number(steps['lr'][at + 1 + rows])}; 0.1% is usual"
    )
    evidence = {
        "ratio": float(smooth[at]),
        "module": name,
        "largest": float(per_layer[largest]),
        "lr": float(steps["lr"][at + 1 + rows]),
    }
    return Finding(
        "update_ratio",
        "warning",
        text,
        **series.place(steps, at + 2),
        evidence=evidence,
        series=("steps.update", "steps.lr"),
    )
