"""Wrong labels: training samples that the model contradicts with confidence, in all validations on average."""

from collections.abc import Mapping
from math import sqrt
from typing import Annotated, Any

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History, once
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.layers import dead_units, exploding_gradients
from lossfit.diagnosis.rules.learning_rate import update_ratio
from lossfit.diagnosis.rules.loss import divergence, wrong_start
from lossfit.diagnosis.rules.series import number, percent
from lossfit.ranges import Between0And1, From0To1, Positive, at_least, checked

UNSTABLE = (wrong_start, divergence, exploding_gradients, dead_units, update_ratio)
SAMPLE = 256  # the training images that are evaluated are at least so many, or all
CLEAREST = 19  # of the 21 quantiles of the margins: the 95% one, that of samples which are clearly right


@once
@checked
def label_noise(
    history: History,
    *,
    share: Between0And1 = 0.25,
    margin: Between0And1 = 0.5,
    learned: Between0And1 = 0.25,
    gap: Between0And1 = 0.05,
    deviations: Positive = 4.0,
    error: Positive = 4.0,
    wild: Between0And1 = 0.03,
    evaluations: Annotated[int, at_least(2)] = 3,
    done: From0To1 = 0.4,
) -> Finding | None:
    """Many training labels look wrong: the model contradicts them, and is as sure as of the right ones.

    The margin of a sample is the probability of its label minus the largest other one, on average over all validations
    so far (area under the margin, 2001.10528): a hard sample's is near 0, a wrong label's far below. Found if more than
    `share` of a sample of the training images is below -margin times what the clearest 5% reach, which must be
    `learned` at least; or if the training images, without augmentation, are classified worse than the validation images
    by `gap` and by `deviations` standard errors in two validations in a row. For values: if more than `wild` of the
    targets are off by more than `error` standard deviations of the targets and six times the typical error. Margins are
    not judged before the fraction `done` of the training.
    """
    rows, facts = history.evaluations, history.facts
    margins = rows["margins"]
    if margins.ndim != 2 or margins.shape[1] != 21 or len(margins) < evaluations or not np.isfinite(margins[-1]).all():
        return None
    quantiles, values = margins[-1], facts.get("task") == "regression"
    limit = min(-error, 6 * quantiles[10]) if values else -margin * quantiles[CLEAREST]
    wrong = _share_below(quantiles, limit)
    if not values and (quantiles[CLEAREST] < learned or not _sure_with_reason(history)):
        wrong = 0.0
    if series.validated(history) < done or wrong <= (wild if values else share):
        wrong = 0.0
    train, val = rows["sample_score"][-1], rows["val_score"][-1]
    missing = min(_missing(rows["sample_score"][i], rows["val_score"][i], facts, gap, deviations) for i in (-2, -1))
    if not wrong and not missing:
        return None
    found = max(wrong, missing)
    if values:
        text = f"at least {percent(found)} of the training targets are off by over {number(-limit)} standard deviations"
    else:
        text = f"at least {percent(found)} of the training labels look wrong: the model contradicts them, and is sure"
    if missing:
        text += f"; it is right on {percent(val)} of the validation images and {percent(train)} of the training images"
    if suspects := facts.get("suspects"):
        text += f"; scripts/diagnose.py lists {len(suspects)} of them"
    evidence = {"share": float(found), "below": float(limit), "suspects": list(suspects or ())[:10]}
    return Finding(
        "label_noise", "warning", text, **series.place(rows, len(margins) - 1), evidence=evidence,
        series=("evaluations.margins", "evaluations.sample_score", "evaluations.val_score"),
    )  # fmt: skip


def _sure_with_reason(history: History) -> bool:
    """Whether the model has learned, is stable, and is about as confident as it is right on the validation images."""
    loss, bins = history.evaluations["sample_loss"], history.evaluations["bins"]
    if not loss[-1] < min(0.97 * series.starting_loss(history), 1.1 * loss.min()) or bins.ndim != 2:
        return False
    count, confidence, right = bins[-1].reshape(-1, 3).sum(axis=0)
    return bool(confidence < right + 0.1 * count) and not any(rule(history) for rule in UNSTABLE)


def _missing(train: float, val: float, facts: Mapping[str, Any], gap: float, deviations: float) -> float:
    """Return how much worse training images are classified than validation images, as a share; 0 if by chance."""
    if facts.get("headline") != "val/acc" or not 1 >= val > train + gap >= gap:
        return 0.0
    sizes = [max(1, facts.get(name) or 1) for name in ("train_samples", "val_samples")]
    both = (train + val) / 2
    by_chance = sqrt(both * (1 - both) * (1 / min(SAMPLE, sizes[0]) + 1 / sizes[1]))
    return float(1 - train / val) if val - train > deviations * by_chance else 0.0


def _share_below(quantiles: np.ndarray, limit: float) -> float:
    """Return the share of samples below a limit, of which every 20th quantile is known."""
    if limit <= quantiles[0]:
        return 0.0
    return float(np.interp(limit, quantiles, np.linspace(0, 1, len(quantiles))))
