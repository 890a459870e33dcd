"""The loss itself: where it starts, whether it stays finite, whether it runs away."""

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History, once
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.series import number
from lossfit.ranges import Count, Positive, checked


@once
@checked
def wrong_start(history: History, *, excess: Positive = 0.7) -> Finding | None:
    """The untrained model's loss is far above that of outputs that are all zero, which say nothing.

    Cross-entropy starts at ln K: a model that starts higher is sure of random answers, and the first steps are spent on
    unlearning them. excess: how far above, as a share. Both the loss of the untrained model in eval mode and the first
    training losses must be, since batch norms work in training only. A model with trained weights is not looked at.
    """
    facts, steps = history.facts, history.steps
    first, constant = facts.get("first_loss"), facts.get("constant_loss")
    if facts.get("from_pretrained") or first is None or constant is None or not len(steps["loss_max"]):
        return None
    limit = constant + excess * abs(constant)
    trained = steps["loss_max"][0]  # in training mode
    if not (first > limit and (trained > limit or np.isnan(trained))):
        return None
    text = (
        f"the loss of the untrained model is {number(first)}, and {number(constant)} if it answers 0 everywhere: its "
        f"weights, or the pixels that it gets, are too large"
    )
    return Finding(
        "wrong_start", "warning", text, 0.0, 0, {"first_loss": first, "constant_loss": constant}, ("steps.loss",)
    )


@once
@checked
def non_finite(history: History) -> Finding | None:
    """The loss, a gradient or a weight became NaN or infinite, which ends the run."""
    found = history.facts.get("non_finite")
    if not found:
        return None
    epoch = float(found.get("epoch") or 0)
    batch = f" (batch {found['batch']} of its epoch)" if found.get("batch") else ""
    text = f"{found['what']}{batch}" + (f": {found['where']}" if found.get("where") else "")
    evidence = {**found, "lr": _last(history.steps["lr"]), "grad_norm": _last(history.steps["grad_norm"])}
    return Finding(
        "non_finite", "critical", text, epoch, int(found["step"]), evidence, ("steps.loss", "steps.grad_norm")
    )


@once
@checked
def divergence(
    history: History,
    *,
    from_best: Positive = 3.0,
    from_start: Positive = 2.0,
    least: Positive = 0.25,
    rows: Count = 8,
) -> Finding | None:
    """The training loss left the level that it had reached, and does not come back.

    The median of the last `rows` rows is above from_best times the lowest such median and at least `least` starting
    losses above it, or above from_start times the starting loss, or back at the starting loss after it was below 0.6
    times it. The starting loss is that of outputs that are all zero.
    """
    loss = history.steps["loss"]
    levels = series.smoothed(loss, rows)
    levels = levels[np.isfinite(levels)]
    start = series.starting_loss(history)
    if not len(levels) or not np.isfinite(start):
        return None
    first = history.facts.get("first_loss")
    top = max(start, first if first is not None and np.isfinite(first) else start)
    scale = abs(start)
    now, best, at = levels[-1], levels.min(), int(levels.argmin())
    rose = now - best > least * scale and now > from_best * best and now > 0
    left = now > top + (from_start - 1) * abs(top) and now > loss[0]
    back = best < 0.6 * start and now > 0.95 * start and start > 0
    if not (rose or left or back):
        return None
    since = at if rose or back else 0
    low = best if rose or back else top
    lr = float(np.nanmax(history.steps["lr"]))
    text = f"train/loss rose from {number(low)} to {number(now)}, at an lr up to {number(lr)}"
    evidence = {
        "lowest": float(best),
        "now": float(now),
        "start": float(start),
        "lr": lr,
        "grad_norm": series.median(history.steps["grad_norm"][:rows]),
    }
    place = series.place(history.steps, min(since + rows - 1, len(loss) - 1))
    return Finding("divergence", "critical", text, **place, evidence=evidence, series=("steps.loss", "steps.lr"))


def _last(values: np.ndarray) -> float:
    return float(values[-1]) if len(values) else float("nan")
