"""The classes of a classification: classes that are never predicted, and probabilities that do not hold."""

from math import sqrt

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History, once
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.learning_rate import lr_too_small, update_ratio
from lossfit.diagnosis.rules.series import listed, number, percent
from lossfit.ranges import Between0And1, Count, From0To1, NonNegative, Positive, checked


@once
@checked
def class_collapse(
    history: History,
    *,
    recall: From0To1 = 0.05,
    others: From0To1 = 0.7,
    evaluations: Count = 2,
    images: Count = 20,
    done: From0To1 = 0.9,
) -> Finding | None:
    """The model has learned, and hardly ever recognises some classes.

    In the last `evaluations` validations the recall of a class was below `recall`. The model has learned if the median
    recall of all classes is above `others`, or if the loss has fallen to less than half of where it started: a loss
    that falls while most classes are lost does not measure what it should. Not with fewer than `images` validation
    images for each class on average, nor before the fraction `done` of the training, unless the class has no training
    image.
    """
    facts, rows = history.facts, history.evaluations
    names, recalls = facts.get("names") or [], rows["recall"]
    if recalls.ndim != 2 or recalls.shape[1] < 2 or len(recalls) < evaluations:
        return None
    if (facts.get("val_samples") or 0) / recalls.shape[1] < images:
        return None
    recent = recalls[-evaluations:]
    typical = series.median(recent[-1])
    lost = np.flatnonzero((np.nan_to_num(recent, nan=1.0) < recall).all(axis=0))
    share = facts.get("class_share") or []
    absent = [names[i] for i in lost if share and share[i] == 0]
    learned = typical > others or _learned(history)
    if not len(lost) or not learned or (series.validated(history) < done and not absent):
        return None
    rare = bool(share) and all(share[i] < 0.5 / len(share) for i in lost)
    told = [f"{names[i]} ({percent(float(recent[-1][i]))})" for i in lost]
    why = f"; no training image is of {listed(absent)}" if absent else ""
    most = f", that of most classes {percent(typical)}" if typical > others else ""
    text = f"the recall of {listed(told)} on the validation images is near 0{most}{why}"
    evidence = {
        "classes": {names[i]: float(recent[-1][i]) for i in lost},
        "absent": absent,
        "rare": rare,
        "predicted_share": {names[i]: float(rows["predicted_share"][-1][i]) for i in lost},
    }
    row = series.since(series.always((np.nan_to_num(recalls[:, lost], nan=1.0) < recall).T))
    return Finding(
        "class_collapse", "warning", text, **series.place(rows, min(row, len(recalls) - 1)), evidence=evidence,
        series=("evaluations.recall", "evaluations.predicted_share"),
    )  # fmt: skip


@once
@checked
def miscalibration(
    history: History,
    *,
    excess: Positive = 0.03,
    unsure: Positive = 0.2,
    deviations: NonNegative = 2.0,
    done: Between0And1 = 0.9,
) -> Finding | None:
    """The probabilities of the model do not hold: of the images with confidence 0.9, not nine of ten are right.

    The expected calibration error of the validation, in 15 bins, is above that of a model whose probabilities hold, on
    as many images, by `excess` and `deviations` standard deviations; by `unsure` in place of `excess` if the model is
    less confident than right, as one is that still learns or whose weights are averaged. Looked at when the fraction
    `done` of the training is over.
    """
    bins = history.evaluations["bins"]
    if bins.ndim != 2 or not bins.size or series.validated(history) < done:
        return None
    if not _learned(history):
        return None
    count, confidence, right = bins[-1].reshape(-1, 3).T
    if not np.isfinite(bins[-1]).all() or count.sum() < 1:
        return None
    error, floor, spread = calibration_error(count, confidence, right)
    total = count.sum()
    mean, accuracy = float(confidence.sum() / total), float(right.sum() / total)
    if error <= floor + max(excess if mean > accuracy else unsure, deviations * spread):
        return None
    if mean < accuracy and any(rule(history) for rule in (lr_too_small, update_ratio)):
        return None  # it has not learned yet to be sure
    how = "high" if mean > accuracy else "low"
    text = (
        f"the probabilities after epoch {history.evaluations['epoch'][-1]:.0f} are too {how}: on the validation images "
        f"their mean for the predicted class is {number(mean)}, the accuracy {number(accuracy)}, and the calibration "
        f"error {number(error)}, where right probabilities have {number(floor)} by chance"
    )
    evidence = {"ece": error, "by_chance": floor, "confidence": mean, "accuracy": accuracy}
    return Finding(
        "miscalibration", "note", text, **series.place(history.evaluations, len(bins) - 1), evidence=evidence,
        series=("evaluations.bins",),
    )  # fmt: skip


def _learned(history: History, level: float = 0.45) -> bool:
    """Whether the loss of the training images is below this share of the starting loss."""
    losses, start = history.evaluations["sample_loss"], series.starting_loss(history)
    return bool(len(losses) and losses[-1] < level * abs(start))


def calibration_error(count: np.ndarray, confidence: np.ndarray, right: np.ndarray) -> tuple[float, float, float]:
    """Return the ECE of bins, and its mean and standard deviation if the probabilities hold.

    count, confidence, right: of each bin the samples, the sum of their confidences and how many are right. Then `right`
    is binomial with the mean confidence of the bin.
    """
    total, error, floor, variance = count.sum(), 0.0, 0.0, 0.0
    for n, sum_confidence, hits in zip(count, confidence, right, strict=True):
        if n < 1:
            continue
        p = min(1.0, sum_confidence / n)
        usual = series.mean_deviation(int(n), p)
        error += abs(hits - sum_confidence) / total
        floor += n / total * usual
        variance += (n / total) ** 2 * max(0.0, p * (1 - p) / n - usual**2)
    return float(error), float(floor), sqrt(variance)
