"""Steps of a wrong size: updates too small to learn, or so large that each undoes what others have learned."""

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History, once
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.layers import dead_units, vanishing_gradients
from lossfit.diagnosis.rules.series import change, listed, number, percent
from lossfit.ranges import Between0And1, Count, From0To1, Positive, checked


@once
@checked
def lr_too_small(
    history: History,
    *,
    fall: Between0And1 = 0.01,
    path: Positive = 0.1,
    remaining: Between0And1 = 0.5,
    epochs: Positive = 1.0,
    steps: Count = 30,
    ended: From0To1 = 1e-3,
) -> Finding | None:
    """The weights hardly move, and the loss hardly falls.

    The path is the sum of the updates over all steps, relative to the weights, of the typical matrix or kernel. Found

    - if after `epochs` epochs and `steps` steps, most of them near the largest learning rate so far, the loss has
      fallen by less than `fall` of where it started, on a path below path / 10;
    - if at the end of the run the path is below `path`, and the loss above `remaining` of where it started;
    - if the learning rate has been below `ended` times its largest for more than half of the steps, and more than a
      quarter of the training, with the loss above 0.2 of where it started: the schedule has ended too early.

    Not with gradients that vanish or dead units, which are other findings, nor of a model with trained weights.
    """
    rows = history.steps
    ratios, start = series.update_ratios(history), series.starting_loss(history)
    if not ratios.shape[1] or not start > 0 or len(rows["step"]) < 3 or history.facts.get("from_pretrained"):
        return None
    step, epoch, done = int(rows["step"][-1]), float(rows["epoch"][-1]), series.progress(history)
    lr = np.nan_to_num(rows["lr"])
    typical = series.mean_update(ratios)
    first_loss, level = _losses(history, start)
    fallen, moved = (first_loss - level) / start, typical * step
    validated = len(history.evaluations["step"]) or epoch >= 2 * epochs  # whether units are dead is known
    working = series.at_work(history).mean() > 0.5
    early = validated and epoch >= epochs and step >= steps and working and fallen < fall and moved < path / 10
    late = done >= 0.9 and moved < path and level > remaining * start
    low = lr < ended * lr.max()
    over = bool(validated and low[-1] and low.mean() > max(0.5, 0.25 / max(done, 1e-9)) and level > 0.2 * start)
    if not (early or late or over) or vanishing_gradients(history) or dead_units(history):
        return None
    evidence = {"ratio": typical, "path": moved, "fall": fallen, "lr": float(lr.max()), "ended": over}
    if over:
        first = int(np.flatnonzero(low)[0]) if not low[0] else series.since(low)
        text = (
            f"the lr has been below {number(ended * float(lr.max()))} since step {int(rows['step'][first])} of "
            f"{history.facts.get('total_steps')}, and the loss is still {number(level)}: the schedule ends too early"
        )
    else:
        first = 0
        text = (
            f"the loss of the training images went {change(first_loss, level)} in {step} steps: an "
            f"update changes the weights by {number(typical)} of their norm, at lr {number(float(lr.max()))}"
        )
    return Finding(
        "lr_too_small", "warning", text, **series.place(rows, first), evidence=evidence,
        series=("evaluations.sample_loss", "steps.update", "steps.lr"),
    )  # fmt: skip


@once
@checked
def update_ratio(
    history: History,
    *,
    high: Positive = 5e-2,
    path: Positive = 0.1,
    apart: Positive = 30.0,
    rows: Count = 8,
    level: Between0And1 = 0.4,
    after: Count = 50,
) -> Finding | None:
    """Updates have the wrong size relative to the weights: in all layers too large, or in some much too small.

    Too large: the median over the matrices and kernels, and over `rows` rows after the first ones, is above `high`, and
    training and validation loss are still above `level` of where it started after `after` steps. Too small: at this
    rate, most layers move by less than `path` of their norm in the whole training, while another layer moves `apart`
    times as much; updates that are too small in all layers are the finding lr_too_small. 0.001 is usual.
    """
    ratios, steps = series.update_ratios(history), history.steps
    start = series.starting_loss(history)
    if not ratios.shape[1] or len(ratios) < rows + 2 or not np.isfinite(start):
        return None
    names = [series.module_of(history.facts["parameters"][i]) for i in series.matrices(history)]
    typical = series.medians(ratios, 1)[2:]  # without the first steps, which adapt
    smooth = series.smoothed(np.where(np.isfinite(typical), typical, 0.0), rows)
    at = int(smooth.argmax())
    reached = min([series.median(steps["loss"][-10:]), *history.evaluations["val_loss"][-1:]])
    if steps["step"][-1] >= after and smooth[at] > high and reached > level * start:
        layers = np.nan_to_num(series.medians(ratios[at + 2 : at + 2 + rows], 0))
        largest, lr = int(layers.argmax()), float(steps["lr"][at + 1 + rows])
        text = (
            f"an update changes the weights by {percent(float(smooth[at]))} of their norm, those of module "
            f"{names[largest]} by {percent(float(layers[largest]))}, at lr {number(lr)}; 0.1% is usual"
        )
        evidence = {"ratio": float(smooth[at]), "module": names[largest], "largest": float(layers[largest]), "lr": lr}
        return _wrong_size(text, history, at + 2, evidence)
    layers = np.nan_to_num(ratios).mean(axis=0)
    small = np.flatnonzero(layers * (history.facts.get("total_steps") or 1) < path)
    enough = len(history.evaluations["step"]) and series.progress(history) >= 0.3
    if not enough or history.facts.get("from_pretrained") or len(small) < 2 or 2 * len(small) < len(layers):
        return None
    usual = series.median(layers[small])
    if not layers.max() > apart * usual or vanishing_gradients(history) or dead_units(history):
        return None
    text = (
        f"an update changes the weights of module {listed([names[i] for i in small])} by {number(usual)} of their "
        f"norm, those of module {names[int(layers.argmax())]} by {number(float(layers.max()))}: they hardly learn"
    )
    evidence = {"ratio": usual, "modules": [names[i] for i in small], "small": True}
    return _wrong_size(text, history, 0, evidence)


def _losses(history: History, start: float) -> tuple[float, float]:
    """Return the loss of the untrained model and the last one, of the same training images in eval mode if known."""
    first, known = history.facts.get("first_loss"), history.evaluations["sample_loss"]
    rows = history.steps["loss"]
    level = float(known[-1]) if len(known) and np.isfinite(known[-1]) else series.median(rows[-10:])
    return float(first) if first is not None and np.isfinite(first) else start, level


def _wrong_size(text: str, history: History, row: int, evidence: dict[str, object]) -> Finding:
    place = series.place(history.steps, row)
    return Finding("update_ratio", "warning", text, **place, evidence=evidence, series=("steps.update", "steps.lr"))
