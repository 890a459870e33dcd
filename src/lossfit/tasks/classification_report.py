"""The report of a classifier on a split: metrics with 95% intervals, metrics of each class, calibration, confusion."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lossfit.decisions import probabilities
from lossfit.plain_values import float32_digits
from lossfit.tasks.intervals import mean, proportion

BINS = 15  # of equal width, for confidences from 0 to 1


def measure(
    logits: Tensor, labels: Tensor, names: Sequence[str], link: str, costs: Tensor | None, decided: Tensor | None
) -> dict[str, Any]:
    """Return the metrics of logits (V, N, C); the probabilities of several views are averaged.

    costs: (C, C) or None. decided: the decisions (N,); None to take the cheapest by the averaged probabilities.

    acc, nll, brier (the squared distance between probabilities and one-hot label, 0 to 2) and, with costs, cost and
    cost_argmax each have value, low and high. nll is that of softmax whatever the loss, as in a run's metrics. ece is
    the expected calibration error, the mean of |confidence - accuracy| over 15 bins of equal width. classes has
    recall, precision, F1 and support of each class; confusion has counts (C, C), rows the true class, columns the
    predicted one.
    """
    views, count, num_classes = logits.shape
    p = torch.stack([probabilities(view, link) for view in logits.double()]).mean(0)
    likeliest = (logits[0] if views == 1 else p).argmax(1)
    log_likelihood = logits.double().log_softmax(2).logsumexp(0) - math.log(views)
    correct = likeliest == labels
    one_hot = torch.nn.functional.one_hot(labels, num_classes)
    confusion = confusion_matrix(labels, likeliest, num_classes)
    bins = calibration_sums(p.amax(1), correct)
    found: dict[str, Any] = {
        "samples": count,
        "acc": proportion(int(correct.sum()), count),
        "nll": mean(-log_likelihood.gather(1, labels[:, None])),
        "brier": mean((p - one_hot).square().sum(1)),
    }
    if costs is not None:
        cheapest = decided if decided is not None else (p.float() @ costs).argmin(1)
        found |= {"cost": mean(costs[labels, cheapest]), "cost_argmax": mean(costs[labels, likeliest])}
    return found | {
        "ece": calibration_error(bins),
        "classes": per_class(confusion, names),
        "calibration": calibration(bins),
        "confusion": confusion.tolist(),
    }


def per_class(confusion: Tensor, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return recall, precision, F1 and support of each class; None where the denominator is 0."""
    found = {}
    for k, name in enumerate(names):
        hits, support, predicted = (int(n) for n in (confusion[k, k], confusion[k].sum(), confusion[:, k].sum()))
        found[name] = {
            "recall": proportion(hits, support),
            "precision": proportion(hits, predicted),
            "f1": float32_digits(2 * hits / (support + predicted)) if support + predicted else None,
            "support": support,
        }
    return found


def calibration_sums(confidence: Tensor, correct: Tensor) -> Tensor:
    """Return of each bin the count, the sum of the confidence and the number correct (BINS, 3), of (N,) and (N,) bool.

    Sums of the same bins may be added. Waits for no device, and gives the same bits each time.
    """
    bin_of = (confidence * BINS).long().clamp(0, BINS - 1)
    values = torch.stack([torch.ones_like(confidence), confidence, correct.to(confidence)], 1)
    return (torch.nn.functional.one_hot(bin_of, BINS)[:, :, None] * values[:, None, :]).sum(0)


def calibration(sums: Tensor) -> list[dict[str, Any]]:
    """Return count, mean confidence and accuracy of each bin, by `calibration_sums`; None for those of an empty one."""
    return [
        {
            "from": float32_digits(k / BINS),
            "to": float32_digits((k + 1) / BINS),
            "count": int(count),
            "confidence": float32_digits(confidence / count) if count else None,
            "acc": float32_digits(correct / count) if count else None,
        }
        for k, (count, confidence, correct) in enumerate(sums.tolist())
    ]


def calibration_error(sums: Tensor) -> float:
    """Return the expected calibration error, the mean of |confidence - accuracy| over the samples of all bins."""
    return float32_digits(((sums[:, 1] - sums[:, 2]).abs().sum() / sums[:, 0].sum()).item())


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Return counts (C, C), rows the true class, columns the predicted one, of labels and predictions (N,) each."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)
