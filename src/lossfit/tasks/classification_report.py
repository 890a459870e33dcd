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
    bins = calibration(p.amax(1), correct)
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
        "ece": float32_digits(sum(b["count"] * abs(b["acc"] - b["confidence"]) for b in bins if b["count"]) / count),
        "classes": per_class(confusion, names),
        "calibration": bins,
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


def calibration(confidence: Tensor, correct: Tensor) -> list[dict[str, Any]]:
    """Return count, mean confidence and accuracy in each bin; confidence and correct are (N,)."""
    bin_of = (confidence * BINS).long().clamp(max=BINS - 1)
    found = []
    for k in range(BINS):
        inside = bin_of == k
        some = bool(inside.any())
        found.append(
            {
                "from": float32_digits(k / BINS),
                "to": float32_digits((k + 1) / BINS),
                "count": int(inside.sum()),
                "confidence": float32_digits(confidence[inside].mean().item()) if some else None,
                "acc": float32_digits(correct[inside].double().mean().item()) if some else None,
            }
        )
    return found


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Return counts (C, C), rows the true class, columns the predicted one, of labels and predictions (N,) each."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)
