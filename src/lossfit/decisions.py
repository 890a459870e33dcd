"""Costs of mistakes: from class names in a config to a matrix, and from probabilities to the cheapest decision."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lossfit.errors import did_you_mean


def cost_matrix(costs: Mapping[str, Mapping[str, float]], class_names: Sequence[str]) -> list[list[float]] | None:
    """Return C[true][predicted]: 0 on the diagonal, elsewhere the given cost or 1; None if no costs are given.

    costs: true class -> predicted class -> cost >= 0.
    """
    if not costs:
        return None
    known = list(class_names)
    matrix = [[float(row != column) for column in range(len(known))] for row in range(len(known))]
    for true, row in costs.items():
        if true not in known:
            raise ValueError(f"{true} is no class{did_you_mean(true, known)}")
        if not isinstance(row, Mapping):
            raise ValueError(f"{true} must map predicted classes to costs, got {row!r}")
        for predicted, cost in row.items():
            if predicted not in known:
                raise ValueError(f"{true}.{predicted} is no class{did_you_mean(predicted, known)}")
            number = isinstance(cost, (int, float)) and not isinstance(cost, bool)
            if not number or not 0 <= cost < float("inf"):
                raise ValueError(f"{true}.{predicted} must be a cost >= 0, got {cost!r}")
            if true == predicted and cost:
                raise ValueError(f"{true}.{predicted} must be 0, since it is no mistake, got {cost}")
            matrix[known.index(true)][known.index(predicted)] = float(cost)
    return matrix


def probabilities(logits: Tensor, link: str) -> Tensor:
    """Return (N, C) probabilities that sum to 1; with the sigmoid link, each class's sigmoid over their sum."""
    if link == "softmax":
        return logits.float().softmax(1)
    log_p = torch.nn.functional.logsigmoid(logits.float())
    return log_p.softmax(1)  # sigmoid(z) / sum of sigmoid(z)


def log_probabilities(logits: Tensor, link: str) -> Tensor:
    """Return the logarithms (N, C) of `probabilities`, finite where those are rounded to 0."""
    scores = logits if link == "softmax" else torch.nn.functional.logsigmoid(logits)
    return scores.log_softmax(1)


def averaged(logits: Tensor, link: str) -> Tensor:
    """Return logits (N, C) whose probabilities are the mean of those of logits (V, N, C)."""
    log_p = torch.stack([log_probabilities(view.float(), link) for view in logits]).logsumexp(0) - math.log(len(logits))
    return log_p if link == "softmax" else log_p - torch.log1p(-log_p.exp().clamp(max=1 - 1e-7))


def cheapest(logits: Tensor, link: str, costs: Tensor) -> Tensor:
    """Return the decisions (N,) with the least expected cost, argmin_k (p C)_k."""
    return (probabilities(logits, link) @ costs).argmin(1)
