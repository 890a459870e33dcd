"""Cost-sensitive losses: C[y, k] is the cost of predicting class k for an image of class y, 0 on the diagonal.

The matrix comes from the config's `costs`, by class names; without it, every mistake costs 1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.focal import log_one_minus
from lossfit.losses.loss import Loss
from lossfit.ranges import NonNegative, checked


class ExpectedCost(Loss):
    """sum_k C[y, k] p_k with p = softmax(z): the cost to expect if the class is drawn from p (Elkan 2001).

    Minimises the cost itself rather than a surrogate: mistakes that cost nothing are not penalised. But its
    gradient vanishes on confidently wrong samples, as MAE's does, so it learns slowly: under plain SGD use a
    learning rate 5 times as large. The gradient by z_k is p_k times the difference of class k's cost from the mean,
    so a class that soon has little probability is never predicted: start from the weights of a few epochs of
    cross-entropy (init_from). log_bilinear, or cross-entropy with cost-aware decisions, is often as good. With 0/1
    costs it is 1 - p_y.
    """

    def __init__(self, num_classes: int, cost_matrix: Sequence[Sequence[float]] | None = None) -> None:
        super().__init__(num_classes)
        self.cost = cost_tensor(cost_matrix, num_classes)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return (target @ self.cost.to(target.dtype) * logits.softmax(1)).sum(1)


class LogBilinear(Loss):
    """Cross-entropy - a sum_k C[y, k] log(1 - p_k): the costlier a wrong class, the more it is penalised (1704.06062).

    Keeps cross-entropy's strong gradients, and those of the cost term grow where a costly mistake is likely.
    a >= 0: weight of the cost term; 0 is cross-entropy.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        cost_matrix: Sequence[Sequence[float]] | None = None,
        a: NonNegative = 1.0,
    ) -> None:
        super().__init__(num_classes)
        self.a = a
        self.cost = cost_tensor(cost_matrix, num_classes)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        missed = (target @ self.cost.to(target.dtype) * log_one_minus(logits.log_softmax(1))).sum(1)
        return F.cross_entropy(logits, target, reduction="none") - self.a * missed


def cost_tensor(cost_matrix: Sequence[Sequence[float]] | None, num_classes: int) -> Tensor:
    """Return (C, C) costs; without a matrix, every mistake costs 1."""
    if cost_matrix is None:
        return 1 - torch.eye(num_classes)
    return torch.tensor(cost_matrix, dtype=torch.float32)
