"""Wrong labels: training samples that the model contradicts with confidence, in all validations on average."""

from math import sqrt

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.series import number, percent
from lossfit.ranges import Between0And1, Count, From0To1, Positive, checked

CLEAREST = 19  # of the 21 quantiles of the margins: the 95% one, that of samples which are clearly right


@checked
def label_noise(
    history: History,
    *,
    share: Between0And1 = 0.12,
    margin: Between0And1 = 0.5,
    learned: Between0And1 = 0.25,
    gap: Between0And1 = 0.05,
    deviations: Positive = 3.5,
    error: Positive = 4.0,
    evaluations: Count = 3,
    done: From0To1 = 0.4,
) -> Finding | None:
    """Many training labels look wrong: the model contradicts them, and is as sure as of the right ones.

    The margin of a sample is the probability of its label minus the largest other one, on average over all validations
    so far (area under the margin, 2001.10528): a hard sample's is near 0, a wrong label's far below. Found if more than
    `share` of a sample of the training images is below -margin times what the clearest 5% reach, which must be
    `learned` at least; or if the training images, without augmentation, are classified worse than the validation images
    by `gap` and by `deviations` standard errors. For values: if more than `share` of the targets are off by more than
    `error` standard deviations of the targets and ten times the typical error. Not before the fraction `done` of the
    training.
    """
    rows, facts = history.evaluations, history.facts
    margins = rows["margins"]
    if margins.ndim != 2 or margins.shape[1] != 21 or len(margins) < evaluations or not np.isfinite(margins[-1]).all():
        return None
    if series.progress(history) < done:
        return None
    quantiles = margins[-1]
    if facts.get("task") == "regression":
        limit = min(-error, 10 * quantiles[10])
    elif quantiles[CLEAREST] < learned:
        return None
    else:
        limit = -margin * quantiles[CLEAREST]
    wrong = _share_below(quantiles, limit)
    train, val = rows["sample_score"][-1], rows["val_score"][-1]
    missing = 0.0
    if facts.get("headline") == "val/acc" and val > train + gap:
        samples = [max(1, facts.get(name) or 1) for name in ("train_samples", "val_samples")]
        by_chance = sqrt(val * (1 - val) * (1 / min(SAMPLE, samples[0]) + 1 / samples[1]))
        missing = 1 - train / val if val - train > deviations * by_chance else 0.0
    if max(wrong if wrong > share else 0.0, missing) <= 0:
        return None
    found = max(wrong, missing)
    if facts.get("task") == "regression":
        text = f"at least {percent(found)} of the training targets are off by over {number(-limit)} standard deviations"
    else:
        text = f"at least {percent(found)} of the training labels look wrong: the model contradicts them, and is sure"
    if missing:
        text += f"; it is right on {percent(float(val))} of the validation images and {percent(float(train))} of these"
    evidence = {"share": float(found), "below": float(limit), "suspects": list(facts.get("suspects") or ())[:10]}
    return Finding(
        "label_noise", "warning", text, **series.place(rows, len(margins) - 1), evidence=evidence,
        series=("evaluations.margins", "evaluations.sample_score", "evaluations.val_score"),
    )  # fmt: skip


SAMPLE = 256  # the training images that are evaluated are at least so many


def _share_below(quantiles: np.ndarray, limit: float) -> float:
    """Return the share of samples below a limit, of which every 20th quantile is known."""
    if limit <= quantiles[0]:
        return 0.0
    return float(np.interp(limit, quantiles, np.linspace(0, 1, len(quantiles))))
