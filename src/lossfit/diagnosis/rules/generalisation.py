"""Training and validation against each other."""

from math import sqrt

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History, once
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.series import number, percent
from lossfit.ranges import Count, From0To1, NonNegative, Positive, checked


@once
@checked
def overfitting(
    history: History, *, rise: Positive = 0.05, sampling: NonNegative = 1.5, evaluations: Count = 3
) -> Finding | None:
    """The validation loss rises while the loss of the training images, measured in the same way, goes on falling.

    rise: by how much of its lowest value the validation loss must have risen, as the median of the last `evaluations`
    validations, all after the lowest one. Of few validation images it must rise by more: sampling / sqrt(n) is added
    in quadrature. Both losses are measured in eval mode, without augmentation, class weights or smoothing.
    """
    rows = history.evaluations
    val, train = rows["val_loss"], rows["sample_loss"]
    use = np.flatnonzero(np.isfinite(val) & np.isfinite(train))
    if len(use) <= evaluations:
        return None
    val, train = val[use], train[use]
    at = int(val.argmin())
    if len(val) - 1 - at < evaluations:
        return None
    best, start = val[at], series.starting_loss(history)
    recent, fitted = float(np.median(val[-evaluations:])), float(np.median(train[-evaluations:]))
    spread = abs(start - best) if np.isfinite(start) else abs(best)
    scale = best if best > 0 else spread
    jumps = float(np.median(np.abs(np.diff(val, 2)))) if len(val) > 2 else 0.0  # of a straight line 0
    limit = sqrt(rise**2 + sampling**2 / max(1, history.facts.get("val_samples") or 1))
    risen = recent - best > max(limit * scale, 0.01 * spread, jumps)
    falling = fitted < train[at] and recent - fitted > best - train[at]
    if not (risen and falling):
        return None
    text = (
        f"val/loss rose from {number(best)} to {number(recent)} while the loss of the training images fell from "
        f"{number(train[at])} to {number(fitted)}"
    )
    evidence = {
        "val_loss": [float(best), recent],
        "sample_loss": [float(train[at]), fitted],
        "best_epoch": float(rows["epoch"][use[at]]),
        "train_samples": history.facts.get("train_samples"),
        "augmented": history.facts.get("augmented"),
    }
    place = series.place(rows, int(use[at]))
    return Finding(
        "overfitting", "warning", text, **place, evidence=evidence,
        series=("evaluations.val_loss", "evaluations.sample_loss"),
    )  # fmt: skip


@once
@checked
def leak(history: History, *, share: From0To1 = 0.01) -> Finding | None:
    """Validation images are in the training split too, so that the validation is too good.

    share: of the validation images. A few equal images are in most data sets.
    """
    facts = history.facts
    found, total = facts.get("val_in_train"), facts.get("val_samples")
    if not found or not total or found / total <= share:
        return None
    text = f"{found} of {total} validation images ({percent(found / total)}) are in the training split too"
    evidence = {"images": found, "share": found / total}
    return Finding(
        "leak",
        "critical" if found / total > 0.1 else "warning",
        text,
        0.0,
        0,
        evidence,
        ("evaluations.val_score", "evaluations.sample_score"),
    )
