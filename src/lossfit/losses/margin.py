"""Margin losses: the true class's logit must lead by 1, and beyond that nothing is gained."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import Loss, Weights


class Hinge(Loss):
    """max(0, 1 - z_y + max_{j != y} z_j): the multi-class support-vector loss (Crammer and Singer, JMLR 2001).

    Only samples inside the margin have a gradient, so training attends to the hard ones and stops when all
    lead by 1. Robust scores, but no probabilities to speak of: when they matter, take cross-entropy. With two
    classes it is the binary hinge on the difference of the logits. Takes class indices only.
    """

    soft_targets = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
    ) -> None:
        super().__init__(num_classes, class_counts, weights)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        true = (logits * target).sum(1)
        runner_up = logits.masked_fill(target.bool(), float("-inf")).amax(1)
        return F.relu(1 - true + runner_up)


class MultiMargin(Loss):
    """sum_{j != y} max(0, 1 - z_y + z_j)^p: every rival within 1 of the true class pays (Weston and Watkins 1998).

    Hinge counts the strongest rival alone; this counts all of them, which gives more gradient at the start and
    a larger value for more classes. p: 1, or 2 for a smooth form that weighs large violations more. Takes class
    indices only.
    """

    soft_targets = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
        p: int = 1,
    ) -> None:
        super().__init__(num_classes, class_counts, weights)
        if p not in (1, 2):
            raise ValueError(f"p must be 1 or 2, got {p}")
        self.p = p

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        true = (logits * target).sum(1, keepdim=True)
        return (F.relu(1 - true + logits) ** self.p * (1 - target)).sum(1)
