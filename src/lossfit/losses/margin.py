"""Margin losses: the true class's logit must lead by 1; a larger lead does not lower the loss."""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import HardLabelLoss
from lossfit.ranges import checked


class Hinge(HardLabelLoss):
    """max(0, 1 - z_y + max_{j != y} z_j): the multi-class support-vector loss (Crammer and Singer, JMLR 2001).

    Only samples inside the margin have a gradient, so training concentrates on the hard ones and stops when all
    lead by 1. The scores are robust, but the probabilities are poor: where they matter, use cross-entropy. With two
    classes it is the binary hinge on the difference of the logits. Takes class indices only.
    """

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        true = (logits * target).sum(1)
        runner_up = logits.masked_fill(target.bool(), float("-inf")).amax(1)
        return F.relu(1 - true + runner_up)


class MultiMargin(HardLabelLoss):
    """sum_{j != y} max(0, 1 - z_y + z_j)^p: a hinge term for every wrong class (Weston and Watkins 1998).

    Hinge counts the wrong class with the largest logit; this counts all of them, which gives more gradient at the
    start and a larger value for more classes. p: 1, or 2 for a smooth form that weighs large violations more. Takes
    class indices only.
    """

    @checked
    def __init__(self, num_classes: int, p: Literal[1, 2] = 1, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.p = p

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        true = (logits * target).sum(1, keepdim=True)
        return (F.relu(1 - true + logits) ** self.p * (1 - target)).sum(1)
