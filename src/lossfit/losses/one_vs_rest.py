"""Losses that ask of each class alone whether the image shows it."""

import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import Loss


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
