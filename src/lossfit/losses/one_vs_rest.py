"""Losses that ask of each class alone whether the image shows it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import Loss, Weights


class BinaryCrossEntropy(Loss):
    """sum_k -[q_k log s_k + (1 - q_k) log(1 - s_k)] with s = sigmoid(z): C yes-or-no questions (2110.00476).

    Summed over the classes, not averaged, so that learning rates for cross-entropy suit it. Takes labels
    that need not exclude each other, and an image of none of the classes can score low on all of them; its
    probabilities do not sum to 1. Starts slower than cross-entropy where the classes are many, since most
    answers are "no".
    """

    link = "sigmoid"

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)


class FocalBCE(Loss):
    """sum_k (1 - r_k)^gamma bce_k, r_k = q_k s_k + (1 - q_k)(1 - s_k): focal loss of yes-or-no questions (1708.02002).

    What focal loss was made for: of the C questions most have the answer "no" and are soon easy; they fade out,
    so that they do not drown the few that matter. gamma >= 0: the strength; 0 is bce. Summed over the classes.
    """

    link = "sigmoid"

    def __init__(self, num_classes: int, gamma: float = 2.0, **common: Any) -> None:
        super().__init__(num_classes, **common)
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma must be >= 0, got {gamma}")
        self.gamma = gamma

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # log(1 - r), in logarithms so that its gradient stays finite as r goes to 1
        log_missing = torch.logaddexp(torch.log1p(-target) + F.logsigmoid(logits), target.log() + F.logsigmoid(-logits))
        return (torch.exp(self.gamma * log_missing) * cross_entropy).sum(1)


class HingeOneVsRest(Loss):
    """sum_k max(0, 1 - t_k z_k), t = +1 for the true class and -1 for the others: C support-vector machines.

    Each class has a margin of its own around 0, so that an image of none of them can be refused. squared: take
    the square of each term, smoother and the usual choice for linear models. Takes class indices only. No
    probabilities to speak of; where only the best class matters, hinge leaves more room.
    """

    link = "sigmoid"
    soft_targets = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
        squared: bool = False,
    ) -> None:
        super().__init__(num_classes, class_counts, weights)
        self.squared = squared

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        values = F.relu(1 - (2 * target - 1) * logits)
        return (values.square() if self.squared else values).sum(1)
