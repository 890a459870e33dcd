"""Margin losses: the true class's logit must lead by 1, and beyond that nothing is gained."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import Loss


class Hinge(Loss):
    """max(0, 1 - z_y + max_{j != y} z_j): the multi-class support-vector loss (Crammer and Singer, JMLR 2001).

    Only samples inside the margin have a gradient, so training attends to the hard ones and stops when all
    lead by 1. Robust scores, but no probabilities to speak of: when they matter, take cross-entropy. With
    two classes it is the binary hinge on the difference of the logits. Takes class indices only.
    """

    soft_targets = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: str | Sequence[float] | None = None,
    ) -> None:
        super().__init__(num_classes, class_counts, weights)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        true = (logits * target).sum(1)
        runner_up = logits.masked_fill(target.bool(), float("-inf")).amax(1)
        return F.relu(1 - true + runner_up)
