"""One-vs-rest losses: one yes/no question per class."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import HardLabelLoss, Loss
from lossfit.ranges import NonNegative, checked


class BinaryCrossEntropy(Loss):
    """sum_k -[q_k log s_k + (1 - q_k) log(1 - s_k)] with s = sigmoid(z): C yes/no questions (2110.00476).

    Summed over the classes, not averaged, so that learning rates for cross-entropy suit it. Suits labels that
    do not exclude each other, and an image of none of the classes can score low on all of them; its
    probabilities do not sum to 1. Starts slower than cross-entropy with many classes, since most answers are
    "no".
    """

    link = "sigmoid"

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)


class FocalBCE(Loss):
    """sum_k (1 - r_k)^gamma bce_k, r_k = q_k s_k + (1 - q_k)(1 - s_k): focal loss of yes/no questions (1708.02002).

    The original form of focal loss: most of the C questions have the answer "no" and are soon easy; they count for
    less, so that they do not outweigh the few that matter. gamma >= 0: the strength; 0 is bce. Summed over the
    classes.
    """

    link = "sigmoid"

    @checked
    def __init__(self, num_classes: int, gamma: NonNegative = 2.0, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.gamma = gamma

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # log(1 - r), in logarithms so that its gradient stays finite as r goes to 1
        log_missing = torch.logaddexp(torch.log1p(-target) + F.logsigmoid(logits), target.log() + F.logsigmoid(-logits))
        return (torch.exp(self.gamma * log_missing) * cross_entropy).sum(1)


class HingeOneVsRest(HardLabelLoss):
    """sum_k max(0, 1 - t_k z_k), t = +1 for the true class and -1 for the others: C support-vector machines.

    Each class has its own margin around 0, so that an image of none of the classes can be rejected. squared: take
    the square of each term, smoother and the usual choice for linear models. Takes class indices only. The
    probabilities are poor; where only the best class matters, hinge constrains the logits less.
    """

    link = "sigmoid"

    def __init__(self, num_classes: int, squared: bool = False, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.squared = squared

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        values = F.relu(1 - (2 * target - 1) * logits)
        return (values.square() if self.squared else values).sum(1)
